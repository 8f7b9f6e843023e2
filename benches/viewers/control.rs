//! How late commands are by this server's relay while it carries pictures, and by others meanwhile.

use std::{
    io,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    Bench, CONTROL_FRAMES, CONTROL_VIEWERS, Result,
    audience::Audience,
    crew::Crew,
    drive::{Way, drive},
    measure::{Column, FRAME_COLUMNS, Sample, compare, quantiles},
    program::{Running, find, start_redis},
    scenarios::describe,
    target::Target,
};

/// What 99 % of the relay's commands are to take less than, in milliseconds.
const GOAL: f64 = 10.0;
const TOPIC: &str = "control/s0";

/// What a sample of commands tells.
const COLUMNS: [Column; 8] = [
    ("sent", 8, 0, "commands_sent"),
    ("arrived", 10, 0, "commands_arrived"),
    ("lost", 8, 0, "commands_lost"),
    ("p50 ms", 9, 3, "delay_p50_ms"),
    ("p99 ms", 9, 3, "delay_p99_ms"),
    ("p99.9 ms", 10, 3, "delay_p999_ms"),
    ("max ms", 9, 3, "delay_max_ms"),
    ("faults", 8, 0, "faults"),
];

/// What commands go through.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Relay,
    WebSocket,
    Mqtt,
    Pipes,
}

/// What was started for a side; it ends with this, what is connected before what it is connected to.
#[derive(Default)]
struct Started {
    _programs: Vec<Running>,
    _target: Option<Target>,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::WebSocket => "websocket",
            Self::Mqtt => "mqtt",
            Self::Pipes => "pipes",
        }
    }

    /// With the operator at the first and the vehicle at the second of two servers, which may be one.
    fn start(self, [first, second]: [&Target; 2]) -> Result<(Way, Started)> {
        match self {
            Self::Relay => {
                let address = |target: &Target, query| format!("ws://127.0.0.1:{}/ws/control/s0?{query}", target.port);
                let vehicle = address(second, "role=vehicle&lease=5000&stop=STOP");
                Ok((Way::Sockets { operator: address(first, "role=operator"), vehicle }, Started::default()))
            }
            Self::WebSocket => {
                let target = Target::echo()?;
                let address = format!("ws://127.0.0.1:{}/", target.port);
                let way = Way::Sockets { operator: address.clone(), vehicle: address };
                Ok((way, Started { _target: Some(target), ..Started::default() }))
            }
            Self::Mqtt => {
                let target = Target::mosquitto()?;
                let port = target.port.to_string();
                let client = |name: &str| {
                    let mut command = Command::new(find(name).ok_or("mosquitto-clients are missing")?);
                    command.args(["-h", "127.0.0.1", "-p", &port, "-q", "0", "-t", TOPIC]);
                    Result::Ok(command)
                };
                let subscribe = Running::start(client("mosquitto_sub")?.stdin(Stdio::null()).stdout(Stdio::piped()))?;
                let mut publish = client("mosquitto_pub")?;
                publish.args(["-l", "--nodelay"]).stdin(Stdio::piped()).stdout(Stdio::null());
                let publish = Running::start(&mut publish)?;
                through(publish, subscribe, Some(target))
            }
            Self::Pipes => {
                let cat = || Command::new("cat");
                let (from, to) = io::pipe()?;
                let first = Running::start(cat().stdin(Stdio::piped()).stdout(to))?;
                let second = Running::start(cat().stdin(from).stdout(Stdio::piped()))?;
                through(first, second, None)
            }
        }
    }
}

/// What is written to the first program comes out of the second.
fn through(mut first: Running, mut second: Running, target: Option<Target>) -> Result<(Way, Started)> {
    let ((Some(stdin), _), (_, Some(stdout))) = (first.pipes(), second.pipes()) else {
        return Err("a program without pipes".into());
    };
    Ok((Way::Pipes(stdin, stdout), Started { _programs: vec![first, second], _target: target }))
}

impl Bench {
    pub(crate) async fn control(&self) -> Result<Value> {
        println!("\ncontrol: commands beside {CONTROL_VIEWERS} viewers of one session, {}", describe(CONTROL_FRAMES));
        let target = Target::server(&self.options, None)?;
        self.commands([&target; 2], &[&target], &[Side::Relay, Side::WebSocket, Side::Mqtt, Side::Pipes]).await
    }

    /// All that the vehicle's camera takes and all that it is told goes through Redis.
    pub(crate) async fn control_replicas(&self) -> Result<Value> {
        println!(
            "\ncontrol on two servers: operator and {CONTROL_VIEWERS} viewers at A, vehicle and posts at B, {}",
            describe(CONTROL_FRAMES)
        );
        let directory = tempfile::tempdir()?;
        let (_redis, port) = start_redis(&directory)?;
        let a = Target::server(&self.options, Some(port))?;
        let b = Target::server(&self.options, Some(port))?;
        self.commands([&a, &b], &[&a, &b], &[Side::Relay, Side::WebSocket]).await
    }

    async fn commands(&self, ends: [&Target; 2], targets: &[&Target], sides: &[Side]) -> Result<Value> {
        let audience = Audience::gather(self.clock, ends[0], (0..CONTROL_VIEWERS).map(|_| 0)).await?;
        let mut crew = Crew::start(self.clock, ends[1], 1, CONTROL_FRAMES);
        let (mut samples, mut frames, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        Sample::header(&COLUMNS);
        for round in 0..self.options.rounds.get() {
            for turn in 0..sides.len() {
                // Whoever is first finds another machine than the others, so each is in turn.
                let side = sides[(turn + round) % sides.len()];
                match self.commands_of(side, ends, targets, &mut crew, &audience).await {
                    Ok((sample, meanwhile)) => {
                        sample.print();
                        samples.push(sample);
                        frames.extend(meanwhile);
                    }
                    Err(error) => {
                        println!("{}: INVALID: {error}", side.name());
                        faults.push(format!("{}: {error}", side.name()));
                    }
                }
            }
        }
        crew.stop().await?;
        let figures = ["delay_p50_ms", "delay_p99_ms"];
        // Pipes are no peer, but a part of one.
        let peers = sides.iter().filter(|it| **it != Side::Pipes).map(|it| it.name());
        let ratios = compare(&samples, "relay", peers, &figures);
        let relayed = || samples.iter().filter(|it| it.side == "relay");
        let is_reached = relayed().next().is_some()
            && relayed().all(|it| it.figure("delay_p99_ms") < GOAL && it.figure("commands_lost") == 0.0);
        let reached = if is_reached { "reached" } else { "NOT reached" };
        println!("goal: a p99 of the relay under {GOAL} ms, and nothing lost: {reached}");
        println!("the viewers meanwhile:");
        Sample::header(&FRAME_COLUMNS);
        frames.iter().for_each(Sample::print);
        let [samples, frames] = [samples, frames].map(|it| it.iter().map(Sample::json).collect::<Vec<_>>());
        Ok(json!({
            "viewers": CONTROL_VIEWERS, "samples": samples, "frames": frames, "ratios_of_medians": ratios,
            "goal_delay_p99_ms": GOAL, "goal_reached": is_reached, "faults": faults,
        }))
    }

    /// Also how the frames fare meanwhile.
    async fn commands_of(
        &self,
        side: Side,
        ends: [&Target; 2],
        targets: &[&Target],
        crew: &mut Crew,
        audience: &Audience,
    ) -> Result<(Sample, Vec<Sample>)> {
        let (way, _started) = side.start(ends)?;
        let (warm, driven) = drive(way, self.options.seconds.get());
        let frames = match warm.await {
            Ok(()) => self.measure(targets, crew, true, &[(side.name(), audience)]).await?,
            // Then there is an error.
            Err(_) => Vec::new(),
        };
        let driven = driven.await??;
        if let Some(fault) = driven.faults.first() {
            println!("{}: {} faults; the first: {fault}", side.name(), driven.faults.len());
        }
        let [p50, p99, p999, max] = quantiles(&driven.delays, [0.5, 0.99, 0.999, 1.0]);
        let (sent, arrived) = (driven.sent as f64, driven.delays.len() as f64);
        let figures = vec![sent, arrived, sent - arrived, p50, p99, p999, max, driven.faults.len() as f64];
        Ok((Sample { side: side.name(), columns: &COLUMNS, figures }, frames))
    }
}
