//! How much memory the server takes.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Backend, picture::numbered, scale, until};

const MIB: usize = 1 << 20;
/// Connections that send at once.
const PRODUCERS: usize = 8;
/// How long frames live.
const EXPIRE: Duration = Duration::from_secs(10);
/// How long is pushed at most: what is held is counted before the first frames expire.
const PUSHING: Duration = Duration::from_secs(8);

#[tokio::test]
async fn memory_grows_by_the_frames_held_and_a_quarter_at_most_and_comes_back() {
    for (frame_bytes, least) in [(10_000, 4000), (100_000, 800), (1_000_000, 80)] {
        let frames = 2 * least * scale();
        let expire = EXPIRE.as_secs().to_string();
        let variables = [("EXPIRE", expire.as_str()), ("MAX_QUEUE", "1000000"), ("MAX_MEMORY", "8GiB")];
        let server = Backend::Memory.server(&variables).await;
        // What the first requests make for good does not belong to the frames.
        server.push("warm-up", &numbered(0, frame_bytes)).await;
        let before = server.resident_bytes();
        let picture = numbered(1, frame_bytes);
        let began = Instant::now();
        let producers = (0..PRODUCERS).map(async |producer| {
            for _ in (0..frames / PRODUCERS).take_while(|_| began.elapsed() < PUSHING) {
                server.push(&format!("s{producer}"), &picture).await;
            }
        });
        futures_util::future::join_all(producers).await;
        let held = server.stats().await.iter().map(|(_, len)| *len as usize).sum::<usize>() * frame_bytes;
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(held >= frame_bytes * least, "the machine is too slow for this test: {held} bytes held");
        assert!(grown as f64 <= held as f64 * 1.25, "{frame_bytes}: {grown} for {held} bytes held");

        until(Duration::from_secs(30), "memory comes back after expiry", || async {
            let left = server.resident_bytes().saturating_sub(before);
            (left < held / 4).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_idle_connections_take_less_than_60_mb() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut connections = Vec::new();
        for _ in 0..1000 {
            let mut connection = server.connect().await;
            connection.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 15];
            connection.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            connections.push(connection);
        }
        let resident = server.resident_bytes();
        assert!(resident < 60 * MIB, "{resident}");
    }
}
