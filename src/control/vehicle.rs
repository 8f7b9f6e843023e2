//! [`Vehicle`]: one vehicle, whatever the way: what it is to be sent, and its lease.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::OptionFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Relay, Terms, Words, unique};
use crate::{
    error::Error,
    session::SessionId,
    store::bus::{Command, Ear, Heard, Side, VehicleNote},
    telemetry::metrics::{Dropped, Stopped},
};

/// Commands that wait at most while none may be sent. Beyond it the oldest is dropped: it would be the first to be too late.
const MAX_WAITING: usize = 1024;
/// The same in bytes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How often operators are told of it: three times within [`VEHICLE_LIFE`](crate::store::bus::VEHICLE_LIFE).
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between what it says of itself.
const TELEMETRY_PAUSE: Duration = Duration::from_millis(50);
/// The bounds of [`Vehicle::heartbeat`].
const HEARTBEAT_INTERVAL: [Duration; 2] = [Duration::from_millis(15), Duration::from_secs(1)];

/// What a vehicle is to be sent next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A command.
    Command(Words),
    /// What stops it.
    Stop(Words),
    /// Nothing more: the process is to end.
    End,
}

/// One vehicle that listens, until it is dropped.
pub struct Vehicle {
    relay: Arc<Relay>,
    session: SessionId,
    name: Arc<str>,
    terms: Terms,
    ear: Ear,
    /// Commands that wait until one may be sent.
    waiting: VecDeque<Command>,
    waiting_bytes: usize,
    /// When the lease runs out, if it is armed.
    armed: Option<Instant>,
    /// Whose command or ping last renewed it.
    driver: Option<Arc<str>>,
    /// It is to be stopped, for this.
    stop: Option<Stopped>,
    note: watch::Sender<VehicleNote>,
    telemetry: watch::Sender<Arc<str>>,
    _noting: AbortOnDropHandle<()>,
}

impl Vehicle {
    pub(super) async fn new(relay: Arc<Relay>, session: SessionId, name: &str, terms: Terms) -> Result<Self, Error> {
        let (name, ear) = (unique(name), relay.listen(&session, Side::Vehicle).await?);
        let first = VehicleNote { lease: terms.lease, round_trip: None, dropped: 0 };
        let (note, telemetry) = (watch::Sender::new(first), watch::Sender::new(Arc::from("")));
        let noting =
            tokio::spawn(keep_noted(relay.clone(), session.clone(), name.clone(), note.clone(), telemetry.clone()));
        relay.metrics.vehicles.inc();
        // From here on it is forgotten when it is dropped.
        let vehicle = Self {
            relay,
            session,
            name,
            terms,
            ear,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            armed: None,
            driver: None,
            stop: None,
            note,
            telemetry,
            _noting: AbortOnDropHandle::new(noting),
        };
        vehicle.relay.bus.note_vehicle(&vehicle.session, &vehicle.name, Some(first)).await?;
        Ok(vehicle)
    }

    /// How long it may go on after a command or an operator's ping.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.terms.lease
    }

    /// How often its link is to be heard of, by either side: in each quarter of the lease, so that a link that is lost shows before half
    /// of the lease is over.
    pub(super) fn heartbeat(&self) -> Duration {
        let [shortest, longest] = HEARTBEAT_INTERVAL;
        (self.terms.lease / 4).clamp(shortest, longest)
    }

    /// What its latest pong took.
    pub fn noticed(&self, round_trip: Duration) {
        self.note.send_modify(|note| note.round_trip = Some(round_trip));
    }

    /// What it says of itself. The newest wins.
    pub fn says(&self, text: &str) {
        self.telemetry.send_replace(text.into());
    }

    /// The age up to which it is sent a command. On its way to the vehicle a command may be held up for as long as the lease before the
    /// connection ends, so that is left for it of [`Relay::ttl`]; and one whose own lease has run out would be stopped at once.
    fn freshness(&self) -> Duration {
        let (ttl, lease) = (self.relay.ttl, self.terms.lease);
        ttl.saturating_sub(lease).max(ttl / 2).min(lease)
    }

    /// What it is to be sent next; no command while it may be sent none. Nothing is lost when the wait is given up.
    pub async fn next(&mut self, may_be_commanded: bool) -> Order {
        loop {
            while let Some(heard) = self.ear.take() {
                self.hear(heard);
            }
            let overflown = self.ear.dropped();
            self.drop_commands(overflown, Dropped::Flood);
            if self.armed.is_some_and(|ends| ends <= Instant::now()) {
                self.disarm(Stopped::Lease);
                let vehicle = self.name.clone();
                self.relay.tell(self.session.clone(), Heard::LeaseEnded { vehicle });
            }
            let is_over = self.relay.closing.is_cancelled();
            if is_over && self.armed.is_some() {
                self.disarm(Stopped::Shutdown);
            }
            if let (Some(why), Some(stop)) = (self.stop.take(), &self.terms.stop) {
                self.relay.metrics.stopped(why);
                return Order::Stop(stop.clone());
            }
            if is_over {
                return Order::End;
            }
            while may_be_commanded && let Some(command) = self.take_waiting() {
                if command.age() <= self.freshness() {
                    self.relay.metrics.handed_on();
                    return Order::Command(Words { is_text: command.is_text, bytes: command.bytes });
                }
                self.drop_commands(1, Dropped::Late);
            }
            let ends = self.armed;
            tokio::select! {
                heard = self.ear.next() => self.hear(heard),
                Some(()) = OptionFuture::from(ends.map(sleep_until)) => {}
                () = self.relay.closing.cancelled() => {}
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Command(command) if command.age() > self.freshness() => {
                self.drop_commands(u64::from(!command.is_ping()), Dropped::Late);
            }
            Heard::Command(command) => {
                let ends = command.received + self.terms.lease;
                self.armed = Some(self.armed.map_or(ends, |armed| armed.max(ends)));
                self.driver = Some(command.operator.clone());
                if !command.is_ping() {
                    self.waiting_bytes += command.bytes.len();
                    self.waiting.push_back(command);
                }
                while self.waiting.len() > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES {
                    self.take_waiting();
                    self.drop_commands(1, Dropped::Flood);
                }
            }
            Heard::Left(operator) if self.driver.as_ref() == Some(&operator) => {
                self.driver = None;
                if self.armed.is_some() {
                    self.disarm(Stopped::Left);
                }
            }
            Heard::Left(_) | Heard::Changed | Heard::Telemetry { .. } | Heard::LeaseEnded { .. } => {}
        }
    }

    fn take_waiting(&mut self) -> Option<Command> {
        let command = self.waiting.pop_front()?;
        self.waiting_bytes -= command.bytes.len();
        Some(command)
    }

    /// What waits is older than the stop, so it never comes.
    fn disarm(&mut self, why: Stopped) {
        (self.armed, self.stop) = (None, Some(why));
        let waiting = self.waiting.len() as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.drop_commands(waiting, Dropped::Stopped);
    }

    fn drop_commands(&self, commands: u64, why: Dropped) {
        if commands > 0 {
            self.relay.metrics.dropped(commands, why);
            self.note.send_modify(|note| note.dropped += commands);
        }
    }
}

impl Drop for Vehicle {
    fn drop(&mut self) {
        self.relay.metrics.vehicles.dec();
        let (relay, session, name) = (self.relay.clone(), self.session.clone(), self.name.clone());
        self.relay.spawn(async move { relay.bus.note_vehicle(&session, &name, None).await });
    }
}

/// Tells operators of a vehicle: how it stands, and what it says.
async fn keep_noted(
    relay: Arc<Relay>,
    session: SessionId,
    vehicle: Arc<str>,
    note: watch::Sender<VehicleNote>,
    telemetry: watch::Sender<Arc<str>>,
) {
    let mut texts = telemetry.subscribe();
    let mut note_due = Instant::now() + NOTE_INTERVAL;
    loop {
        tokio::select! {
            () = sleep_until(note_due) => {
                let now = *note.borrow();
                // Where the store is away, the next one may get there.
                let _ = relay.bus.note_vehicle(&session, &vehicle, Some(now)).await;
                note_due = Instant::now() + NOTE_INTERVAL;
            }
            _ = texts.changed() => {
                let text = texts.borrow_and_update().clone();
                let _ = relay.bus.tell(&session, Heard::Telemetry { vehicle: vehicle.clone(), text }).await;
                sleep(TELEMETRY_PAUSE).await;
            }
        }
    }
}
