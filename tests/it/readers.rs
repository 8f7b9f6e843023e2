//! Clients that read slowly, in the old way, many answers at once, or not at all.

use std::time::{Duration, Instant};

use image_streamer::connection::QUIET_TIMEOUT;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::{
    Backend, SOON,
    picture::{PHOTO_JPEG, numbered},
    scale, until,
};

const MIB: usize = 1 << 20;

/// The next answer's header lines, in small letters, and its body, read a little at a time.
async fn next_answer(connection: &mut BufReader<TcpStream>) -> (Vec<String>, Vec<u8>) {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.unwrap();
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_ascii_lowercase());
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length").parse().unwrap();
    let mut body = vec![0; length];
    for part in body.chunks_mut(100_000) {
        connection.read_exact(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (head, body)
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order_however_slowly_the_answers_are_read() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let pictures = [30, 5 * MIB, 100_000, 3 * MIB, 20].map(|length| numbered(length as u64, length));
        for picture in &pictures {
            server.push("a", picture).await;
        }
        let mut connection = server.connect().await;
        let requests = "GET /image/a HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5);
        connection.write_all(requests.as_bytes()).await.unwrap();
        // Until nothing more goes into the socket.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut connection = BufReader::new(connection);
        for picture in &pictures {
            let (head, body) = next_answer(&mut connection).await;
            assert!(body == *picture, "{} bytes of {}: {head:?}", body.len(), picture.len());
            let (head, body) = next_answer(&mut connection).await;
            assert!(body.len() < 100 && head[0] == "http/1.1 200 ok", "{head:?}");
        }
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_whole_picture_and_then_the_end() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for _ in 0..2 {
            server.push("a", PHOTO_JPEG).await;
        }
        let mut connection = server.connect().await;
        connection.write_all(b"GET /image/a HTTP/1.0\r\n\r\n").await.unwrap();
        let mut connection = BufReader::new(connection);
        let (head, body) = next_answer(&mut connection).await;
        assert!(!head.iter().any(|line| line.starts_with("transfer-encoding")), "{head:?}");
        assert!(body == PHOTO_JPEG);
        assert_eq!(connection.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        // One request took one frame.
        assert_eq!(server.stats().await, [("a".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_in_time_and_one_that_reads_slowly_is_not() {
    // The whole of it takes minutes and belongs into `make proof`; otherwise those that stopped go by themselves.
    let proof = scale() > 1;
    let time = if proof { QUIET_TIMEOUT * 3 / 2 } else { Duration::from_secs(20) };
    let server = Backend::Memory.server(&[]).await;
    server.push("warm-up", PHOTO_JPEG).await;
    let before = server.resident_bytes();
    let picture = numbered(1, 16 * MIB);
    let mut stopped = Vec::new();
    for session in ["a", "b", "c", "d", "slow"] {
        server.push(session, &picture).await;
        let mut connection = server.connect().await;
        let request = format!("GET /image/{session} HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        stopped.push(connection);
    }
    let mut slow = stopped.pop().unwrap();
    let start = Instant::now();
    let read_slowly = async {
        let mut got = 0;
        let mut part = vec![0; 100_000];
        // 20 kB a second, as over a bad mobile network, and a pause now and then.
        while start.elapsed() < time {
            tokio::time::sleep(Duration::from_secs(5)).await;
            got += slow.read(&mut part).await.unwrap();
        }
        while got < picture.len() {
            let read = slow.read(&mut part).await.unwrap();
            assert!(read > 0, "cut off after {got} bytes");
            got += read;
        }
    };
    let stop_reading = async {
        if !proof {
            tokio::time::sleep(time).await;
            assert!(server.resident_bytes() > before + 4 * 16 * MIB, "the pictures are held until they are sent");
            stopped.clear();
        }
        until(QUIET_TIMEOUT + SOON * 2, "the pictures of those that stopped reading are freed", || async {
            (server.resident_bytes() < before + 2 * 16 * MIB).then_some(())
        })
        .await;
        assert!(!proof || start.elapsed() > QUIET_TIMEOUT);
    };
    tokio::join!(read_slowly, stop_reading);
    for mut connection in stopped {
        // What had gone into the sockets is there, and then the end.
        let mut got = Vec::new();
        let end = tokio::time::timeout(SOON, connection.read_to_end(&mut got)).await.expect("the connection ends");
        assert!(end.is_err() || got.len() < picture.len(), "{} bytes", got.len());
    }
}
