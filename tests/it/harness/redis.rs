//! A real `redis-server` of the test's own.

use nix::sys::signal::Signal;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::{
    SOON, Server,
    port::free_port,
    process::{Process, program},
    until,
};

/// A Redis on a port of its own, gone with the test.
pub struct RedisServer {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    pub async fn start_with(arguments: Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { process: None, directory, port: free_port(), arguments };
        server.restart().await;
        server
    }

    /// Starts it again on the same port after [`Self::kill`], empty.
    pub async fn restart(&mut self) {
        let mut command = program("redis-server", "redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.directory.path()).args(&self.arguments);
        self.process = Some(Process::start(command));
        until(SOON, "redis-server answers", || async { self.connect().await.ok() }).await;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// An Image Streamer on this Redis.
    pub async fn server(&self, variables: &[(&str, &str)]) -> Server {
        let port = self.port.to_string();
        let redis = [("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)];
        Server::start(&[&redis, variables].concat()).await
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(SOON)).set_response_timeout(Some(SOON));
        let mut connection = Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// Sends a command of the test's own.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connect().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// It neither answers nor goes away, like a machine that hangs.
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::SIGCONT);
    }

    pub async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }
}
