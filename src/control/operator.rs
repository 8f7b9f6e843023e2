//! `/ws/control/{session}?role=operator`: what it says goes to the vehicles, and it is told how they are.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use actix_http::ws::CloseCode;
use futures_util::future::OptionFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{
    MAX_COMMAND_BYTES, Relay, Words,
    line::{Event, Line},
    unique,
};
use crate::{
    auth::{Right, Visitor},
    error::Error,
    session::SessionId,
    store::bus::{Claim, Command, Ear, Heard, Hold, MAX_VEHICLES, Operator, Sent, Side, Standing, WHEEL_LIFE},
    telemetry::metrics::Dropped,
    websocket::WebSocket,
};

/// How often it is looked how things stand, and the wheel is renewed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest time between two looks for which no command is the occasion.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The longest time between two statuses.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two `told` of the same kind.
const TOLD_PAUSE: Duration = Duration::from_secs(1);
/// From when on an operator is known to answer pings, in pongs. One that never does so, as it does not read, proves nothing by not
/// answering one.
const ANSWERS_PINGS: u64 = 10;
/// How long it is waited, before that is known, for a pong to come right after what comes after a silence: then what came before it was
/// held up with it. Or twice the way there and back, if that is longer, and not longer than the second.
const PROOF_WAIT: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(150)];
/// Commands that follow each other at once at most, and how many a second after that.
const COMMANDS_AT_ONCE: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// See [`COMMANDS_AT_ONCE`].
const COMMANDS_A_SECOND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Commands that are handed to the bus at once at most, in messages.
const MAX_BATCH: usize = 1024;
/// The same in bytes.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// What an operator wants of the wheel on connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing yet.
    Watch,
    /// To have it where nobody has.
    IfFree,
    /// To have it.
    Take,
}

impl Wish {
    pub(super) fn read(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self::Watch),
            "1" => Some(Self::Take),
            _ => None,
        }
    }

    fn claim(self) -> Claim {
        match self {
            Self::Watch => Claim::Keep,
            Self::IfFree => Claim::IfFree,
            Self::Take => Claim::Take,
        }
    }
}

/// How things stand, for the operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type", rename = "status")]
struct Status {
    /// Vehicles that listen.
    vehicles: usize,
    /// Whether this operator holds the wheel.
    driving: bool,
    /// Who does.
    driver: Option<String>,
    /// The longest of the vehicles' round trips, by their latest pongs, in milliseconds.
    rtt_ms: Option<f64>,
    /// This operator's own.
    operator_rtt_ms: Option<f64>,
    /// The shortest of the vehicles' leases, in milliseconds.
    lease_ms: Option<u64>,
    /// Commands that this operator sent or a vehicle was to get, and that were not handed on.
    dropped: u64,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "telemetry")]
struct Telemetry<'a> {
    vehicle: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "told")]
struct Told {
    code: &'static str,
    message: String,
}

/// What may have been held up on its way.
struct Suspects {
    /// Each with when it was heard, and the moment after which it was sent for certain.
    said: Vec<(Words, Instant, Instant)>,
    /// Their size.
    bytes: usize,
    /// How many pongs had come by then.
    answered: u64,
    until: Instant,
}

type Calling = Pin<Box<dyn Future<Output = (u64, Result<Sent, Error>)>>>;

/// An operator who listens, until this is dropped: then it has left.
pub(super) struct Operating {
    relay: Arc<Relay>,
    session: SessionId,
    visitor: Visitor,
    me: Operator,
    ear: Ear,
    standing: Standing,
    /// What is being said to the bus.
    calling: Option<Calling>,
    /// What is to be said next, and its size.
    batch: Vec<Command>,
    batch_bytes: usize,
    rate: DefaultDirectRateLimiter,
    /// What came after a silence, of one who is not known to answer pings.
    suspects: Option<Suspects>,
    /// When to look how things stand.
    look_due: Instant,
    looked: Instant,
    dropped: u64,
    /// How many each vehicle has dropped.
    vehicles_dropped: HashMap<String, u64>,
    telemetry: BTreeMap<Arc<str>, Arc<str>>,
    told: HashMap<&'static str, Instant>,
    status: Option<(Status, Instant)>,
}

impl Operating {
    /// An operator that listens from now on.
    ///
    /// # Errors
    /// [`Error::ControlFull`]; the store's.
    pub(super) async fn begin(
        relay: Arc<Relay>,
        session: SessionId,
        visitor: Visitor,
        wish: Wish,
    ) -> Result<Self, Error> {
        let me = Operator { id: unique(""), name: visitor.public_name().into() };
        let ear = relay.listen(&session, Side::Operator).await?;
        let now = Instant::now();
        relay.metrics.operators.inc();
        let mut operating = Self {
            relay,
            session,
            visitor,
            me,
            ear,
            standing: Standing::default(),
            calling: None,
            batch: Vec::new(),
            batch_bytes: 0,
            rate: RateLimiter::direct(Quota::per_second(COMMANDS_A_SECOND).allow_burst(COMMANDS_AT_ONCE)),
            suspects: None,
            look_due: now + LOOK_INTERVAL,
            looked: now,
            dropped: 0,
            vehicles_dropped: HashMap::new(),
            telemetry: BTreeMap::new(),
            told: HashMap::new(),
            status: None,
        };
        let (session, me) = (&operating.session, &operating.me);
        let latest = now + operating.relay.ttl;
        if let Sent::Now(standing) =
            operating.relay.bus.send(session, me, wish.claim(), Hold::Connection, &[], latest).await?
        {
            operating.standing = standing;
        }
        Ok(operating)
    }

    fn is_driving(&self) -> bool {
        self.standing.is_driven_by(&self.me)
    }

    /// Takes what it says, after it was silent for so long.
    fn hear(&mut self, event: Event, silence: Duration, line: &mut Line) {
        match event {
            Event::Said(words) => {
                let now = Instant::now();
                let answers_pings = line.pings().answered() >= ANSWERS_PINGS;
                // Who has never answered one may not read at all.
                let may_answer = !answers_pings && line.pings().answered() > 0;
                let is_suspect = may_answer && silence > self.relay.ttl / 2;
                if is_suspect && self.suspects.is_none() {
                    let [shortest, longest] = PROOF_WAIT;
                    let wait = (line.pings().round_trip().unwrap_or_default() * 2).clamp(shortest, longest);
                    let (answered, until) = (line.pings().answered(), now + wait);
                    self.suspects = Some(Suspects { said: Vec::new(), bytes: 0, answered, until });
                }
                let sent_after = line.pings().sent_after();
                match &mut self.suspects {
                    // What comes after them is not to overtake them.
                    Some(suspects)
                        if suspects.said.len() < MAX_BATCH && suspects.bytes + words.bytes.len() <= MAX_BATCH_BYTES =>
                    {
                        suspects.bytes += words.bytes.len();
                        suspects.said.push((words, now, sent_after));
                    }
                    Some(_) => self.drop_commands(1, Dropped::Flood),
                    None if answers_pings && now > sent_after + 2 * ping_interval(self.relay.ttl) => {
                        // Its way may have been blocked, and all that it said meanwhile comes at once.
                        self.take_in(words, sent_after, line);
                    }
                    None => self.take_in(words, now, line),
                }
            }
            Event::TooLarge => {
                self.drop_commands(1, Dropped::Flood);
                self.tell(&Error::CommandTooLarge { limit: MAX_COMMAND_BYTES }, line);
            }
            Event::Look | Event::End => {}
        }
    }

    /// Takes what may have been held up, once that is known, or nothing more is to be learned of it. When to look again.
    fn judge(&mut self, line: &mut Line) -> Option<Instant> {
        let Suspects { answered, until, .. } = self.suspects.as_ref()?;
        let is_proven = line.pings().answered() > *answered;
        if !is_proven && Instant::now() < *until {
            return Some(*until);
        }
        for (words, heard, sent_after) in self.suspects.take().into_iter().flat_map(|suspects| suspects.said) {
            self.take_in(words, if is_proven { sent_after.min(heard) } else { heard }, line);
        }
        None
    }

    fn take_in(&mut self, Words { is_text, bytes }: Words, received: Instant, line: &mut Line) {
        let command = Command { operator: self.me.id.clone(), received, is_text, bytes };
        let is_ping = command.is_ping();
        if command.age() > self.relay.ttl || self.relay.was_held_up() {
            self.drop_commands(u64::from(!is_ping), Dropped::Late);
            if !is_ping {
                self.tell(&Error::CommandLate { ttl: self.relay.ttl }, line);
            }
            return;
        }
        if self.rate.check().is_err() {
            self.drop_commands(u64::from(!is_ping), Dropped::Flood);
            return;
        }
        self.batch_bytes += command.bytes.len();
        self.batch.push(command);
        if self.batch.len() > 4 * MAX_BATCH || self.batch_bytes > 4 * MAX_BATCH_BYTES {
            // The bus does not take them as fast as they come.
            let batch = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            let commands = batch.iter().filter(|command| !command.is_ping()).count();
            self.drop_commands(commands as u64, Dropped::Flood);
        }
    }

    /// Begins to say what there is to say, or to look, if nothing is being said.
    fn call(&mut self, line: &Line) {
        let now = Instant::now();
        let may_look = now >= self.look_due;
        if self.calling.is_some() || (self.batch.is_empty() && !may_look) {
            return;
        }
        let mut bytes = 0;
        let count = self.batch.iter().take(MAX_BATCH).take_while(|command| {
            bytes += command.bytes.len();
            bytes <= MAX_BATCH_BYTES
        });
        let count = count.count();
        let commands: Vec<_> = self.batch.drain(..count).collect();
        self.batch_bytes = self.batch.iter().map(|command| command.bytes.len()).sum();
        let real = commands.iter().filter(|command| !command.is_ping()).count() as u64;
        let claim = if real > 0 { Claim::IfFree } else { Claim::Keep };
        // Who has gone without a word does not keep the wheel.
        if commands.is_empty() && now.duration_since(line.heard()) > WHEEL_LIFE {
            self.look_due = now + LOOK_INTERVAL;
            return;
        }
        (self.look_due, self.looked) = (now + LOOK_INTERVAL, now);
        let oldest = commands.iter().map(|command| command.received).min();
        let latest = oldest.unwrap_or(now) + self.relay.ttl;
        let (relay, session, me) = (self.relay.clone(), self.session.clone(), self.me.clone());
        self.calling = Some(Box::pin(async move {
            (real, relay.bus.send(&session, &me, claim, Hold::Connection, &commands, latest).await)
        }));
    }

    /// What has come of it.
    fn answered(&mut self, commands: u64, answer: Result<Sent, Error>, line: &mut Line) {
        let standing = match answer {
            Ok(Sent::Now(standing)) => standing,
            Ok(Sent::Late) => {
                self.drop_commands(commands, Dropped::Late);
                return self.tell(&Error::CommandLate { ttl: self.relay.ttl }, line);
            }
            Err(error) => {
                self.drop_commands(commands, Dropped::Store);
                return self.tell(&error, line);
            }
        };
        let was_driving = self.is_driving();
        self.standing = standing;
        let driver = self.standing.driver.as_ref().map(|driver| driver.name.to_string());
        if was_driving
            && !self.is_driving()
            && let Some(driver) = driver.clone()
        {
            self.tell(&Error::WheelTaken { driver }, line);
        }
        if commands == 0 {
            return;
        }
        if !self.is_driving() {
            self.drop_commands(commands, Dropped::NotDriving);
            self.tell(&Error::NotDriving { driver: driver.unwrap_or_else(|| "nobody".to_owned()) }, line);
        } else if self.standing.vehicles.is_empty() {
            self.drop_commands(commands, Dropped::NoVehicle);
            self.tell(&Error::NoVehicle, line);
        }
    }

    fn notice(&mut self, heard: Heard, line: &mut Line) {
        match heard {
            Heard::Changed => self.look_due = self.look_due.min(self.looked + LOOK_PAUSE),
            Heard::Telemetry { vehicle, text } => {
                if self.telemetry.len() < MAX_VEHICLES || self.telemetry.contains_key(&vehicle) {
                    self.telemetry.insert(vehicle, text);
                }
            }
            Heard::LeaseEnded { vehicle } => self.tell(&Error::LeaseEnded { vehicle: vehicle.to_string() }, line),
            Heard::Command(_) | Heard::Left(_) => {}
        }
    }

    /// Says what is new, as far as the network takes it.
    fn report(&mut self, line: &mut Line) {
        if !line.is_idle() {
            return;
        }
        for (vehicle, note) in &self.standing.vehicles {
            if self.vehicles_dropped.len() < 4 * MAX_VEHICLES || self.vehicles_dropped.contains_key(vehicle) {
                self.vehicles_dropped.insert(vehicle.clone(), note.dropped);
            }
        }
        let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        let notes = || self.standing.vehicles.iter().map(|(_, note)| note);
        let status = Status {
            vehicles: self.standing.vehicles.len(),
            driving: self.is_driving(),
            driver: self.standing.driver.as_ref().map(|driver| driver.name.to_string()),
            rtt_ms: notes().filter_map(|note| note.round_trip).max().map(ms),
            operator_rtt_ms: line.pings().round_trip().map(|took| ms(took.max(line.pings().overdue()))),
            lease_ms: notes().map(|note| note.lease.as_millis() as u64).min(),
            dropped: self.dropped + self.vehicles_dropped.values().sum::<u64>(),
        };
        let is_due = match &self.status {
            None => true,
            Some((told, at)) => {
                // Times always change, and are no news.
                let times = Status { rtt_ms: told.rtt_ms, operator_rtt_ms: told.operator_rtt_ms, ..status.clone() };
                times != *told || at.elapsed() >= STATUS_INTERVAL
            }
        };
        if is_due {
            line.say_text(&serde_json::to_string(&status).unwrap_or_default());
            self.status = Some((status, Instant::now()));
        }
        if let Some((vehicle, text)) = self.telemetry.pop_first() {
            let telemetry = Telemetry { vehicle: &vehicle, text: &text };
            line.say_text(&serde_json::to_string(&telemetry).unwrap_or_default());
        }
    }

    /// Tells the operator, unless it was just told the same.
    fn tell(&mut self, error: &Error, line: &mut Line) {
        let (code, now) = (error.code(), Instant::now());
        if self.told.get(code).is_some_and(|told| now.duration_since(*told) < TOLD_PAUSE) {
            return;
        }
        self.told.insert(code, now);
        let told = Told { code, message: error.to_string() };
        line.say_text(&serde_json::to_string(&told).unwrap_or_default());
    }

    fn drop_commands(&mut self, commands: u64, why: Dropped) {
        if commands > 0 {
            self.relay.metrics.dropped(commands, why);
            self.dropped += commands;
        }
    }
}

impl Drop for Operating {
    fn drop(&mut self) {
        self.relay.metrics.operators.dec();
        self.relay.leave(self.session.clone(), self.me.clone());
    }
}

/// How often an operator is pinged: often enough to tell what is too late, and not so often that it costs.
fn ping_interval(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_millis(20), Duration::from_millis(200))
}

/// Serves an operator until it has gone.
pub(super) async fn serve(mut operating: Operating, socket: WebSocket) {
    let relay = operating.relay.clone();
    let ttl = relay.ttl();
    let mut line = Line::new(socket, ping_interval(ttl), [ttl / 2, ttl]);
    // When it last said something.
    let mut said = Instant::now();
    loop {
        let judge_at = operating.judge(&mut line);
        operating.call(&line);
        operating.report(&mut line);
        let look_due = if operating.calling.is_some() { None } else { Some(operating.look_due) };
        let due = judge_at.into_iter().chain(look_due).min();
        tokio::select! {
            event = line.next() => {
                if let Err(error) = operating.visitor.may(Right::Command, &operating.session) {
                    operating.tell(&error, &mut line);
                    return line.close(CloseCode::Policy, error.code()).await;
                }
                let silence = said.elapsed();
                let mut next = Some(event);
                // What came at once goes on at once.
                while let Some(event) = next {
                    if matches!(event, Event::End) {
                        return line.end().await;
                    }
                    if matches!(event, Event::Said(_)) {
                        said = Instant::now();
                    }
                    operating.hear(event, silence, &mut line);
                    next = line.ready();
                }
            }
            Some((commands, answer)) = OptionFuture::from(operating.calling.as_mut()) => {
                operating.calling = None;
                operating.answered(commands, answer, &mut line);
            }
            heard = operating.ear.next() => operating.notice(heard, &mut line),
            Some(()) = OptionFuture::from(due.map(sleep_until)) => {}
            () = relay.closing() => return line.close(CloseCode::Away, "the server ends").await,
        }
    }
}
