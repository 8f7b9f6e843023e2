//! A client of an MJPEG stream that sees every byte of it.

use std::{collections::HashMap, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{SOON, Server, picture::number_of, server::Stream};

const BOUNDARY: &str = "--boundarydonotcross\r\n";

/// One open stream.
pub struct Viewer {
    socket: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// The status line and the headers, as they came.
    pub head: String,
    /// How long it took until the head was there.
    pub head_after: Duration,
}

/// One part of the stream.
#[derive(Debug)]
pub struct Part {
    /// Headers by name in lower case.
    pub headers: HashMap<String, String>,
    pub picture: Vec<u8>,
}

impl Part {
    /// Its number within the session; the No Data picture has none.
    pub fn seq(&self) -> Option<u64> {
        self.headers.get("x-frame-seq").map(|seq| seq.parse().unwrap())
    }

    /// The number within a picture that `numbered` made.
    pub fn number(&self) -> u64 {
        assert!(self.seq().is_some(), "a frame and not the No Data picture");
        number_of(&self.picture)
    }
}

impl Viewer {
    /// Opens a stream by HTTP/1.1.
    pub async fn open(server: &Server, path: &str) -> Self {
        Self::request(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    /// Sends a request as it is and reads the head of the answer, and of a stream its first boundary.
    pub async fn request(server: &Server, request: &str) -> Self {
        let mut socket = server.open().await;
        let start = Instant::now();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut viewer = Self { socket, buffer: Vec::new(), head: String::new(), head_after: Duration::ZERO };
        let head = timeout(SOON, viewer.until(b"\r\n\r\n")).await.expect("a head in time").expect("a head");
        viewer.head = String::from_utf8(head).unwrap();
        viewer.head_after = start.elapsed();
        if viewer.head.contains("multipart/x-mixed-replace") {
            let boundary = timeout(SOON, viewer.until(b"\r\n")).await.expect("a boundary in time");
            assert_eq!(boundary.as_deref(), Some(BOUNDARY.as_bytes()));
        }
        viewer
    }

    /// The next part, with the boundary after it. Fails where none comes soon.
    pub async fn part(&mut self) -> Part {
        self.part_within(SOON).await.expect("a part comes in time")
    }

    /// The next part, if one comes in time.
    pub async fn part_within(&mut self, time: Duration) -> Option<Part> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(part) = self.take_part() {
                return Some(part);
            }
            let more = tokio::time::timeout_at(deadline, self.more()).await.ok()?;
            assert!(more, "the stream has ended");
        }
    }

    /// The first part that is a frame with this number.
    pub async fn part_with(&mut self, number: u64) -> Part {
        let find = async {
            loop {
                let part = self.part().await;
                if part.seq().is_some() && part.number() == number {
                    return part;
                }
            }
        };
        timeout(SOON, find).await.unwrap_or_else(|_| panic!("frame {number} comes in time"))
    }

    /// Waits for the end of the stream; what came before it.
    pub async fn ended_within(&mut self, time: Duration) -> Vec<Part> {
        let read = async { while self.more().await {} };
        timeout(time, read).await.expect("the stream ends in time");
        std::iter::from_fn(|| self.take_part()).collect()
    }

    fn take_part(&mut self) -> Option<Part> {
        let end_of_head = find(&self.buffer, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&self.buffer[..end_of_head]).unwrap();
        let mut headers = HashMap::new();
        for line in head.split("\r\n") {
            assert!(line.len() < 127, "FFmpeg reads no longer line: {line}");
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(headers.insert(name.to_ascii_lowercase(), value.to_owned()), None);
        }
        let (start, length) = (end_of_head + 4, headers["content-length"].parse::<usize>().unwrap());
        let end = start + length + 2 + BOUNDARY.len();
        if self.buffer.len() < end {
            return None;
        }
        assert_eq!(&self.buffer[start + length..end], [b"\r\n", BOUNDARY.as_bytes()].concat());
        let picture = self.buffer[start..start + length].to_vec();
        self.buffer.drain(..end);
        Some(Part { headers, picture })
    }

    async fn more(&mut self) -> bool {
        self.socket.read_buf(&mut self.buffer).await.is_ok_and(|bytes| bytes > 0)
    }

    /// Everything up to these bytes.
    async fn until(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, bytes) {
                return Some(self.buffer.drain(..at + bytes.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
