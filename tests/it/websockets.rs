//! `/ws/view` and `/ws/push/{session}`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

use crate::harness::{
    Backend, SOON, Server, Viewer,
    picture::{PHOTO_JPEG, number_of, numbered},
    until,
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(server: &Server, path: &str) -> Socket {
    let url = format!("ws://{}{path}", server.address());
    let (socket, _) = timeout(SOON, connect_async(url)).await.expect("it opens in time").unwrap();
    socket
}

async fn receive(socket: &mut Socket) -> Message {
    timeout(SOON, socket.next()).await.expect("a message in time").expect("a message").unwrap()
}

async fn receive_json(socket: &mut Socket) -> Value {
    let message = receive(socket).await;
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

/// One frame as it comes: session, number, time of capture, picture.
fn frame_of(message: &Message) -> (String, u64, f64, Vec<u8>) {
    let Message::Binary(bytes) = message else { panic!("{message:?}") };
    let (length, rest) = bytes.split_first().unwrap();
    let (id, rest) = rest.split_at(usize::from(*length));
    let (seq, rest) = rest.split_first_chunk().unwrap();
    let (captured, picture) = rest.split_first_chunk().unwrap();
    let id = String::from_utf8(id.to_vec()).unwrap();
    (id, u64::from_be_bytes(*seq), f64::from_be_bytes(*captured), picture.to_vec())
}

/// The next message that is a frame; states that come before it are passed over.
async fn receive_frame(socket: &mut Socket) -> (String, u64, f64, Vec<u8>) {
    loop {
        let message = receive(socket).await;
        if message.is_binary() {
            return frame_of(&message);
        }
    }
}

#[tokio::test]
async fn one_socket_shows_many_sessions_and_tells_how_each_of_them_stands() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "1")]).await;
        let stamped =
            server.request("POST", "/image/a").header("x-timestamp", "1700000000.5").body(numbered(1, 100_000));
        stamped.send().await.unwrap();
        let mut wall = open(&server, "/ws/view?sessions=a,b").await;
        let (mut states, mut frame) = (BTreeMap::new(), None);
        while states.len() < 2 || frame.is_none() {
            match receive(&mut wall).await {
                Message::Text(text) => {
                    let state: Value = serde_json::from_str(&text).unwrap();
                    states.insert(state["session"].as_str().unwrap().to_owned(), state);
                }
                message => frame = Some(frame_of(&message)),
            }
        }
        let keys: Vec<_> = states["a"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["ageMs", "session", "state"]);
        assert_eq!((&states["a"]["state"], &states["b"]["state"]), (&json!("live"), &json!("empty")));
        assert!(states["a"]["ageMs"].as_u64().unwrap() < 1000 && states["b"]["ageMs"].is_null(), "{states:?}");
        let (session, _, captured, picture) = frame.unwrap();
        assert_eq!((session.as_str(), captured, picture), ("a", 1_700_000_000.5, numbered(1, 100_000)));

        let stale = receive_json(&mut wall).await;
        assert_eq!((&stale["session"], &stale["state"]), (&json!("a"), &json!("stale")));
        assert!((1000..1500).contains(&stale["ageMs"].as_u64().unwrap()), "{stale}");

        for (session, number) in [("b", 2), ("a", 3)] {
            let seq = server.push(session, &numbered(number, 300)).await.0;
            let live = receive_json(&mut wall).await;
            assert_eq!((&live["session"], &live["state"]), (&json!(session), &json!("live")));
            let (shown, shown_seq, _, picture) = receive_frame(&mut wall).await;
            assert_eq!((shown.as_str(), shown_seq, picture), (session, seq, numbered(number, 300)));
        }
        assert_eq!(server.stats().await, [("a".into(), 2), ("b".into(), 1)], "nothing was taken");
        server.ask("DELETE", "/session/b").await;
        let empty = receive_json(&mut wall).await;
        assert_eq!((&empty["session"], &empty["state"]), (&json!("b"), &json!("empty")));
    }
}

#[tokio::test]
async fn frames_tell_when_they_are_sent_and_how_old_they_are_where_that_is_asked_for() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let pushed = server.push("a", PHOTO_JPEG).await;
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let age = Duration::from_millis(300);
        // How old it is says the server; that it is at least this old, the test has to see to.
        tokio::time::sleep(age).await;
        let mut plain = open(&server, "/ws/view?sessions=a").await;
        assert_eq!(receive_frame(&mut plain).await.3, PHOTO_JPEG);
        let mut wall = open(&server, "/ws/view?sessions=a&clock=1").await;
        let (session, seq, _, rest) = receive_frame(&mut wall).await;
        let (sent, rest) = rest.split_first_chunk().unwrap();
        let (old, picture) = rest.split_first_chunk().unwrap();
        let (sent, old) = (u64::from_be_bytes(*sent), u64::from(u32::from_be_bytes(*old)));
        assert_eq!((session.as_str(), seq, picture), ("a", pushed.0, PHOTO_JPEG));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!((before + 300..=now).contains(&sent), "{before} {sent} {now}");
        assert!((299..=now - before + 1000).contains(&old), "{old}");
        server.get("/ws/view?clock=often").await.is_refused(400, "bad_query");
    }
}

#[tokio::test]
async fn what_a_socket_watches_can_be_changed_and_mistakes_are_told() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut wall = open(&server, "/ws/view").await;
        wall.send(Message::text(r#"{"subscribe":["a"]}"#)).await.unwrap();
        assert_eq!(receive_json(&mut wall).await["state"], "empty");
        for (text, code) in [
            ("hello", "bad_message"),
            (r#"{"subscribe":"a"}"#, "bad_message"),
            (r#"{"watch":["a"]}"#, "bad_message"),
            (r#"{"subscribe":["a/b"]}"#, "bad_session"),
        ] {
            wall.send(Message::text(text)).await.unwrap();
            assert_eq!(receive_json(&mut wall).await["error"]["code"], code, "{text}");
        }
        wall.send(Message::binary(&b"bytes"[..])).await.unwrap();
        assert_eq!(receive_json(&mut wall).await["error"]["code"], "bad_message");
        let many: Vec<_> = (0..300).map(|number| format!("s{number}")).collect();
        wall.send(Message::text(json!({ "subscribe": many }).to_string())).await.unwrap();
        while receive_json(&mut wall).await["error"]["code"] != "too_many_subscriptions" {}
        wall.send(Message::text(json!({ "unsubscribe": many }).to_string())).await.unwrap();

        server.push("a", PHOTO_JPEG).await;
        assert_eq!(receive_frame(&mut wall).await.0, "a");
        wall.send(Message::text(r#"{"unsubscribe":["a"],"subscribe":["b"]}"#)).await.unwrap();
        until(SOON, "nobody watches a any more", || async {
            let answer = server.post("/image/a", PHOTO_JPEG).await;
            (answer.header("x-viewers") == "0").then_some(())
        })
        .await;
        server.push("b", PHOTO_JPEG).await;
        while receive_frame(&mut wall).await.0 != "b" {}
        assert_eq!(server.metric("image_streamer_viewers").await, 1.0);
        drop(wall);
        until(Duration::from_secs(1), "it is gone", || async {
            (server.metric("image_streamer_viewers").await == 0.0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_socket_may_limit_its_rate_and_a_slow_one_skips() {
    let server = Backend::Memory.server(&[]).await;
    let mut limited = open(&server, "/ws/view?sessions=a&fps=5").await;
    let mut slow = open(&server, "/ws/view?sessions=a").await;
    let mut quick = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(quick.part().await.seq(), None);
    for number in 0..40 {
        server.push("a", &numbered(number, 1_000_000)).await;
        assert_eq!(quick.part_within(Duration::from_secs(1)).await.expect("nobody waits").number(), number);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let count = async |socket: &mut Socket| {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&39) {
            numbers.push(number_of(&receive_frame(socket).await.3));
        }
        assert!(numbers.is_sorted(), "{numbers:?}");
        numbers.len()
    };
    let (limited, slow) = (count(&mut limited).await, count(&mut slow).await);
    assert!(limited <= 12 && slow < 25, "{limited} {slow}");
}

#[tokio::test]
async fn each_picture_that_is_pushed_is_answered_and_a_bad_one_does_not_end_the_socket() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "30000")]).await;
        let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
        viewer.part().await;
        let mut camera = open(&server, "/ws/push/a").await;
        let mut last = None;
        for number in 0..3 {
            camera.send(Message::binary(numbered(number, 20_000))).await.unwrap();
            let answer = receive_json(&mut camera).await;
            assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["seq", "viewers"]);
            let seq = answer["seq"].as_u64().unwrap();
            assert!(last.is_none_or(|last| seq == last + 1));
            last = Some(seq);
            assert_eq!(viewer.part().await.number(), number);
        }
        let bad: [(Message, &str); 5] = [
            (Message::binary(&b"no picture"[..]), "not_an_image"),
            (Message::binary(&b""[..]), "empty_body"),
            (Message::text("hello"), "bad_message"),
            (Message::binary(numbered(1, 30_001)), "too_large"),
            (Message::binary(numbered(1, 5_000_000)), "too_large"),
        ];
        for (message, code) in bad {
            camera.send(message).await.unwrap();
            let error = receive_json(&mut camera).await;
            assert_eq!(error["error"]["code"], code, "{error}");
            assert!(error["error"]["message"].as_str().unwrap().len() > 20);
        }
        // In fragments, with a ping between them.
        let picture = numbered(7, 3000);
        let fragment =
            |bytes: &[u8], data, last| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(data), last));
        camera.send(fragment(&picture[..1000], Data::Binary, false)).await.unwrap();
        camera.send(Message::Ping("are you there".into())).await.unwrap();
        camera.send(fragment(&picture[1000..], Data::Continue, true)).await.unwrap();
        assert_eq!(receive(&mut camera).await, Message::Pong("are you there".into()));
        assert_eq!(receive_json(&mut camera).await["seq"], last.unwrap() + 1);
        assert_eq!(viewer.part().await.picture, picture);
        assert_eq!(server.metric(r#"image_streamer_frames_in_total{way="websocket"}"#).await, 4.0);

        camera.close(None).await.unwrap();
        let goodbye = async { while camera.next().await.is_some_and(|message| message.is_ok()) {} };
        timeout(SOON, goodbye).await.expect("the goodbye is answered");
    }
}

#[tokio::test]
async fn what_is_thrown_away_takes_no_room_and_an_idle_socket_holds_nothing() {
    let server = Backend::Memory.server(&[("MAX_IMAGE_BYTES", "4MB"), ("MAX_INFLIGHT_BYTES", "5MB")]).await;
    let mut cameras = Vec::new();
    for _ in 0..20 {
        let mut camera = open(&server, "/ws/push/a").await;
        // Far more than all may have together, and all but its head is passed over.
        camera.send(Message::binary(numbered(1, 20_000_000))).await.unwrap();
        assert_eq!(receive_json(&mut camera).await["error"]["code"], "too_large");
        camera.send(Message::binary(numbered(1, 3_900_000))).await.unwrap();
        let answer = receive_json(&mut camera).await;
        assert!(answer["seq"].is_u64(), "{answer}");
        server.take("a").await.unwrap();
        cameras.push(camera);
    }
    // The allocator gives it back some 10 s later.
    until(SOON * 2, "the sockets hold nothing", || async { (server.resident_bytes() < 60 << 20).then_some(()) }).await;
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_told_what_to_do_and_a_bad_one_is_refused() {
    let server = Backend::Memory.server(&[]).await;
    for path in ["/ws/view?sessions=a", "/ws/push/a"] {
        let answer = server.get(path).await;
        answer.is_refused(426, "not_a_websocket");
        assert_eq!(answer.header("upgrade"), "websocket");
    }
    for (path, status) in [("/ws/view?sessions=a,b/c", 400), ("/ws/view?fps=0", 400), ("/ws/push/a%20b", 400)] {
        let error = connect_async(format!("ws://{}{path}", server.address())).await.unwrap_err().to_string();
        assert!(error.contains(&status.to_string()), "{path}: {error}");
    }
}

#[tokio::test]
async fn sockets_are_told_when_the_server_ends() {
    let mut server = Backend::Memory.server(&[]).await;
    let mut wall = open(&server, "/ws/view?sessions=a").await;
    let mut camera = open(&server, "/ws/push/a").await;
    assert_eq!(receive_json(&mut wall).await["state"], "empty");
    server.process().signal(Signal::SIGTERM);
    for socket in [&mut wall, &mut camera] {
        let Message::Close(Some(close)) = receive(socket).await else { panic!("no goodbye") };
        assert_eq!(close.code, CloseCode::Away);
    }
    let (status, _) = server.into_process().ended_within(Duration::from_secs(5)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn pages_of_other_sites_open_sockets_only_where_they_may_read_answers() {
    let listed = Backend::Memory.server(&[("CORS_ORIGINS", "https://example.org")]).await;
    let anybody = Backend::Memory.server(&[]).await;
    let own = format!("http://{}", listed.address());
    for (server, origin, allowed) in [
        (&listed, "https://example.org", true),
        (&listed, own.as_str(), true),
        (&listed, "https://elsewhere.org", false),
        (&listed, "null", false),
        (&anybody, "https://elsewhere.org", true),
    ] {
        for path in ["/ws/view?sessions=a", "/ws/push/a"] {
            let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
            request.headers_mut().insert("origin", origin.parse().unwrap());
            let opened = connect_async(request).await;
            assert_eq!(opened.is_ok(), allowed, "{origin} {path}");
            if let Err(error) = opened {
                assert!(error.to_string().contains("403"), "{error}");
            }
        }
    }
}
