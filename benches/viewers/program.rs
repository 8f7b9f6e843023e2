//! The programs that are started, and what they use.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{KIB, Result, picture::field};

const START: Duration = Duration::from_secs(15);
/// From SIGTERM to SIGKILL.
const STOP: Duration = Duration::from_secs(5);
/// The unit of times in `/proc/PID/stat` is 1/100 s on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is ended with this value, and its children with it.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.spawn().map(Self).map_err(|error| format!("{}: {error}", command.get_program().display()).into())
    }

    /// Its standard input and output, as far as they are pipes that nobody has taken yet.
    pub(crate) fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>) {
        (self.0.stdin.take(), self.0.stdout.take())
    }

    /// The process and all that live below it.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            parents.extend(stat_field(id, 1).map(|parent| (id, parent)));
        }
        let mut found = vec![self.0.id()];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            found.extend(parents.iter().filter(|it| it.1 == u64::from(parent)).map(|it: &(u32, u64)| it.0));
            at += 1;
        }
        found
    }

    /// The port that the process tells on standard error. What it writes there later is read and dropped.
    pub(crate) fn listening(&mut self) -> Result<u16> {
        let stderr = self.0.stderr.take().expect("standard error is a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(io::Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + START;
        let mut said = String::new();
        while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some((_, rest)) = line.split_once("listening on http://127.0.0.1:") {
                let digits = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap_or_default();
                return Ok(digits.parse()?);
            }
            said += &line;
        }
        Err(format!("it did not start: {said}").into())
    }

    /// Waits until something listens on the port.
    pub(crate) fn answering(&mut self, port: u16) -> Result {
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline || self.0.try_wait().is_ok_and(|code| code.is_some()) {
                return Err("it did not start".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let family = self.family();
        for what in [Signal::SIGTERM, Signal::SIGKILL] {
            for process in &family {
                let _ = signal::kill(Pid::from_raw(process.cast_signed()), what);
            }
            let deadline = Instant::now() + STOP;
            while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
        }
    }
}

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port()
}

pub(crate) fn start_redis(directory: &TempDir) -> Result<(Running, u16)> {
    let program = find("redis-server").ok_or("redis-server is missing")?;
    let port = free_port();
    let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory.path()).stdout(Stdio::null());
    let mut process = Running::start(&mut command)?;
    process.answering(port)?;
    Ok((process, port))
}

/// Where a program is; Debian keeps nginx where only root's PATH leads.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|it| it.join(program))
        .find(|it| it.is_file())
}

/// A number of `/proc/PID/stat`, counted from behind the name, which may hold anything.
fn stat_field(process: u32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(index)?.parse().ok()
}

/// CPU time used so far in user and kernel mode, in seconds.
pub(crate) fn cpu_seconds(processes: &[u32]) -> f64 {
    let ticks = |&process: &u32| Some(stat_field(process, 11)? + stat_field(process, 12)?);
    processes.iter().filter_map(ticks).sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// A line of `/proc/PID/status`, in MB of 1,000,000 bytes.
pub(crate) fn memory(processes: &[u32], key: &str) -> f64 {
    let kib = |process: &u32| {
        let status = fs::read(format!("/proc/{process}/status")).ok()?;
        field(&status, key)?.trim_end_matches(" kB").parse::<usize>().ok()
    };
    (processes.iter().filter_map(kib).sum::<usize>() * KIB) as f64 / 1e6
}
