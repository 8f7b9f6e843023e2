//! `/webcam` and `/video_feed`, for who comes from a server of one camera; and `/docs`, for who writes a client.

use fantoccini::Locator;

use super::{all_stand, arrives, becomes, push_to, reads};
use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile, Viewer, browser::Browser, picture::PHOTO_JPEG, users::PASSWORD,
};

#[tokio::test]
async fn the_addresses_of_a_server_of_one_camera_lead_to_the_default_session() {
    let browser = Browser::start().await;
    for (variables, session) in
        [(&[("DEFAULT_SESSION", "robot"), ("BASE_PATH", "/cams")][..], "robot"), (&[("BASE_PATH", "/cams")], "camera")]
    {
        let server = Server::start(variables).await;
        push_to(&server, &format!("/cams/image/{session}"), None).await;
        browser.client.goto(&server.url("/cams/webcam")).await.unwrap();
        arrives(&browser, &format!("/cams/view/{session}")).await;
        all_stand(&browser, SOON, 1, |_, standing| standing.state == "live").await;
        let part = Viewer::open(&server, "/cams/video_feed").await.part().await;
        assert!(part.seq().is_some() && part.picture == PHOTO_JPEG);
    }
}

#[tokio::test]
async fn the_default_session_is_as_closed_as_every_other() {
    let users = UsersFile::with(&[("ann", &["--view", "robot", "--publish", "*"]), ("bob", &["--view", "hall"])]).await;
    let server = users.server(&Backend::Memory, &[("DEFAULT_SESSION", "robot")]).await;
    for path in ["/webcam", "/video_feed"] {
        server.get(path).await.is_refused(401, "login_needed");
        let bob = server.request("GET", path).basic_auth("bob", Some(PASSWORD));
        Answer::to(bob).await.is_refused(403, "forbidden");
        let ann = server.request("GET", path).basic_auth("ann", Some(PASSWORD)).send().await.unwrap();
        assert!(ann.status() == 200 || ann.status() == 302, "{path}: {}", ann.status());
    }
}

#[tokio::test]
async fn an_operation_is_tried_out_on_the_page_of_the_interface() {
    let server = Server::start(&[("BASE_PATH", "/cams")]).await;
    push_to(&server, "/cams/image/hall", None).await;
    let browser = Browser::start().await;
    browser.client.goto(&server.url("/cams/docs")).await.unwrap();
    let described = server.get("/cams/openapi.json").await.json();
    let operations = described["paths"].as_object().unwrap().values().map(|path| {
        path.as_object().unwrap().values().filter(|operation| operation["operationId"].is_string()).count()
    });
    let operations = operations.sum::<usize>();
    let shown = async || browser.client.find_all(Locator::Css(".opblock")).await.unwrap().len();
    becomes(SOON * 2, format!("{operations} operations are shown"), shown, |shown| *shown == operations).await;
    for button in [".opblock-summary-control", ".try-out__btn", ".execute"] {
        let within = format!("[id$=-stats] {button}");
        click_when_there(&browser, &within).await;
    }
    let answer = "[id$=-stats] .live-responses-table .response";
    let text = reads(&browser, answer, |text| text.contains("200")).await;
    assert!(text.contains("\"numSessions\": 1") && text.contains("hall"), "{text}");
    assert_eq!(browser.complaints().await, [""; 0]);
}

/// Clicks on something once it is there.
async fn click_when_there(browser: &Browser, css: &str) {
    let click = async || match browser.client.find(Locator::Css(css)).await {
        Ok(button) => button.click().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    becomes(SOON, format!("{css} is there"), click, Result::is_ok).await.unwrap();
}
