//! A real server process, and the requests that the tests make.

use std::{fmt::Debug, net::SocketAddr, process::Command, time::Duration};

use image_streamer::frame::Seq;
use nix::{sys::signal::Signal, unistd::Pid};
use reqwest::{
    Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
    multipart::{Form, Part},
    redirect::Policy,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{process::Process, tls::Trust};

/// Longer than any answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(70);

/// A server on a free port of the loopback.
pub struct Server {
    process: Process,
    address: SocketAddr,
    client: Client,
    /// Whom clients trust, for a server that speaks HTTPS.
    trust: Option<Trust>,
}

/// What a client speaks HTTP over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The command of the server's binary with these variables and no others but WORKERS: tests have several threads work on
/// one store, however few cores the machine has.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    // The tests' HTTP client wants it to be chosen even where it speaks no HTTPS. It fails where that has been done already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-streamer"));
    command.args(arguments).env_clear().env("WORKERS", "2").envs(variables.iter().copied());
    command
}

impl Server {
    pub async fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_with(&["--ip", "127.0.0.1", "--port", "0"], variables).await
    }

    pub async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut process = Process::start(command(arguments, variables));
        let line = process.line_with("listening on http").await;
        let address = line.split("://").nth(1).and_then(|rest| rest.split('"').next()?.trim().parse().ok());
        let client = client().build().unwrap();
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { process, address, client, trust: None }
    }

    /// From now on it is asked over HTTPS, and must show a certificate that is trusted.
    pub fn trust(&mut self, trust: Trust) {
        let client = client().resolve(&trust.name, self.address).tls_backend_preconfigured(trust.config());
        self.client = client.build().unwrap();
        self.trust = Some(trust);
    }

    /// Whom its clients trust.
    pub fn trusted(&self) -> &Trust {
        self.trust.as_ref().expect("a server that speaks HTTPS")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        match &self.trust {
            Some(trust) => format!("https://{}:{}{path}", trust.name, self.address.port()),
            None => format!("http://{}{path}", self.address),
        }
    }

    pub fn id(&self) -> Pid {
        self.process.id()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn into_process(self) -> Process {
        self.process
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// A connection for what no well-behaved client would send.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that HTTP can be spoken over, encrypted where the server wants that.
    pub async fn open(&self) -> Box<dyn Stream> {
        match &self.trust {
            Some(trust) => Box::new(trust.connect(self.address).await.unwrap()),
            None => Box::new(self.connect().await),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    pub async fn ask(&self, method: &str, path: &str) -> Answer {
        Answer::to(self.request(method, path)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::to(self.request("POST", path).body(body)).await
    }

    /// Pushes a picture that must be accepted, and returns its number.
    pub async fn push(&self, session: &str, picture: &[u8]) -> Seq {
        let request = self.request("POST", &format!("/image/{session}")).header("accept", "application/json");
        let answer = Answer::to(request.body(picture.to_vec())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Seq(answer.json()["seq"].as_u64().unwrap())
    }

    /// Takes a frame; its bytes, or `None` where there was none.
    pub async fn take(&self, session: &str) -> Option<Vec<u8>> {
        let answer = self.get(&format!("/image/{session}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (!answer.has("x-no-data")).then_some(answer.body)
    }

    /// `(id, len)` of every session.
    pub async fn stats(&self) -> Vec<(String, u64)> {
        let answer = self.get("/stats").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let stats = answer.json();
        let sessions: Vec<_> = stats["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|session| (session["id"].as_str().unwrap().to_owned(), session["len"].as_u64().unwrap()))
            .collect();
        assert_eq!(stats["numSessions"].as_u64(), Some(sessions.len() as u64));
        assert_eq!(stats["numImages"].as_u64(), Some(sessions.iter().map(|(_, len)| len).sum()));
        sessions
    }

    /// The value of a metric, by its name with its labels as they are written.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {answer:?}")).parse().unwrap()
    }

    /// Memory in use, in bytes (`VmRSS` of proc(5)).
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

fn client() -> ClientBuilder {
    Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().redirect(Policy::none())
}

/// A form with one file.
pub fn form_with(field: &'static str, picture: &[u8]) -> Form {
    Form::new().part(field, file_part(picture))
}

pub fn file_part(picture: &[u8]) -> Part {
    Part::bytes(picture.to_vec()).file_name("picture.jpg").mime_str("image/jpeg").unwrap()
}

/// An answer that was read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.unwrap()
    }

    pub async fn try_to(request: RequestBuilder) -> reqwest::Result<Self> {
        let response: Response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self { status, headers, body: response.bytes().await?.to_vec() })
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn header(&self, name: &str) -> &str {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.get(&name).map(HeaderValue::to_str).unwrap_or_else(|| panic!("no {name} in {self:?}")).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error, whose form is checked on the way.
    pub fn error_code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let body = self.json();
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.len() > 20, "an error that says something: {body}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(1));
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Checks that this is an error with this status and code.
    #[track_caller]
    pub fn is_refused(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.error_code().as_str()), (status, code), "{self:?}");
    }
}

impl Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &body)
            .finish()
    }
}
