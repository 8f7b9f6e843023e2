//! `POST /stream/{session}`: many pictures in one endless request.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::harness::{
    Answer, Backend, RedisServer, SOON, Server, Viewer,
    picture::{PHOTO_JPEG, PHOTO_PNG, numbered},
    until,
};

/// Longer than any of these requests goes on.
const ENDLESS: Duration = Duration::from_secs(120);

/// A request whose body is sent piece by piece.
struct Push {
    pieces: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<Answer>,
}

impl Push {
    fn begin(server: &Server, session: &str, content_type: Option<&str>) -> Self {
        let (pieces, receiver) = mpsc::unbounded_channel::<Bytes>();
        let body = stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), receiver))
        });
        let mut request = server.request("POST", &format!("/stream/{session}"));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.timeout(ENDLESS).body(reqwest::Body::wrap_stream(body));
        Self { pieces, answer: tokio::spawn(Answer::to(request)) }
    }

    fn send(&self, bytes: impl Into<Bytes>) {
        self.pieces.send(bytes.into()).unwrap();
    }

    async fn end(self) -> Answer {
        drop(self.pieces);
        tokio::time::timeout(SOON, self.answer).await.expect("an answer in time").unwrap()
    }
}

/// A part as ffmpeg writes it.
fn part(picture: &[u8]) -> Vec<u8> {
    let head = format!("Content-type: image/jpeg\r\nContent-length: {}\r\n\r\n", picture.len());
    [head.as_bytes(), picture, b"\r\n--ffmpeg\r\n"].concat()
}

async fn has_frames(server: &Server, session: &str, count: u64) {
    until(SOON, format!("{count} frames are there"), || async {
        server.stats().await.contains(&(session.to_owned(), count)).then_some(())
    })
    .await;
}

/// Waits until every server has been told of the session's one viewer.
async fn is_watched(server: &Server, session: &str) {
    until(SOON, "the viewer counts", || async {
        let stats = server.get("/stats").await.json();
        let found = stats["sessions"].as_array().unwrap().iter().any(|it| it["id"] == session && it["viewers"] == 1);
        found.then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_picture_is_a_frame_as_soon_as_it_is_whole_whatever_the_form_of_the_stream() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MIMETYPE", "auto")]).await;
        let jpegs = [PHOTO_JPEG; 3].map(<[u8]>::to_vec);
        let pngs = [PHOTO_PNG; 3].map(<[u8]>::to_vec);
        let parts = [PHOTO_JPEG; 3].map(part);
        for (session, first, pictures) in
            [("multipart", &b"--ffmpeg\r\n"[..], parts), ("jpeg", b"", jpegs), ("png", b"", pngs)]
        {
            let mut viewer = Viewer::open(&server, &format!("/stream/{session}?repeat=0")).await;
            assert_eq!(viewer.part().await.seq(), None);
            let push = Push::begin(&server, session, None);
            push.send(first.to_vec());
            let expected = if session == "png" { PHOTO_PNG } else { PHOTO_JPEG };
            for (count, picture) in (1..).zip(&pictures) {
                if count == 3 {
                    is_watched(&server, session).await;
                }
                let (some, rest) = picture.split_at(picture.len() / 2);
                push.send(some.to_vec());
                tokio::time::sleep(Duration::from_millis(20)).await;
                push.send(rest.to_vec());
                has_frames(&server, session, count).await;
                assert_eq!(viewer.part().await.picture, expected, "a viewer has it while the request goes on");
            }
            let answer = push.end().await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, r#"{"accepted":3,"refused":0}"#));
            assert_eq!(answer.header("x-viewers"), "1");
            for _ in 0..3 {
                assert_eq!(server.take(session).await.as_deref(), Some(expected));
            }
        }
        assert_eq!(server.metric(r#"image_streamer_frames_in_total{way="stream"}"#).await, 9.0);
    }
}

#[tokio::test]
async fn the_boundary_may_come_in_the_header_and_a_part_may_tell_its_time() {
    let server = Backend::Memory.server(&[]).await;
    let push = Push::begin(&server, "a", Some("multipart/x-mixed-replace;boundary=cam"));
    push.send("a preamble\r\n--cam\r\nContent-Type: image/jpeg\r\nX-Timestamp: 1700000000.25\r\n\r\n");
    push.send(PHOTO_JPEG);
    push.send("\r\n--cam--\r\n");
    assert_eq!(push.end().await.text(), r#"{"accepted":1,"refused":0}"#);
    let answer = server.get("/image/a").await;
    assert_eq!((answer.header("x-frame-timestamp"), &answer.body[..]), ("1700000000.250000", PHOTO_JPEG));
}

#[tokio::test]
async fn a_picture_that_is_refused_costs_only_itself() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "50000")]).await;
        let push = Push::begin(&server, "a", None);
        push.send("--ffmpeg\r\n");
        for picture in [PHOTO_JPEG, b"no picture", PHOTO_PNG, &numbered(1, 60_000), PHOTO_JPEG] {
            push.send(part(picture));
        }
        assert_eq!(push.end().await.text(), r#"{"accepted":2,"refused":3}"#);
        assert_eq!(server.stats().await, [("a".into(), 2)]);
    }
}

#[tokio::test]
async fn what_is_no_stream_of_pictures_is_refused_and_what_ends_early_keeps_what_came() {
    let server = Backend::Memory.server(&[]).await;
    server.post("/stream/a", "hello, this is no picture at all").await.is_refused(415, "not_a_stream");
    server.post("/stream/a", "").await.is_refused(400, "empty_body");
    let mut broken_late = [b"--ffmpeg\r\n", &part(PHOTO_JPEG)[..], &part(PHOTO_JPEG)].concat();
    broken_late.extend([b'x'; 10_000]);
    server.post("/stream/late", broken_late).await.is_refused(415, "not_a_stream");
    has_frames(&server, "late", 2).await;
    assert_eq!(server.post("/stream/a", "--").await.text(), r#"{"accepted":0,"refused":1}"#);
    server.post("/stream/a%2Fb", PHOTO_JPEG).await.is_refused(400, "bad_session");
    let one_and_a_half = [PHOTO_JPEG, &PHOTO_JPEG[..100]].concat();
    assert_eq!(server.post("/stream/a", one_and_a_half).await.text(), r#"{"accepted":1,"refused":1}"#);

    // A camera that vanishes in the middle of a picture.
    let mut socket = server.connect().await;
    let head = "POST /stream/gone HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [format!("{:x}\r\n", PHOTO_JPEG.len()).as_bytes(), PHOTO_JPEG, b"\r\n10\r\nabc"].concat();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&chunk).await.unwrap();
    has_frames(&server, "gone", 1).await;
    drop(socket);
    assert_eq!(server.take("gone").await.as_deref(), Some(PHOTO_JPEG));
}

#[tokio::test]
async fn a_camera_that_hangs_up_right_after_its_last_byte_has_pushed_everything() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let length = PHOTO_JPEG.len();
        let one = format!("POST /image/one HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let chunked = "POST /stream/many HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n", 5 * length);
        let many = [chunked.as_bytes(), chunk.as_bytes(), &[PHOTO_JPEG; 5].concat(), b"\r\n0\r\n\r\n"].concat();
        for _ in 0..10 {
            for request in [&[one.as_bytes(), PHOTO_JPEG].concat(), &many] {
                let mut socket = server.connect().await;
                socket.write_all(request).await.unwrap();
                drop(socket);
            }
        }
        has_frames(&server, "one", 10).await;
        has_frames(&server, "many", 50).await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let server = Backend::Memory.server(&[]).await;
    let mut socket = server.connect().await;
    let head = "POST /stream/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let length = tokio::time::timeout(SOON, socket.read(&mut answer)).await.expect("it is told").unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 100 Continue\r\n"), "{:?}", str::from_utf8(&answer[..length]));
    let body = [format!("{:x}\r\n", PHOTO_JPEG.len()).as_bytes(), PHOTO_JPEG, b"\r\n0\r\n\r\n"].concat();
    socket.write_all(&body).await.unwrap();
    has_frames(&server, "a", 1).await;
}

#[tokio::test]
async fn a_stream_outlives_an_outage_of_redis() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    let push = Push::begin(&server, "a", None);
    push.send(PHOTO_JPEG);
    has_frames(&server, "a", 1).await;
    redis.kill().await;
    for _ in 0..3 {
        push.send(PHOTO_JPEG);
    }
    // The last of them has been tried once its failure is counted.
    until(SOON, "pushes fail", || async {
        (server.metric(r#"image_streamer_store_errors_total{operation="push"}"#).await >= 3.0).then_some(())
    })
    .await;
    redis.restart().await;
    until(SOON, "pushes succeed again", || async {
        push.send(PHOTO_JPEG);
        tokio::time::sleep(Duration::from_millis(100)).await;
        (!server.stats().await.is_empty()).then_some(())
    })
    .await;
    let answer = push.end().await.json();
    assert!(answer["accepted"].as_u64() >= Some(2) && answer["refused"].as_u64() >= Some(3), "{answer}");
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_told_and_cut_off_and_keeps_what_came() {
    let server = Backend::Memory.server(&[]).await;
    let start = Instant::now();
    let push = Push::begin(&server, "a", None);
    push.send(PHOTO_JPEG);
    let answer = push.answer.await.unwrap();
    answer.is_refused(408, "stream_stalled");
    assert!(start.elapsed() >= Duration::from_secs(89), "{:?}", start.elapsed());
    assert_eq!(server.stats().await, [("a".into(), 1)]);
}
