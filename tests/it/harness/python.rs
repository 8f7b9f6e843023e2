//! Python scripts of the tests, run by a Python that has what they import, and spoken to line by line.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::unistd::Pid;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::SOON;

/// A script of `tests/programs`. Fails with what makes its Python when there is none.
pub fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/test-python/bin/python");
    assert!(python.is_file(), "a Python with packages is needed for this test: make setup");
    let mut command = Command::new(python);
    command.arg(root.join("tests/programs").join(name));
    command
}

/// A script that runs, takes lines and answers with lines of JSON. It is killed when this is dropped.
pub struct Conversation {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Conversation {
    pub fn start(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    pub fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("the script runs") as i32)
    }

    /// Says a line to it.
    pub async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("the script reads");
    }

    /// What it says next, soon.
    pub async fn hear(&mut self) -> Value {
        self.hear_within(SOON).await
    }

    /// What it says next.
    pub async fn hear_within(&mut self, deadline: Duration) -> Value {
        let line =
            timeout(deadline, self.output.next_line()).await.expect("the script says something in time").unwrap();
        let line = line.expect("the script has not ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Says that nothing more is to come, and waits for it to end well. Returns what it said meanwhile.
    pub async fn end(mut self) -> Vec<Value> {
        drop(self.input.take());
        let mut said = Vec::new();
        while let Some(line) = timeout(SOON, self.output.next_line()).await.expect("the script ends soon").unwrap() {
            said.push(serde_json::from_str(&line).unwrap());
        }
        let status = timeout(SOON, self.child.wait()).await.expect("the script ends soon").unwrap();
        assert!(status.success(), "{status}");
        said
    }
}
