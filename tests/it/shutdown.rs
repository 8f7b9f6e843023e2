//! SIGTERM.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Backend, SOON,
    picture::{PHOTO_JPEG, numbered},
    until,
};

/// A container engine kills after this.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_idle_server_ends_at_once_with_code_0() {
    for backend in Backend::all().await {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let server = backend.server(&[]).await;
            server.push("a", PHOTO_JPEG).await;
            // The client keeps this connection open.
            assert_eq!(server.get("/healthz").await.status, 200);
            let start = Instant::now();
            server.signal(signal);
            let (status, log) = server.into_process().ended_within(LIMIT).await;
            assert_eq!(status.code(), Some(0), "{log}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_let_in() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut upload = server.connect().await;
        let head = format!("POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", PHOTO_JPEG.len());
        upload.write_all(head.as_bytes()).await.unwrap();
        upload.write_all(&PHOTO_JPEG[..1000]).await.unwrap();
        let mut waiter = server.connect().await;
        waiter.write_all(b"GET /image/b?wait=60&empty=204 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;

        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        let mut answer = String::new();
        waiter.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "a wait ends: {answer}");
        let address = server.address();
        let refused = async || tokio::net::TcpStream::connect(address).await.is_err().then_some(());
        until(SOON, "nothing is accepted any more", refused).await;

        upload.write_all(&PHOTO_JPEG[1000..]).await.unwrap();
        let mut answer = String::new();
        upload.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "the upload is finished: {answer}");
        let (status, log) = server.into_process().ended_within(LIMIT).await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(start.elapsed() < LIMIT);
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_cannot_hold_the_end_up() {
    let [memory, redis] = Backend::all().await;
    let check = async |backend: &Backend| {
        let server = backend.server(&[]).await;
        let mut upload = server.connect().await;
        upload.write_all(b"POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n12").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        let (status, log) = server.into_process().ended_within(LIMIT + Duration::from_secs(5)).await;
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    };
    tokio::join!(check(&memory), check(&redis));
}

#[tokio::test]
async fn a_picture_that_is_half_sent_is_sent_to_its_end() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let picture = numbered(1, 12 << 20);
        server.push("a", &picture).await;
        let mut taker = server.connect().await;
        taker.write_all(b"GET /image/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 100_000];
        taker.read_exact(&mut answer).await.unwrap();
        server.signal(Signal::SIGTERM);
        tokio::time::sleep(Duration::from_millis(300)).await;
        taker.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(&picture), "{} bytes", answer.len());
        let (status, log) = server.into_process().ended_within(LIMIT).await;
        assert_eq!(status.code(), Some(0), "{log}");
    }
}
