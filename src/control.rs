//! The command relay: from an operator to the vehicles of a session.
//!
//! **It never hands on a command late.** A command is as old as the time since it was received here, whatever held it up in between,
//! and one that is too old is dropped wherever it is met. Nothing is kept for a vehicle that comes later.
//!
//! **A vehicle that was commanded is stopped when nobody commands it any more.** Its [`Vehicle`] holds its lease, where it is
//! connected: every command and every operator's ping renews it, and when it has run out the vehicle is sent what stops it. So
//! whatever fails between the operator and that server only makes the lease run out.
//!
//! What carries commands between replicas is [`crate::store::bus`]. The ways in and out are beside this file; VICER's own wire
//! is [`crate::vicer`].

pub mod events;
mod line;
mod operator;
mod poll;
pub mod post;
mod pulse;
mod terms;
pub mod vehicle;
mod vehicle_socket;
pub mod websocket;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use self::terms::{Terms, Words};
use self::{poll::Polled, pulse::Pulse, vehicle::Vehicle};
use crate::{
    error::Error,
    session::SessionId,
    store::bus::{Claim, Command, CommandBus, Ear, Heard, Hold, Operator, Sent, Side},
    telemetry::metrics::{ControlMetrics, Dropped},
};

/// The longest command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// What all operators and vehicles of this process share.
pub struct Relay {
    bus: Arc<dyn CommandBus>,
    ttl: Duration,
    pulse: Pulse,
    polled: Polled,
    metrics: ControlMetrics,
    closing: CancellationToken,
    /// What is said to the bus by who does not wait for it.
    tasks: TaskTracker,
}

impl Relay {
    /// A relay over a bus, on the current Tokio runtime. No command older than `ttl` is handed on. `closing` is cancelled when the
    /// process is to end.
    #[must_use]
    pub fn new(bus: Arc<dyn CommandBus>, ttl: Duration, metrics: ControlMetrics, closing: CancellationToken) -> Self {
        let (pulse, polled, tasks) = (Pulse::new(ttl), Polled::default(), TaskTracker::new());
        Self { bus, ttl, pulse, polled, metrics, closing, tasks }
    }

    /// `COMMAND_TTL_MS`: no command older than this is handed on.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &ControlMetrics {
        &self.metrics
    }

    /// Done when the process is to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Whether what is read now may have come long ago, because this process was held up.
    #[must_use]
    pub fn was_held_up(&self) -> bool {
        self.pulse.was_held_up()
    }

    /// A vehicle that listens from now on.
    ///
    /// # Errors
    /// [`Error::ControlFull`]; the store's.
    pub async fn vehicle(self: &Arc<Self>, session: SessionId, name: &str, terms: Terms) -> Result<Vehicle, Error> {
        Vehicle::new(self.clone(), session, name, terms).await
    }

    /// Sends one command for who holds the wheel no longer than what is commanded is obeyed. Tells how many vehicles listen.
    ///
    /// # Errors
    /// [`Error::NoVehicle`], [`Error::NotDriving`], [`Error::CommandLate`]; the store's.
    pub async fn command_once(
        &self,
        session: &SessionId,
        operator: &Operator,
        words: Words,
        received: Instant,
    ) -> Result<usize, Error> {
        let command = Command { operator: operator.id.clone(), received, is_text: words.is_text, bytes: words.bytes };
        if self.was_held_up() || command.age() > self.ttl {
            self.metrics.dropped(1, Dropped::Late);
            return Err(Error::CommandLate { ttl: self.ttl });
        }
        let claim = if command.is_ping() { Claim::Keep } else { Claim::IfFreeAndListening };
        let latest = received + self.ttl;
        let sent = self.bus.send(session, operator, claim, Hold::Lease, &[command], latest).await;
        let standing = match sent.inspect_err(|_| self.metrics.dropped(1, Dropped::Store))? {
            Sent::Now(standing) => standing,
            Sent::Late => {
                self.metrics.dropped(1, Dropped::Late);
                return Err(Error::CommandLate { ttl: self.ttl });
            }
        };
        if standing.vehicles.is_empty() {
            self.metrics.dropped(1, Dropped::NoVehicle);
            return Err(Error::NoVehicle);
        }
        if !standing.is_driven_by(operator) {
            self.metrics.dropped(1, Dropped::NotDriving);
            let driver = standing.driver.map_or_else(|| "nobody".to_owned(), |driver| driver.name.to_string());
            return Err(Error::NotDriving { driver });
        }
        Ok(standing.vehicles.len())
    }

    /// Gives the wheel back.
    pub fn leave(self: &Arc<Self>, session: SessionId, operator: Operator) {
        let relay = self.clone();
        self.spawn(async move { relay.bus.leave(&session, &operator).await });
    }

    async fn listen(&self, session: &SessionId, side: Side) -> Result<Ear, Error> {
        self.bus.listen(session, side).await
    }

    fn tell(self: &Arc<Self>, session: SessionId, what: Heard) {
        let relay = self.clone();
        self.spawn(async move { relay.bus.tell(&session, what).await });
    }

    /// Says something to the bus. Each ends within the store's deadline.
    fn spawn(&self, saying: impl Future<Output = Result<(), Error>> + Send + 'static) {
        // There is none only where the process ends, and everybody has been stopped.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let saying = async {
                if let Err(error) = saying.await {
                    tracing::debug!(%error, cause = std::error::Error::source(&error), "nothing was said to the bus");
                }
            };
            self.tasks.spawn_on(saying, &runtime);
        }
    }
}

/// A name that nobody else has, which begins with `name` where that is given.
fn unique(name: &str) -> Arc<str> {
    let unique = Uuid::new_v4().simple().to_string();
    let short = unique.get(..12).unwrap_or_default();
    if name.is_empty() { short.into() } else { format!("{name}-{short}").into() }
}
