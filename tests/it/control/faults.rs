//! The example vehicles under every failure there is, and under many at random: none obeys what is too old, each stops in time, and
//! each is driven again when all is well.

use std::{net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::harness::{
    RedisServer, Server,
    example::{Example, Vehicle, clock},
    link::Link,
    port::free_port,
    python::{Conversation, script},
    scale,
};

const LEASE: Duration = Duration::from_millis(250);
const TTL: Duration = Duration::from_millis(500);
/// What a line may take from a program to this one on a busy machine.
const READ_SLACK: Duration = Duration::from_millis(150);
/// How soon a vehicle is driven again once all is well.
const BACK_WITHIN: Duration = Duration::from_secs(8);

/// One that drives, and tells what it sends.
struct Operator {
    process: Conversation,
}

impl Operator {
    fn start(address: SocketAddr) -> Self {
        let mut operator = script("driver.py");
        operator.args([&format!("ws://{address}/ws/control/car?take=1"), "20"]);
        Self { process: Conversation::start(operator) }
    }

    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.process.id(), signal).unwrap();
    }
}

/// A server that can be killed and started again at the same port.
struct Site {
    port: String,
    redis: Option<RedisServer>,
    server: Option<Server>,
}

impl Site {
    async fn start(on_redis: bool) -> Self {
        let redis = if on_redis { Some(RedisServer::start().await) } else { None };
        let mut site = Self { port: free_port().to_string(), redis, server: None };
        site.restart().await;
        site
    }

    async fn restart(&mut self) {
        self.server = None;
        let redis_port = self.redis.as_ref().map(|redis| redis.port().to_string());
        let mut variables = vec![];
        if let Some(port) = &redis_port {
            variables.extend([("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", port.as_str())]);
        }
        self.server = Some(Server::start_with(&["--ip", "127.0.0.1", "--port", &self.port], &variables).await);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }
}

/// An example vehicle and an operator, each with a link of its own to one server.
struct Stage {
    site: Site,
    operator: Operator,
    vehicle: Vehicle,
    to_operator: Link,
    to_vehicle: Link,
}

impl Stage {
    async fn set(example: Example, on_redis: bool) -> Self {
        let site = Site::start(on_redis).await;
        let address = site.server().address();
        let (to_operator, to_vehicle) = (Link::to(address), Link::to(address));
        let url = to_vehicle.url(&format!("/control/car?lease={}&stop=STOP", LEASE.as_millis()));
        let vehicle = Vehicle::start(example, &url);
        let operator = Operator::start(to_operator.address());
        let mut stage = Self { site, operator, vehicle, to_operator, to_vehicle };
        stage.drives_again("at the beginning").await;
        stage
    }

    /// Waits until it is driven by what is sent from now on.
    async fn drives_again(&mut self, after: &str) {
        let from = clock();
        let end = Instant::now() + BACK_WITHIN;
        loop {
            self.vehicle.watch_for(Duration::from_millis(50)).await;
            if self.vehicle.seen.last().is_some_and(|last| last.sent.is_some_and(|sent| sent > from)) {
                return;
            }
            assert!(Instant::now() < end, "it is not driven again: {after}: {:?}", self.vehicle.seen.last());
        }
    }

    /// Nothing that it obeyed was too old, in the wrong order or there twice; and it never went on for longer than it may. While it
    /// was stopped itself, which `froze` tells, it could not do anything.
    fn check(&self, what: &str, froze: &[(Instant, Instant)]) {
        let now = (Instant::now(), clock());
        let mut last = 0;
        for (at, obeyed) in self.vehicle.seen.iter().enumerate() {
            if let (Some(sent), Some(number)) = (obeyed.sent, obeyed.number) {
                let read = now.1 - (now.0 - obeyed.at).as_secs_f64();
                let age = read - sent;
                let limit = (TTL + READ_SLACK).as_secs_f64();
                // Where it was frozen just between its last look at the clock and its motors, it stops as soon as it goes on.
                let next = self.vehicle.seen.get(at + 1);
                let was_caught = froze.iter().any(|(_, to)| obeyed.at.saturating_duration_since(*to) < READ_SLACK)
                    && next.is_some_and(|next| !next.moves && next.at - obeyed.at < Duration::from_millis(20));
                assert!(age <= limit || was_caught, "{what}: command {number} was {age:.3} s old");
                assert!(number > last, "{what}: {number} came after {last}");
                last = number;
            }
            let Some(next) = self.vehicle.seen.get(at + 1).filter(|_| obeyed.moves) else { continue };
            let frozen: Duration = froze
                .iter()
                .map(|(from, to)| (*to).min(next.at).saturating_duration_since((*from).max(obeyed.at)))
                .sum();
            let moved = (next.at - obeyed.at).saturating_sub(frozen);
            // The relay's lease, or the vehicle's own half of it when the link is what failed.
            let limit = LEASE * 2 + READ_SLACK;
            assert!(moved <= limit, "{what}: it went on for {moved:?} with nobody there");
        }
    }

    /// It has been stopped, and stays so.
    async fn stands(&mut self, what: &str, since: Instant, within: Duration) {
        self.vehicle.watch_for(within.saturating_sub(since.elapsed()) + Duration::from_millis(300)).await;
        assert!(!self.vehicle.moves(), "{what}: it moves on");
        let stopped = self.vehicle.seen.iter().rev().take_while(|obeyed| !obeyed.moves).last().expect("it was stopped");
        let after = stopped.at.saturating_duration_since(since);
        assert!(after <= within + READ_SLACK, "{what}: it was stopped after {after:?}");
    }
}

#[tokio::test]
async fn an_example_vehicle_stops_in_time_whatever_fails_and_is_driven_again_by_itself() {
    let runs = Example::ALL.map(|example| async move {
        let mut stage = Stage::set(example, true).await;
        let mut froze = Vec::new();
        let halt = LEASE + Duration::from_millis(50);
        let faults = [
            "operator cut",
            "vehicle cut",
            "both cut",
            "operator stopped",
            "vehicle stopped",
            "redis hangs",
            "vehicle ever farther",
            "server killed",
        ];
        for (fault, name) in faults.into_iter().enumerate() {
            let what = format!("{example:?}, {name}");
            let begun = Instant::now();
            match fault {
                0 => {
                    stage.to_operator.fall_silent();
                    stage.stands(&what, begun, halt).await;
                    stage.to_operator.heal();
                }
                1 => {
                    stage.to_vehicle.fall_silent();
                    // It is its own half that stops it.
                    stage.stands(&what, begun, LEASE * 2).await;
                    stage.to_vehicle.heal();
                }
                2 => {
                    stage.to_vehicle.fall_silent();
                    stage.to_operator.fall_silent();
                    stage.stands(&what, begun, LEASE * 2).await;
                    stage.to_vehicle.heal();
                    stage.to_operator.heal();
                }
                3 => {
                    stage.operator.signal(Signal::SIGSTOP);
                    stage.stands(&what, begun, halt).await;
                    stage.operator.signal(Signal::SIGCONT);
                }
                4 => {
                    stage.vehicle.signal(Signal::SIGSTOP);
                    sleep(Duration::from_secs(2)).await;
                    froze.push((begun, Instant::now()));
                    stage.vehicle.signal(Signal::SIGCONT);
                }
                5 => {
                    stage.site.redis.as_ref().unwrap().freeze();
                    stage.stands(&what, begun, halt).await;
                    stage.site.redis.as_ref().unwrap().thaw();
                }
                6 => {
                    // All the while it hears of the server, and the server of it.
                    stage.to_vehicle.fall_behind(0.5);
                    stage.stands(&what, begun, LEASE * 3).await;
                    stage.to_vehicle.catch_up();
                }
                _ => {
                    stage.site.server = None;
                    stage.stands(&what, begun, LEASE * 2).await;
                    stage.site.restart().await;
                }
            }
            stage.drives_again(&what).await;
            stage.check(&what, &froze);
        }
    });
    futures_util::future::join_all(runs).await;
}

/// Numbers that are the same for the same seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn next(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next(to - from))
    }
}

/// Faults at random for a few seconds, of which several may be at once.
async fn schedule(seed: u64) {
    let mut dice = Dice(seed);
    let (example, on_redis) = (Example::ALL[dice.next(2) as usize], dice.next(2) == 0);
    let mut stage = Stage::set(example, on_redis).await;
    let (mut froze, mut told) = (Vec::new(), vec![format!("{example:?}, Redis: {on_redis}")]);
    for _ in 0..5 {
        let (fault, time) = (dice.next(10), dice.ms(100, 1500));
        told.push(format!("{fault} for {time:?}"));
        match fault {
            0 => stage.to_operator.hold(),
            1 => stage.to_vehicle.hold(),
            2 => stage.to_operator.fall_silent(),
            3 => stage.to_vehicle.fall_silent(),
            4 => stage.operator.signal(Signal::SIGSTOP),
            5 => {
                let begun = Instant::now();
                stage.vehicle.signal(Signal::SIGSTOP);
                sleep(time).await;
                froze.push((begun, Instant::now()));
                stage.vehicle.signal(Signal::SIGCONT);
            }
            6 => stage.site.server().signal(Signal::SIGSTOP),
            7 => match &stage.site.redis {
                Some(redis) => redis.freeze(),
                None => stage.to_operator.limit(20_000),
            },
            8 => stage.to_vehicle.fall_behind((1 + dice.next(9)) as f64 / 10.0),
            _ => stage.site.restart().await,
        }
        stage.vehicle.watch_for(time).await;
        match fault {
            0 => stage.to_operator.let_go(),
            1 => stage.to_vehicle.let_go(),
            2 => stage.to_operator.heal(),
            3 => stage.to_vehicle.heal(),
            4 => stage.operator.signal(Signal::SIGCONT),
            6 => stage.site.server().signal(Signal::SIGCONT),
            7 => match &stage.site.redis {
                Some(redis) => redis.thaw(),
                None => stage.to_operator.limit(0),
            },
            8 => stage.to_vehicle.catch_up(),
            _ => {}
        }
        stage.vehicle.watch_for(dice.ms(0, 600)).await;
    }
    let what = format!("seed {seed}: {}", told.join(", "));
    stage.drives_again(&what).await;
    drop(stage.operator);
    let ended = Instant::now();
    stage.operator = Operator::start(SocketAddr::from(([127, 0, 0, 1], 1)));
    stage.stands(&what, ended, LEASE + Duration::from_millis(50)).await;
    stage.check(&what, &froze);
}

#[tokio::test]
async fn whatever_fails_at_random_no_example_obeys_what_is_too_old_and_each_stops_and_is_driven_again() {
    /// How many at once: each is five programs.
    const AT_ONCE: usize = 4;
    let count = if scale() == 1 { 20 } else { 25 * scale() };
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = match first {
        Some(seed) => vec![seed],
        None => {
            let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            (0..count as u64).map(|number| begun * 1000 + number).collect()
        }
    };
    println!("seeds {seeds:?}: SEED=… runs one of them again");
    let runs = seeds.into_iter().map(|seed| async move {
        println!("seed {seed}");
        schedule(seed).await;
    });
    futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(runs), AT_ONCE, |run| run).await;
}
