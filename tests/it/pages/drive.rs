//! `/drive/{session}`: somebody drives, and the vehicle stands still whenever that somebody is not there.

use std::time::Duration;

use fantoccini::{
    Locator,
    actions::{InputSource, KeyAction, KeyActions, MouseActions, PointerAction},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{arrives, becomes, choose, reads};
use crate::harness::{
    SOON, Server,
    axe::serious_faults,
    browser::Browser,
    cameras::Cameras,
    drivers::{Peer, STOP, STOP_SLACK},
    link::Link,
};

const LEASE: Duration = Duration::from_millis(250);
/// Longer than the page takes to look at its keys.
const BEATS: Duration = Duration::from_millis(100);
const STANDS: &str = r#"{"linear":{"x":0},"angular":{"z":0}}"#;

/// A server, a vehicle that has a camera, and a browser that is to drive it.
struct Stage {
    server: Server,
    vehicle: Peer,
    browser: Browser,
    _camera: Cameras,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start(&[]).await;
        let vehicle = Peer::vehicle(&server, "car", LEASE).await;
        let camera = Cameras::start(&server.url(""), None, &["car".to_owned()], Duration::from_millis(200));
        let browser = Browser::start().await;
        let stage = Self { server, vehicle, browser, _camera: camera };
        stage.open(&stage.server.url("/drive/car")).await;
        stage
    }

    async fn open(&self, url: &str) {
        self.browser.client.goto(url).await.unwrap();
        self.link_is("good").await;
        reads(&self.browser, "#hint", |text| text.starts_with("W A S D")).await;
    }

    async fn link_is(&self, quality: &str) {
        let there = async || self.browser.run("return document.querySelector('main').dataset.link").await;
        becomes(SOON, format!("the link is {quality}"), there, |there| there == quality).await;
    }

    /// Waits until something that is pressed counts.
    async fn ready(&self) {
        reads(&self.browser, "#hint", |text| text.starts_with("W A S D")).await;
    }

    /// Presses a key as somebody does who reads the hint: a page that is held up in that very moment releases everything, as it does
    /// beside other browsers, and then it is let go of and pressed anew.
    async fn press(&self, key: char) {
        let end = Instant::now() + SOON;
        loop {
            self.ready().await;
            self.key(KeyAction::Down { value: key }).await;
            sleep(BEATS).await;
            if !self.browser.text("#hint").await.starts_with("Everything is released") {
                return;
            }
            assert!(Instant::now() < end, "what is pressed does not count");
            self.release(key).await;
        }
    }

    async fn release(&self, key: char) {
        self.key(KeyAction::Up { value: key }).await;
    }

    async fn key(&self, action: KeyAction) {
        self.browser.client.perform_actions(KeyActions::new("keyboard".into()).then(action)).await.unwrap();
    }

    /// The next command that is as wanted; others before it are passed over.
    async fn commanded(&mut self, wanted: impl Fn(&str) -> bool) -> Instant {
        let mut others = Vec::new();
        let end = Instant::now() + SOON;
        while let Some((at, message)) = self.vehicle.next_within(end - Instant::now()).await {
            let text = message.to_text().unwrap().to_owned();
            if wanted(&text) {
                return at;
            }
            others.push(text);
        }
        panic!("no command as wanted: {others:?}");
    }

    async fn moves(&mut self) -> Instant {
        self.commanded(|text| speeds(text).is_some_and(|(x, z)| x != 0.0 || z != 0.0)).await
    }

    /// It comes to a stand and stays there.
    async fn stands(&mut self) -> Instant {
        let at = self.commanded(|text| text == STANDS || text == STOP).await;
        self.stays().await;
        at
    }

    /// It is told nothing for a while, but once more that it is to stand.
    async fn stays(&mut self) {
        let end = Instant::now() + SOON;
        while let Some((_, message)) = self.vehicle.next_within(LEASE * 2).await {
            assert!(Instant::now() < end, "it is told again and again");
            let text = message.to_text().unwrap().to_owned();
            assert!(text == STANDS || text == STOP, "it stands, and is told {text}");
        }
    }
}

/// Metres and radians a second.
fn speeds(text: &str) -> Option<(f64, f64)> {
    let twist: Value = serde_json::from_str(text).ok()?;
    Some((twist["linear"]["x"].as_f64()?, twist["angular"]["z"].as_f64()?))
}

#[tokio::test]
async fn keys_stick_and_gamepad_drive_and_stop_stops() {
    let mut stage = Stage::set().await;
    for (key, x, z) in [('w', 0.5, 0.0), ('s', -0.5, 0.0), ('a', 0.0, 1.5), ('\u{E014}', 0.0, -1.5)] {
        stage.press(key).await;
        stage.commanded(|text| speeds(text) == Some((x, z))).await;
        reads(&stage.browser, "#wheel", |text| text == "You are at the wheel").await;
        stage.release(key).await;
        stage.commanded(|text| text == STANDS).await;
    }
    // It is kept from rolling on by its page alone: pings go on.
    stage.stays().await;
    choose(&stage.browser, "#limit", "40").await;
    stage.press('w').await;
    stage.commanded(|text| speeds(text) == Some((0.2, 0.0))).await;
    for stopping in ["escape", "button"] {
        match stopping {
            "escape" => stage.browser.press_keys("\u{E00C}").await,
            _ => stage.browser.click("#stop").await,
        }
        stage.stands().await;
        // What is still held counts for nothing until it has been let go of.
        stage.release('w').await;
        stage.press('w').await;
        stage.moves().await;
    }
    stage.release('w').await;
    stage.stands().await;
    stage.ready().await;

    let stick = stage.browser.find("#stick").await;
    let drag = MouseActions::new("mouse".into())
        .then(PointerAction::MoveToElement { element: stick, duration: None, x: 0.0, y: 0.0 })
        .then(PointerAction::Down { button: 0 })
        .then(PointerAction::MoveBy { duration: None, x: 0.0, y: -200.0 });
    stage.browser.client.perform_actions(drag).await.unwrap();
    stage.commanded(|text| speeds(text).is_some_and(|(x, z)| x > 0.15 && z.abs() < 0.05)).await;
    stage.browser.client.release_actions().await.unwrap();
    stage.stands().await;

    let pad = "window.pad = { connected: true, mapping: 'standard', axes: [0, 0, 0, 0], buttons: Array(17).fill({ pressed: false }) };
        navigator.getGamepads = () => [window.pad, null]";
    stage.browser.run(pad).await;
    stage.ready().await;
    stage.browser.run("window.pad.axes = [0, -1, 0, 0]").await;
    stage.commanded(|text| speeds(text) == Some((0.2, 0.0))).await;
    // As long as it is held, it stops.
    stage.browser.run("window.pad.buttons = Array(17).fill({ pressed: true })").await;
    for _ in 0..5 {
        stage.commanded(|text| text == STANDS).await;
    }
    assert_eq!(stage.browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_page_that_nobody_attends_or_that_freezes_stops_the_vehicle_in_time() {
    let mut stage = Stage::set().await;
    for way in [
        "its script hangs",
        "it is stopped",
        "another window has the focus",
        "it is left",
        "it is frozen",
        "it is hidden",
    ] {
        if way == "it is hidden" {
            // What was frozen does not get the focus of itself again.
            stage = Stage::set().await;
        }
        stage.press('w').await;
        stage.moves().await;
        // It goes on as long as it is held.
        for _ in 0..5 {
            stage.moves().await;
        }
        let begun = Instant::now();
        match way {
            "its script hangs" => {
                let hang = "setTimeout(() => { const end = Date.now() + 2000; while (Date.now() < end); }, 0)";
                stage.browser.run(hang).await;
            }
            "it is stopped" => {
                for renderer in stage.browser.processes("--type=renderer") {
                    kill(Pid::from_raw(renderer), Signal::SIGSTOP).unwrap();
                }
            }
            "it is frozen" => {
                stage.browser.devtools("Page.setWebLifecycleState", json!({ "state": "frozen" })).await;
            }
            "another window has the focus" => drop(stage.browser.run("dispatchEvent(new Event('blur'))").await),
            "it is hidden" => stage.browser.hide().await,
            _ => stage.browser.client.goto("about:blank").await.unwrap(),
        }
        let stopped = stage.stands().await;
        // By the page itself, or by the lease. The driver takes its time to do what is asked.
        let slack = if way.starts_with("it is h") || way == "it is left" { SOON } else { Duration::from_millis(300) };
        assert!(stopped - begun <= LEASE + STOP_SLACK + slack, "{way}: {:?}", stopped - begun);
        match way {
            "its script hangs" => {
                reads(&stage.browser, "#told", |text| text.contains("held up for 2")).await;
                // The key has been held all the time.
                stage.stays().await;
            }
            "it is stopped" => {
                for renderer in stage.browser.processes("--type=renderer") {
                    kill(Pid::from_raw(renderer), Signal::SIGCONT).unwrap();
                }
                reads(&stage.browser, "#told", |text| text.contains("held up for")).await;
            }
            "it is left" => stage.open(&stage.server.url("/drive/car")).await,
            _ => {}
        }
        stage.stays().await;
        if !["it is frozen", "it is hidden"].contains(&way) {
            stage.browser.client.release_actions().await.unwrap();
        }
    }
}

#[tokio::test]
async fn vicers_letters_or_a_mapping_of_ones_own_are_sent_and_kept_in_the_browser() {
    let mut stage = Stage::set().await;
    choose(&stage.browser, "#commands", "letters").await;
    for (key, letter) in [('w', "F"), ('s', "B"), ('a', "L"), ('d', "R")] {
        stage.press(key).await;
        stage.commanded(|text| text == letter).await;
        stage.release(key).await;
        stage.commanded(|text| text == "S").await;
    }
    choose(&stage.browser, "#commands", "own").await;
    choose(&stage.browser, "#forward", "go!").await;
    choose(&stage.browser, "#halt", "halt!").await;
    stage.open(&stage.server.url("/drive/car?again")).await;
    stage.press('w').await;
    stage.commanded(|text| text == "go!").await;
    reads(&stage.browser, "#sent", |text| text == "go!").await;
    stage.release('w').await;
    stage.commanded(|text| text == "halt!").await;
    assert_eq!(stage.browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn who_only_watches_takes_the_wheel_by_the_button_and_sees_what_vehicles_say() {
    let mut stage = Stage::set().await;
    let mut other = Peer::operator(&stage.server, "car").await;
    other.status(|status| status["driving"] == true).await;
    reads(&stage.browser, "#wheel", |text| text == "Driver: an operator").await;
    stage.key(KeyAction::Down { value: 'w' }).await;
    stage.vehicle.hears_nothing_for(LEASE * 2).await;
    stage.release('w').await;
    stage.browser.click("#take").await;
    reads(&stage.browser, "#wheel", |text| text == "You are at the wheel").await;
    other.is_told("wheel_taken").await;
    stage.press('w').await;
    stage.moves().await;
    stage.release('w').await;
    stage.vehicle.send("7.4 V, 21 °C");
    reads(&stage.browser, "#telemetry", |text| text.contains("7.4 V, 21 °C")).await;
    // It is taken back, and the page says so.
    drop(other);
    let mut other = Peer::connect(stage.server.address(), "/ws/control/car?take=1").await;
    other.status(|status| status["driving"] == true).await;
    reads(&stage.browser, "#told", |text| text.contains("has taken over the wheel")).await;
    for scheme in ["light", "dark"] {
        stage.browser.prefer(scheme).await;
        assert_eq!(serious_faults(&stage.browser).await, [""; 0], "{scheme}");
    }
    stage.browser.screenshot_of_all("drive-watching").await;
}

#[tokio::test]
async fn a_dead_link_is_said_stops_the_vehicle_and_nothing_held_counts_when_it_is_back() {
    let mut stage = Stage::set().await;
    let link = Link::to(stage.server.address());
    stage.open(&link.url("/drive/car")).await;
    stage.press('w').await;
    stage.moves().await;
    link.fall_silent();
    stage.stands().await;
    stage.link_is("bad").await;
    stage.link_is("connecting").await;
    reads(&stage.browser, "#hint", |text| text.starts_with("Not connected")).await;
    link.heal();
    stage.link_is("good").await;
    stage.stays().await;
    stage.release('w').await;
    stage.press('w').await;
    stage.moves().await;
    stage.release('w').await;
    stage.stands().await;
    drop(stage.vehicle);
    stage.vehicle = Peer::vehicle(&stage.server, "another", LEASE).await;
    stage.link_is("none").await;
}

#[tokio::test]
async fn the_view_page_leads_to_the_wheel_and_on_a_phone_all_that_drives_is_at_hand() {
    let stage = Stage::set().await;
    stage.browser.client.goto(&stage.server.url("/view/car")).await.unwrap();
    stage.browser.click("#drive").await;
    arrives(&stage.browser, "/drive/car").await;
    stage.browser.be_a_phone().await;
    stage.open(&stage.server.url("/drive/car")).await;
    for css in ["#stage", "#stick", "#stop"] {
        let element = stage.browser.client.find(Locator::Css(css)).await.unwrap();
        let (_, y, _, height) = element.rectangle().await.unwrap();
        assert!(height >= 100.0 && y + height <= 844.0, "{css} ends at {}", y + height);
    }
    stage.browser.screenshot("drive-phone-first-screen").await;
}
