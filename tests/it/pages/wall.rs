//! `/`: every session at once.

use std::{collections::BTreeMap, time::Duration};

use fantoccini::key::Key;
use serde_json::{Value, json};

use super::{
    Standing, all_go_on, all_stand, arrives, becomes, changes, choose, connects, note_changes, push_to, reads,
    standings, was_never_wrong,
};
use crate::harness::{
    RedisServer, SOON, Server,
    browser::Browser,
    cameras::Cameras,
    picture::PHOTO_JPEG,
    process::{Process, program},
};

const STALE_AFTER: Duration = Duration::from_secs(2);

fn names(number: usize) -> Vec<String> {
    (1..=number).map(|number| format!("camera-{number:02}")).collect()
}

/// Opens the wall with tiles so small, in a window so large, that all are seen.
async fn open_whole(browser: &Browser, server: &Server) {
    browser.resize(1920, 1200).await;
    browser.client.goto(&server.url("/?size=1")).await.unwrap();
}

#[tokio::test]
async fn thirty_sessions_are_live_over_one_websocket_then_stale_in_time_live_again_and_empty() {
    const SESSIONS: usize = 30;
    let server = Server::start(&[("STALE_AFTER", "2"), ("EXPIRE", "8")]).await;
    let (browser, sessions) = (Browser::start().await, names(SESSIONS));
    let start = || Cameras::start(&server.url(""), None, &sessions, Duration::from_millis(500));
    let cameras = start();
    open_whole(&browser, &server).await;
    note_changes(&browser).await;
    let mut shown = all_stand(&browser, SOON, SESSIONS, |_, standing| standing.state == "live").await;
    for _ in 0..3 {
        shown = all_go_on(&browser, &shown).await;
    }
    connects(&browser, "open", false).await;
    browser.screenshot("wall-of-thirty").await;
    let facts = "return [...document.querySelector('.tile').querySelectorAll('.age, .fps, .viewers, .queue')]
        .map(it => [it.className, it.textContent])";
    let is_right = |facts: &Value| {
        let fact = |name: &str| {
            let facts = facts.as_array().unwrap();
            let fact = facts.iter().find(|fact| fact[0] == name).unwrap_or_else(|| panic!("no {name}: {facts:?}"));
            fact[1].as_str().unwrap().to_owned()
        };
        let rate = fact("fps").split(' ').next().and_then(|rate| rate.parse::<f64>().ok());
        rate.is_some_and(|rate| (1.0..3.0).contains(&rate))
            && fact("viewers").starts_with("1 ")
            && fact("queue").starts_with(|first: char| first.is_ascii_digit())
            && !fact("age").is_empty()
    };
    becomes(SOON, "the tile tells of two frames a second and one viewer", || browser.run(facts), is_right).await;

    let history = cameras.stop().await;
    let newest = |session: &str| history[session].keys().last().copied();
    all_stand(&browser, SOON, SESSIONS, |session, standing| standing.seq == newest(session)).await;
    all_stand(&browser, SOON, SESSIONS, |_, standing| standing.state == "stale").await;
    for (session, change) in was_never_wrong(&browser, &history, STALE_AFTER).await {
        let (_, pushed) = history[&session].last_key_value().unwrap();
        let age = Duration::try_from_secs_f64((change.at_ms - pushed.asked_ms) / 1000.0).unwrap_or_default();
        assert!(age > STALE_AFTER - Duration::from_millis(300), "stale after {age:?}: {change:?}");
    }

    let cameras = start();
    all_go_on(&browser, &standings(&browser).await).await;
    let mut all = cameras.stop().await;
    for (session, earlier) in history {
        all.entry(session).or_default().extend(earlier);
    }
    let [dropped, expired @ ..] = &sessions[..] else { unreachable!() };
    assert_eq!(server.ask("DELETE", &format!("/session/{dropped}")).await.status, 204);
    let is_empty = |standing: &Standing| standing.state == "empty";
    becomes(SOON, format!("{dropped} is empty"), async || standings(&browser).await[dropped].clone(), is_empty).await;
    let others = standings(&browser).await;
    assert!(expired.iter().all(|session| others[session].state != "empty"), "{others:#?}");
    all_stand(&browser, SOON * 2, SESSIONS, |_, standing| is_empty(standing)).await;
    was_never_wrong(&browser, &all, STALE_AFTER).await;

    let fetched = browser.fetched().await;
    let sockets = fetched.iter().filter(|one| one.kind == "WebSocket").count();
    let pictures: Vec<_> = ["/image/", "/snapshot/", "/stream/", "/frames/"]
        .into_iter()
        .flat_map(|path| fetched.iter().filter(move |one| one.url.contains(path)))
        .collect();
    assert_eq!((sockets, pictures.len()), (1, 0), "{pictures:#?}");
}

/// The names on the wall, in order.
async fn tiles(browser: &Browser) -> Vec<String> {
    let names = browser.run("return [...document.querySelectorAll('.tile')].map(tile => tile.dataset.session)").await;
    serde_json::from_value(names).unwrap()
}

async fn wall_becomes(browser: &Browser, names: &[&str]) {
    becomes(SOON, format!("the wall shows {names:?}"), || tiles(browser), |shown| shown == names).await;
}

#[tokio::test]
async fn the_wall_is_sorted_filtered_and_sized_and_its_address_keeps_that() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("STALE_AFTER", "1"), ("BASE_PATH", "/cams")]).await;
    let browser = Browser::start().await;
    let push = async |session: &str, times: usize| {
        for _ in 0..times {
            push_to(&server, &format!("/cams/image/{session}"), None).await;
        }
    };
    push("hall", 3).await;
    push("yard", 1).await;
    push("door-10", 2).await;
    push("door-9", 4).await;
    browser.client.goto(&server.url("/cams/")).await.unwrap();
    wall_becomes(&browser, &["door-9", "door-10", "hall", "yard"]).await;
    all_stand(&browser, SOON, 4, |_, standing| standing.state == "stale").await;
    for (sort, names) in [
        ("queue", ["door-9", "hall", "door-10", "yard"]),
        ("activity", ["door-9", "door-10", "yard", "hall"]),
        ("name", ["door-9", "door-10", "hall", "yard"]),
    ] {
        choose(&browser, "#sort", sort).await;
        wall_becomes(&browser, &names).await;
    }
    let width = "return document.querySelector('.tile').getBoundingClientRect().width";
    let wide = browser.run(width).await.as_f64().unwrap();
    choose(&browser, "#size", "1").await;
    becomes(
        SOON,
        format!("tiles are narrower than {wide}"),
        || browser.run(width),
        |width| width.as_f64().unwrap() < wide * 0.75,
    )
    .await;
    choose(&browser, "#sort", "queue").await;
    browser.find("#filter").await.send_keys("DOOR").await.unwrap();
    wall_becomes(&browser, &["door-9", "door-10"]).await;
    browser.client.refresh().await.unwrap();
    wall_becomes(&browser, &["door-9", "door-10"]).await;
    let kept = browser.run("return ['filter', 'sort', 'size'].map(id => document.getElementById(id).value)").await;
    assert_eq!(kept, json!(["DOOR", "queue", "1"]));

    browser.client.goto(&server.url("/cams/?show=live")).await.unwrap();
    reads(&browser, "#count", |text| text.contains('4')).await;
    wall_becomes(&browser, &[]).await;
    let camera = Cameras::start(&server.url("/cams"), None, &["yard".to_owned()], Duration::from_millis(200));
    wall_becomes(&browser, &["yard"]).await;
    drop(camera);
    wall_becomes(&browser, &[]).await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn an_empty_wall_tells_how_to_begin_and_what_it_tells_works() {
    let server = Server::start(&[("BASE_PATH", "/cams")]).await;
    let browser = Browser::start().await;
    browser.client.goto(&server.url("/cams/")).await.unwrap();
    let told = reads(&browser, "#start", |text| text.contains("curl")).await;
    assert!(told.contains("demo"), "{told}");
    let line = becomes(SOON, "a line with curl", || browser.text("#curl code"), |line| line.starts_with("curl ")).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("picture.jpg"), PHOTO_JPEG).unwrap();
    let mut shell = program("sh", "dash");
    shell.args(["-c", &line]).current_dir(directory.path()).env("no_proxy", "*");
    let (status, output) = Process::start(shell).ended_within(SOON).await;
    assert!(status.success(), "{line}: {output}");
    all_stand(&browser, SOON, 1, |_, standing| standing.state == "live").await;
    reads(&browser, "#start", str::is_empty).await;
    let link = browser.run("return document.querySelector('#start a').href").await;
    assert_eq!(link, server.url("/cams/broadcast"));
}

/// Who watches what, as the server counts.
async fn viewers(server: &Server) -> BTreeMap<String, u64> {
    let stats = server.get("/stats").await.json();
    let sessions = stats["sessions"].as_array().unwrap().iter();
    sessions.map(|one| (one["id"].as_str().unwrap().to_owned(), one["viewers"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn tiles_that_nobody_sees_cost_nothing() {
    const SESSIONS: usize = 40;
    let server = Server::start(&[]).await;
    let (browser, sessions) = (Browser::start().await, names(SESSIONS));
    let _cameras = Cameras::start(&server.url(""), None, &sessions, Duration::from_secs(1));
    browser.client.goto(&server.url("/?size=4")).await.unwrap();
    let (first, last) = (&sessions[0], &sessions[SESSIONS - 1]);
    let watched = async |what: &str, is_right: &dyn Fn(&BTreeMap<String, u64>) -> bool| {
        becomes(SOON * 2, what, || viewers(&server), |all| all.len() == SESSIONS && is_right(all)).await;
    };
    let some = |all: &BTreeMap<String, u64>| all.values().filter(|viewers| **viewers > 0).count() < SESSIONS / 2;
    watched("the first is watched, the last is not", &|all| all[first] == 1 && all[last] == 0 && some(all)).await;
    browser.run("document.querySelector('.tile:last-child').scrollIntoView()").await;
    watched("the last is watched, the first is not", &|all| all[first] == 0 && all[last] == 1 && some(all)).await;
    browser.hide().await;
    watched("none is watched by a page that is hidden", &|all| all.values().all(|viewers| *viewers == 0)).await;
    let before = standings(&browser).await;
    browser.show().await;
    watched("the last is watched again", &|all| all[first] == 0 && all[last] == 1).await;
    let is_new = |standing: &Standing| standing.state == "live" && standing.seq > before[last].seq;
    becomes(SOON, "the last goes on", async || standings(&browser).await[last].clone(), is_new).await;
    connects(&browser, "open", false).await;
}

#[tokio::test]
async fn a_view_of_the_wall_in_a_hidden_tab_is_right_from_the_first_moment_that_it_is_seen() {
    let server = Server::start(&[("STALE_AFTER", "1")]).await;
    let browser = Browser::start().await;
    let sessions = names(2);
    let cameras = Cameras::start(&server.url(""), None, &sessions, Duration::from_millis(200));
    browser.client.goto(&server.url("/")).await.unwrap();
    note_changes(&browser).await;
    all_stand(&browser, SOON, 2, |_, standing| standing.state == "live").await;
    browser.hide().await;
    let history = cameras.stop().await;
    // The page's own clocks run slowly while it is hidden.
    let states = async || server.get("/stats").await.json()["sessions"][0]["ageMs"].as_u64();
    becomes(SOON, "the newest frame is old", states, |age| age.is_some_and(|age| age > 3000)).await;
    browser.show().await;
    all_stand(&browser, SOON, 2, |_, standing| standing.state == "stale").await;
    was_never_wrong(&browser, &history, Duration::from_secs(1)).await;
    assert!(changes(&browser).await.len() > 4);
}

/// What has the focus: a selector of sorts. Fails where nobody could see that it has.
async fn focus(browser: &Browser) -> String {
    let script = "const it = document.activeElement, tile = it.closest('.tile');
        const outlined = [it, tile].filter(Boolean).map(one => getComputedStyle(one))
            .some(style => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0);
        return [tile ? `tile ${tile.dataset.session}` : it.id || it.getAttribute('href') || it.textContent.trim(), outlined]";
    let focus = browser.run(script).await;
    assert_eq!(focus[1], true, "one can see that {} has the focus", focus[0]);
    focus[0].as_str().unwrap().to_owned()
}

/// Goes on by the keyboard until this has the focus; what had it on the way.
async fn tab_to(browser: &Browser, target: &str) -> Vec<String> {
    let mut passed = Vec::new();
    while passed.last().is_none_or(|last| last != target) {
        assert!(passed.len() < 60, "{target} is reached with the Tab key; reached were {passed:?}");
        browser.press_keys(&Key::Tab).await;
        passed.push(focus(browser).await);
    }
    passed
}

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard() {
    let server = Server::start(&[]).await;
    let browser = Browser::start().await;
    let sessions = names(3);
    let _cameras = Cameras::start(&server.url(""), None, &sessions, Duration::from_millis(300));
    browser.client.goto(&server.url("/")).await.unwrap();
    all_stand(&browser, SOON, 3, |_, standing| standing.state == "live").await;
    tab_to(&browser, "filter").await;
    browser.press_keys("02").await;
    wall_becomes(&browser, &["camera-02"]).await;
    let passed = tab_to(&browser, "tile camera-02").await;
    assert!(["show", "sort", "size"].iter().all(|id| passed.iter().any(|one| one == id)), "{passed:?}");
    // Nothing takes it away while pictures and numbers change.
    let seq = standings(&browser).await;
    all_go_on(&browser, &seq).await;
    assert_eq!(focus(&browser).await, "tile camera-02");
    browser.press_keys(&Key::Enter).await;
    arrives(&browser, "/view/camera-02").await;

    all_stand(&browser, SOON, 1, |_, standing| standing.state == "live").await;
    tab_to(&browser, "fullscreen").await;
    browser.press_keys(&Key::Enter).await;
    let is_full = async || browser.run("return document.fullscreenElement !== null").await;
    becomes(SOON, "the picture fills the screen", is_full, |full| full == true).await;
    // Escape, which ends it, is the browser's own key: no page is asked, and no driver can press it.
    browser.run("document.exitFullscreen()").await;
    becomes(SOON, "the page is back", is_full, |full| full == false).await;
    let place = async || browser.run("return document.activeElement.id").await;
    becomes(SOON, "one goes on where one was", place, |id| id == "fullscreen").await;
    tab_to(&browser, "snapshot").await;
    tab_to(&browser, "Copy").await;
    browser.press_keys(&Key::Enter).await;
    reads(&browser, "#live .copy", |text| text == "Copied").await;
    assert_eq!(focus(&browser).await, "Copied");
}
