//! `/broadcast`: this device as a camera. The camera is Chromium's own, which shows a clock.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{arrives, becomes, choose, log_in, reads};
use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile, axe::serious_faults, browser::Browser, link::Link, nginx::Nginx,
    port::free_port, users::PASSWORD,
};

/// A change must show in what is sent within this, also where the network is slow.
const TAKES_EFFECT: Duration = Duration::from_secs(2);

async fn state(browser: &Browser) -> String {
    browser.run("return document.querySelector('main').dataset.state ?? ''").await.as_str().unwrap().to_owned()
}

pub(super) async fn state_becomes(browser: &Browser, wanted: &str) {
    let look = async || (state(browser).await, browser.text("#problem").await);
    becomes(SOON * 2, format!("the page is {wanted}"), look, |(state, _)| state == wanted).await;
}

/// Opens the page and starts to send.
async fn send(browser: &Browser, url: &str, resolution: &str, rate: &str, quality: &str) {
    browser.client.goto(url).await.unwrap();
    state_becomes(browser, "idle").await;
    choose(browser, "#resolution", resolution).await;
    choose(browser, "#rate", rate).await;
    choose(browser, "#quality", quality).await;
    browser.click("#start").await;
    state_becomes(browser, "sending").await;
}

/// A frame that was taken: its number, its size in pixels, its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Frame {
    seq: u64,
    size: (u32, u32),
    bytes: usize,
}

impl Frame {
    fn of(answer: &Answer) -> Self {
        let picture = image::load_from_memory_with_format(&answer.body, image::ImageFormat::Jpeg).unwrap();
        let seq = answer.header("x-frame-seq").parse().unwrap();
        Self { seq, size: (picture.width(), picture.height()), bytes: answer.body.len() }
    }
}

/// Takes the next frame.
async fn take(server: &Server, session: &str) -> Frame {
    let answer = server.get(&format!("/image/{session}?wait=10&empty=204")).await;
    assert_eq!(answer.status, 200, "a frame comes: {answer:?}");
    Frame::of(&answer)
}

/// The newest frame.
async fn newest(server: &Server, session: &str) -> Frame {
    Frame::of(&server.get(&format!("/snapshot/{session}")).await)
}

async fn stats(server: &Server, session: &str) -> Value {
    server.get(&format!("/stats?session={session}")).await.json()["sessions"][0].clone()
}

async fn rate_becomes(server: &Server, session: &str, range: std::ops::Range<f64>) {
    let rate = async || stats(server, session).await["fps"].as_f64().unwrap_or_default();
    becomes(SOON, format!("{range:?} frames a second come"), rate, |rate| range.contains(rate)).await;
}

fn number(text: &str) -> Option<f64> {
    text.split(|c: char| c.is_whitespace() || c == '/').next()?.replace(',', "").parse().ok()
}

#[tokio::test]
async fn a_camera_is_sent_in_order_as_chosen_and_choices_take_effect_at_once() {
    let server = Server::start(&[]).await;
    let browser = Browser::with_camera().await;
    send(&browser, &server.url("/broadcast?session=phone"), "320x240", "10", "80").await;
    let mut last = take(&server, "phone").await;
    for _ in 0..20 {
        let frame = take(&server, "phone").await;
        assert_eq!((frame.seq, frame.size), (last.seq + 1, (320, 240)), "after {last:?}");
        last = frame;
    }
    rate_becomes(&server, "phone", 7.0..11.0).await;
    reads(&browser, "#sent-rate", |text| number(text).is_some_and(|rate| (7.0..11.0).contains(&rate))).await;
    reads(&browser, "#sent-bytes", |text| number(text).is_some_and(|bytes| bytes > 0.0)).await;
    reads(&browser, "#viewers", |text| number(text) == Some(0.0)).await;
    let preview =
        browser.run("const it = document.querySelector('#preview'); return it.videoWidth > 0 && !it.paused").await;
    assert_eq!(preview, true, "one sees what is sent");
    browser.screenshot("broadcast-sending").await;
    assert_eq!(serious_faults(&browser).await, [""; 0]);

    for (resolution, size) in [("160x120", (160, 120)), ("1280x720", (1280, 720)), ("640x480", (640, 480))] {
        choose(&browser, "#resolution", resolution).await;
        let what = format!("frames are {resolution}");
        becomes(TAKES_EFFECT, what, || newest(&server, "phone"), |frame| frame.size == size).await;
    }
    let good = newest(&server, "phone").await.bytes;
    choose(&browser, "#quality", "10").await;
    let is_small = |frame: &Frame| frame.bytes * 3 < good * 2;
    becomes(TAKES_EFFECT, format!("frames are smaller than {good} bytes"), || newest(&server, "phone"), is_small).await;
    choose(&browser, "#rate", "2").await;
    rate_becomes(&server, "phone", 1.0..2.6).await;
    choose(&browser, "#rate", "20").await;
    rate_becomes(&server, "phone", 13.0..22.0).await;

    let link = browser.run("return document.querySelector('#session-link').href").await;
    assert_eq!(link, server.url("/view/phone"));
    browser.click("#start").await;
    state_becomes(&browser, "idle").await;
    let stopped = stats(&server, "phone").await["seq"].clone();
    let age = async || stats(&server, "phone").await;
    let stats = becomes(SOON, "nothing comes any more", age, |stats| stats["ageMs"].as_u64().unwrap() > 1000).await;
    assert_eq!(stats["seq"], stopped);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_slow_network_is_sent_less_and_what_is_sent_is_not_late() {
    // A tenth of what the camera would send.
    const BYTES_PER_SECOND: u32 = 60_000;
    let server = Server::start(&[]).await;
    let link = Link::to(server.address());
    let browser = Browser::with_camera().await;
    send(&browser, &link.url("/broadcast?session=phone"), "640x480", "25", "90").await;
    rate_becomes(&server, "phone", 15.0..27.0).await;
    link.limit(BYTES_PER_SECOND);
    rate_becomes(&server, "phone", 0.3..12.0).await;
    reads(&browser, "#skipped", |text| number(text).is_some_and(|skipped| skipped > 10.0)).await;
    // What the camera sees now is what comes next: another size tells them apart.
    for (resolution, size) in [("320x240", (320, 240)), ("640x480", (640, 480)), ("320x240", (320, 240))] {
        rate_becomes(&server, "phone", 0.3..22.0).await;
        let start = Instant::now();
        choose(&browser, "#resolution", resolution).await;
        becomes(SOON * 3, "the size changes", || newest(&server, "phone"), |frame| frame.size == size).await;
        let took = start.elapsed();
        assert!(took < TAKES_EFFECT, "a picture came {took:?} after it was taken");
    }
    assert_eq!(state(&browser).await, "sending");
}

#[tokio::test]
async fn sending_goes_on_by_itself_after_a_server_restart_and_a_silent_network() {
    let port = free_port().to_string();
    let start = async || Server::start_with(&["--ip", "127.0.0.1", "--port", &port], &[]).await;
    let mut server = start().await;
    let link = Link::to(server.address());
    let browser = Browser::with_camera().await;
    send(&browser, &link.url("/broadcast?session=phone"), "320x240", "10", "60").await;
    rate_becomes(&server, "phone", 5.0..12.0).await;
    browser.run("window.survives = true").await;
    server.process().kill().await;
    state_becomes(&browser, "waiting").await;
    server = start().await;
    rate_becomes(&server, "phone", 5.0..12.0).await;
    state_becomes(&browser, "sending").await;
    link.fall_silent();
    state_becomes(&browser, "waiting").await;
    link.heal();
    state_becomes(&browser, "sending").await;
    rate_becomes(&server, "phone", 5.0..12.0).await;
    assert_eq!(browser.run("return window.survives").await, true, "without a reload");
}

#[tokio::test]
async fn sending_goes_on_while_the_page_is_hidden_and_keeps_the_screen_awake() {
    let server = Server::start(&[]).await;
    let browser = Browser::with_camera().await;
    let note = "const { request } = navigator.wakeLock;
        navigator.wakeLock.request = function (...kind) {
            const lock = request.apply(this, kind);
            lock.then(lock => (window.lock = lock));
            return lock;
        }";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": note })).await;
    send(&browser, &server.url("/broadcast?session=phone"), "320x240", "10", "60").await;
    rate_becomes(&server, "phone", 5.0..12.0).await;
    let lock = async || browser.run("return window.lock ? !window.lock.released : null").await;
    becomes(SOON, "the screen is kept awake", lock, |is_held| is_held == true).await;
    browser.hide().await;
    let before = stats(&server, "phone").await["seq"].as_u64().unwrap();
    let newest = async || stats(&server, "phone").await["seq"].as_u64().unwrap();
    becomes(SOON, "pictures still come", newest, |newest| *newest > before + 20).await;
    browser.show().await;
    becomes(SOON, "the screen is kept awake again", lock, |is_held| is_held == true).await;
    browser.click("#start").await;
    becomes(SOON, "the screen may sleep", lock, |is_held| is_held == false).await;
}

#[tokio::test]
async fn behind_a_proxy_that_lets_no_websocket_through_pictures_are_sent_one_by_one() {
    let server = Server::start(&[]).await;
    let nginx = Nginx::before(&server, "").await;
    let browser = Browser::with_camera().await;
    send(&browser, &nginx.url("/broadcast?session=phone"), "320x240", "5", "60").await;
    rate_becomes(&server, "phone", 3.0..6.0).await;
    reads(&browser, "#connection", |text| text.contains("one by one") || text.contains("picture by picture")).await;
}

#[tokio::test]
async fn a_session_of_its_own_is_in_the_address_and_its_link_shows_what_is_sent() {
    let server = Server::start(&[("BASE_PATH", "/cams")]).await;
    let browser = Browser::with_camera().await;
    send(&browser, &server.url("/cams/broadcast"), "320x240", "5", "60").await;
    let address = browser.client.current_url().await.unwrap();
    let session = address.query_pairs().find(|(name, _)| name == "session").expect("a session").1.into_owned();
    let link = browser.run("return document.querySelector('#session-link').href").await;
    assert_eq!(link, server.url(&format!("/cams/view/{session}")));
    let viewer = Browser::start().await;
    viewer.client.goto(link.as_str().unwrap()).await.unwrap();
    super::all_stand(&viewer, SOON, 1, |_, standing| standing.state == "live").await;
    reads(&browser, "#viewers", |text| number(text) == Some(1.0)).await;
    browser.client.refresh().await.unwrap();
    state_becomes(&browser, "idle").await;
    arrives(&browser, address.as_str()).await;
}

#[tokio::test]
async fn who_may_publish_one_session_broadcasts_to_that_and_is_told_of_others() {
    let file = UsersFile::with(&[("ann", &["--publish", "cam-*", "--view", "cam-*"])]).await;
    let server = file.server(&Backend::Memory, &[]).await;
    let browser = Browser::with_camera().await;
    browser.client.goto(&server.url("/broadcast?session=cam-1")).await.unwrap();
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, "/broadcast?session=cam-1").await;
    state_becomes(&browser, "idle").await;
    browser.click("#start").await;
    state_becomes(&browser, "sending").await;
    let snapshot = async || {
        let request = server.request("GET", "/snapshot/cam-1").basic_auth("ann", Some(PASSWORD));
        Answer::to(request).await
    };
    becomes(SOON, "a frame is there", snapshot, |answer| !answer.has("x-no-data")).await;

    browser.client.goto(&server.url("/broadcast?session=other")).await.unwrap();
    state_becomes(&browser, "idle").await;
    browser.click("#start").await;
    reads(&browser, "#problem", |text| text.contains("publish") || text.contains("not allowed")).await;
    state_becomes(&browser, "idle").await;
}

#[tokio::test]
async fn where_there_is_no_camera_to_be_had_the_page_says_what_to_do() {
    let server = Server::start(&[]).await;
    let denied = Browser::with_camera_denied().await;
    denied.client.goto(&server.url("/broadcast?session=phone")).await.unwrap();
    state_becomes(&denied, "idle").await;
    denied.click("#start").await;
    let problem = reads(&denied, "#problem", |text| text.len() > 20).await.to_lowercase();
    assert!(["allow", "permission"].iter().any(|word| problem.contains(word)), "{problem}");
    assert_eq!(state(&denied).await, "idle");
    assert_eq!(denied.complaints().await, [""; 0]);

    let plain = server.url("/broadcast?session=phone").replace("127.0.0.1", "cams.test");
    denied.client.goto(&plain).await.unwrap();
    let problem = reads(&denied, "#problem", |text| text.len() > 20).await.to_lowercase();
    assert!(problem.contains("https"), "{problem}");
    assert_eq!(denied.complaints().await, [""; 0]);
    assert_eq!(server.stats().await, []);
}
