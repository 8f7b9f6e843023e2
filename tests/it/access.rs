//! Where there are users, nobody gets in where they do not belong: every operation of the description, every socket.

use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile, Viewer, picture::PHOTO_JPEG, server::form_with, until, users::PASSWORD,
};

const RIGHTS: [&str; 4] = ["publish", "view", "take", "command"];
/// What needs nothing, whoever asks.
const PUBLIC: [&str; 8] = ["acmeChallenge", "docs", "healthz", "readyz", "openapi", "loginPage", "logIn", "logOut"];

/// A user for each right on `cam-*`, one with none, and an admin.
async fn users() -> UsersFile {
    UsersFile::with(&[
        ("publish", &["--publish", "cam-*"]),
        ("view", &["--view", "cam-*"]),
        ("take", &["--take", "cam-*"]),
        ("command", &["--command", "cam-*"]),
        ("nothing", &[]),
        ("admin", &["--admin"]),
    ])
    .await
}

/// One operation of the description, on a session.
struct Operation {
    id: String,
    method: String,
    path: String,
    /// What the description says that it needs.
    needs: Option<String>,
}

async fn operations(server: &Server) -> Vec<Operation> {
    let description = server.get("/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let schemes = operation["security"].as_array();
            let scopes = schemes.map(|schemes| schemes[0]["basic"][0].as_str().unwrap().to_owned());
            operations.push(Operation {
                id: id.to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                needs: scopes,
            });
        }
    }
    assert!(operations.len() >= 20, "the walk would prove nothing");
    operations
}

impl Operation {
    /// Whether it is about `DEFAULT_SESSION`, whatever is asked for.
    fn is_about_default(&self) -> bool {
        ["watchDefault", "webcam"].contains(&self.id.as_str())
    }

    fn is_socket(&self) -> bool {
        self.path.starts_with("/ws/")
    }

    /// Asks for it on a session. What is asked for without end is asked to end.
    async fn ask(&self, server: &Server, session: &str, user: Option<&str>) -> u16 {
        let path = self.path.replace("{session}", session);
        let query = match self.id.as_str() {
            "viewWebSocket" => format!("sessions={session}"),
            "listenToCommands" => "wait=0".to_owned(),
            _ => "offline=close".to_owned(),
        };
        if self.is_socket() {
            let mut request = format!("ws://{}{path}?{query}", server.address()).into_client_request().unwrap();
            if let Some(user) = user {
                let pair =
                    reqwest::Client::new().get("http://localhost/").basic_auth(user, Some(PASSWORD)).build().unwrap();
                request.headers_mut().insert("authorization", pair.headers()["authorization"].clone());
            }
            return match connect_async(request).await {
                Ok(_) => 101,
                Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
                Err(error) => panic!("{error}"),
            };
        }
        let mut request = server.request(&self.method, &format!("{path}?{query}"));
        request = match self.id.as_str() {
            "pushImageForm" => request.multipart(form_with("image", PHOTO_JPEG)),
            "newLink" => request.body(json!({ "session": session, "right": "view", "expires_in": 9 }).to_string()),
            _ if matches!(self.method.as_str(), "POST" | "PUT") => request.body(PHOTO_JPEG),
            _ => request,
        };
        if let Some(user) = user {
            request = request.basic_auth(user, Some(PASSWORD));
        }
        let answer = Answer::to(request).await;
        if answer.status == 401 {
            assert!(answer.header("www-authenticate").starts_with("Basic "), "{answer:?}");
        }
        // A refusal is an answer like every other.
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", self.id);
        assert!(answer.has("access-control-expose-headers"), "{}", self.id);
        if answer.status == 403 && self.method != "HEAD" {
            let missing = self.needs.as_deref().unwrap_or_default();
            let right = if RIGHTS.contains(&missing) || missing == "admin" { missing } else { "view" };
            assert_eq!(answer.error_code(), "forbidden");
            assert!(answer.text().contains(&format!("right {right}")), "{}: {answer:?}", self.id);
        }
        answer.status.as_u16()
    }
}

#[tokio::test]
async fn every_operation_and_socket_lets_in_who_has_the_right_and_nobody_else() {
    for backend in Backend::all().await {
        let file = users().await;
        let server = file.server(&backend, &[("STALE_AFTER", "0.5"), ("DEFAULT_SESSION", "cam-1")]).await;
        for operation in operations(&server).await {
            let Some(needs) = &operation.needs else {
                assert!(PUBLIC.contains(&operation.id.as_str()), "{} needs nothing", operation.id);
                let status = operation.ask(&server, "cam-1", None).await;
                assert!(!matches!(status, 401 | 403), "{}: {status}", operation.id);
                continue;
            };
            let name = &operation.id;
            for session in ["cam-1", "other"] {
                assert_eq!(operation.ask(&server, session, None).await, 401, "{name} without a login");
                assert_eq!(operation.ask(&server, session, Some("nobody")).await, 401, "{name} for who is no user");
            }
            for user in ["publish", "view", "take", "command", "nothing", "admin"] {
                for session in ["cam-1", "other"] {
                    let allowed = user == "admin"
                        || match needs.as_str() {
                            // It is about a session that may be watched, or about none.
                            "somebody" | "user" if ["viewWebSocket", "newLink"].contains(&name.as_str()) => {
                                user == "view" && session == "cam-1"
                            }
                            "somebody" | "user" => true,
                            "admin" => false,
                            // A vehicle may be one by either right.
                            _ if name == "listenToCommands" => {
                                ["publish", "command"].contains(&user) && session == "cam-1"
                            }
                            right => user == right && (session == "cam-1" || operation.is_about_default()),
                        };
                    let status = operation.ask(&server, session, Some(user)).await;
                    // A command where no vehicle listens.
                    let let_in = status < 400 || status == 409;
                    assert_eq!(
                        (let_in, allowed || status == 403),
                        (allowed, true),
                        "{name} {session} {user}: {status}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn tricks_with_paths_and_methods_open_nothing() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("STALE_AFTER", "0.5")]).await;
    let routes =
        ["image", "imageForm", "stream", "snapshot", "frames", "ws/push", "session", "control", "ws/control", "drive"];
    // The user `view` may see cam-1 and must not come to `other` by any spelling; nobody may without a login.
    let spellings = [
        "other",
        "cam-1/../other",
        "cam-1%2F..%2Fother",
        "cam-1%2f..%2fother",
        "cam-1%252F..%252Fother",
        "./other",
        "%2e/other",
        "%6fther",
        "oth%65r",
        "OTHER",
        "cam-1/",
        "/cam-1",
        "cam-1//",
        "cam-1;other",
        "cam-1%00other",
        "cam-1%0aother",
        "cam-1%E2%80%AEother",
        "ｏther",
        "%EF%BD%8Fther",
        "cam-1%20",
        "%20cam-1",
        "cam-1?x=/../other",
        "..%2Fstats",
        "../stats",
        "..;/stats",
        "%2e%2e/stats",
        "cam-1%5c..%5cother",
        "cam-1\\..\\other",
        "*",
        "cam-*",
    ];
    for route in routes {
        for spelling in spellings {
            let path = format!("/{route}/{spelling}");
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "FOO"]
            {
                for user in [None, Some("view")] {
                    let status = raw_status(&server, method, &path, user).await;
                    let own = user.is_some() && ["cam-1?x=/../other"].contains(&spelling);
                    let opened = (200..300).contains(&status) && !(method == "OPTIONS" && status == 204);
                    assert!(!opened || own, "{method} {path} {user:?}: {status}");
                }
            }
        }
    }
    assert_eq!(
        Answer::to(server.request("GET", "/stats").basic_auth("admin", Some(PASSWORD))).await.json()["numSessions"],
        0
    );
    // Nothing makes one method into another, or one path into another.
    let other = [
        ("x-http-method-override", "GET"),
        ("x-method-override", "POST"),
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-forwarded-prefix", "/login"),
        ("x-forwarded-for", "127.0.0.1"),
    ];
    for (name, value) in other {
        for (method, path) in [("GET", "/stats"), ("POST", "/image/cam-1"), ("GET", "/stream/cam-1")] {
            let answer = Answer::to(server.request(method, path).header(name, value)).await;
            assert_eq!(answer.status, 401, "{name} {method} {path}");
        }
    }
    assert_eq!(Answer::to(server.request("GET", "/stats?_method=DELETE&token=&token=x")).await.status, 401);
}

/// The status of a request line that no client library would send.
async fn raw_status(server: &Server, method: &str, path: &str, user: Option<&str>) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // dmlldzpjb3JyZWN0IGhvcnNlIGJhdHRlcnk= is view:correct horse battery
    let login = user.map_or("", |_| "Authorization: Basic dmlldzpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=\r\n");
    let mut socket = server.connect().await;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{login}Content-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 64];
    let mut read = 0;
    while read < 16 {
        match tokio::time::timeout(SOON, socket.read(&mut head[read..])).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(bytes) => read += bytes,
        }
    }
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(400)
}

#[tokio::test]
async fn a_key_stands_for_its_user_until_there_is_another() {
    let file = users().await;
    let key = file.must(&["key", "publish"], "").await.trim().to_owned();
    let server = file.server(&Backend::Memory, &[]).await;
    let push = async |key: &str, session: &str| {
        let request = server.request("POST", &format!("/image/{session}")).bearer_auth(key).body(PHOTO_JPEG);
        Answer::to(request).await
    };
    assert_eq!(push(&key, "cam-1").await.status, 200);
    push(&key, "other").await.is_refused(403, "forbidden");
    push(&format!("{key}x"), "cam-1").await.is_refused(401, "bad_credentials");
    assert!(!file.read().contains(&key), "it is kept as a hash");
    let newer = file.must(&["key", "publish"], "").await.trim().to_owned();
    until(SOON, "the old key ends", || async { (push(&key, "cam-1").await.status == 401).then_some(()) }).await;
    assert_eq!(push(&newer, "cam-1").await.status, 200);
}

#[tokio::test]
async fn a_user_owns_the_sessions_that_were_made_for_that_user_on_every_server() {
    for backend in Backend::all().await {
        let file = users().await;
        let servers = match &backend {
            Backend::Memory => vec![file.server(&backend, &[]).await],
            Backend::Redis(_) => vec![file.server(&backend, &[]).await, file.server(&backend, &[]).await],
        };
        let (first, last) = (&servers[0], &servers[servers.len() - 1]);
        let session = Answer::to(first.request("GET", "/session").basic_auth("nothing", Some(PASSWORD))).await;
        let session = session.text().to_owned();
        let ask = async |server: &Server, user: &str, method: &str, path: &str| {
            let request = server.request(method, &format!("/{path}/{session}")).basic_auth(user, Some(PASSWORD));
            Answer::to(if method == "POST" { request.body(PHOTO_JPEG) } else { request }).await
        };
        for (method, path) in [("POST", "image"), ("GET", "snapshot"), ("GET", "frames"), ("GET", "image")] {
            let answer = ask(last, "nothing", method, path).await;
            assert_eq!((answer.status.as_u16(), answer.has("x-no-data")), (200, false), "{method} {path}");
            assert_eq!(ask(last, "view", method, path).await.status, 403);
        }
        let request = last.request("DELETE", &format!("/session/{session}")).basic_auth("nothing", Some(PASSWORD));
        Answer::to(request).await.is_refused(403, "forbidden");
    }
}

#[tokio::test]
async fn stats_show_each_user_what_that_user_may_view() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("METRICS_TOKEN", "scrape-me")]).await;
    for session in ["cam-1", "cam-2", "other"] {
        let push = server.request("POST", &format!("/image/{session}")).basic_auth("admin", Some(PASSWORD));
        assert_eq!(Answer::to(push.body(PHOTO_JPEG)).await.status, 200);
    }
    let seen = async |user: &str| {
        let stats = Answer::to(server.request("GET", "/stats").basic_auth(user, Some(PASSWORD))).await.json();
        let ids =
            stats["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned());
        assert_eq!(stats["numImages"], stats["numSessions"]);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(seen("admin").await, ["cam-1", "cam-2", "other"]);
    assert_eq!(seen("view").await, ["cam-1", "cam-2"]);
    assert!(seen("publish").await.is_empty());
    let metrics =
        async |token: &str| Answer::to(server.request("GET", "/metrics").bearer_auth(token)).await.status.as_u16();
    assert_eq!((metrics("scrape-me").await, metrics("scrape-me2").await, metrics("").await), (200, 401, 401));
    assert_eq!(Answer::to(server.request("GET", "/stats").bearer_auth("scrape-me")).await.status, 401);
}

#[tokio::test]
async fn the_metrics_token_guards_metrics_without_users_too() {
    let server = Backend::Memory.server(&[("METRICS_TOKEN", "scrape-me")]).await;
    assert_eq!(server.get("/metrics").await.status, 401);
    assert_eq!(Answer::to(server.request("GET", "/metrics").bearer_auth("scrape-me")).await.status, 200);
    assert_eq!(server.get("/stats").await.status, 200);
}

#[tokio::test]
async fn what_goes_on_ends_when_the_right_does() {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    let login = "Authorization: Basic dmlldzpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=\r\n";
    let mut viewer = Viewer::request(&server, &format!("GET /stream/cam-1 HTTP/1.1\r\nHost: a\r\n{login}\r\n")).await;
    viewer.part().await;
    let socket = |path: &str, user: &str| {
        let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
        let pair = reqwest::Client::new().get("http://localhost/").basic_auth(user, Some(PASSWORD)).build().unwrap();
        request.headers_mut().insert("authorization", pair.headers()["authorization"].clone());
        connect_async(request)
    };
    let (mut wall, _) = socket("/ws/view?sessions=cam-1", "view").await.unwrap();
    let (mut camera, _) = socket("/ws/push/cam-1", "publish").await.unwrap();
    // Pushes without an end, framed in each way there is; of each the first picture is seen.
    let mut pushes = Vec::new();
    for framing in
        ["Transfer-Encoding: chunked", "Content-Length: 99999999", "Upgrade: websocket\r\nConnection: Upgrade"]
    {
        let login = "Authorization: Basic cHVibGlzaDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=";
        let mut push = server.connect().await;
        let head = format!("POST /stream/cam-1 HTTP/1.1\r\nHost: a\r\n{login}\r\n{framing}\r\n\r\n");
        let pictures = [PHOTO_JPEG, PHOTO_JPEG].concat();
        let chunk = if framing.ends_with("chunked") { format!("{:x}\r\n", pictures.len()) } else { String::new() };
        push.write_all(&[head.as_bytes(), chunk.as_bytes(), &pictures].concat()).await.unwrap();
        viewer.part().await;
        pushes.push((framing, push));
    }
    // And waits for a frame that could be taken.
    let take =
        |user: &str| server.request("GET", "/image/cam-2?wait=30&empty=204").basic_auth(user, Some(PASSWORD)).send();
    let waiting = tokio::spawn(take("take"));

    file.must(&["remove", "view"], "").await;
    file.must(&["remove", "take"], "").await;
    file.must(&["passwd", "publish"], "another password").await;
    viewer.ended_within(SOON).await;
    let end = tokio::time::timeout(SOON, async {
        while let Some(Ok(_)) = wall.next().await {}
        while let Some(Ok(_)) = camera.next().await {}
    });
    end.await.expect("the sockets end");
    for (framing, mut push) in pushes {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, push.read_to_end(&mut answer));
        read.await.unwrap_or_else(|_| panic!("{framing}: it goes on")).ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 403") && answer.contains("right_ended"), "{answer}");
    }
    let waited = tokio::time::timeout(SOON, waiting).await.expect("the wait ends").unwrap().unwrap();
    assert_eq!(waited.status(), 403);
    let push = server.request("POST", "/image/cam-2").basic_auth("admin", Some(PASSWORD)).body(PHOTO_JPEG);
    assert_eq!(Answer::to(push).await.status, 200);
    let left = Answer::to(server.request("HEAD", "/image/cam-2").basic_auth("admin", Some(PASSWORD))).await;
    assert_eq!(left.header("x-queue-length"), "1", "nobody took it");
}

#[tokio::test]
async fn sockets_refuse_sessions_that_may_not_be_seen_and_go_on() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    let mut request = format!("ws://{}/ws/view?sessions=cam-1", server.address()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Basic dmlldzpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=".parse().unwrap());
    let (mut wall, _) = connect_async(request).await.unwrap();
    wall.send(Message::text(r#"{"subscribe":["other","cam-2"]}"#)).await.unwrap();
    let error = loop {
        let message = tokio::time::timeout(SOON, wall.next()).await.expect("in time").unwrap().unwrap();
        let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if !message["error"].is_null() {
            break message;
        }
    };
    assert_eq!(error["error"]["code"], "forbidden");
    let push = server.request("POST", "/image/cam-1").basic_auth("publish", Some(PASSWORD)).body(PHOTO_JPEG);
    assert_eq!(Answer::to(push).await.status, 200);
    let frame = tokio::time::timeout(SOON, async {
        while let Some(Ok(message)) = wall.next().await {
            if message.is_binary() {
                return true;
            }
        }
        false
    });
    assert!(frame.await.expect("in time"));
}

#[test]
fn every_route_is_declared_with_what_it_needs_and_described() {
    let http = include_str!("../../src/http.rs");
    let declared: Vec<_> = http.split("at(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(declared.len() >= 17, "{declared:?}");
    let description = include_str!("openapi.rs");
    for path in &declared {
        let is_part_of_a_page = matches!(*path, "/assets/{file}" | "/docs/{file}");
        assert!(is_part_of_a_page || description.contains(&format!("{path:?}")), "{path} is not described");
    }
    // There is no other way to declare one.
    assert_eq!(http.matches("web::resource(").count(), 1, "in `at` alone");
    for other in ["web::route(", ".route(\"", "web::scope(\"", "#[get", "#[post"] {
        assert!(!http.contains(other), "{other}");
    }
}

#[tokio::test]
async fn who_asks_before_the_body_is_told_at_once_where_a_login_is_needed_and_nowhere_else() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[]).await;
    for (method, path, status) in [
        ("POST", "/image/cam-1", 401),
        ("PUT", "/image/cam-1", 401),
        ("GET", "/healthz", 200),
        ("POST", "/logout", 303),
        ("POST", "/login", 400),
    ] {
        let request = server.request(method, path).header("expect", "100-continue").body("x");
        assert_eq!(Answer::to(request).await.status, status, "{method} {path}");
    }
}
