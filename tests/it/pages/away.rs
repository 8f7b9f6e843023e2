//! Servers that die and networks that fail: pages say so, go on by themselves, and call nothing live meanwhile that is not.

use std::{collections::BTreeSet, time::Duration};

use super::{all_go_on, all_stand, becomes, changes, connection, connects, note_changes, standings, was_never_wrong};
use crate::harness::{
    SOON, Server, axe::serious_faults, browser::Browser, cameras::Cameras, link::Link, port::free_port, scale,
};

const STALE_AFTER: Duration = Duration::from_secs(2);
/// Two pages at once, each in a browser of its own.
const PAGES: [&str; 2] = ["/", "/view/camera-1"];

fn sessions() -> Vec<String> {
    vec!["camera-1".to_owned(), "camera-2".to_owned()]
}

fn watch(server: &Server) -> Cameras {
    Cameras::start(&server.url(""), None, &sessions(), Duration::from_millis(200))
}

/// Opens a page and waits until all that it shows is live.
async fn open(url: String) -> Browser {
    let browser = Browser::start().await;
    browser.client.goto(&url).await.unwrap();
    note_changes(&browser).await;
    let number = if url.contains("/view/") { 1 } else { 2 };
    all_stand(&browser, SOON, number, |_, standing| standing.state == "live" && standing.seq.is_some()).await;
    connects(&browser, "open", false).await;
    browser
}

/// Waits until the page says that its connection is lost, and calls nothing live.
async fn says_that_it_is_lost(browser: &Browser) {
    let is_lost = |(state, text): &(String, String)| state == "connecting" && text.contains("lost");
    becomes(SOON, "the page says that its connection is lost", || connection(browser), is_lost).await;
    let number = standings(browser).await.len();
    all_stand(browser, SOON, number, |_, standing| standing.state != "live").await;
}

#[tokio::test]
async fn pages_go_on_by_themselves_when_a_server_was_killed_and_comes_back() {
    let port = free_port().to_string();
    let start = async || Server::start_with(&["--ip", "127.0.0.1", "--port", &port], &[("STALE_AFTER", "2")]).await;
    let mut server = start().await;
    let cameras = watch(&server);
    let [wall, view] = PAGES.map(|path| open(server.url(path)));
    let (wall, view) = tokio::join!(wall, view);
    for round in 0..2 * scale() {
        let before = (standings(&wall).await, standings(&view).await);
        server.process().kill().await;
        tokio::join!(says_that_it_is_lost(&wall), says_that_it_is_lost(&view));
        if round == 0 {
            wall.screenshot("wall-lost").await;
            assert_eq!(serious_faults(&wall).await, [""; 0]);
        }
        server = start().await;
        tokio::join!(all_go_on(&wall, &before.0), all_go_on(&view, &before.1));
        tokio::join!(connects(&wall, "open", false), connects(&view, "open", false));
    }
    let history = cameras.stop().await;
    tokio::join!(was_never_wrong(&wall, &history, STALE_AFTER), was_never_wrong(&view, &history, STALE_AFTER));
}

#[tokio::test]
async fn pages_find_out_that_a_network_has_fallen_silent_and_go_on_when_it_is_back() {
    let server = Server::start(&[("STALE_AFTER", "2")]).await;
    let link = Link::to(server.address());
    let cameras = watch(&server);
    let [wall, view] = PAGES.map(|path| open(link.url(path)));
    let (wall, view) = tokio::join!(wall, view);
    let before = (standings(&wall).await, standings(&view).await);
    link.fall_silent();
    tokio::join!(says_that_it_is_lost(&wall), says_that_it_is_lost(&view));
    link.heal();
    tokio::join!(all_go_on(&wall, &before.0), all_go_on(&view, &before.1));
    tokio::join!(connects(&wall, "open", false), connects(&view, "open", false));
    let history = cameras.stop().await;
    tokio::join!(was_never_wrong(&wall, &history, STALE_AFTER), was_never_wrong(&view, &history, STALE_AFTER));
}

#[tokio::test]
async fn a_network_that_is_too_slow_for_the_pictures_shows_none_as_live_that_is_old() {
    // A quarter of what the two cameras push.
    const BYTES_PER_SECOND: u32 = 15_000;
    let server = Server::start(&[("STALE_AFTER", "2")]).await;
    let link = Link::to(server.address());
    let cameras = watch(&server);
    let wall = open(link.url("/")).await;
    link.limit(BYTES_PER_SECOND);
    let shown = async || {
        let frames = changes(&wall).await.into_iter().map(|change| (change.session, change.standing.seq));
        frames.collect::<BTreeSet<_>>().len()
    };
    let before = shown().await;
    becomes(SOON * 3, "pictures still come", shown, |shown| *shown > before + 12).await;
    let history = cameras.stop().await;
    was_never_wrong(&wall, &history, STALE_AFTER).await;
}
