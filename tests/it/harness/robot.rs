//! Robots with ROS 1 and ROS 2, and the bridge from them to a server.

use std::{
    collections::VecDeque,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    SOON,
    port::free_port,
    process::{Process, program, workspace_binary},
    python::{Conversation, script},
    until,
};

/// What keeps CycloneDDS on the loopback, where there is no multicast.
const LOOPBACK: &str = r#"<CycloneDDS><Domain Id="any">
    <General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces><AllowMulticast>false</AllowMulticast></General>
    <Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer Address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"#;

/// A network of robots: a master of ROS 1, or a domain of ROS 2.
pub enum Ros {
    One(Box<Master>),
    Two { domain: u16 },
}

/// A master of ROS 1, and where its nodes keep their logs.
pub struct Master {
    process: Process,
    port: u16,
    home: TempDir,
}

impl Ros {
    pub async fn one() -> Self {
        let (port, home) = (free_port(), TempDir::new().unwrap());
        Self::One(Box::new(Master { process: Master::begin(port, home.path()).await, port, home }))
    }

    /// A domain of its own. Their ports are below those of everything else in these tests.
    pub fn two() -> Self {
        const DOMAINS: u16 = 32;
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Where tests run in two processes at once, they begin at different ones.
        let number = NEXT.fetch_add(1, Relaxed);
        assert!(number < DOMAINS, "there are no more domains");
        Self::Two { domain: 1 + (std::process::id() as u16).wrapping_mul(11).wrapping_add(number) % DOMAINS }
    }

    pub async fn all() -> [Self; 2] {
        [Self::one().await, Self::two()]
    }

    /// What is set for every program of this network.
    fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::One(master) => {
                let home = master.home.path().to_str().unwrap().to_owned();
                vec![
                    ("ROS_MASTER_URI", format!("http://127.0.0.1:{}", master.port)),
                    ("ROS_IP", "127.0.0.1".into()),
                    ("ROS_HOME", home.clone()),
                    ("ROS_LOG_DIR", home),
                ]
            }
            Self::Two { domain } => vec![
                ("ROS_DOMAIN_ID", domain.to_string()),
                ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST".into()),
                ("CYCLONEDDS_URI", LOOPBACK.into()),
            ],
        }
    }

    /// A program of this network, which gets these variables and a path, and no others.
    pub fn command(&self, mut command: Command) -> Command {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(self.variables());
        command
    }

    pub async fn robot(&self) -> Robot {
        let command = match self {
            Self::One(_) => debian_python(&["ros1_robot.py"]),
            Self::Two { domain } => {
                let mut command = script("ros2_robot.py");
                command.arg(domain.to_string());
                command
            }
        };
        let mut robot = Robot { conversation: Conversation::start(self.command(command)), heard: VecDeque::new() };
        robot.conversation.hear().await;
        robot
    }

    /// The bridge, with these arguments behind those that tell where.
    pub fn bridge(&self, server: &str, arguments: &[&str]) -> Process {
        Process::start(self.bridge_command(server, arguments))
    }

    pub fn bridge_command(&self, server: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(Command::new(workspace_binary("image-streamer-ros")));
        command.arg(if matches!(self, Self::One(_)) { "ros1" } else { "ros2" });
        command.args(["--server", server]).args(arguments);
        command
    }

    /// The master of ROS 1.
    pub fn master(&mut self) -> &mut Master {
        match self {
            Self::One(master) => master,
            Self::Two { .. } => panic!("ROS 2 has no master"),
        }
    }
}

impl Master {
    async fn begin(port: u16, home: &Path) -> Process {
        let mut command = program("rosmaster", "ros-core");
        command.args(["--core", "-p", &port.to_string()]).env("ROS_LOG_DIR", home).env("ROS_IP", "127.0.0.1");
        let process = Process::start(command);
        until(SOON, "a master that listens", || async { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
        process
    }

    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts again, and knows nobody.
    pub async fn start_again(&mut self) {
        self.process = Self::begin(self.port, self.home.path()).await;
    }
}

/// A script of `tests/programs` for Debian's own Python, which has what Debian packages of ROS.
fn debian_python(arguments: &[&str]) -> Command {
    let python = Path::new("/usr/bin/python3");
    assert!(python.is_file(), "Debian's Python is needed for this test: apt-get install -y python3");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(arguments[0])).args(&arguments[1..]);
    command
}

/// A robot that does as it is told (`tests/programs/ros1_robot.py`, `ros2_robot.py`).
pub struct Robot {
    conversation: Conversation,
    /// What it has said and nobody has asked for yet.
    heard: VecDeque<Value>,
}

impl Robot {
    pub async fn tell(&mut self, words: &Value) {
        self.conversation.say(&words.to_string()).await;
    }

    /// Publishes pictures by topic: `count` of them each, or for ever.
    pub async fn publish(&mut self, topics: Value, rate: f64, count: Option<u32>) {
        self.tell(&json!({"do": "publish", "topics": topics, "rate": rate, "count": count})).await;
    }

    pub async fn listen(&mut self, topic: &str, kind: &str) {
        self.tell(&json!({"do": "listen", "topic": topic, "type": kind})).await;
        self.says("listening").await;
    }

    /// The next thing that it says of this kind, soon.
    pub async fn says(&mut self, kind: &str) -> Value {
        self.says_within(kind, SOON).await
    }

    async fn says_within(&mut self, kind: &str, deadline: Duration) -> Value {
        if let Some(at) = self.heard.iter().position(|it| it.get(kind).is_some()) {
            return self.heard.remove(at).unwrap();
        }
        loop {
            let said = self.conversation.hear_within(deadline).await;
            if said.get(kind).is_some() {
                return said;
            }
            self.heard.push_back(said);
        }
    }

    /// How many messages it published, once it has.
    pub async fn has_published(&mut self, deadline: Duration) -> u64 {
        self.says_within("published", deadline).await["published"].as_u64().unwrap()
    }

    /// Waits for a command to drive like this, forwards and to the left, that comes after a time in seconds since 1970. Returns
    /// when it came.
    pub async fn is_driven(&mut self, forward: f64, left: f64, after: f64) -> f64 {
        loop {
            let said = self.says("twist").await;
            let at = said["at"].as_f64().unwrap();
            if at >= after && said["twist"] == json!([forward, 0.0, 0.0, 0.0, 0.0, left]) {
                return at;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.conversation.id(), signal).expect("the robot runs");
    }
}
