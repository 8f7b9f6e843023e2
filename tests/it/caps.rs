//! MAX_QUEUE, MAX_MEMORY, MAX_SESSIONS, MAX_INFLIGHT_BYTES, and Redis's own limit.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Answer, Backend, RedisServer, SOON, Server,
    picture::{PHOTO_JPEG, number_of, numbered},
    until,
};

async fn push_json(server: &Server, session: &str, picture: Vec<u8>) -> Value {
    let request = server.request("POST", &format!("/image/{session}")).header("accept", "application/json");
    Answer::to(request.body(picture)).await.json()
}

#[tokio::test]
async fn the_oldest_frames_beyond_max_queue_are_dropped_and_counted() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_QUEUE", "3")]).await;
        for number in 0..10 {
            let answer = push_json(&server, "a", numbered(number, 1000)).await;
            assert_eq!(answer["queued"].as_u64(), Some((number + 1).min(3)));
            assert_eq!(answer["dropped"].as_u64(), Some(u64::from(number >= 3)));
        }
        server.push("b", PHOTO_JPEG).await;
        assert_eq!(server.stats().await, [("a".into(), 3), ("b".into(), 1)]);
        for number in [7, 8, 9] {
            assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
        }
        if let Backend::Redis(redis) = &backend {
            let frames: Vec<String> = redis.command(&["KEYS", "is:{a}:f:*"]).await;
            assert!(frames.len() <= 3, "dropped frames are freed at once: {frames:?}");
        }
    }
}

#[tokio::test]
async fn a_queue_of_one_always_holds_the_newest() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_QUEUE", "1")]).await;
        for number in 0..5 {
            server.push("a", &numbered(number, 1000)).await;
        }
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(4));
        assert_eq!(server.take("a").await, None);
    }
}

#[tokio::test]
async fn max_memory_drops_the_oldest_frames_of_any_session() {
    let server = Backend::Memory.server(&[("MAX_MEMORY", "1MiB"), ("MAX_IMAGE_BYTES", "1000000")]).await;
    for number in 0..9 {
        server.push(&format!("s{}", number % 3), &numbered(number, 100_000)).await;
    }
    assert_eq!(server.stats().await.iter().map(|(_, len)| len).sum::<u64>(), 9);
    // Room for 10 of these and the bookkeeping, so three more displace at least two of the oldest.
    let mut dropped = 0;
    for number in 9..12 {
        dropped += push_json(&server, "s0", numbered(number, 100_000)).await["dropped"].as_u64().unwrap();
    }
    assert_eq!(dropped, 2);
    let lens: Vec<_> = server.stats().await.into_iter().map(|(_, len)| len).collect();
    assert_eq!(lens, [5, 2, 3], "the oldest two were the first of s0 and of s1");
    // One that needs nearly all of it displaces all others.
    assert_eq!(push_json(&server, "big", numbered(99, 990_000)).await["dropped"].as_u64(), Some(10));
    assert_eq!(server.take("big").await.map(|frame| number_of(&frame)), Some(99));
}

#[tokio::test]
async fn bookkeeping_counts_as_memory() {
    let server = Backend::Memory.server(&[("MAX_MEMORY", "100000"), ("MAX_IMAGE_BYTES", "1000")]).await;
    for number in 0..1000 {
        server.push("a", &numbered(number, 12)).await;
    }
    let (_, len) = server.stats().await.remove(0);
    assert!((100..320).contains(&len), "{len} frames of 12 bytes in 100,000 bytes");
    let mut refused = None;
    for session in 0..300 {
        let answer = server.post(&format!("/image/s{session}"), numbered(1, 12)).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("sessions fill the memory");
    refused.is_refused(503, "store_full");
    assert!(refused.text().contains("MAX_MEMORY") && refused.has("retry-after"));
}

#[tokio::test]
async fn one_session_too_many_is_refused_until_another_ends() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_SESSIONS", "2"), ("EXPIRE", "1")]).await;
        server.push("a", PHOTO_JPEG).await;
        server.push("b", PHOTO_JPEG).await;
        let refused = server.post("/image/c", PHOTO_JPEG).await;
        refused.is_refused(503, "too_many_sessions");
        assert!(refused.has("retry-after") && refused.text().contains("MAX_SESSIONS"));
        server.push("a", PHOTO_JPEG).await;
        assert_eq!(server.ask("DELETE", "/session/a").await.status, 204);
        server.push("c", PHOTO_JPEG).await;
        server.post("/image/a", PHOTO_JPEG).await.is_refused(503, "too_many_sessions");
        let ended = async || server.stats().await.is_empty().then_some(());
        until(SOON, "both end", ended).await;
        server.push("d", PHOTO_JPEG).await;
        server.push("e", PHOTO_JPEG).await;
    }
}

#[tokio::test]
async fn sessions_that_begin_at_once_cannot_slip_past_the_limit_together() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_SESSIONS", "5")]).await;
        let pushes = (0..40).map(|number| {
            let server = &server;
            async move { server.post(&format!("/image/s{number}"), PHOTO_JPEG).await }
        });
        let answers = futures_util::future::join_all(pushes).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 5);
        assert_eq!(server.stats().await.len(), 5);
    }
}

#[tokio::test]
async fn the_limit_holds_for_a_redis_that_came_back_empty() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[("MAX_SESSIONS", "2")]).await;
    server.push("a", PHOTO_JPEG).await;
    server.push("b", PHOTO_JPEG).await;
    redis.kill().await;
    redis.restart().await;
    until(SOON, "Redis is used again", async || (server.get("/readyz").await.status == 200).then_some(())).await;
    server.push("c", PHOTO_JPEG).await;
    server.push("d", PHOTO_JPEG).await;
    for session in ["a", "b"] {
        server.post(&format!("/image/{session}"), PHOTO_JPEG).await.is_refused(503, "too_many_sessions");
    }
}

#[tokio::test]
async fn bodies_beyond_max_inflight_bytes_are_told_that_it_is_busy() {
    for backend in Backend::all().await {
        let limits = [("MAX_IMAGE_BYTES", "1000000"), ("MAX_INFLIGHT_BYTES", "1500000")];
        let server = backend.server(&limits).await;
        // One that has sent nearly all of its million bytes, and waits. If the other comes while it is still sending, it
        // may be the one that is refused: then both begin again.
        let picture = numbered(1, 1_000_000);
        let attempt = async || {
            let mut slow = server.connect().await;
            let head = b"POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
            slow.write_all(&[head, &picture[..999_000]].concat()).await.unwrap();
            let answer = server.post("/image/a", numbered(2, 600_000)).await;
            (answer.status != 200).then_some((slow, answer))
        };
        let (mut slow, busy) = until(SOON, "the other is told that it is busy", attempt).await;
        busy.is_refused(503, "busy");
        assert!(busy.has("retry-after") && busy.text().contains("MAX_INFLIGHT_BYTES"));
        // What fits is taken in meanwhile, and what waited is not lost.
        assert_eq!(server.post("/image/b", numbered(3, 400_000)).await.status, 200);
        slow.write_all(&picture[999_000..]).await.unwrap();
        let mut answer = [0; 15];
        slow.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert_eq!(server.post("/image/b", numbered(4, 600_000)).await.status, 200, "the room is given back");
    }
}

#[tokio::test]
async fn a_redis_without_memory_refuses_pushes_and_still_gives_frames() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("EXPIRE", "60")]).await;
    let _: () = redis.command(&["CONFIG", "SET", "maxmemory", "8mb"]).await;
    let mut pushed = 0;
    let full = loop {
        let answer = server.post("/image/a", numbered(pushed, 400_000)).await;
        if answer.status != 200 {
            break answer;
        }
        pushed += 1;
        assert!(pushed < 50, "8 MB cannot hold that much");
    };
    full.is_refused(503, "store_full");
    assert!(full.has("retry-after") && full.text().contains("maxmemory"));
    assert_eq!(server.stats().await, [("a".into(), pushed)]);
    assert_eq!(server.get("/readyz").await.status, 200);
    for number in 0..pushed {
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
    }
    // Taken frames are freed after a grace, and there is room again.
    let room = async || (server.post("/image/a", numbered(0, 400_000)).await.status == 200).then_some(());
    until(SOON, "it takes frames again", room).await;
}

#[tokio::test]
async fn sessions_whose_first_push_failed_do_not_count_for_long() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("MAX_SESSIONS", "3")]).await;
    server.push("a", PHOTO_JPEG).await;
    let _: () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for session in ["b", "c"] {
        server.post(&format!("/image/{session}"), PHOTO_JPEG).await.is_refused(503, "store_full");
    }
    let _: () = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(server.stats().await, [("a".into(), 1)]);
    for session in ["d", "e"] {
        let pushed = async || (server.post(&format!("/image/{session}"), PHOTO_JPEG).await.status == 200).then_some(());
        until(SOON, "there is room for as many as the limit tells", pushed).await;
    }
    server.post("/image/f", PHOTO_JPEG).await.is_refused(503, "too_many_sessions");
}

#[tokio::test]
async fn pictures_being_sent_beyond_max_inflight_bytes_stay_where_they_are() {
    const MIB: usize = 1 << 20;
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_INFLIGHT_BYTES", "20MiB")]).await;
        for number in 0..3 {
            server.push("a", &numbered(number, 16 * MIB)).await;
        }
        let mut slow = Vec::new();
        for left in [2, 1] {
            let mut taker = server.connect().await;
            taker.write_all(b"GET /image/a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            taker.read_exact(&mut [0; 1000]).await.unwrap();
            assert_eq!(server.stats().await, [("a".into(), left)]);
            slow.push(taker);
        }
        let busy = server.get("/image/a").await;
        busy.is_refused(503, "busy");
        assert!(busy.has("retry-after") && busy.text().contains("MAX_INFLIGHT_BYTES"));
        assert_eq!(server.stats().await, [("a".into(), 1)], "nothing was taken");
        slow.clear();
        let room = async || server.take("a").await;
        assert_eq!(number_of(&until(SOON, "the room is given back", room).await), 2);
    }
}
