//! [`CommandBus`]: how commands get from whoever drives to the vehicles of a session, on whichever replica each of them is.
//!
//! It knows who holds the wheel and which vehicles listen, and carries what is said, in order. Of leases it knows nothing: those are
//! kept where a vehicle is connected ([`crate::control`]). Nothing that is said is kept for who comes later.

mod ears;
mod memory;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

pub(crate) use self::ears::Ears;
pub use self::{
    ears::{Ear, Side},
    memory::MemoryBus,
};
use crate::{error::Error, session::SessionId};

/// How long a vehicle counts of which nothing is noted any more: three times as long as its replica waits from note to note.
pub const VEHICLE_LIFE: Duration = Duration::from_secs(3);
/// How long the wheel is held by an operator of which nothing is heard, while its replica is: several times as long as that waits
/// from word to word.
pub const WHEEL_LIFE: Duration = Duration::from_secs(3);
/// Vehicles of one session at most.
pub const MAX_VEHICLES: usize = 64;
/// Vehicles and operators that listen to one session at one replica, at most.
pub const MAX_EARS: usize = 256;

/// One command, as the operator sent it. An empty one is the operator's ping: it says that somebody is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who sent it: [`Operator::id`].
    pub operator: Arc<str>,
    /// When it counts as received, by the clock of this process: never later than it was.
    pub received: Instant,
    /// Whether it is a text.
    pub is_text: bool,
    /// What it says.
    pub bytes: Bytes,
}

impl Command {
    /// How old it is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.received.elapsed()
    }

    /// Whether it is an operator's ping.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Who commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Whom the wheel belongs to: one connection, or whoever sends single commands.
    pub id: Arc<str>,
    /// What others are told of who that is.
    pub name: Arc<str>,
}

/// What an operator wants of the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// To keep it, if it is this operator's.
    Keep,
    /// To have it where nobody else has.
    IfFree,
    /// The same, and only where a vehicle listens.
    IfFreeAndListening,
    /// To have it, whoever has it.
    Take,
}

/// How long the wheel then belongs to an operator that says nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// For as long as it is connected: [`WHEEL_LIFE`], renewed.
    Connection,
    /// For as long as what was commanded is obeyed: the longest lease of the vehicles. Where there is none, not at all.
    Lease,
}

/// A vehicle, as operators are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VehicleNote {
    /// After how long without a word it stops.
    pub lease: Duration,
    /// What its latest pong took; nothing where it has none.
    pub round_trip: Option<Duration>,
    /// Commands that were not handed on to it.
    pub dropped: u64,
}

/// How a session stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Who holds the wheel.
    pub driver: Option<Operator>,
    /// The vehicles that listen, by name.
    pub vehicles: Vec<(String, VehicleNote)>,
}

impl Standing {
    /// Whether this operator holds the wheel.
    #[must_use]
    pub fn is_driven_by(&self, operator: &Operator) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.id == operator.id)
    }

    /// After how long without a word the last of the vehicles stops.
    #[must_use]
    pub fn longest_lease(&self) -> Option<Duration> {
        self.vehicles.iter().map(|(_, note)| note.lease).max()
    }
}

/// What comes of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// They were handed on; where that is to nobody, nobody listens. So also where they are of no one who holds the wheel: that is
    /// for the caller to see.
    Now(Standing),
    /// They would have come too late, so they were not.
    Late,
}

/// What is said to those who listen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// To vehicles: a command.
    Command(Command),
    /// To vehicles: this operator, who held the wheel, has left.
    Left(Arc<str>),
    /// To operators: who drives, or which vehicles there are, is for them to look at.
    Changed,
    /// To operators: what a vehicle says of itself.
    Telemetry {
        /// Which.
        vehicle: Arc<str>,
        /// What.
        text: Arc<str>,
    },
    /// To operators: a vehicle's lease has run out, and it was sent its stop message.
    LeaseEnded {
        /// Which.
        vehicle: Arc<str>,
    },
}

impl Heard {
    /// How many bytes it holds.
    fn size(&self) -> usize {
        match self {
            Self::Command(command) => command.bytes.len(),
            Self::Telemetry { text, .. } => text.len(),
            Self::Left(_) | Self::Changed | Self::LeaseEnded { .. } => 0,
        }
    }

    /// Who is to hear it.
    fn side(&self) -> Side {
        match self {
            Self::Command(_) | Self::Left(_) => Side::Vehicle,
            Self::Changed | Self::Telemetry { .. } | Self::LeaseEnded { .. } => Side::Operator,
        }
    }
}

/// What every backend promises, checked for each of them by `tests/it/control/bus.rs`:
///
/// - Commands come to every vehicle that listens in the order in which they were sent, each once, or not at all.
/// - Only those of who holds the wheel come, and none of who held it before comes after one of who holds it now.
/// - What comes tells when it was received, and never says that it was later than it was.
/// - A call ends within [`super::redis::STORE_DEADLINE`].
#[async_trait]
pub trait CommandBus: Send + Sync {
    /// Hands commands on, in their order, if the operator holds the wheel or gets it by `claim`; with none, only that. They are not
    /// handed on later than `latest`.
    async fn send(
        &self,
        session: &SessionId,
        operator: &Operator,
        claim: Claim,
        hold: Hold,
        commands: &[Command],
        latest: Instant,
    ) -> Result<Sent, Error>;

    /// Gives the wheel back, if it is this operator's: vehicles are told that it has left.
    async fn leave(&self, session: &SessionId, operator: &Operator) -> Result<(), Error>;

    /// Notes a vehicle, for [`VEHICLE_LIFE`], or that it has gone.
    ///
    /// # Errors
    /// [`Error::ControlFull`]; the store's.
    async fn note_vehicle(&self, session: &SessionId, vehicle: &str, note: Option<VehicleNote>) -> Result<(), Error>;

    /// Says something to operators.
    async fn tell(&self, session: &SessionId, what: Heard) -> Result<(), Error>;

    /// Hears what is said from the moment this call has returned.
    ///
    /// # Errors
    /// [`Error::ControlFull`]; the store's.
    async fn listen(&self, session: &SessionId, side: Side) -> Result<Ear, Error>;
}
