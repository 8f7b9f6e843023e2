//! [`Line`]: a WebSocket of the relay. Whoever holds it never waits for what it sends, and knows how its other end is.

use std::{collections::VecDeque, time::Duration};

use actix_http::ws::{CloseCode, OpCode};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use super::Words;
use crate::{
    connection::Outlet,
    websocket::{Received, WebSocket},
    wire::websocket::{self, Message},
};

/// Messages that wait to be sent at most. A client for which more wait takes nothing, or floods us with pings.
const MAX_WAITING: usize = 256;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What has come of waiting.
#[derive(Debug)]
pub(super) enum Event {
    /// It has said something.
    Said(Words),
    /// It has said too much at once, which was thrown away.
    TooLarge,
    /// Nothing, but what was sent has been taken, or the state of its pings is to be looked at.
    Look,
    /// It has gone, or is to.
    End,
}

/// One end of a WebSocket.
pub(super) struct Line {
    socket: WebSocket,
    outlet: Outlet,
    waiting: VecDeque<Bytes>,
    pings: Pings,
    heard: Instant,
}

impl Line {
    /// Pings every so often; `Look` comes when a pong is overdue by each of `limits`.
    pub(super) fn new(socket: WebSocket, every: Duration, limits: [Duration; 2]) -> Self {
        let outlet = socket.outlet();
        Self { socket, outlet, waiting: VecDeque::new(), pings: Pings::new(every, limits), heard: Instant::now() }
    }

    /// The state of its pings.
    pub(super) fn pings(&self) -> &Pings {
        &self.pings
    }

    /// When something was last heard.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether everything that was sent has been taken by the network.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.outlet.is_idle()
    }

    /// Sends words, after what waits already.
    pub(super) fn say(&mut self, words: &Words) {
        let kind = if words.is_text { OpCode::Text } else { OpCode::Binary };
        self.waiting.push_back(websocket::message(kind, &words.bytes));
    }

    /// The same for a text.
    pub(super) fn say_text(&mut self, text: &str) {
        self.waiting.push_back(websocket::message(OpCode::Text, text.as_bytes()));
    }

    /// Waits for what comes, while what waits is sent. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let now = Instant::now();
            if let Some(ping) = self.pings.ping(now) {
                self.waiting.push_back(websocket::message(OpCode::Ping, &ping));
            }
            if self.waiting.len() > MAX_WAITING {
                return Event::End;
            }
            if self.outlet.is_idle()
                && let Some(message) = self.waiting.pop_front()
            {
                self.outlet.send([message, Bytes::new(), Bytes::new()]);
            }
            let is_sending = !self.outlet.is_idle();
            let wake = self.pings.wake(now);
            tokio::select! {
                // What has come is looked at first: a pong that is here is not overdue.
                biased;
                received = self.socket.receive() => if let Some(event) = self.understand(received) { return event },
                () = self.outlet.sent(), if is_sending => if self.waiting.is_empty() { return Event::Look },
                () = sleep_until(wake) => if self.pings.outstanding.is_some() { return Event::Look },
            }
        }
    }

    /// What has come already, if anything has.
    pub(super) fn ready(&mut self) -> Option<Event> {
        loop {
            let received = self.socket.ready()?;
            if let Some(event) = self.understand(received) {
                return Some(event);
            }
        }
    }

    /// Says goodbye, after what waits.
    pub(super) async fn close(mut self, code: CloseCode, reason: &str) {
        self.waiting.push_back(websocket::close(code, reason));
        self.finish().await;
    }

    /// The answer to its goodbye, or to what broke the protocol. What waited before is nothing to it any more.
    pub(super) async fn end(mut self) {
        let Some(last) = self.waiting.pop_back() else { return };
        self.waiting = [last].into();
        self.finish().await;
    }

    /// Sends what waits. Who takes nothing does without.
    async fn finish(mut self) {
        let send = async {
            for message in self.waiting.drain(..) {
                self.outlet.sent().await;
                self.outlet.send([message, Bytes::new(), Bytes::new()]);
            }
            self.outlet.sent().await;
        };
        let _ = timeout(GOODBYE, send).await;
    }

    /// Ends it at once: what is on its way does not arrive later.
    pub(super) fn reset(self) {
        self.outlet.reset();
    }

    fn understand(&mut self, received: Received) -> Option<Event> {
        self.heard = Instant::now();
        match received {
            Received::Message(Message::Text(text)) => Some(Event::Said(Words { is_text: true, bytes: text.into() })),
            Received::Message(Message::Binary(bytes)) => Some(Event::Said(Words { is_text: false, bytes })),
            Received::Message(Message::TooLarge) => Some(Event::TooLarge),
            Received::Message(Message::Ping(bytes)) => {
                self.waiting.push_back(websocket::message(OpCode::Pong, &bytes));
                None
            }
            Received::Message(Message::Pong(bytes)) => {
                self.pings.pong(&bytes, Instant::now());
                Some(Event::Look)
            }
            Received::Message(Message::Close) => {
                self.waiting.push_back(websocket::close(CloseCode::Normal, ""));
                Some(Event::End)
            }
            Received::Fault(code) => {
                self.waiting.push_back(websocket::close(code, ""));
                Some(Event::End)
            }
            // It has not even answered pings.
            Received::Silence | Received::End => Some(Event::End),
        }
    }
}

/// Pings, one at a time, and what their pongs tell.
pub(super) struct Pings {
    every: Duration,
    limits: [Duration; 2],
    /// Those that were sent; each carries its number.
    count: u64,
    /// When the one was sent whose pong has not come.
    outstanding: Option<Instant>,
    due: Instant,
    round_trip: Option<Duration>,
    shortest: Option<Duration>,
    answered: u64,
    /// When the latest was sent that was answered.
    proven: Instant,
}

impl Pings {
    fn new(every: Duration, limits: [Duration; 2]) -> Self {
        let now = Instant::now();
        let (round_trip, shortest) = (None, None);
        Self { every, limits, count: 0, outstanding: None, due: now, round_trip, shortest, answered: 0, proven: now }
    }

    /// What the latest pong took.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How long the pong of the latest ping has not come.
    pub(super) fn overdue(&self) -> Duration {
        self.outstanding.map(|sent| sent.elapsed()).unwrap_or_default()
    }

    /// How many have been answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// What comes now was sent after this moment, but for the time that the way takes at its best. The other end sends a pong after
    /// what it said before and before what it says later: so what comes after the pong was sent after the ping.
    pub(super) fn sent_after(&self) -> Instant {
        self.proven + self.shortest.unwrap_or_default()
    }

    /// A ping, if one is due.
    fn ping(&mut self, now: Instant) -> Option<[u8; 8]> {
        if self.outstanding.is_some() || now < self.due {
            return None;
        }
        self.count += 1;
        self.outstanding = Some(now);
        self.due = now + self.every;
        Some(self.count.to_be_bytes())
    }

    fn pong(&mut self, bytes: &[u8], now: Instant) {
        let Some(sent) = self.outstanding.filter(|_| bytes == self.count.to_be_bytes()) else { return };
        let took = now.saturating_duration_since(sent);
        (self.outstanding, self.round_trip, self.proven) = (None, Some(took), sent);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.answered += 1;
    }

    /// When to look again.
    fn wake(&self, now: Instant) -> Instant {
        match self.outstanding {
            None => self.due,
            Some(sent) => {
                let next = self.limits.iter().map(|limit| sent + *limit).filter(|at| *at > now).min();
                next.unwrap_or(now + self.every)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pongs_tell_the_round_trip_and_what_came_after_them_is_no_older_than_their_ping() {
        let ms = Duration::from_millis;
        let mut pings = Pings::new(ms(50), [ms(100), ms(200)]);
        let start = pings.due;
        let first = pings.ping(start).unwrap();
        assert_eq!(pings.wake(start), start + ms(100));
        assert_eq!(pings.ping(start + ms(60)), None, "one at a time");
        pings.pong(b"another", start + ms(5));
        assert_eq!(pings.round_trip(), None);
        pings.pong(&first, start + ms(10));
        assert_eq!((pings.round_trip(), pings.sent_after()), (Some(ms(10)), start + ms(10)));
        assert_eq!(pings.wake(start + ms(10)), start + ms(50));
        // The link is silent for 3 s: what comes right after the pong may have been sent any time after the ping.
        let second = pings.ping(start + ms(50)).unwrap();
        assert_eq!(pings.wake(start + ms(150)), start + ms(250));
        assert_eq!(pings.wake(start + ms(250)), start + ms(300), "it is looked at again");
        pings.pong(&second, start + ms(3050));
        assert_eq!((pings.round_trip(), pings.sent_after()), (Some(ms(3000)), start + ms(60)));
        assert_eq!((pings.answered(), pings.overdue()), (2, Duration::ZERO));
    }
}
