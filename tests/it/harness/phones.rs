//! Phones: clients of the Socket.IO gateway, real ones of the versions in use, and what becomes of their pictures.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Backend, SOON, Server,
    process::program,
    python::{Conversation, script},
};

/// How long a picture may take from a phone to whoever asks for it, on a busy machine and with other pictures before it.
const ARRIVAL_SECONDS: u32 = 30;
/// What every picture begins with and ends with.
const JPEG: ([u8; 4], [u8; 2]) = ([0xff, 0xd8, 0xff, 0xe0], [0xff, 0xd9]);

/// A server with the gateway on a port of its own.
pub struct Gateway {
    pub server: Server,
    url: String,
}

impl Gateway {
    /// A server that holds frames in memory, with these variables besides.
    pub async fn start(variables: &[(&str, &str)]) -> Self {
        Self::on(&Backend::Memory, variables).await
    }

    pub async fn on(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let gateway = [("SOCKETIO_HOST", "127.0.0.1"), ("SOCKETIO_PORT", "0")];
        Self::of(backend.server(&[&gateway, variables].concat()).await).await
    }

    /// That of a server which was started with `SOCKETIO_PORT`, and of whose lines none has been read since.
    pub async fn of(mut server: Server) -> Self {
        let line = server.process().line_with("listening for Socket.IO on http").await;
        let url = line.split_whitespace().find(|word| word.starts_with("http"));
        let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).trim_matches('"').to_owned();
        Self { server, url }
    }

    /// Where phones connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn address(&self) -> SocketAddr {
        let address = self.url.split("://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
        address.unwrap_or_else(|| panic!("no address in {:?}", self.url))
    }

    /// Starts phones that connect to it: `options` as `tests/programs/phone.py` has them.
    pub fn phones(&self, client: Client, options: &Value) -> Phones {
        Phones::start(client, &self.url, options)
    }

    /// Reads the frames of a session from its first on: they are the first `count` pictures of a phone, each of this size,
    /// complete, in order, and so far all.
    pub async fn received(&self, session: &str, phone: u64, count: u64, bytes: usize) {
        let last = self.next_are(session, 0, phone, 1..=count, bytes).await;
        self.nothing_after(session, last).await;
    }

    /// Reads the frames of a session after a number: they are these pictures of a phone and none between. Returns the number
    /// of the last. It may be read while they come. After 0 are those that are held, and before them came pictures from 1 on.
    pub async fn next_are(
        &self,
        session: &str,
        mut after: u64,
        phone: u64,
        pictures: impl IntoIterator<Item = u64>,
        bytes: usize,
    ) -> u64 {
        for number in pictures {
            let path = format!("/frames/{session}?after={after}&wait={ARRIVAL_SECONDS}");
            let answer = self.server.get(&path).await;
            assert_eq!(answer.status, 200, "picture {number} comes to {session}: {answer:?}");
            let missed = if after == 0 { number - 1 } else { 0 };
            assert_eq!(answer.header("x-frames-missed"), missed.to_string(), "before picture {number} of {session}");
            is_picture(&answer.body, phone, number, bytes);
            after = answer.header("x-frame-seq").parse().unwrap();
        }
        after
    }

    pub async fn nothing_after(&self, session: &str, after: u64) {
        let answer = self.server.get(&format!("/frames/{session}?after={after}")).await;
        assert_eq!(answer.status, 204, "no further frame in {session}: {}", what(&answer.body));
    }

    /// How many frames have come in from phones.
    pub async fn frames_in(&self) -> u64 {
        self.server.metric(r#"image_streamer_frames_in_total{way="socketio"}"#).await as u64
    }
}

/// The server that the app comes with, in python-socketio 4.6 and eventlet.
pub struct AndroidCamServer {
    program: Conversation,
    url: String,
}

impl AndroidCamServer {
    pub async fn start() -> Self {
        let mut program = Conversation::start(script("androidcam_server.py"));
        let port = program.hear().await["port"].as_u64().unwrap();
        Self { program, url: format!("http://127.0.0.1:{port}") }
    }

    /// Where phones connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn id(&self) -> Pid {
        self.program.id()
    }

    /// How many frames have come in, and by user the SHA-256 of the newest, in hexadecimal digits.
    pub async fn received(&mut self) -> (u64, Value) {
        self.program.say("").await;
        let mut told = self.program.hear().await;
        (told["frames"].as_u64().unwrap(), told["newest"].take())
    }
}

/// Picture `number` of a phone, as the programs make it: both count from 1.
pub fn picture(phone: u64, number: u64, bytes: usize) -> Vec<u8> {
    let mut picture = Vec::with_capacity(bytes);
    picture.extend(JPEG.0);
    picture.extend(format!("phone {phone} frame {number};").bytes());
    let end = bytes - JPEG.1.len();
    let mut from = ((phone * 7919 + number * 104_729) % FILLER.len() as u64) as usize;
    while picture.len() < end {
        let length = (FILLER.len() - from).min(end - picture.len());
        picture.extend(&FILLER[from..from + length]);
        from = 0;
    }
    picture.extend(JPEG.1);
    picture
}

/// What pictures are filled with, over and over. Each begins elsewhere in it, and its length divides no usual size of a
/// buffer, so that no part can stand for another.
static FILLER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_u32;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(&mut byte).take(65_521).collect()
});

/// Checks that these bytes are picture `number` of a phone, to the last.
#[track_caller]
pub fn is_picture(bytes: &[u8], phone: u64, number: u64, length: usize) {
    let expected = picture(phone, number, length);
    if bytes != expected {
        let differs = bytes.iter().zip(&expected).position(|(one, other)| one != other);
        panic!("expected {}, got {}, which differs from byte {differs:?} on", what(&expected), what(bytes));
    }
}

/// Which picture bytes say that they are.
fn what(bytes: &[u8]) -> String {
    let label = bytes.strip_prefix(&JPEG.0).and_then(|rest| rest.split(|byte| *byte == b';').next());
    let label = label.filter(|label| label.len() < 60).map(String::from_utf8_lossy);
    format!("{:?} of {} bytes", label.unwrap_or("no picture of a phone".into()), bytes.len())
}

/// The clients that phones are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// python-socketio 4.6, which speaks Engine.IO 3 and Socket.IO protocol 4, and sends bytes as they are.
    Python,
    /// socket.io-client 2.x: the same protocols as the app; it sends Base64 where it polls.
    Js2,
    /// socket.io-client 4.x: Engine.IO 4 and Socket.IO protocol 5.
    Js4,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::Python, Self::Js2, Self::Js4];

    fn command(self) -> (Command, &'static str) {
        let node = || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let modules = root.join("target/test-node/node_modules");
            for module in ["socket.io-client-2", "socket.io-client-4"] {
                assert!(modules.join(module).is_dir(), "{module} is needed for this test: make setup");
            }
            let mut node = program("node", "nodejs");
            node.arg(root.join("tests/programs/phone.js"));
            node
        };
        match self {
            Self::Python => (script("phone.py"), "python"),
            Self::Js2 => (node(), "2"),
            Self::Js4 => (node(), "4"),
        }
    }
}

/// The ways from a phone to the server.
pub const TRANSPORTS: [&[&str]; 3] = [&["polling"], &["websocket"], &["polling", "websocket"]];

/// A process with one phone or many. It is killed when this is dropped.
pub struct Phones {
    child: Child,
    input: Option<ChildStdin>,
    output: mpsc::UnboundedReceiver<Value>,
    said: Vec<Value>,
}

impl Phones {
    pub fn start(client: Client, url: &str, options: &Value) -> Self {
        let (command, name) = client.command();
        let mut all = json!({ "client": name, "url": url });
        all.as_object_mut().unwrap().extend(options.as_object().expect("options are an object").clone());
        let mut command = tokio::process::Command::from(command);
        command.arg(all.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        let (sender, output) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, input, output, said: Vec::new() }
    }

    /// The next such event, from now on.
    pub async fn next(&mut self, event: &str) -> Value {
        self.next_within(SOON, event).await
    }

    pub async fn next_within(&mut self, deadline: Duration, event: &str) -> Value {
        let end = Instant::now() + deadline;
        loop {
            let said = self.hear(end, event).await;
            if said["event"] == event {
                return said;
            }
        }
    }

    /// Waits until there have been so many such events, since the beginning.
    pub async fn have_said(&mut self, count: usize, event: &str, deadline: Duration) {
        let end = Instant::now() + deadline;
        while self.all(event).len() < count {
            self.hear(end, &format!("{count} times {event}")).await;
        }
    }

    /// Every such event that has been waited for or passed over.
    pub fn all(&self, event: &str) -> Vec<&Value> {
        self.said.iter().filter(|said| said["event"] == event).collect()
    }

    /// Lets phones send that `hold`.
    pub async fn go(&mut self) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(b"go\n").await.expect("the phones read");
    }

    /// Stops it without a word to the server: the connections stay open, and nobody is there.
    pub fn fall_silent(&self) {
        kill(self.id(), Signal::SIGSTOP).expect("the process runs");
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("the process runs") as i32)
    }

    /// Ends it at once; the system closes its connections.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Hangs up, and returns everything that it said.
    pub async fn hang_up(mut self) -> Said {
        drop(self.input.take());
        self.done_within(SOON).await
    }

    /// Waits until the phones have sent everything and hung up, and returns everything that they said.
    pub async fn done_within(mut self, deadline: Duration) -> Said {
        let end = Instant::now() + deadline;
        loop {
            match timeout_at(end, self.output.recv()).await {
                Ok(Some(event)) => self.said.push(event),
                Ok(None) => break,
                Err(_) => panic!("the phones do not end within {deadline:?}; they said {:#?}", self.said),
            }
        }
        let status = timeout(SOON, self.child.wait()).await.expect("the process ends soon").unwrap();
        assert!(status.success(), "{status}; said was {:#?}", self.said);
        Said(self.said)
    }

    async fn hear(&mut self, end: Instant, event: &str) -> Value {
        match timeout_at(end, self.output.recv()).await {
            Ok(Some(said)) => {
                self.said.push(said.clone());
                said
            }
            Ok(None) => panic!("the phones have ended without {event}; they said {:#?}", self.said),
            Err(_) => panic!("not in time: {event}; the phones said {:#?}", self.said),
        }
    }
}

/// Everything that phones have said.
#[derive(Debug)]
pub struct Said(Vec<Value>);

impl Said {
    /// Every such event, in order.
    pub fn all(&self, event: &str) -> Vec<&Value> {
        self.0.iter().filter(|said| said["event"] == event).collect()
    }

    /// The only such event.
    #[track_caller]
    pub fn one(&self, event: &str) -> &Value {
        match self.all(event)[..] {
            [said] => said,
            _ => panic!("not once: {event}; said was {:#?}", self.0),
        }
    }

    /// A number of the summary at the end: frames `handed` to the client, `sent` to the last, or `acked`.
    pub fn total(&self, number: &str) -> u64 {
        self.one("summary")[number].as_u64().unwrap()
    }
}
