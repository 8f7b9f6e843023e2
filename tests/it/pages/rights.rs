//! Where there are users: logging in and out, who sees what, links for others, and pages for what goes wrong.

use std::time::Duration;

use serde_json::{Value, json};

use super::{all_go_on, all_stand, arrives, becomes, choose, connection, log_in, push_to, reads, standings};
use crate::harness::{
    Answer, Backend, RedisServer, SOON, UsersFile, browser::Browser, cameras::Cameras, users::PASSWORD,
};

async fn users() -> UsersFile {
    UsersFile::with(&[("ann", &["--view", "cam-*", "--publish", "cam-*"]), ("root", &["--admin"])]).await
}

/// The status with which the page that is open came.
async fn status(browser: &Browser) -> Value {
    browser.run("return performance.getEntriesByType('navigation')[0].responseStatus").await
}

/// Opens an address that answers so, with a page for people that has these words.
async fn shows(browser: &Browser, url: &str, code: u16, words: &str) {
    browser.log("browser").await;
    browser.client.goto(url).await.unwrap();
    let text = browser.text("main").await;
    assert_eq!(status(browser).await, code, "{url}: {text}");
    assert!(text.to_lowercase().contains(words) && !text.contains('{'), "{url}: {text}");
    assert_eq!(browser.complaints().await, [""; 0], "{url}");
}

#[tokio::test]
async fn a_person_logs_in_sees_what_they_may_see_and_logs_out() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("BASE_PATH", "/cams")]).await;
    let browser = Browser::start().await;
    for session in ["cam-1", "cam-2", "secret"] {
        push_to(&server, &format!("/cams/image/{session}"), Some("root")).await;
    }
    browser.client.goto(&server.url("/cams/")).await.unwrap();
    arrives(&browser, "/cams/login?next=/cams/").await;
    log_in(&browser, "ann", "wrong").await;
    reads(&browser, "[role=alert]", |text| text.contains("password is wrong")).await;
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, "/cams/").await;
    let shown = all_stand(&browser, SOON, 2, |_, standing| standing.state == "live").await;
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["cam-1", "cam-2"]);
    let header = browser.text("header").await;
    assert!(["ann", "Wall", "Broadcast", "API", "Log out"].iter().all(|word| header.contains(word)), "{header}");

    shows(&browser, &server.url("/cams/view/secret"), 403, "right").await;
    shows(&browser, &server.url("/cams/no/such/thing"), 404, "nothing").await;
    // Programs are told in their own way.
    let ann =
        |path: &str| Answer::to(server.request("GET", path).basic_auth("ann", Some(PASSWORD)).header("accept", "*/*"));
    ann("/cams/view/secret").await.is_refused(403, "forbidden");
    ann("/cams/no/such/thing").await.is_refused(404, "not_found");
    server.get("/cams/view/cam-1").await.is_refused(401, "login_needed");

    browser.client.goto(&server.url("/cams/login")).await.unwrap();
    reads(&browser, "main", |text| text.contains("ann")).await;
    browser.client.goto(&server.url("/cams/")).await.unwrap();
    browser.click("form[action$=logout] button").await;
    becomes(SOON, "the login form is back", || browser.text("main"), |text| text.contains("Password")).await;
    for (path, encoded) in [("/cams/", "/cams/"), ("/cams/view/cam-1", "/cams/view/cam-1")] {
        browser.client.goto(&server.url(path)).await.unwrap();
        arrives(&browser, &format!("/cams/login?next={encoded}")).await;
    }
}

#[tokio::test]
async fn who_logs_in_for_no_page_in_particular_comes_to_the_wall() {
    let file = users().await;
    for (variables, wall) in [(&[][..], "/"), (&[("BASE_PATH", "/cams")], "/cams/")] {
        let server = file.server(&Backend::Memory, variables).await;
        let browser = Browser::start().await;
        browser.client.goto(&server.url(&format!("{wall}login"))).await.unwrap();
        log_in(&browser, "ann", PASSWORD).await;
        arrives(&browser, &server.url(wall)).await;
        // The path without a slash at its end is what people type.
        browser.client.goto(server.url(wall).trim_end_matches('/')).await.unwrap();
        arrives(&browser, &server.url(wall)).await;
        assert!(browser.text("h1").await.contains("Wall"));
    }
}

#[tokio::test]
async fn what_goes_wrong_has_a_page_for_people_and_a_code_for_programs() {
    let file = users().await;
    let mut redis = RedisServer::start().await;
    let path = file.path().display().to_string();
    let server = redis.server(&[("USERS_FILE", &path)]).await;
    let browser = Browser::start().await;
    for path in ["/snapshot/cam-1?token=wrong", "/view/cam-1?token=wrong", "/?token=wrong"] {
        shows(&browser, &server.url(path), 401, "link").await;
        assert_eq!(server.get(path).await.error_code(), "bad_token");
    }
    let link = server.request("POST", "/link").basic_auth("ann", Some(PASSWORD));
    let link = Answer::to(link.body(json!({ "session": "cam-1", "right": "view", "expires_in": 1 }).to_string())).await;
    let ending = format!("/view/cam-1?token={}", link.json()["token"].as_str().unwrap());
    becomes(SOON, "the link runs out", async || server.get(&ending).await.status, |status| *status == 401).await;
    shows(&browser, &server.url(&ending), 401, "link").await;

    browser.client.goto(&server.url("/login")).await.unwrap();
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, &server.url("/")).await;
    redis.kill().await;
    shows(&browser, &server.url("/snapshot/cam-1"), 503, "again").await;
    browser.screenshot("unavailable").await;
    let by_program = server.request("GET", "/snapshot/cam-1").basic_auth("ann", Some(PASSWORD));
    Answer::to(by_program).await.is_refused(503, "store_unavailable");
    redis.restart().await;
    push_to(&server, "/image/cam-1", Some("root")).await;
    browser.click("main a").await;
    let picture = "return document.querySelector('img')?.naturalWidth ?? 0";
    becomes(SOON, "trying again shows the picture", || browser.run(picture), |width| *width == 451).await;
}

/// Makes a link on the view page that is open.
async fn make_link(browser: &Browser, right: &str) -> String {
    choose(browser, "#link [name=right]", right).await;
    choose(browser, "#link [name=expires_in]", "3600").await;
    browser.click("#link button").await;
    let url = async || browser.run("return document.querySelector('#link-url').value").await;
    let page = if right == "view" { "/view/" } else { "/broadcast" };
    let url = becomes(SOON, format!("a link to {right}"), url, |url| url.as_str().unwrap().contains(page)).await;
    url.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_link_made_on_the_page_lets_somebody_else_in_for_that_and_nothing_else() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("BASE_PATH", "/cams")]).await;
    let (browser, stranger) = (Browser::start().await, Browser::with_camera().await);
    let session = ["cam-1".to_owned()];
    let _camera = Cameras::start(&server.url("/cams"), Some("root"), &session, Duration::from_millis(300));
    browser.client.goto(&server.url("/cams/view/cam-1")).await.unwrap();
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, "/cams/view/cam-1").await;
    let view = make_link(&browser, "view").await;

    stranger.client.goto(&view).await.unwrap();
    let shown = all_stand(&stranger, SOON, 1, |_, standing| standing.state == "live").await;
    all_go_on(&stranger, &shown).await;
    reads(&stranger, "#viewers", |text| text == "2").await;
    assert!(stranger.has_none("#link").await, "who came by a link makes none");
    let header = stranger.text("header").await;
    assert!(header.contains("Log in") && !header.contains("Wall"), "{header}");
    let line = stranger.text("#newest code").await;
    let path = line.strip_prefix(&server.url("")).unwrap_or_else(|| panic!("{line}"));
    assert_eq!(server.get(path).await.header("content-type"), "image/jpeg");
    assert_eq!(stranger.complaints().await, [""; 0]);
    for path in ["/cams/", "/cams/view/cam-2", "/cams/broadcast"] {
        stranger.client.goto(&server.url(path)).await.unwrap();
        arrives(&stranger, &format!("/cams/login?next={path}")).await;
    }

    let publish = make_link(&browser, "publish").await;
    stranger.client.goto(&publish).await.unwrap();
    let state = async || stranger.run("return document.querySelector('main').dataset.state ?? ''").await;
    becomes(SOON, "the page can begin", state, |state| state == "idle").await;
    assert!(stranger.text("main").await.contains("cam-1"));
    assert_eq!(stranger.complaints().await, [""; 0]);
}

#[tokio::test]
async fn logging_out_in_one_window_ends_what_the_other_one_shows() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    let browser = Browser::start().await;
    let session = ["cam-1".to_owned()];
    let _camera = Cameras::start(&server.url(""), Some("root"), &session, Duration::from_millis(200));
    browser.client.goto(&server.url("/login")).await.unwrap();
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, &server.url("/")).await;
    all_stand(&browser, SOON, 1, |_, standing| standing.state == "live").await;
    let wall = browser.client.window().await.unwrap();
    let other = browser.client.new_window(false).await.unwrap().handle;
    browser.client.switch_to_window(other).await.unwrap();
    browser.client.goto(&server.url("/login")).await.unwrap();
    browser.click("form[action$=logout] button").await;
    reads(&browser, "main", |text| text.contains("Password")).await;
    browser.client.switch_to_window(wall).await.unwrap();
    let says = |(_, text): &(String, String)| text.to_lowercase().contains("logged in");
    becomes(SOON, "the wall says that the login has ended", || connection(&browser), says).await;
    let stopped = all_stand(&browser, SOON, 1, |_, standing| standing.state != "live").await;
    let seq = stopped["cam-1"].seq;
    let pushed = async || server.request("GET", "/stats").basic_auth("root", Some(PASSWORD)).send().await;
    let newest = async || pushed().await.unwrap().json::<Value>().await.unwrap()["sessions"][0]["seq"].as_u64();
    becomes(SOON, "more is pushed", newest, |newest| *newest > seq.map(|seq| seq + 5)).await;
    assert_eq!(standings(&browser).await["cam-1"].seq, seq, "nothing more is shown");
    // What it says leads back here.
    browser.click("#connection a").await;
    reads(&browser, "main", |text| text.contains("Password")).await;
    log_in(&browser, "ann", PASSWORD).await;
    arrives(&browser, &server.url("/")).await;
    all_stand(&browser, SOON, 1, |_, standing| standing.state == "live").await;
}
