//! A real browser: Debian's Chromium, driven through its chromedriver.

use std::{path::Path, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
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
    port::free_port,
    process::{Process, program},
    until,
};

/// How wide the window is, in pixels.
pub const WINDOW_WIDTH: u32 = 1000;
/// How wide that of a phone is.
pub const PHONE_WIDTH: u32 = 390;

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
        browser.decide("camera", "denied").await;
        browser
    }

    /// Lets the page use something that it would have to ask for.
    pub async fn let_use(&self, what: &str) {
        self.decide(what, "granted").await;
    }

    async fn decide(&self, what: &str, state: &str) {
        self.driver("permissions", json!({ "descriptor": { "name": what }, "state": state })).await;
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
            &format!("--window-size={WINDOW_WIDTH},700"),
            // Pictures of whole pages would have one over their edge.
            "--hide-scrollbars",
            &profile_argument,
        ];
        let arguments = [&arguments, more].concat();
        let capabilities = json!({
            // Those of the tests are nobody's.
            "acceptInsecureCerts": true,
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

    /// Its processes, which are those that name its profile, whose command line has this in it.
    pub fn processes(&self, with: &str) -> Vec<i32> {
        let profile = self.profile.path().as_os_str().as_encoded_bytes();
        let has = |command: &[u8], part: &[u8]| part.is_empty() || command.windows(part.len()).any(|it| it == part);
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = process.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if has(&command, profile) && has(&command, with.as_bytes()) {
                found.push(id);
            }
        }
        found
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Keeps what is seen as test output, for people.
    pub async fn screenshot(&self, name: &str) {
        keep(name, &self.client.screenshot().await.unwrap());
    }

    /// The same of the whole page, down to what one would scroll to.
    pub async fn screenshot_of_all(&self, name: &str) {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        keep(name, &BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).unwrap());
    }

    /// The next pages, and this one, are for who likes it `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            // A colour that is just changing is no colour to look at.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The window is as large as a common phone, and does what those do with pages that are too wide.
    pub async fn be_a_phone(&self) {
        let phone = json!({ "width": PHONE_WIDTH, "height": 844, "deviceScaleFactor": 2, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", phone).await;
    }

    /// The window is as large as this.
    pub async fn resize(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
    }

    /// Puts the window away; the page knows that nobody sees it.
    pub async fn hide(&self) {
        self.client.minimize_window().await.unwrap();
        self.is_seen("hidden").await;
    }

    /// Gets it back.
    pub async fn show(&self) {
        self.client.set_window_rect(0, 0, WINDOW_WIDTH, 700).await.unwrap();
        self.is_seen("visible").await;
    }

    async fn is_seen(&self, state: &str) {
        until(SOON, format!("the page is {state}"), || async {
            (self.run("return document.visibilityState").await == state).then_some(())
        })
        .await;
    }

    /// Presses keys, one after the other, wherever the page has its focus.
    pub async fn press_keys(&self, keys: &str) {
        let mut actions = KeyActions::new("keyboard".into());
        for value in keys.chars() {
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.client.perform_actions(actions).await.unwrap();
    }

    pub async fn find(&self, css: &str) -> Element {
        self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Whether the page has none of these.
    pub async fn has_none(&self, css: &str) -> bool {
        self.client.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    pub async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// What is to be read of the first of these; nothing where there is none, and while one page gives way to another.
    pub async fn text(&self, css: &str) -> String {
        let script =
            "const it = document.querySelector(arguments[0]); return it?.checkVisibility() ? it.innerText : ''";
        let text = self.client.execute(script, vec![css.into()]).await;
        text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
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

/// Keeps a picture as test output.
fn keep(name: &str, png: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(format!("{name}.png")), png).unwrap();
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

/// The driver's end would leave the browser behind, in a group of its own.
impl Drop for Browser {
    fn drop(&mut self) {
        for id in self.processes("") {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
