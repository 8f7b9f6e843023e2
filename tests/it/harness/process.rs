//! Child processes that never outlive their test.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::mpsc,
};

use super::SOON;

/// A running program and the lines it prints. It is killed when this is dropped.
pub struct Process {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a program with both its outputs read.
    pub fn start(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = mpsc::unbounded_channel();
        forward(child.stdout.take(), sender.clone());
        forward(child.stderr.take(), sender);
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that contains the words, read from now on.
    pub async fn line_with(&mut self, words: &str) -> String {
        let find = async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line.clone());
                if line.contains(words) {
                    return Some(line);
                }
            }
            None
        };
        match tokio::time::timeout(SOON, find).await {
            Ok(Some(line)) => line,
            _ => panic!("{words:?} was not printed; printed was: {:#?}", self.seen),
        }
    }

    pub fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("the process runs") as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal).expect("the process runs");
    }

    /// Waits for the end, and returns how it ended and everything that it printed.
    pub async fn ended_within(mut self, deadline: Duration) -> (ExitStatus, String) {
        let status =
            tokio::time::timeout(deadline, self.child.wait()).await.expect("the process ends in time").unwrap();
        while let Some(line) = self.lines.recv().await {
            self.seen.push(line);
        }
        (status, self.seen.join("\n"))
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }
}

fn forward(output: Option<impl AsyncRead + Unpin + Send + 'static>, lines: mpsc::UnboundedSender<String>) {
    let mut output = BufReader::new(output.expect("the output is piped")).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = output.next_line().await {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

/// The unit of times in `/proc/PID/stat` is 1/100 s on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time that a process has used so far, in user and kernel mode.
pub fn cpu_time(id: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process runs");
    // Fields are counted from behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| TICK * ticks.parse::<u32>().expect("a number of ticks"))
        .sum()
}

/// A program that the tests need. Fails with the line that installs it when it is missing.
pub fn program(name: &str, package: &str) -> Command {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(found, "{name} is needed for this test: apt-get install -y {package}");
    Command::new(name)
}

/// A binary of this workspace, beside the one that the tests were built with.
pub fn workspace_binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_image-streamer")).with_file_name(name);
    assert!(path.is_file(), "{name} is needed for this test: cargo build --workspace");
    path
}
