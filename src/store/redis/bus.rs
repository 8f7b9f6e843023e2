//! The bus on Redis: what is said goes over one channel a session, and who holds the wheel is checked by the script that says it.
//!
//! How old a command is compares no clocks but Redis's with itself. Where it is received, that moment is put into Redis's time,
//! rather too early; where it arrives, it is put back into ours, again rather too early. So whatever holds it up on the way, in
//! this process, in Redis or in another, it never seems younger than it is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    RedisStore, evalsha,
    keys::{Keys, session_of_control},
    subscriber::Audience,
};
use crate::{
    error::Error,
    session::SessionId,
    store::bus::{
        Claim, Command, CommandBus, Ear, Ears, Heard, Hold, MAX_VEHICLES, Operator, Sent, Side, Standing, VEHICLE_LIFE,
        VehicleNote, WHEEL_LIFE,
    },
};

/// What is noted of a vehicle that has no round trip.
const NO_ROUND_TRIP: &str = "-";

/// What the messages on the channel begin with.
mod kind {
    pub(super) const COMMAND: u8 = b'C';
    pub(super) const LEFT: u8 = b'L';
    pub(super) const CHANGED: u8 = b'!';
    pub(super) const TELEMETRY: u8 = b'T';
    pub(super) const LEASE_ENDED: u8 = b'E';
}

/// Everybody in this process who listens, and how Redis's clock stands to ours.
#[derive(Default)]
pub(super) struct Hearers {
    ears: Arc<Ears>,
    /// At that moment of ours Redis's clock did not show more than that, in Unix milliseconds.
    clock: Mutex<Option<(Instant, f64)>>,
}

impl Audience for Hearers {
    fn channel(session: &SessionId) -> String {
        Keys(session).control()
    }

    fn session_of(channel: &[u8]) -> Option<SessionId> {
        session_of_control(channel)
    }

    fn sessions(&self) -> Vec<SessionId> {
        self.ears.sessions()
    }

    fn hear(&self, session: &SessionId, message: &[u8]) {
        if let Some(heard) = self.read(message) {
            self.ears.tell(session, &heard);
        }
    }

    fn missed(&self) {
        self.ears.tell_all_to_look();
    }

    fn learn_clock(&self, asked: Instant, redis_ms: f64) {
        *self.clock.lock() = Some((asked, redis_ms));
    }
}

impl Hearers {
    /// A moment of Redis's clock by ours: never later than it was, and sooner by a way there at most.
    fn our_time(&self, redis_ms: f64) -> Option<Instant> {
        if !redis_ms.is_finite() {
            return None;
        }
        let (at, then) = (*self.clock.lock())?;
        let after = Duration::try_from_secs_f64((redis_ms - then).max(0.0) / 1000.0).ok()?;
        let before = Duration::try_from_secs_f64((then - redis_ms).max(0.0) / 1000.0).ok()?;
        // A command of the future is none of ours.
        Some(at.checked_add(after)?.checked_sub(before)?.min(Instant::now()))
    }

    fn read(&self, message: &[u8]) -> Option<Heard> {
        let (kind, mut rest) = message.split_first()?;
        Some(match *kind {
            kind::COMMAND => {
                if rest.len() < 9 {
                    return None;
                }
                let (is_text, received) = (rest.get_u8() == 1, rest.get_f64());
                let (operator, bytes) = name_and_rest(rest)?;
                let received = self.our_time(received)?;
                Heard::Command(Command { operator, received, is_text, bytes: Bytes::copy_from_slice(bytes) })
            }
            kind::LEFT => Heard::Left(text(rest)?),
            kind::CHANGED => Heard::Changed,
            kind::TELEMETRY => {
                let (vehicle, rest) = name_and_rest(rest)?;
                Heard::Telemetry { vehicle, text: text(rest)? }
            }
            kind::LEASE_ENDED => Heard::LeaseEnded { vehicle: text(rest)? },
            _ => return None,
        })
    }
}

fn text(bytes: &[u8]) -> Option<Arc<str>> {
    std::str::from_utf8(bytes).ok().map(Arc::from)
}

fn name_and_rest(bytes: &[u8]) -> Option<(Arc<str>, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((text(name)?, rest))
}

fn put_name(name: &str, message: &mut BytesMut) {
    // Names are our own, and short.
    let name = name.as_bytes().get(..name.len().min(255)).unwrap_or_default();
    message.put_u8(name.len() as u8);
    message.put_slice(name);
}

fn write_command(command: &Command, received_redis_ms: f64) -> BytesMut {
    let mut message = BytesMut::with_capacity(11 + command.operator.len() + command.bytes.len());
    message.put_u8(kind::COMMAND);
    message.put_u8(command.is_text.into());
    message.put_f64(received_redis_ms);
    put_name(&command.operator, &mut message);
    message.put_slice(&command.bytes);
    message
}

fn write(what: &Heard) -> BytesMut {
    let mut message = BytesMut::new();
    match what {
        // Commands go out by `send` alone.
        Heard::Command(_) | Heard::Changed => message.put_u8(kind::CHANGED),
        Heard::Left(operator) => {
            message.put_u8(kind::LEFT);
            message.put_slice(operator.as_bytes());
        }
        Heard::Telemetry { vehicle, text } => {
            message.put_u8(kind::TELEMETRY);
            put_name(vehicle, &mut message);
            message.put_slice(text.as_bytes());
        }
        Heard::LeaseEnded { vehicle } => {
            message.put_u8(kind::LEASE_ENDED);
            message.put_slice(vehicle.as_bytes());
        }
    }
    message
}

/// What is noted of a vehicle: when that ends, its lease in ms, its round trip in ms, commands dropped.
fn read_note(noted: &str) -> Option<VehicleNote> {
    let mut parts = noted.split(' ').skip(1);
    let lease = Duration::from_millis(parts.next()?.parse().ok()?);
    let round_trip = parts.next()?.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1000.0).ok());
    Some(VehicleNote { lease, round_trip, dropped: parts.next()?.parse().ok()? })
}

fn read_standing(driver: &str, noted: &[String]) -> Standing {
    let driver = driver.split_once(' ').map(|(id, name)| Operator { id: id.into(), name: name.into() });
    let vehicles = noted.chunks_exact(2).filter_map(|pair| Some((pair[0].clone(), read_note(&pair[1])?)));
    Standing { driver, vehicles: vehicles.collect() }
}

#[async_trait]
impl CommandBus for RedisStore {
    async fn send(
        &self,
        session: &SessionId,
        operator: &Operator,
        claim: Claim,
        hold: Hold,
        commands: &[Command],
        latest: Instant,
    ) -> Result<Sent, Error> {
        let keys = Keys(session);
        let script_keys = &[keys.wheel(), keys.vehicles(), keys.control()];
        let claim = match claim {
            Claim::Keep => "keep",
            Claim::IfFree => "free",
            Claim::IfFreeAndListening => "listening",
            Claim::Take => "take",
        };
        let hold = match hold {
            Hold::Connection => WHEEL_LIFE.as_millis().to_string(),
            Hold::Lease => "lease".to_owned(),
        };
        let hold = &hold;
        let call = self.lanes.call();
        let (in_time, driver, noted) = call
            .run(|attempt| async move {
                let mut drive = evalsha(&self.scripts.drive, script_keys);
                drive.arg(&*operator.id).arg(&*operator.name).arg(claim).arg(hold);
                drive.arg(format!("{:.3}", attempt.redis_time(latest.into_std()))).arg(&write(&Heard::Changed)[..]);
                for command in commands {
                    drive.arg(&write_command(command, attempt.redis_time(command.received.into_std()))[..]);
                }
                let answer: redis::Value = attempt.command(&drive).await?;
                match redis::from_redis_value::<(u8,)>(answer.clone()) {
                    Ok(_) => Ok((false, String::new(), Vec::new())),
                    Err(_) => {
                        let (_, driver, noted): (u8, String, Vec<String>) = redis::from_redis_value(answer)?;
                        Ok((true, driver, noted))
                    }
                }
            })
            .await?;
        Ok(if in_time { Sent::Now(read_standing(&driver, &noted)) } else { Sent::Late })
    }

    async fn leave(&self, session: &SessionId, operator: &Operator) -> Result<(), Error> {
        let keys = Keys(session);
        let mut leave = evalsha(&self.scripts.leave, &[keys.wheel(), keys.control()]);
        leave.arg(&*operator.id).arg(&write(&Heard::Left(operator.id.clone()))[..]).arg(&write(&Heard::Changed)[..]);
        let leave = &leave;
        self.lanes.call().run(|attempt| async move { attempt.command::<()>(leave).await }).await
    }

    async fn note_vehicle(&self, session: &SessionId, vehicle: &str, note: Option<VehicleNote>) -> Result<(), Error> {
        let keys = Keys(session);
        let note = note.map_or_else(String::new, |VehicleNote { lease, round_trip, dropped }| {
            let round_trip =
                round_trip.map_or(NO_ROUND_TRIP.to_owned(), |took| format!("{:.1}", took.as_secs_f64() * 1000.0));
            format!("{} {round_trip} {dropped}", lease.as_millis())
        });
        let mut set = evalsha(&self.scripts.vehicle, &[keys.vehicles(), keys.control()]);
        set.arg(vehicle).arg(note).arg(VEHICLE_LIFE.as_millis() as u64).arg(MAX_VEHICLES);
        set.arg(&write(&Heard::Changed)[..]);
        let set = &set;
        let noted = self.lanes.call().run(|attempt| async move { attempt.command::<bool>(set).await }).await?;
        if noted { Ok(()) } else { Err(Error::ControlFull { limit: MAX_VEHICLES }) }
    }

    async fn tell(&self, session: &SessionId, what: Heard) -> Result<(), Error> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(Keys(session).control()).arg(&write(&what)[..]);
        let publish = &publish;
        self.lanes.call().run(|attempt| async move { attempt.command::<()>(publish).await }).await
    }

    async fn listen(&self, session: &SessionId, side: Side) -> Result<Ear, Error> {
        let ear = self.commands.audience().ears.listen(session, side)?;
        self.commands.subscribe(session).await?;
        Ok(ear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_out_as_it_went_in_and_anything_else_says_nothing() {
        let hearers = Hearers::default();
        let now = Instant::now();
        hearers.learn_clock(now, 5_000_000.0);
        let operator: Arc<str> = "o-1".into();
        for what in [
            Heard::Left(operator.clone()),
            Heard::Changed,
            Heard::Telemetry { vehicle: "v".into(), text: "7.4 V, «ok»".into() },
            Heard::LeaseEnded { vehicle: "v".into() },
        ] {
            assert_eq!(hearers.read(&write(&what)), Some(what));
        }
        let received = now.checked_sub(Duration::from_millis(40)).unwrap();
        let command = Command { operator, received, is_text: true, bytes: "left\r\n\0".into() };
        let message = write_command(&command, 5_000_000.0 - 40.0);
        assert_eq!(hearers.read(&message), Some(Heard::Command(command)));
        for length in 0..14 {
            assert_eq!(hearers.read(&message[..length]), None, "{length} bytes");
        }
        for strange in [&b"X"[..], b"T\xff", b"L\xff", b"C\x01\x7f\xf8\0\0\0\0\0\0\0"] {
            assert_eq!(hearers.read(strange), None);
        }
    }

    #[test]
    fn a_note_of_a_vehicle_is_read_with_and_without_a_round_trip() {
        let note = |dropped, round_trip| VehicleNote { lease: Duration::from_millis(250), round_trip, dropped };
        assert_eq!(read_note("1700000000000 250 - 7"), Some(note(7, None)));
        assert_eq!(read_note("1 250 12.5 0"), Some(note(0, Some(Duration::from_micros(12_500)))));
        assert_eq!((read_note("1 250 12.5"), read_note("")), (None, None));
    }
}
