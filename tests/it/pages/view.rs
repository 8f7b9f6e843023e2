//! `/view/{session}`: one stream, large.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{all_go_on, all_stand, becomes, connects, push_to, reads, standings};
use crate::harness::{
    SOON, Server,
    browser::Browser,
    cameras::{Cameras, pictures},
    picture::PHOTO_JPEG,
};

/// Opens the page of a session that a camera pushes to, and waits until it is live.
async fn open(browser: &Browser, url: &str) {
    browser.client.goto(url).await.unwrap();
    all_stand(browser, SOON, 1, |_, standing| standing.state == "live").await;
}

#[tokio::test]
async fn one_stream_shows_its_pictures_its_rate_its_delay_and_who_else_is_there() {
    let server = Server::start(&[("BASE_PATH", "/cams")]).await;
    let (browser, session) = (Browser::start().await, ["hall".to_owned()]);
    let _camera = Cameras::start(&server.url("/cams"), None, &session, Duration::from_millis(200));
    open(&browser, &server.url("/cams/view/hall")).await;
    let mut shown = standings(&browser).await;
    for _ in 0..5 {
        shown = all_go_on(&browser, &shown).await;
    }
    connects(&browser, "open", false).await;
    let number = |text: &str| text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    reads(&browser, "#rate", |text| number(text).is_some_and(|rate| (4.0..6.0).contains(&rate))).await;
    reads(&browser, "#delay", |text| {
        let most = if text.ends_with(" ms") { 1000.0 } else { 1.0 };
        text.ends_with('s') && number(text).is_some_and(|delay| delay < most)
    })
    .await;
    reads(&browser, "#viewers", |text| text == "1").await;
    reads(&browser, "#queue", |text| number(text).is_some_and(|length| length > 5.0)).await;
    let points =
        "return [...document.querySelectorAll('#plot path')].map(path => path.getAttribute('d').split('L').length)";
    let is_drawn = |points: &Value| points.as_array().unwrap().iter().all(|number| number.as_u64().unwrap() > 3);
    becomes(SOON, "the plots are drawn", || browser.run(points), is_drawn).await;
    let size =
        browser.run("const it = document.querySelector('#stage img'); return [it.naturalWidth, it.naturalHeight]");
    assert_eq!(size.await, json!([320, 240]));
}

#[tokio::test]
async fn the_picture_that_is_shown_can_be_kept_and_fills_the_screen() {
    let server = Server::start(&[]).await;
    let browser = Browser::start().await;
    let directory = tempfile::tempdir().unwrap();
    let downloads = json!({ "behavior": "allow", "downloadPath": directory.path() });
    browser.devtools("Browser.setDownloadBehavior", downloads).await;
    push_to(&server, "/image/hall", None).await;
    open(&browser, &server.url("/view/hall")).await;
    browser.click("#snapshot").await;
    let kept = async || {
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files
            .iter()
            .map(|file| (file.clone(), std::fs::read(file).unwrap_or_default() == PHOTO_JPEG))
            .collect::<Vec<_>>()
    };
    // Until it is complete, the browser gives it another name.
    let is_whole = |file: &Path| file.extension().is_some_and(|extension| extension == "jpg");
    let is_right = |files: &Vec<(PathBuf, bool)>| matches!(&files[..], [(file, true)] if is_whole(file));
    let files = becomes(SOON, "the picture is downloaded", kept, is_right).await;
    let name = files[0].0.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("hall") && name.ends_with(".jpg"), "{name}");

    browser.click("#fullscreen").await;
    let width =
        "return document.fullscreenElement ? document.fullscreenElement.getBoundingClientRect().width / innerWidth : 0";
    becomes(SOON, "the picture fills the screen", || browser.run(width), |part| part == 1).await;
}

/// What `code` lines of a way say.
async fn lines(browser: &Browser, way: &str) -> Vec<String> {
    let script = "return [...document.querySelectorAll(arguments[0])].map(code => code.textContent)";
    let lines = browser.client.execute(script, vec![json!(format!("#{way} code"))]).await.unwrap();
    serde_json::from_value(lines).unwrap()
}

/// The addresses in a line.
fn addresses(line: &str) -> Vec<String> {
    let starts = line.match_indices("http").map(|(start, _)| &line[start..]);
    let end = |c: char| c.is_whitespace() || "\"'<>`)".contains(c);
    starts.map(|rest| rest.split(end).next().unwrap().replace("&amp;", "&")).collect()
}

#[tokio::test]
async fn each_way_to_read_a_stream_has_lines_to_copy_whose_addresses_work() {
    let server = Server::start(&[("BASE_PATH", "/cams")]).await;
    let browser = Browser::start().await;
    for number in 0..30 {
        let picture = pictures("hall")[number % 2].clone();
        assert_eq!(server.post("/cams/image/hall", picture).await.status, 200);
    }
    open(&browser, &server.url("/cams/view/hall")).await;
    for (way, words) in [
        ("live", &["/stream/hall", "<img", "ffmpeg", "vlc", "cv2.VideoCapture"][..]),
        ("newest", &["/snapshot/hall", "<img", "curl", "ffmpeg", "cv2"]),
        ("queued", &["/image/hall", "curl"]),
    ] {
        let lines = lines(&browser, way).await;
        for word in words {
            assert!(lines.iter().any(|line| line.contains(word)), "{word} for {way}: {lines:#?}");
        }
        for address in lines.iter().flat_map(|line| addresses(line)) {
            let path = address.strip_prefix(&server.url("")).unwrap_or_else(|| panic!("{address} is elsewhere"));
            let answer = server.request("GET", path).send().await.unwrap();
            let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
            let wanted = if way == "live" { "multipart/x-mixed-replace" } else { "image/jpeg" };
            assert!(answer.status() == 200 && kind.starts_with(wanted), "{address}: {} {kind}", answer.status());
            assert!(!answer.headers().contains_key("x-no-data"), "{address}");
        }
    }
    assert!(browser.text("#live").await.contains("Home Assistant"));
}

/// What is in the clipboard, read by a page that may.
async fn clipboard(browser: &Browser) -> String {
    let read = "const done = arguments[arguments.length - 1];
        navigator.clipboard.readText().then(done, error => done(String(error)))";
    browser.client.execute_async(read, vec![]).await.unwrap().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn lines_are_copied_also_where_the_browser_trusts_the_page_less() {
    let server = Server::start(&[]).await;
    let browser = Browser::start().await;
    push_to(&server, "/image/hall", None).await;
    let secure = server.url("/view/hall");
    let insecure = secure.replace("127.0.0.1", "cams.test");
    for url in [&secure, &insecure] {
        open(&browser, url).await;
        let line = lines(&browser, "live").await.remove(0);
        assert!(line.starts_with(&url.replace("/view/", "/stream/")), "{line}");
        browser.click("#live button.copy").await;
        reads(&browser, "#live button.copy", |text| text != "Copy").await;
        open(&browser, &secure).await;
        browser.let_use("clipboard-read").await;
        assert_eq!(clipboard(&browser).await, line);
    }
}
