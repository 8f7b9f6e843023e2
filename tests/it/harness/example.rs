//! The example vehicles of docs/VEHICLES.md, run as they are, and what they obey.

use std::{path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{SOON, process::program};

/// What an example vehicle has done.
#[derive(Debug, Clone)]
pub struct Obeyed {
    /// When it was read that it did.
    pub at: Instant,
    /// Whether it moves from now on.
    pub moves: bool,
    /// The command's own number, and when it was sent, if it says so.
    pub number: Option<u64>,
    /// In seconds, by the clock of all programs here.
    pub sent: Option<f64>,
}

/// Which example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    Python,
    /// The sketch, built for this machine.
    Esp32,
}

impl Example {
    pub const ALL: [Self; 2] = [Self::Python, Self::Esp32];

    /// Builds what is to be built, once.
    pub fn command(self, url: &str) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Python => {
                let mut vehicle = program("python3", "python3");
                vehicle.arg(root.join("docs/vehicles/vehicle.py")).arg(url);
                vehicle
            }
            Self::Esp32 => {
                let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
                let (host, port) = address.split_once(':').expect("a port");
                let mut vehicle = Command::new(sketch());
                vehicle.env("SKETCH_HOST", host).env("SKETCH_PORT", port);
                vehicle
            }
        }
    }
}

/// The sketch as a program for this machine.
fn sketch() -> &'static Path {
    static BUILT: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("esp32-{}", std::process::id()));
        let sketch = root.join("docs/vehicles/esp32/esp32.ino");
        let mut compiler = program("g++", "g++");
        compiler.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"]);
        compiler.arg(format!("-DSKETCH=\"{}\"", sketch.display()));
        compiler.arg("-I").arg(root.join("tests/programs/arduino"));
        compiler.arg(root.join("tests/programs/arduino/main.cpp")).arg("-o").arg(&built);
        let output = compiler.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        built
    });
    &BUILT
}

/// One that runs. It is killed when this is dropped.
pub struct Vehicle {
    child: Child,
    obeyed: mpsc::UnboundedReceiver<Obeyed>,
    /// Everything that it obeyed and that was looked at.
    pub seen: Vec<Obeyed>,
}

impl Vehicle {
    /// Starts one that listens at this address of a server, or of a link to it.
    pub fn start(example: Example, url: &str) -> Self {
        Self::run(example.command(url))
    }

    /// Starts one by its command.
    pub fn run(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        let mut child = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, obeyed) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(obeyed) = read(&line) {
                    let _ = sender.send(obeyed);
                }
            }
        });
        Self { child, obeyed, seen: Vec::new() }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs") as i32;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }

    /// What it does next.
    pub async fn next(&mut self) -> Obeyed {
        let obeyed = timeout(SOON, self.obeyed.recv()).await.expect("it does something in time").expect("it runs");
        self.seen.push(obeyed.clone());
        obeyed
    }

    /// Looks at what it does for so long.
    pub async fn watch_for(&mut self, time: Duration) {
        let _ = timeout(time, async {
            while let Some(obeyed) = self.obeyed.recv().await {
                self.seen.push(obeyed);
            }
        })
        .await;
    }

    /// Whether it moves, as far as it was looked at.
    pub fn moves(&self) -> bool {
        self.seen.last().is_some_and(|last| last.moves)
    }
}

/// A line like `drive 0.50 0.10 {"linear":…,"number":7,"at":123.4}`.
fn read(line: &str) -> Option<Obeyed> {
    let mut words = line.strip_prefix("drive ")?.splitn(3, ' ');
    let mut speed = || words.next()?.parse::<f64>().ok();
    let moves = speed()? != 0.0 || speed()? != 0.0;
    let raw = line.find('{').and_then(|at| serde_json::from_str::<Value>(line[at..].trim()).ok());
    let field = |name: &str| raw.as_ref().and_then(|raw| raw[name].as_f64());
    Some(Obeyed { at: Instant::now(), moves, number: field("number").map(|it| it as u64), sent: field("at") })
}

/// The clock of all programs here: seconds since the machine was started.
pub fn clock() -> f64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9
}
