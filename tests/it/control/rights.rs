//! Who may drive, and who may be driven.

use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{Answer, Backend, SOON, Server, UsersFile, drivers::Peer, until, users::PASSWORD};

/// The status with which a socket is refused; 101 where it is not.
async fn status(server: &Server, path: &str, user: Option<&str>, origin: Option<&str>) -> u16 {
    let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
    if let Some(user) = user {
        let pair = reqwest::Client::new().get("http://localhost/").basic_auth(user, Some(PASSWORD)).build().unwrap();
        request.headers_mut().insert("authorization", pair.headers()["authorization"].clone());
    }
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    match Peer::try_connect(request).await {
        Ok(_) => 101,
        Err(error) => match *error {
            tokio_tungstenite::tungstenite::Error::Http(answer) => answer.status().as_u16(),
            error => panic!("{error}"),
        },
    }
}

#[tokio::test]
async fn operators_need_the_right_to_command_and_vehicles_that_or_the_right_to_publish() {
    let file = UsersFile::with(&[
        ("driver", &["--command", "car"]),
        ("robot", &["--publish", "car"]),
        ("viewer", &["--view", "car"]),
    ])
    .await;
    let server = file.server(&Backend::Memory, &[]).await;
    for (user, drives, listens) in
        [(None, 401, 401), (Some("driver"), 101, 101), (Some("robot"), 403, 101), (Some("viewer"), 403, 403)]
    {
        assert_eq!(status(&server, "/ws/control/car", user, None).await, drives, "{user:?}");
        assert_eq!(status(&server, "/ws/control/car?take=1&role=operator", user, None).await, drives, "{user:?}");
        assert_eq!(status(&server, "/ws/control/car?role=vehicle", user, None).await, listens, "{user:?}");
        let other = if user.is_some() { 403 } else { 401 };
        assert_eq!(status(&server, "/ws/control/other", user, None).await, other, "{user:?}");
        let ask = async |method: &str, path: &str| {
            let request = server.request(method, path).body("go");
            let request = match user {
                Some(user) => request.basic_auth(user, Some(PASSWORD)),
                None => request,
            };
            Answer::to(request).await.status.as_u16()
        };
        assert_eq!(ask("GET", "/control/car?wait=0").await, if listens == 101 { 204 } else { listens }, "{user:?}");
        let posted = ask("POST", "/control/car").await;
        assert_eq!(if [200, 409].contains(&posted) { 101 } else { posted }, drives, "{user:?}");
    }
}

#[tokio::test]
async fn an_operator_whose_right_ends_is_told_and_goes_and_who_drives_is_known_by_name() {
    let file = UsersFile::with(&[("ann", &["--command", "car"]), ("bob", &["--command", "car"])]).await;
    let server = file.server(&Backend::Memory, &[]).await;
    let connect = async |user: &str| {
        let mut request = format!("ws://{}/ws/control/car", server.address()).into_client_request().unwrap();
        let pair = reqwest::Client::new().get("http://localhost/").basic_auth(user, Some(PASSWORD)).build().unwrap();
        request.headers_mut().insert("authorization", pair.headers()["authorization"].clone());
        Peer::try_connect(request).await.unwrap()
    };
    let mut ann = connect("ann").await;
    ann.status(|status| status["driver"] == "ann").await;
    let mut bob = connect("bob").await;
    bob.status(|status| status["driver"] == "ann").await;
    file.must(&["remove", "ann"], "").await;
    ann.ended_within(SOON).await;
    bob.status(|status| status["driver"].is_null()).await;
}

#[tokio::test]
async fn pages_of_other_sites_neither_drive_nor_listen_whoever_their_visitor_is() {
    for variables in [vec![], vec![("CORS_ORIGINS", "https://listed.example")]] {
        let server = Backend::Memory.server(&variables).await;
        let own = format!("http://{}", server.address());
        for (origin, allowed) in [
            (own.as_str(), true),
            ("https://listed.example", variables.len() == 1),
            ("https://evil.example", false),
            ("null", false),
        ] {
            for path in ["/ws/control/car", "/ws/control/car?role=vehicle", "/ws/control/car?take=1"] {
                let expected = if allowed { 101 } else { 403 };
                assert_eq!(status(&server, path, None, Some(origin)).await, expected, "{origin} {path}");
            }
            for (method, path) in [("POST", "/control/car"), ("GET", "/control/car?wait=0")] {
                let answer = Answer::to(server.request(method, path).header("origin", origin).body("go")).await;
                let refused = answer.status == 403 && answer.error_code() == "cross_site";
                assert_eq!(!refused, allowed, "{origin} {method}: {answer:?}");
            }
        }
        let picture = server.request("GET", "/control/car?wait=0").header("sec-fetch-site", "cross-site");
        Answer::to(picture).await.is_refused(403, "cross_site");
    }
}

#[tokio::test]
async fn a_link_lets_somebody_drive_and_see_what_is_driven_and_do_nothing_else() {
    let file = UsersFile::with(&[("ann", &["--command", "car", "--view", "car", "--publish", "car"])]).await;
    let server = file.server(&Backend::Memory, &[]).await;
    let wanted = json!({ "session": "car", "right": "command", "expires_in": 60 });
    let link = server.request("POST", "/link").basic_auth("ann", Some(PASSWORD)).body(wanted.to_string());
    let token = Answer::to(link).await.json()["token"].as_str().unwrap().to_owned();
    let mut guest = Peer::connect(server.address(), &format!("/ws/control/car?token={token}")).await;
    guest.status(|status| status["driver"] == "a guest").await;
    for (path, expected) in
        [("drive/car", 200), ("snapshot/car", 200), ("drive/other", 403), ("snapshot/other", 403), ("image/car", 403)]
    {
        assert_eq!(server.get(&format!("/{path}?token={token}")).await.status, expected, "{path}");
    }
    // Nor does it show more than its maker sees.
    let text = file.read().replace("view = [\"car\"]", "view = []");
    std::fs::write(file.path(), text).unwrap();
    until(SOON, "the picture is gone", || async {
        (server.get(&format!("/snapshot/car?token={token}")).await.status == 403).then_some(())
    })
    .await;
    assert_eq!(server.get(&format!("/drive/car?token={token}")).await.status, 200);
}
