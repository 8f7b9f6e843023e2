//! A real browser: Debian's Chromium, driven through its chromedriver.

use std::{path::Path, str::FromStr};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
    key::Key,
    wd::WebDriverCompatibleCommand,
};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    SOON,
    process::{Process, program},
    redis::free_port,
    until,
};

/// A browser without a window, and the driver that ends it.
pub struct Browser {
    pub client: Client,
    _driver: Process,
    profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One with a camera, which shows a moving picture, and a person who lets every page use it.
    pub async fn with_camera() -> Self {
        Self::start_with(&["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]).await
    }

    /// One with a camera, and a person who lets no page use it.
    pub async fn with_camera_denied() -> Self {
        let browser = Self::start_with(&["--use-fake-device-for-media-stream"]).await;
        browser.driver("permissions", json!({ "descriptor": { "name": "camera" }, "state": "denied" })).await;
        browser
    }

    async fn start_with(more: &[&str]) -> Self {
        drop(program("chromium", "chromium"));
        let port = free_port();
        let mut driver = program("chromedriver", "chromium-driver");
        driver.arg(format!("--port={port}"));
        let driver = Process::start(driver);
        let profile = tempfile::tempdir().unwrap();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            // A name that is not this machine's for the browser: it then takes a plain connection for what it is.
            "--host-resolver-rules=MAP cams.test 127.0.0.1",
            "--window-size=1000,700",
            &profile_argument,
        ];
        let arguments = [&arguments, more].concat();
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let url = format!("http://127.0.0.1:{port}");
        let client = until(SOON * 3, "chromedriver starts a browser", || async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.clone()).connect(&url).await.ok()
        });
        Self { client: client.await, _driver: driver, profile }
    }

    /// Says something to the driver that WebDriver clients have no words for.
    async fn driver(&self, command: &'static str, body: Value) -> Value {
        self.client.issue_cmd(DriverCommand { command, body }).await.unwrap()
    }

    /// Says something to the browser's own tools for developers, about the tab that is open.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// What has come to one of the browser's logs since this was last asked.
    pub async fn log(&self, kind: &str) -> Vec<Value> {
        let Value::Array(entries) = self.driver("se/log", json!({ "type": kind })).await else { unreachable!() };
        entries
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Keeps what is seen as test output, for people.
    pub async fn screenshot(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), self.client.screenshot().await.unwrap()).unwrap();
    }

    /// Serves a page once, from an origin of its own, and returns its address.
    pub async fn page_of_another_site(&self, body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let page = format!("<!doctype html><title>elsewhere</title><link rel=icon href=data:,>{body}");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
            let _ = socket.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes()).await;
        });
        format!("http://{address}/")
    }
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct DriverCommand {
    command: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for DriverCommand {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.expect("a session"), self.command))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// The driver's end would leave the browser behind, in a group of its own. Its processes are those that name its profile.
impl Drop for Browser {
    fn drop(&mut self) {
        let profile = self.profile.path().as_os_str().as_encoded_bytes();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = process.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if command.windows(profile.len()).any(|window| window == profile) {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
    }
}
