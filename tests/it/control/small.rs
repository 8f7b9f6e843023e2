//! Vehicles for which a WebSocket is too much: server-sent events and long polls.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{
    Backend, SOON, Server,
    drivers::{Peer, STOP, STOP_SLACK},
    until,
};

const LEASE: Duration = Duration::from_millis(300);

/// A vehicle that listens to events.
struct Events {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

impl Events {
    async fn open(server: &Server, query: &str) -> Self {
        let mut stream = server.connect().await;
        let request = format!("GET /control/car?{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { lines: BufReader::new(stream).lines() };
        let mut head = Vec::new();
        loop {
            match events.line().await.as_str() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        assert!(head[0].starts_with("http/1.1 200"), "{head:?}");
        for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
            assert!(head.iter().any(|line| line == header), "{header} in {head:?}");
        }
        assert!(!head.iter().any(|line| line.starts_with("transfer-encoding")), "{head:?}");
        events
    }

    async fn line(&mut self) -> String {
        timeout(SOON, self.lines.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    /// What comes next: by its stamp, when it was sent, and its other lines.
    async fn message(&mut self) -> (Duration, Vec<String>) {
        let stamp = self.line().await;
        let sent = stamp.strip_prefix(':').and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("a stamp: {stamp}"));
        let mut lines = Vec::new();
        loop {
            match self.line().await {
                line if line.is_empty() => return (Duration::from_millis(sent), lines),
                line => lines.push(line),
            }
        }
    }

    /// The next event: its lines as they come. Heartbeats are passed over.
    async fn next(&mut self) -> Vec<String> {
        loop {
            let (_, lines) = self.message().await;
            if !lines.is_empty() {
                return lines;
            }
        }
    }
}

#[tokio::test]
async fn events_carry_texts_as_they_are_and_everything_else_in_base64_and_the_stop() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut vehicle = Events::open(&server, &format!("lease={}&stop=STOP", LEASE.as_millis())).await;
        let operator = Peer::operator(&server, "car").await;
        operator.send("one\ntwo");
        assert_eq!(vehicle.next().await, ["data: one", "data: two"]);
        operator.send("one\r\n");
        assert_eq!(vehicle.next().await, ["event: binary", "data: b25lDQo="]);
        operator.send(Message::binary(&b"go"[..]));
        let sent = Instant::now();
        assert_eq!(vehicle.next().await, ["event: binary", "data: Z28="]);
        assert_eq!(vehicle.next().await, ["data: STOP"]);
        assert!(sent.elapsed() <= LEASE + STOP_SLACK, "{:?}", sent.elapsed());
        // A silent link shows by the heartbeats that do not come, and one that is late by their stamps.
        let (start, mut sent) = (Instant::now(), vehicle.message().await.0);
        let first = sent;
        for _ in 0..8 {
            let (next, lines) = vehicle.message().await;
            assert!(next > sent && lines.is_empty(), "{next:?} {lines:?}");
            sent = next;
        }
        assert!((LEASE..LEASE * 3).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert!((sent - first).abs_diff(start.elapsed()) < LEASE / 2, "{:?} {:?}", sent - first, start.elapsed());
        let mut other = Events::open(&server, "stop64=AAE%3D&lease=100").await;
        operator.send("go");
        assert_eq!(other.next().await, ["data: go"]);
        assert_eq!(other.next().await, ["event: binary", "data: AAE="]);
        assert_eq!(server.metric("image_streamer_vehicles").await, 2.0);
        drop((vehicle, other));
        until(SOON, "they are gone", || async {
            (server.metric("image_streamer_vehicles").await == 0.0).then_some(())
        })
        .await;
        server.post("/control/car", "go").await.is_refused(409, "no_vehicle");
    }
}

#[tokio::test]
async fn who_polls_in_time_misses_nothing_in_between_and_gets_the_stop() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let query = "/control/car?lease=400&stop=STOP&wait=";
        let poll = async |wait: &str| server.get(&format!("{query}{wait}")).await;
        assert_eq!(poll("0").await.status, 204);
        let operator = Peer::operator(&server, "car").await;
        for number in 0..20 {
            operator.send(format!("{number}"));
            if number % 3 == 0 {
                operator.send(Message::binary(vec![0xff, number]));
            }
            let answer = poll("5").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, &*number.to_string()));
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            if number % 3 == 0 {
                let answer = poll("5").await;
                assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &[0xff, number][..]));
                assert_eq!(answer.header("content-type"), "application/octet-stream");
            }
        }
        assert_eq!(poll("5").await.text(), STOP);
        assert_eq!(poll("0.1").await.status, 204);
        // Others that poll are other vehicles, and one that polls twice is answered once.
        let named = format!("{query}5&vehicle=second");
        let (one, other, answer) = tokio::join!(server.get(&named), poll("5"), async {
            until(SOON, "both listen", || async {
                let answer = server.post("/control/car", "").await;
                (answer.error_code() == "not_driving").then_some(())
            })
            .await;
            sleep(Duration::from_millis(200)).await;
            operator.send("both");
        });
        assert_eq!((one.text(), other.text(), answer), ("both", "both", ()));
        let waiting = format!("{query}20");
        let (first, second, ()) = tokio::join!(
            server.get(&waiting),
            async {
                sleep(Duration::from_millis(200)).await;
                server.get(&waiting).await
            },
            async {
                sleep(Duration::from_millis(300)).await;
                until(SOON, "the stops are over", || async {
                    operator.send("last");
                    sleep(Duration::from_millis(50)).await;
                    Some(())
                })
                .await;
            }
        );
        first.is_refused(409, "poll_replaced");
        assert!(["last", STOP].contains(&second.text()), "{second:?}");
        drop(operator);
        until(SOON, "vehicles that do not poll any more are none", || async {
            let answer = server.post("/control/car", "go").await;
            (answer.status == 409 && answer.error_code() == "no_vehicle").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused_before_anything_begins() {
    let server = Backend::Memory.server(&[]).await;
    for query in ["lease=0", "lease=1s", "stop64=%3F", "stop=a&stop64=YQ", "vehicle=a+b", "wait=61", "stop=%ff"] {
        server.get(&format!("/control/car?{query}")).await.is_refused(400, "bad_query");
    }
    server.get("/control/a%20b?wait=1").await.is_refused(400, "bad_session");
    server.get("/ws/control/car").await.is_refused(426, "not_a_websocket");
    for query in ["role=pilot", "take=2", "role=vehicle&lease=10"] {
        server.get(&format!("/ws/control/car?{query}")).await.is_refused(400, "bad_query");
    }
    assert_eq!(server.metric("image_streamer_vehicles").await, 0.0);
    // There are only so many.
    let mut vehicles = Vec::new();
    for _ in 0..64 {
        vehicles.push(Events::open(&server, "lease=60000").await);
    }
    server.get("/control/car?lease=60000").await.is_refused(503, "control_full");
    assert_eq!(server.post("/control/car", "go").await.json(), json!({ "vehicles": 64 }));
    assert_eq!(server.post("/control/other", "go").await.error_code(), "no_vehicle");
}
