//! [`Ears`]: everybody who listens in this process, and what waits for each of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Heard, MAX_EARS};
use crate::{error::Error, session::SessionId};

/// What waits for one listener at most, in messages. Beyond it the oldest is dropped: it would be the first to be too late.
const MAX_WAITING: usize = 4096;
/// The same in bytes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A vehicle: it hears commands.
    Vehicle,
    /// An operator: it hears how things stand.
    Operator,
}

/// Everybody who listens, by session.
#[derive(Default)]
pub(crate) struct Ears(Mutex<HashMap<SessionId, Vec<Arc<Hearing>>>>);

struct Hearing {
    side: Side,
    waiting: Mutex<Waiting>,
    woken: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Heard>,
    bytes: usize,
    dropped: u64,
}

/// One who listens, until it is dropped.
pub struct Ear {
    ears: Arc<Ears>,
    session: SessionId,
    hearing: Arc<Hearing>,
}

impl Ears {
    /// One more who listens.
    ///
    /// # Errors
    /// [`Error::ControlFull`] where there are [`MAX_EARS`] already.
    pub(crate) fn listen(self: &Arc<Self>, session: &SessionId, side: Side) -> Result<Ear, Error> {
        let hearing = Arc::new(Hearing { side, waiting: Mutex::default(), woken: Notify::new() });
        let mut sessions = self.0.lock();
        let listening = sessions.entry(session.clone()).or_default();
        if listening.len() >= MAX_EARS {
            return Err(Error::ControlFull { limit: MAX_EARS });
        }
        listening.push(hearing.clone());
        Ok(Ear { ears: self.clone(), session: session.clone(), hearing })
    }

    /// Says something to all whom it is for.
    pub(crate) fn tell(&self, session: &SessionId, what: &Heard) {
        let sessions = self.0.lock();
        for hearing in sessions.get(session).into_iter().flatten().filter(|hearing| hearing.side == what.side()) {
            hearing.waiting.lock().push(what.clone());
            hearing.woken.notify_one();
        }
    }

    /// Tells all operators to look: something may have been missed.
    pub(crate) fn tell_all_to_look(&self) {
        let sessions: Vec<_> = self.0.lock().keys().cloned().collect();
        for session in sessions {
            self.tell(&session, &Heard::Changed);
        }
    }

    /// The sessions that somebody listens to.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Waiting {
    fn push(&mut self, what: Heard) {
        match &what {
            // One look is enough.
            Heard::Changed if self.messages.contains(&Heard::Changed) => return,
            // The newest wins.
            Heard::Telemetry { vehicle, .. } => {
                let same = |it: &Heard| matches!(it, Heard::Telemetry { vehicle: other, .. } if other == vehicle);
                if let Some(at) = self.messages.iter().position(same) {
                    let older = self.messages.remove(at);
                    self.bytes -= older.as_ref().map_or(0, Heard::size);
                }
            }
            _ => {}
        }
        self.bytes += what.size();
        self.messages.push_back(what);
        while self.messages.len() > MAX_WAITING || self.bytes > MAX_WAITING_BYTES {
            // That somebody has left is never too late.
            let Some(at) = self.messages.iter().position(|it| !matches!(it, Heard::Left(_))) else { return };
            let oldest = self.messages.remove(at);
            self.bytes -= oldest.as_ref().map_or(0, Heard::size);
            self.dropped += 1;
        }
    }
}

impl Ear {
    /// What was said next. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.take() {
                return heard;
            }
            self.hearing.woken.notified().await;
        }
    }

    /// The same, if something waits.
    pub fn take(&mut self) -> Option<Heard> {
        let mut waiting = self.hearing.waiting.lock();
        let heard = waiting.messages.pop_front()?;
        waiting.bytes -= heard.size();
        Some(heard)
    }

    /// How many messages were dropped since this was last asked, because too many waited.
    pub fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.hearing.waiting.lock().dropped)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut sessions = self.ears.0.lock();
        if let Some(listening) = sessions.get_mut(&self.session) {
            listening.retain(|hearing| !Arc::ptr_eq(hearing, &self.hearing));
            if listening.is_empty() {
                sessions.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::{super::Command, *};

    fn command(bytes: impl Into<Bytes>) -> Heard {
        let (operator, received) = ("o".into(), Instant::now());
        Heard::Command(Command { operator, received, is_text: false, bytes: bytes.into() })
    }

    fn telemetry(text: &str) -> Heard {
        Heard::Telemetry { vehicle: "v".into(), text: text.into() }
    }

    #[test]
    fn each_side_hears_what_is_for_it_and_nobody_what_is_said_elsewhere() {
        let (ears, session) = (Arc::new(Ears::default()), "a".parse::<SessionId>().unwrap());
        let mut vehicle = ears.listen(&session, Side::Vehicle).unwrap();
        let mut operator = ears.listen(&session, Side::Operator).unwrap();
        let mut elsewhere = ears.listen(&"b".parse().unwrap(), Side::Vehicle).unwrap();
        for what in [command("go"), Heard::Changed, Heard::Changed, telemetry("1"), telemetry("2")] {
            ears.tell(&session, &what);
        }
        assert!(matches!(vehicle.take(), Some(Heard::Command(command)) if &command.bytes[..] == b"go"));
        assert_eq!((vehicle.take(), elsewhere.take()), (None, None));
        assert_eq!((operator.take(), operator.take()), (Some(Heard::Changed), Some(telemetry("2"))));
        drop((vehicle, operator, elsewhere));
        assert!(ears.sessions().is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_first_but_never_that_somebody_has_left() {
        let (ears, session) = (Arc::new(Ears::default()), "a".parse::<SessionId>().unwrap());
        let mut ear = ears.listen(&session, Side::Vehicle).unwrap();
        ears.tell(&session, &Heard::Left("o".into()));
        for number in 0..40_u8 {
            ears.tell(&session, &command(vec![number; 64 * 1024]));
        }
        assert_eq!((ear.dropped(), ear.dropped()), (24, 0));
        assert_eq!(ear.take(), Some(Heard::Left("o".into())));
        assert!(matches!(ear.take(), Some(Heard::Command(command)) if command.bytes[0] == 24));
        for _ in 0..2 * MAX_WAITING {
            ears.tell(&session, &command("x"));
        }
        let mut left = 0;
        while ear.take().is_some() {
            left += 1;
        }
        assert_eq!(left, MAX_WAITING);
    }
}
