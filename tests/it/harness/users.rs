//! A users file, kept by the real command.

use std::{path::PathBuf, process::Stdio};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{Backend, Server, server::command};

/// The password of every user that does not matter.
pub const PASSWORD: &str = "correct horse battery";

/// A users file in a directory of its own.
pub struct UsersFile {
    directory: TempDir,
}

impl UsersFile {
    /// No users yet, and no file.
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Users by name and what `user add` is told of their rights; all have the same password.
    pub async fn with(users: &[(&str, &[&str])]) -> Self {
        let file = Self::new();
        for (name, rights) in users {
            file.add(name, rights).await;
        }
        file
    }

    pub async fn add(&self, name: &str, rights: &[&str]) {
        self.must(&[&["add", name], rights].concat(), PASSWORD).await;
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("users.toml")
    }

    pub fn read(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    /// Runs `image-streamer user …` with this on its standard input. Whether it succeeded, and what it printed.
    pub async fn run(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let path = self.path();
        let command = command(&[&["user"], arguments].concat(), &[("USERS_FILE", path.to_str().unwrap())]);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        // One that needs no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(format!("{input}\n").as_bytes()).await;
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// The same, which must succeed.
    pub async fn must(&self, arguments: &[&str], input: &str) -> String {
        let (succeeded, stdout, stderr) = self.run(arguments, input).await;
        assert!(succeeded, "{arguments:?}: {stderr}");
        stdout
    }

    /// A server on this backend with these users.
    pub async fn server(&self, backend: &Backend, variables: &[(&str, &str)]) -> Server {
        let path = self.path();
        backend.server(&[&[("USERS_FILE", path.to_str().unwrap())], variables].concat()).await
    }
}
