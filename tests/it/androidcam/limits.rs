//! What phones may not send, and what becomes of those that do: by plain requests and messages, where no client would send them.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{BYTES, FOUND_DEAD, connected, phone};
use crate::harness::{
    Answer, SOON,
    phones::{Client, Gateway, TRANSPORTS, picture},
    until,
};

/// How long one that leaves may take to end its connection.
const FAREWELL: Duration = Duration::from_secs(2);
/// What comes before a picture, which is a message of its own.
const PICTURE_FOLLOWS: &str = r#"451-["receiveImage",{"_placeholder":true,"num":0}]"#;

#[tokio::test]
async fn a_picture_over_the_limit_is_refused_in_words_and_its_phone_goes_on() {
    const LIMIT: usize = 100_000;
    let gateway = Gateway::start(&[("MAX_IMAGE_BYTES", "100000")]).await;
    let mut refusals = 0.0;
    for client in Client::ALL {
        for transports in TRANSPORTS {
            for bytes in [LIMIT, LIMIT + 1, 30 * LIMIT] {
                let session = format!("{client:?}-{}", transports.join("-"));
                let more = json!({ "frames": 2, "ack": true, "bytes": bytes, "reconnect": false });
                let said = gateway.phones(client, &phone(transports, session.as_str(), &more)).done_within(SOON).await;
                let acks = said.all("ack");
                assert_eq!(acks.len(), 2, "{client:?} {transports:?} {bytes}: {said:?}");
                for ack in acks {
                    let value = &ack["value"];
                    assert_eq!(value["seq"].is_u64(), bytes == LIMIT, "{client:?} {transports:?} {bytes}: {value}");
                    let is_told = |message: &Value| message.as_str().unwrap().contains("100000");
                    if bytes > LIMIT {
                        assert!(
                            value["error"]["code"] == "too_large" && is_told(&value["error"]["message"]),
                            "{value}"
                        );
                        refusals += 1.0;
                    }
                }
            }
        }
    }
    let counted = gateway.server.metric(r#"image_streamer_socketio_refused_total{code="too_large"}"#).await;
    assert_eq!((counted, gateway.frames_in().await), (refusals, 18));
    until(FOUND_DEAD, "all are gone", || async { (connected(&gateway.server).await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn what_no_picture_can_be_ends_its_connection_and_is_not_held() {
    let gateway = Gateway::start(&[]).await;
    let before = gateway.server.resident_bytes();
    // Half a picture of 60 MiB, over a WebSocket.
    let mut socket = raw(&gateway, "large").await;
    socket.send(Message::text(PICTURE_FOLLOWS)).await.unwrap();
    let _ = socket.send(Message::binary(vec![0; 60 << 20])).await;
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_text() || message.to_text().unwrap().len() < 200, "{message:?}");
    }
    // And in a request.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = polling(&gateway, &client, 4).await;
    assert_eq!(Answer::to(client.post(&url).body("40")).await.text(), "ok");
    // It may be answered, or cut off, before all of it is sent.
    if let Ok(answer) = client.post(&url).body(vec![b'b'; 60 << 20]).send().await {
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(Answer::to(client.get(&url)).await.status, 400, "its client is not known any more");
    let grown = gateway.server.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB more are held", grown >> 20);
}

/// Opens a connection by polling, for what no well-behaved client sends: where its requests go.
async fn polling(gateway: &Gateway, client: &reqwest::Client, revision: u8) -> String {
    let url = format!("{}/socket.io/?EIO={revision}&transport=polling", gateway.url());
    let open = Answer::to(client.get(&url)).await;
    let text = open.text();
    let sid = text.split(r#""sid":""#).nth(1).and_then(|rest| rest.split('"').next()).expect("a client's id");
    format!("{url}&sid={sid}")
}

#[tokio::test]
async fn a_phone_that_leaves_is_answered_until_it_has_gone() {
    let gateway = Gateway::start(&[]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for says_goodbye in [true, false] {
        let url = polling(&gateway, &client, 3).await;
        assert_eq!(Answer::to(client.get(&url)).await.text(), "2:40");
        let began = Instant::now();
        assert_eq!(Answer::to(client.post(&url).body("2:41")).await.text(), "ok");
        if says_goodbye {
            assert_eq!(Answer::to(client.post(&url).body("1:1")).await.text(), "ok");
        } else {
            // One that stays all the same is waited for no longer than that. Then it is told the end, or is not known any more.
            let told = Answer::to(client.get(&url)).await;
            let took = began.elapsed();
            assert!(told.text() == "1:1" || told.status == 400, "{told:?}");
            assert!((FAREWELL..FAREWELL + SOON).contains(&took), "{took:?}");
        }
        until(SOON, "it is forgotten", || async { (connected(&gateway.server).await == 0.0).then_some(()) }).await;
    }
}

/// A WebSocket of Engine.IO 4 that has joined and authenticated, for what no well-behaved client sends.
async fn raw(gateway: &Gateway, user: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", gateway.address());
    let (mut socket, _) = connect_async(url).await.unwrap();
    // Pings come in between.
    let said = async |socket: &mut WebSocketStream<_>| loop {
        let message = socket.next().await.unwrap().unwrap();
        if message.to_text().unwrap() != "2" {
            return message;
        }
    };
    assert!(said(&mut socket).await.to_text().unwrap().starts_with('0'));
    socket.send(Message::text("40")).await.unwrap();
    assert!(said(&mut socket).await.to_text().unwrap().starts_with("40"));
    let authenticate = format!(r#"42["authenticate",{user:?},"x","onAuthentication"]"#);
    socket.send(Message::text(authenticate)).await.unwrap();
    assert_eq!(said(&mut socket).await.to_text().unwrap(), r#"42["onAuthentication",true]"#);
    socket
}

#[tokio::test]
async fn a_phone_that_floods_slows_only_itself() {
    let gateway = Gateway::start(&[("MAX_QUEUE", "10")]).await;
    let before = gateway.server.resident_bytes();
    // As fast as the connections take it: small pictures, large ones, words that mean nothing, and pings that nobody reads the
    // answers to.
    let (small, large) = (Message::binary(picture(1, 1, 600)), Message::binary(picture(1, 1, 4 << 20)));
    let event = Message::text(PICTURE_FOLLOWS);
    let (word, ping) = (Message::text(r#"42["chat"]"#), Message::Ping(vec![0; 125].into()));
    let floods = [vec![event.clone(), small], vec![event, large], vec![word.clone()], vec![ping, word]];
    let floods = floods.into_iter().enumerate().map(async |(number, messages)| {
        let mut socket = raw(&gateway, &format!("flood-{number}")).await;
        // What is too much ends the connection, and that is right too.
        'flood: loop {
            for message in &messages {
                if socket.feed(message.clone()).await.is_err() {
                    break 'flood;
                }
            }
        }
        std::future::pending::<()>().await;
    });
    let more = json!({ "frames": 100, "fps": 20, "ack": true });
    let calm = gateway.phones(Client::Js4, &phone(&["websocket"], "calm", &more));
    let began = Instant::now();
    let said = tokio::select! {
        said = calm.done_within(Duration::from_secs(60)) => said,
        _ = join_all(floods) => unreachable!(),
    };
    assert_eq!(said.total("acked"), 100, "{said:?}");
    // 240 a second are let in of each.
    let flooded = gateway.frames_in().await - 100;
    let allowed = 240.0 * (1.0 + began.elapsed().as_secs_f64()) * 2.0;
    assert!((flooded as f64) < allowed, "{flooded} pictures were let in, {allowed} may be");
    let grown = gateway.server.resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more are held", grown >> 20);
    gateway.next_are("calm", 0, 1, 91..=100, BYTES).await;
}

#[tokio::test]
async fn what_is_no_socket_io_is_refused_and_nobody_else_is_disturbed() {
    let gateway = Gateway::start(&[]).await;
    let more = json!({ "frames": 10_000, "fps": 20 });
    let mut calm = gateway.phones(Client::Js2, &phone(&["polling", "websocket"], "calm", &more));
    calm.next("authenticated").await;
    let url = |path: &str| format!("{}{path}", gateway.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = Answer::to(client.get(url("/"))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!("not_found")));
    assert!(answer.text().contains("/socket.io/"), "{answer:?}");
    for query in
        ["", "?EIO=3", "?EIO=9&transport=polling", "?EIO=4&transport=pigeon", "?EIO=4&transport=polling&sid=nobody"]
    {
        let answer = Answer::to(client.get(url(&format!("/socket.io/{query}")))).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
    for revision in [3, 4] {
        let bodies: [&[u8]; 6] =
            [b"999999999:4", b"4", b"3:4\xff\xfe", b"42[\"", &[0, 255], &[1, 9, 9, 9, 9, 9, 9, 9, 9, 255]];
        for body in bodies {
            for kind in ["text/plain;charset=UTF-8", "application/octet-stream"] {
                let url = polling(&gateway, &client, revision).await;
                let answer = client.post(url).header("content-type", kind).body(body.to_vec());
                let answer = Answer::to(answer).await;
                assert!(answer.status == 400 || answer.status == 413 || answer.text() == "ok", "{answer:?}");
            }
        }
    }
    // No head, half a head, a body that never comes, a handshake that leads nowhere.
    for bytes in [
        &b""[..],
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHos",
        b"POST /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n2",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 64];
        let _ = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await;
    }
    let mut socket = raw(&gateway, "odd").await;
    socket.send(Message::text("4{nonsense")).await.ok().unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    assert_eq!(calm.all("disconnect").len(), 0);
    let mark = gateway.frames_in().await;
    until(SOON, "the calm one streams on", || async { (gateway.frames_in().await > mark + 20).then_some(()) }).await;
    assert!(calm.hang_up().await.all("disconnect").is_empty());
}

#[tokio::test]
async fn pages_of_other_sites_are_let_in_where_they_are_listed() {
    let anyone = Gateway::start(&[]).await;
    let listed = Gateway::start(&[("CORS_ORIGINS", "https://good.example")]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |gateway: &Gateway, method: reqwest::Method, origin: &str| {
        let url = format!("{}/socket.io/?EIO=4&transport=polling", gateway.url());
        Answer::to(client.request(method, url).header("origin", origin)).await
    };
    for (gateway, origin, is_let_in) in [
        (&anyone, "https://evil.example", true),
        (&listed, "https://good.example", true),
        (&listed, "https://evil.example", false),
        (&listed, "null", false),
        (&listed, listed.url(), true),
    ] {
        let answer = ask(gateway, reqwest::Method::GET, origin).await;
        assert_eq!(answer.status.is_success(), is_let_in, "{origin}: {answer:?}");
        assert_eq!(answer.has("access-control-allow-origin"), is_let_in, "{origin}: {answer:?}");
        let preflight = ask(gateway, reqwest::Method::OPTIONS, origin).await;
        assert_eq!(preflight.status.as_u16(), if is_let_in { 204 } else { 403 }, "{origin}: {preflight:?}");
    }
}
