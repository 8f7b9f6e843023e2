//! [`MemoryBus`]: for one process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Claim, Command, CommandBus, Ear, Ears, Heard, Hold, MAX_VEHICLES, Operator, Sent, Side, Standing, VEHICLE_LIFE,
    VehicleNote, WHEEL_LIFE,
};
use crate::{error::Error, session::SessionId};

/// A bus for one process.
#[derive(Default)]
pub struct MemoryBus {
    desks: Mutex<HashMap<SessionId, Desk>>,
    ears: Arc<Ears>,
}

/// What is known of one session.
#[derive(Default)]
struct Desk {
    wheel: Option<(Operator, Instant)>,
    vehicles: BTreeMap<String, (VehicleNote, Instant)>,
}

impl Desk {
    /// As it stands now: what has run out is forgotten.
    fn standing(&mut self) -> Standing {
        let now = Instant::now();
        self.vehicles.retain(|_, (_, ends)| *ends > now);
        self.wheel.take_if(|(_, ends)| *ends <= now);
        Standing {
            driver: self.wheel.as_ref().map(|(operator, _)| operator.clone()),
            vehicles: self.vehicles.iter().map(|(name, (note, _))| (name.clone(), *note)).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.wheel.is_none() && self.vehicles.is_empty()
    }
}

#[async_trait]
impl CommandBus for MemoryBus {
    async fn send(
        &self,
        session: &SessionId,
        operator: &Operator,
        claim: Claim,
        hold: Hold,
        commands: &[Command],
        latest: Instant,
    ) -> Result<Sent, Error> {
        // Held until all is said: what another operator says comes after it or before.
        let mut desks = self.desks.lock();
        let desk = desks.entry(session.clone()).or_default();
        let mut standing = desk.standing();
        let now = Instant::now();
        let holds = standing.is_driven_by(operator);
        let gets = match claim {
            Claim::Keep => false,
            Claim::IfFree => standing.driver.is_none(),
            Claim::IfFreeAndListening => standing.driver.is_none() && !standing.vehicles.is_empty(),
            Claim::Take => true,
        };
        if !commands.is_empty() && now > latest {
            return Ok(Sent::Late);
        }
        if holds || gets {
            let life = match hold {
                Hold::Connection => WHEEL_LIFE,
                Hold::Lease => standing.longest_lease().unwrap_or_default(),
            };
            desk.wheel = Some((operator.clone(), now + life));
            standing.driver = Some(operator.clone());
            if !holds {
                self.ears.tell(session, &Heard::Changed);
            }
            for command in commands {
                self.ears.tell(session, &Heard::Command(command.clone()));
            }
        }
        if desk.is_empty() {
            desks.remove(session);
        }
        Ok(Sent::Now(standing))
    }

    async fn leave(&self, session: &SessionId, operator: &Operator) -> Result<(), Error> {
        let mut desks = self.desks.lock();
        let Some(desk) = desks.get_mut(session) else { return Ok(()) };
        if desk.wheel.take_if(|(driver, _)| driver.id == operator.id).is_some() {
            self.ears.tell(session, &Heard::Left(operator.id.clone()));
            self.ears.tell(session, &Heard::Changed);
        }
        if desk.is_empty() {
            desks.remove(session);
        }
        Ok(())
    }

    async fn note_vehicle(&self, session: &SessionId, vehicle: &str, note: Option<VehicleNote>) -> Result<(), Error> {
        let mut desks = self.desks.lock();
        let desk = desks.entry(session.clone()).or_default();
        desk.standing();
        let changed = match note {
            Some(note) => {
                let is_new = !desk.vehicles.contains_key(vehicle);
                if is_new && desk.vehicles.len() >= MAX_VEHICLES {
                    return Err(Error::ControlFull { limit: MAX_VEHICLES });
                }
                desk.vehicles.insert(vehicle.to_owned(), (note, Instant::now() + VEHICLE_LIFE));
                is_new
            }
            None => desk.vehicles.remove(vehicle).is_some(),
        };
        if desk.is_empty() {
            desks.remove(session);
        }
        if changed {
            self.ears.tell(session, &Heard::Changed);
        }
        Ok(())
    }

    async fn tell(&self, session: &SessionId, what: Heard) -> Result<(), Error> {
        self.ears.tell(session, &what);
        Ok(())
    }

    async fn listen(&self, session: &SessionId, side: Side) -> Result<Ear, Error> {
        self.ears.listen(session, side)
    }
}
