//! Phones with AndroidCamStream: who is let in, who takes over, what becomes of those that vanish, and by which ports they come.

mod clients;
mod limits;
mod speed;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, RedisServer, SOON, Server, UsersFile,
    link::Link,
    nginx::{SITE, SITE_BELOW_A_PATH, Site},
    phones::{Client, Gateway, Phones, TRANSPORTS},
    process::Process,
    server::command,
    tls::CertificateFiles,
    until,
    users::PASSWORD,
};

const BYTES: usize = 20_000;
/// How long a refused phone stays connected, so that it hears why.
const REFUSAL_PAUSE: Duration = Duration::from_secs(2);
/// How soon a dead connection is found, at the latest: no byte for 30 s, looked at every second.
const FOUND_DEAD: Duration = Duration::from_secs(40);
/// How long it is watched whether a phone comes back that should stay away: the app tries again every 5 s.
const WATCHED: Duration = Duration::from_secs(6);

/// A phone of this name that waits to be let in, and comes back by itself where its client does.
fn phone(transports: &[&str], user: impl Into<Value>, more: &Value) -> Value {
    let mut options = json!({
        "transports": transports, "user": user.into(), "password": PASSWORD, "wait": true, "bytes": BYTES,
        "reconnect": true,
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

async fn connected(server: &Server) -> f64 {
    server.metric("image_streamer_socketio_clients").await
}

#[tokio::test]
async fn a_user_with_the_right_is_let_in_and_nobody_else() {
    let users =
        UsersFile::with(&[("ann", &["--publish", "ann"]), ("bob", &["--publish", "garage", "--view", "*"])]).await;
    let path = users.path();
    let gateway = Gateway::start(&[("USERS_FILE", path.to_str().unwrap())]).await;
    let cases = [
        ("ann", json!(PASSWORD)),
        ("ann", json!("wrong")),
        ("ann", Value::Null),
        ("bob", json!(PASSWORD)),
        ("eve", json!("x")),
    ];
    // Each client by another way, and no more: whoever guesses wrong too often has to wait.
    let phones = Client::ALL.into_iter().zip(TRANSPORTS);
    let outcomes = phones.flat_map(|(client, transports)| cases.clone().map(|case| (client, transports, case)));
    let outcomes = outcomes.map(async |(client, transports, (user, password))| {
        let options = phone(transports, user, &json!({ "password": password, "callback": "theOutcome" }));
        let mut phones = gateway.phones(client, &options);
        let is_right = user == "ann" && password == PASSWORD;
        let outcome = phones.next("authenticated").await;
        assert_eq!(outcome["value"], is_right, "{client:?} {transports:?} {user} {password}");
        if is_right {
            return;
        }
        let told = Instant::now();
        phones.next("disconnect").await;
        let stayed = told.elapsed();
        assert!(stayed + Duration::from_millis(500) > REFUSAL_PAUSE, "{client:?} {transports:?}: only {stayed:?}");
        tokio::time::sleep(WATCHED).await;
        assert_eq!(phones.hang_up().await.all("connect").len(), 1, "{client:?} {transports:?} stays away");
    });
    join_all(outcomes).await;
}

#[tokio::test]
async fn without_users_every_usable_name_is_let_in_and_names_the_session() {
    let gateway = Gateway::start(&[("SOCKETIO_SESSION", "phone-{username}.live")]).await;
    let long = "a".repeat(118);
    let cases = [
        (json!("ann"), true),
        (json!("Anna.Maria_2@home-1"), true),
        (json!(7), true),
        (json!(long), false),
        (json!(""), false),
        (json!(" "), false),
        (json!("a b"), false),
        (json!("a/b"), false),
        (json!(".."), false),
        (json!("änne"), false),
        (json!({ "name": "ann" }), false),
        (Value::Null, false),
    ];
    for (user, is_usable) in cases {
        let options = phone(&["websocket"], user.clone(), &json!({ "frames": 1, "ack": true, "reconnect": false }));
        let mut phones = gateway.phones(Client::Js4, &options);
        assert_eq!(phones.next("authenticated").await["value"], is_usable, "{user}");
        if is_usable {
            let said = phones.done_within(SOON).await;
            let ack = &said.one("ack")["value"];
            assert!(ack["seq"].as_u64().is_some() && ack["viewers"] == 0, "{ack}");
        }
    }
    let sessions: BTreeSet<_> = gateway.server.stats().await.into_iter().collect();
    let expected = ["phone-7.live", "phone-Anna.Maria_2@home-1.live", "phone-ann.live"];
    assert_eq!(sessions, expected.map(|session| (session.to_owned(), 1)).into());
}

#[tokio::test]
async fn pictures_before_authentication_are_refused_counted_and_logged_once() {
    for client in Client::ALL {
        for transports in TRANSPORTS {
            let mut gateway = Gateway::start(&[]).await;
            let options = json!({ "transports": transports, "user": "ann", "frames": 5, "bytes": BYTES, "ack": true });
            let said = gateway.phones(client, &options).done_within(SOON).await;
            let acks = said.all("ack");
            assert_eq!(acks.len(), 5, "{client:?} {transports:?}");
            for ack in acks {
                assert_eq!(ack["value"]["error"]["code"], "login_needed", "{ack}");
            }
            let refused = r#"image_streamer_socketio_refused_total{code="login_needed"}"#;
            assert_eq!((gateway.server.metric(refused).await, gateway.frames_in().await), (5.0, 0));
            assert!(gateway.server.stats().await.is_empty());
            gateway.server.process().line_with("a phone's picture is refused").await;
            gateway.server.signal(Signal::SIGTERM);
            let (_, log) = gateway.server.into_process().ended_within(SOON).await;
            assert_eq!(log.matches("a phone's picture is refused").count(), 1, "{log}");
        }
    }
}

/// The sizes of pictures that phones send which take over from one another.
const SIZES: [usize; 4] = [10_001, 10_002, 10_003, 10_004];

/// The sizes of all pictures that have come, each once; they grow from phone to phone, and are not mixed.
async fn sizes(server: &Server, session: &str) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(frame) = server.take(session).await {
        sizes.push(frame.len());
    }
    assert!(sizes.is_sorted(), "{session}: the pictures of the phones are mixed: {sizes:?}");
    sizes.dedup();
    sizes
}

#[tokio::test]
async fn who_connects_later_takes_over_and_the_older_stays_away() {
    let [memory, redis] = Backend::all().await;
    let gateways = [Gateway::on(&memory, &[]).await, Gateway::on(&redis, &[]).await];
    let phones = Client::ALL.into_iter().flat_map(|client| TRANSPORTS.map(|transports| (client, transports)));
    // Each on one of the two.
    let takeovers = phones.zip(gateways.iter().cycle()).enumerate();
    let takeovers = takeovers.map(async |(number, ((client, transports), gateway))| {
        let session = format!("ann-{number}");
        let streams = |bytes: usize| {
            let more = json!({ "frames": 10_000, "fps": 20, "bytes": bytes });
            gateway.phones(client, &phone(transports, session.as_str(), &more))
        };
        let is_seen = async |bytes: usize| {
            until(SOON, "the phone is seen", || async {
                let newest = gateway.server.get(&format!("/snapshot/{session}")).await;
                (newest.body.len() == bytes).then_some(())
            })
            .await;
        };
        let mut phones = vec![streams(10_001)];
        assert_eq!(phones[0].next("authenticated").await["value"], true);
        is_seen(10_001).await;
        // Three times, as phones change hands.
        for bytes in [10_002, 10_003, 10_004] {
            let mut newer = streams(bytes);
            assert_eq!(newer.next("authenticated").await["value"], true, "{client:?} {transports:?}");
            phones.last_mut().unwrap().next("disconnect").await;
            is_seen(bytes).await;
            phones.push(newer);
        }
        tokio::time::sleep(WATCHED).await;
        for phone in phones {
            assert_eq!(phone.hang_up().await.all("connect").len(), 1, "{client:?} {transports:?} comes back");
        }
        assert_eq!(sizes(&gateway.server, &session).await, SIZES, "{client:?} {transports:?}");
    });
    join_all(takeovers).await;
}

#[tokio::test]
async fn taking_over_reaches_phones_at_another_replica_too() {
    let redis = Backend::Redis(Box::new(RedisServer::start().await));
    let replicas = [Gateway::on(&redis, &[]).await, Gateway::on(&redis, &[]).await];
    let streams = |replica: usize, bytes: usize| {
        let more = json!({ "frames": 10_000, "fps": 30, "bytes": bytes });
        replicas[replica].phones(Client::Js2, &phone(&["websocket"], "ann", &more))
    };
    let (mut older, mut left) = (streams(0, 10_001), Vec::new());
    assert_eq!(older.next("authenticated").await["value"], true);
    for (replica, bytes) in [(1, 10_002), (0, 10_003), (1, 10_004)] {
        until(SOON, "the older phone is seen", || async {
            let newest = replicas[replica].server.get("/snapshot/ann").await;
            (newest.body.len() == bytes - 1).then_some(())
        })
        .await;
        let mut newer = streams(replica, bytes);
        assert_eq!(newer.next("authenticated").await["value"], true);
        older.next("disconnect").await;
        left.push(std::mem::replace(&mut older, newer));
    }
    tokio::time::sleep(WATCHED).await;
    for phone in left.into_iter().chain([older]) {
        assert_eq!(phone.hang_up().await.all("connect").len(), 1);
    }
    assert_eq!(sizes(&replicas[0].server, "ann").await, SIZES);
}

/// A phone of each client by each transport, let in through the link: its session, what it is, and the phone.
async fn one_of_each(link: &Link, more: &Value) -> Vec<(String, Client, &'static [&'static str], Phones)> {
    let mut phones = Vec::new();
    for client in Client::ALL {
        for transports in TRANSPORTS {
            let session = format!("{client:?}-{}", transports.join("-"));
            let mut phone = Phones::start(client, &link.url(""), &phone(transports, session.as_str(), more));
            phone.next("authenticated").await;
            phones.push((session, client, transports, phone));
        }
    }
    phones
}

#[tokio::test]
async fn phones_that_vanish_without_a_word_are_found_and_their_owner_need_not_wait_for_that() {
    let gateway = Gateway::start(&[]).await;
    let link = Link::to(gateway.address());
    let more = json!({ "frames": 10_000, "fps": 10 });
    let mut phones = one_of_each(&link, &more).await;
    let count = phones.len();
    until(SOON, "all stream", || async { (gateway.server.stats().await.len() == count).then_some(()) }).await;
    link.fall_silent();
    let silent = Instant::now();
    for (session, client, transports, phone) in &mut phones {
        // The phone itself is stopped too, so that it does not come back by another way.
        phone.fall_silent();
        let mut again =
            gateway.phones(*client, &self::phone(transports, session.as_str(), &json!({ "frames": 3, "ack": true })));
        assert_eq!(again.next("authenticated").await["value"], true);
        let said = again.done_within(SOON).await;
        assert!(said.all("ack").iter().all(|ack| ack["value"]["seq"].is_u64()), "{said:?}");
    }
    assert!(silent.elapsed() < FOUND_DEAD / 2, "nobody waited: {:?}", silent.elapsed());
    let gone = || async { (connected(&gateway.server).await == 0.0).then_some(()) };
    until(FOUND_DEAD, "the dead connections are found", gone).await;
}

#[tokio::test]
async fn phones_come_back_by_themselves_when_the_server_is_ended_killed_or_out_of_reach() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let variables = [("REDIS_URL", url.as_str()), ("EXPIRE", "600")];
    let mut gateway = Gateway::start(&variables).await;
    let port = gateway.address().port().to_string();
    let link = Link::to(gateway.address());
    let more = json!({ "frames": 100_000, "fps": 10 });
    let mut phones = one_of_each(&link, &more).await;
    for (round, signal) in [Signal::SIGTERM, Signal::SIGKILL].into_iter().enumerate() {
        gateway.server.signal(signal);
        let ended = Instant::now();
        gateway.server.into_process().ended_within(Duration::from_secs(10)).await;
        assert!(ended.elapsed() < Duration::from_secs(10));
        let again = [&variables[..], &[("SOCKETIO_PORT", port.as_str()), ("SOCKETIO_HOST", "127.0.0.1")]].concat();
        gateway = Gateway::of(Server::start(&again).await).await;
        for (session, _, _, phone) in &mut phones {
            // One that polls tries again some seconds after each failure.
            phone.have_said(round + 2, "authenticated", Duration::from_secs(60)).await;
            let fresh = async || {
                let newest = gateway.server.get(&format!("/snapshot/{session}?max_age=2")).await;
                (newest.status == 200 && newest.body.len() == BYTES).then_some(())
            };
            until(SOON, "it streams again", fresh).await;
        }
    }
    drop(link);
}

#[tokio::test]
async fn a_phone_whose_right_ends_is_disconnected() {
    let names = Client::ALL.map(|client| format!("{client:?}"));
    let users = UsersFile::with(&[("root", &["--admin"])]).await;
    for name in &names {
        users.add(name, &["--publish", name]).await;
    }
    let path = users.path();
    let variables = [("USERS_FILE", path.to_str().unwrap()), ("METRICS_TOKEN", "token")];
    let gateway = Gateway::start(&variables).await;
    let frames_in = async || {
        let metrics = Answer::to(gateway.server.request("GET", "/metrics").bearer_auth("token")).await;
        let text = metrics.text().to_owned();
        text.lines().find(|line| line.contains(r#"frames_in_total{way="socketio"}"#)).unwrap().to_owned()
    };
    let mut phones = Vec::new();
    for (client, name) in Client::ALL.into_iter().zip(&names) {
        let options = phone(&["polling", "websocket"], name.as_str(), &json!({ "frames": 10_000, "fps": 5 }));
        let mut phone = gateway.phones(client, &options);
        assert_eq!(phone.next("authenticated").await["value"], true);
        phones.push(phone);
    }
    for name in &names {
        users.must(&["remove", name], "").await;
    }
    for phone in &mut phones {
        phone.next("disconnect").await;
    }
    let frames = frames_in().await;
    tokio::time::sleep(WATCHED).await;
    for phone in phones {
        assert_eq!(phone.hang_up().await.all("connect").len(), 1);
    }
    assert_eq!(frames_in().await, frames);
}

#[tokio::test]
async fn phones_come_over_https_and_plain_http_to_one_port() {
    let files = CertificateFiles::new();
    let server = files.server(&[("SOCKETIO_PORT", "0"), ("SOCKETIO_HOST", "127.0.0.1")]).await;
    let gateway = Gateway::of(server).await;
    let port = gateway.address().port();
    let ca = files.ca();
    for client in Client::ALL {
        for transports in TRANSPORTS {
            for scheme in ["https", "http"] {
                let session = format!("{client:?}-{}-{scheme}", transports.join("-"));
                let more = json!({ "frames": 5, "fps": 20, "ack": true, "ca": ca });
                let url = format!("{scheme}://localhost:{port}");
                let said =
                    Phones::start(client, &url, &phone(transports, session.as_str(), &more)).done_within(SOON).await;
                assert_eq!(said.total("acked"), 5, "{session}: {said:?}");
            }
        }
    }
}

#[tokio::test]
async fn one_public_port_of_nginx_serves_phones_and_everything_else() {
    let gateway = Gateway::start(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    for (site, paths) in [(SITE, &["/socket.io/"][..]), (SITE_BELOW_A_PATH, &["/socket.io/", "/cams/socket.io/"])] {
        let site = Site::before_both(gateway.server.address(), gateway.address(), site).await;
        let ca = site.authority();
        for (number, path) in paths.iter().enumerate() {
            for client in Client::ALL {
                for transports in TRANSPORTS {
                    let session = format!("{client:?}-{}-{number}", transports.join("-"));
                    let more =
                        json!({ "frames": 5, "fps": 20, "bytes": 1_500_000, "ack": true, "ca": ca, "path": path });
                    let phones = Phones::start(client, &site.https(""), &phone(transports, session.as_str(), &more));
                    let said = phones.done_within(Duration::from_secs(30)).await;
                    assert_eq!(said.total("acked"), 5, "{path} {session}: {said:?}");
                    let upgraded = said.all("upgrade").len();
                    assert_eq!(upgraded, usize::from(transports.len() == 2), "{path} {session}: {said:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_originals_command_line_means_what_it_meant() {
    for flag in ["-a", "--auth", "-auth"] {
        let (status, output) = Process::start(command(&["androidcam", flag], &[])).ended_within(SOON).await;
        assert_eq!(status.code(), Some(2), "{flag}: {output}");
        assert!(output.contains("USERS_FILE"), "{flag}: {output}");
    }
    let users = UsersFile::with(&[("ann", &["--publish", "ann"])]).await;
    let path = users.path();
    for flags in [["-i", "-p", "-auth"], ["--ip", "--port", "--auth"]] {
        let arguments = ["androidcam", flags[0], "127.0.0.1", flags[1], "0", flags[2]];
        let variables = [("USERS_FILE", path.to_str().unwrap()), ("PORT", "0"), ("HOST", "127.0.0.2")];
        let server = Server::start_with(&arguments, &variables).await;
        assert_eq!(server.address().ip().to_string(), "127.0.0.2");
        let gateway = Gateway::of(server).await;
        assert_eq!(gateway.address().ip().to_string(), "127.0.0.1");
        for (password, outcome) in [(PASSWORD, true), ("wrong", false)] {
            let options = phone(&["websocket"], "ann", &json!({ "password": password }));
            let mut phones = gateway.phones(Client::Js2, &options);
            assert_eq!(phones.next("authenticated").await["value"], outcome, "{flags:?} {password}");
        }
    }
    // The app's own default, without any flag.
    let (_, output) = Process::start(command(&["androidcam", "--help"], &[])).ended_within(SOON).await;
    assert!(output.contains("[default: 8080]"), "{output}");
}

#[tokio::test]
async fn the_wall_is_opened_in_the_default_browser() {
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("wall.png");
    let profile = directory.path().join("profile");
    let browser = format!(
        "chromium --headless --no-sandbox --disable-gpu --user-data-dir={} --window-size=600,400 --screenshot={} %s",
        profile.display(),
        picture.display()
    );
    let path = std::env::var("PATH").unwrap();
    let home = directory.path().to_str().unwrap();
    let variables = [("PORT", "0"), ("BROWSER", browser.as_str()), ("PATH", &path), ("HOME", home)];
    let server = Server::start_with(&["androidcam", "-i", "127.0.0.1", "-p", "0", "-d"], &variables).await;
    let taken = || async { std::fs::metadata(&picture).is_ok_and(|picture| picture.len() > 0).then_some(()) };
    until(Duration::from_secs(40), "Chromium has been at the wall", taken).await;
    drop(server);
    // Where nobody would see it, it is said where the wall is.
    let plain = [("PORT", "0")];
    let mut server = Process::start(command(&["androidcam", "-i", "127.0.0.1", "-p", "0", "-d"], &plain));
    server.line_with("no desktop").await;
}
