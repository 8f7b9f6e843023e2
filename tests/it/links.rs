//! `POST /link`: one right on one session for a time.

use serde_json::{Value, json};
use tokio_tungstenite::connect_async;

use crate::harness::{Answer, Backend, SOON, Server, UsersFile, Viewer, picture::PHOTO_JPEG, until, users::PASSWORD};

async fn users() -> UsersFile {
    UsersFile::with(&[("ann", &["--view", "cam*", "--publish", "cam*", "--take", "cam"]), ("root", &["--admin"])]).await
}

async fn ask_for_link(server: &Server, user: &str, wanted: Value) -> Answer {
    Answer::to(server.request("POST", "/link").basic_auth(user, Some(PASSWORD)).body(wanted.to_string())).await
}

async fn link(server: &Server, session: &str, right: &str, seconds: u64) -> Value {
    let answer =
        ask_for_link(server, "ann", json!({ "session": session, "right": right, "expires_in": seconds })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn push(server: &Server, session: &str) {
    let push = server.request("POST", &format!("/image/{session}")).basic_auth("root", Some(PASSWORD)).body(PHOTO_JPEG);
    assert_eq!(Answer::to(push).await.status, 200);
}

#[tokio::test]
async fn a_link_to_view_opens_every_viewing_route_of_its_session_and_nothing_else() {
    for backend in Backend::all().await {
        let file = users().await;
        let server = file.server(&backend, &[]).await;
        push(&server, "cam").await;
        push(&server, "cam2").await;
        let link = link(&server, "cam", "view", 60).await;
        let token = link["token"].as_str().unwrap();
        assert_eq!(link["url"], format!("/snapshot/cam?token={token}"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((55..=60).contains(&(link["expires"].as_u64().unwrap() - now)));
        assert!(server.get(link["url"].as_str().unwrap()).await.body == PHOTO_JPEG);
        assert_eq!(server.get(&format!("/frames/cam?token={token}")).await.status, 200);
        assert_eq!(server.ask("HEAD", &format!("/stream/cam?token={token}")).await.status, 200);
        assert!(Viewer::open(&server, &format!("/stream/cam?token={token}")).await.part().await.picture == PHOTO_JPEG);
        let socket = |path: &str| connect_async(format!("ws://{}{path}?sessions=cam&token={token}", server.address()));
        assert!(socket("/ws/view").await.is_ok());
        assert!(socket("/ws/push/cam").await.is_err());
        let seen = server.get(&format!("/stats?token={token}")).await.json();
        assert_eq!((&seen["numSessions"], &seen["sessions"][0]["id"]), (&json!(1), &json!("cam")));
        for (method, path) in [
            ("GET", "/snapshot/cam2"),
            ("GET", "/stream/cam2"),
            ("GET", "/image/cam"),
            ("HEAD", "/image/cam"),
            ("POST", "/image/cam"),
            ("DELETE", "/session/cam"),
            ("GET", "/session"),
            ("GET", "/metrics"),
            ("POST", "/link"),
        ] {
            let answer = server.ask(method, &format!("{path}?token={token}")).await;
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        }
        assert!(connect_async(format!("ws://{}/ws/view?sessions=cam2&token={token}", server.address())).await.is_err());
        // Whoever holds both a login and a link may do what either allows.
        let both = server.request("POST", &format!("/image/cam2?token={token}")).basic_auth("ann", Some(PASSWORD));
        assert_eq!(Answer::to(both.body(PHOTO_JPEG)).await.status, 200);
    }
}

#[tokio::test]
async fn links_for_other_rights_open_those() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    let link_of = async |right: &str| link(&server, "cam", right, 60).await;
    let publish = link_of("publish").await;
    let url = publish["url"].as_str().unwrap();
    assert!(url.starts_with("/image/cam?token="));
    assert_eq!(server.post(url, PHOTO_JPEG).await.status, 200);
    assert_eq!(server.get(url).await.status, 403);
    let take = link_of("take").await;
    assert!(server.get(take["url"].as_str().unwrap()).await.body == PHOTO_JPEG);
}

#[tokio::test]
async fn a_token_that_was_changed_or_has_run_out_or_was_made_elsewhere_is_refused() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    push(&server, "cam").await;
    let link = link(&server, "cam", "view", 2).await;
    let token = link["token"].as_str().unwrap();
    assert_eq!(server.get(&format!("/snapshot/cam?token={token}")).await.status, 200);
    let (text, tag) = token.split_once('.').unwrap();
    for changed in [
        format!("{text}.{}", tag.to_uppercase()),
        format!("{}.{tag}", text.replacen('e', "f", 1)),
        format!("{text}."),
        text.to_owned(),
        format!("{token}AA"),
        String::new(),
        "x".repeat(5000),
    ] {
        let answer = server.get(&format!("/snapshot/cam?token={changed}")).await;
        assert_eq!(answer.status, 401, "{changed}");
    }
    let other = file.server(&Backend::Memory, &[]).await;
    assert_eq!(other.get(&format!("/snapshot/cam?token={token}")).await.status, 401);
    // What runs already ends with the link.
    let mut viewer = Viewer::open(&server, &format!("/stream/cam?token={token}")).await;
    until(SOON, "the link runs out", || async {
        (server.get(&format!("/snapshot/cam?token={token}")).await.status == 401).then_some(())
    })
    .await;
    viewer.ended_within(SOON).await;
}

#[tokio::test]
async fn a_link_is_made_only_for_a_right_that_its_maker_holds_and_dies_with_it() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    push(&server, "cam").await;
    let wanted = |session: &str, right: &str| json!({ "session": session, "right": right, "expires_in": 60 });
    for (session, right) in [("cam", "command"), ("cam2", "take"), ("other", "view")] {
        ask_for_link(&server, "ann", wanted(session, right)).await.is_refused(403, "forbidden");
    }
    for wrong in [
        json!({}),
        json!({ "session": "cam", "right": "view" }),
        json!({ "session": "cam", "right": "admin", "expires_in": 60 }),
        json!({ "session": "cam", "right": "view", "expires_in": 0 }),
        json!({ "session": "cam", "right": "view", "expires_in": -1 }),
        json!({ "session": "cam", "right": "view", "expires_in": 31_536_001 }),
        json!("cam"),
    ] {
        ask_for_link(&server, "ann", wrong.clone()).await.is_refused(400, "bad_link");
    }
    ask_for_link(&server, "ann", wanted("a b", "view")).await.is_refused(400, "bad_session");
    assert_eq!(server.post("/link", wanted("cam", "view").to_string()).await.status, 401);
    let made = link(&server, "cam", "view", 60).await;
    let url = made["url"].as_str().unwrap();
    assert_eq!(server.get(url).await.status, 200);
    // A link makes no links, alone or beside nothing else.
    let token = made["token"].as_str().unwrap();
    let by_link = server.post(&format!("/link?token={token}"), wanted("cam", "view").to_string()).await;
    by_link.is_refused(403, "forbidden");
    let text = file.read().replace("view = [\"cam*\"]", "view = []");
    std::fs::write(file.path(), text).unwrap();
    until(SOON, "the link dies", || async { (server.get(url).await.status == 403).then_some(()) }).await;
    file.must(&["remove", "ann"], "").await;
    until(SOON, "its maker is gone", || async { (server.get(url).await.status == 401).then_some(()) }).await;
    // Who has the name later has not made it.
    file.add("ann", &["--view", "*"]).await;
    until(SOON, "there is another ann", || async {
        let stats = Answer::to(server.request("GET", "/stats").basic_auth("ann", Some(PASSWORD))).await;
        (stats.status == 200).then_some(())
    })
    .await;
    assert_eq!(server.get(url).await.status, 401);
}

#[tokio::test]
async fn without_users_links_are_made_and_nothing_depends_on_them() {
    let server = Backend::Memory.server(&[("BASE_PATH", "/cams")]).await;
    let wanted = json!({ "session": "cam", "right": "view", "expires_in": 60 });
    let made = server.post("/cams/link", wanted.to_string()).await.json();
    assert!(made["url"].as_str().unwrap().starts_with("/cams/snapshot/cam?token="));
    assert_eq!(server.get("/cams/snapshot/cam").await.status, 200);
}
