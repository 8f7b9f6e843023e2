//! EXPIRE: how long a frame and a session live.

use std::time::{Duration, Instant};

use crate::harness::{
    Backend, RedisServer, SOON,
    picture::{PHOTO_JPEG, number_of, numbered},
    until,
};

/// EXPIRE in these tests.
const LIFE: Duration = Duration::from_secs(1);
/// How late a look may come on a busy machine.
const LATE: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_frame_can_be_counted_until_it_expires_and_not_after() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "1")]).await;
        let before = Instant::now();
        server.push("a", PHOTO_JPEG).await;
        let after = Instant::now();
        // Looks until it is gone, and notes the last moment at which it was certainly there.
        let mut last_seen = before;
        loop {
            let asked = Instant::now();
            if server.stats().await.is_empty() {
                break;
            }
            last_seen = asked;
        }
        let gone = Instant::now();
        assert!(gone - before >= LIFE, "gone after {:?}", gone - before);
        assert!(last_seen - after <= LIFE + LATE, "still there after {:?}", last_seen - after);
        assert_eq!(server.take("a").await, None);
    }
}

#[tokio::test]
async fn each_frame_expires_on_its_own_and_the_younger_stay() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "2")]).await;
        server.push("a", &numbered(1, 100)).await;
        server.push("a", &numbered(2, 100)).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        server.push("a", &numbered(3, 100)).await;
        assert_eq!(server.stats().await, [("a".into(), 3)]);
        let one_left = async || (server.stats().await == [("a".into(), 1)]).then_some(());
        until(SOON, "the two old ones expire", one_left).await;
        let push = server.request("POST", "/image/a").header("accept", "application/json").body(numbered(4, 100));
        let answer = crate::harness::Answer::to(push).await.json();
        assert_eq!(
            (answer["queued"].as_u64(), answer["dropped"].as_u64()),
            (Some(2), Some(0)),
            "expired is not dropped"
        );
        let head = server.ask("HEAD", "/image/a").await;
        assert_eq!(head.header("x-queue-length"), "2");
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(3));
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(4));
    }
}

#[tokio::test]
async fn a_session_is_listed_until_expire_after_its_last_push_also_when_it_is_empty() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "2")]).await;
        server.push("a", PHOTO_JPEG).await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let before = Instant::now();
        server.push("a", PHOTO_JPEG).await;
        while server.take("a").await.is_some() {}
        assert_eq!(server.stats().await, [("a".into(), 0)]);
        until(SOON, "it ends", || async { server.stats().await.is_empty().then_some(()) }).await;
        let lived = before.elapsed();
        assert!(lived >= 2 * LIFE && lived <= 2 * LIFE + LATE, "{lived:?}");
    }
}

#[tokio::test]
async fn redis_is_empty_after_everything_has_expired() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("EXPIRE", "1")]).await;
    for number in 0..20 {
        server.push(&format!("s{}", number % 4), &numbered(number, 50_000)).await;
    }
    server.take("s1").await.unwrap();
    let frames = async || {
        let keys: Vec<String> = redis.command(&["KEYS", "is:{s*"]).await;
        keys.is_empty().then_some(())
    };
    until(SOON, "Redis frees the frames though nobody asks", frames).await;
}
