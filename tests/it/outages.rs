//! Redis away, slow, hanging, restarted: every request is answered within a second, nothing acknowledged is lost while
//! Redis keeps it, and all is well again within a second of its return.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use crate::harness::{
    Answer, RedisServer, SOON, Server,
    picture::{PHOTO_JPEG, number_of, numbered},
    scale,
    server::form_with,
    until,
};

/// Within this a request is answered though Redis is away.
const ANSWERED: Duration = Duration::from_millis(1000);
/// Within this of its return, Redis is used again.
const RECOVERED: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_server_starts_without_redis_and_uses_it_when_it_comes() {
    let mut redis = RedisServer::start().await;
    redis.kill().await;
    let server = redis.server(&[]).await;
    assert_all_routes_say_unavailable(&server).await;
    redis.restart().await;
    assert_recovers(&server).await;
}

#[tokio::test]
async fn every_route_says_that_redis_is_away_within_a_second_and_recovers_within_one() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for _ in 0..2 * scale() {
        server.push("a", PHOTO_JPEG).await;
        redis.kill().await;
        assert_all_routes_say_unavailable(&server).await;
        redis.restart().await;
        assert_recovers(&server).await;

        redis.freeze();
        assert_all_routes_say_unavailable(&server).await;
        redis.thaw();
        assert_recovers(&server).await;
    }
}

#[tokio::test]
async fn many_cameras_that_begin_while_redis_hangs_are_all_told_within_a_second() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    server.push("known", PHOTO_JPEG).await;
    redis.freeze();
    let pushes = (0..50).map(async |number| {
        let start = Instant::now();
        let answer = server.post(&format!("/image/new{number}"), PHOTO_JPEG).await;
        answer.is_refused(503, "store_unavailable");
        assert!(start.elapsed() < ANSWERED, "took {:?}", start.elapsed());
    });
    futures_util::future::join_all(pushes).await;
    redis.thaw();
    assert_recovers(&server).await;
    let start = Instant::now();
    let pushes = (0..500).map(async |number| server.push(&format!("new{number}"), PHOTO_JPEG).await);
    stream::iter(pushes).buffer_unordered(32).collect::<Vec<_>>().await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let sessions = server.stats().await;
    // Each has the frame that was acknowledged and none that was refused.
    for (session, len) in &sessions {
        assert!(*len == 1 || session == "back", "{session}: {len}");
    }
    // Beside those, the one that was known and the one that found out about the return.
    assert_eq!(sessions.len(), 502);
}

#[tokio::test]
async fn a_slow_redis_delays_no_answer_beyond_a_second() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    // Redis answers in bursts, so every round trip takes up to this long.
    let mut connection = redis.connect().await.unwrap();
    let slow = async {
        loop {
            redis::cmd("CLIENT").arg(&["PAUSE", "350", "ALL"]).exec_async(&mut connection).await.unwrap();
            tokio::time::sleep(Duration::from_millis(360)).await;
        }
    };
    let ask = async {
        let mut served = 0;
        for number in 0..4 {
            let path = format!("/image/new{number}");
            for (method, path) in
                [("POST", path.as_str()), ("POST", &path), ("GET", &path), ("DELETE", "/session/a"), ("GET", "/readyz")]
            {
                let start = Instant::now();
                let answer = Answer::to(server.request(method, path).body(PHOTO_JPEG)).await;
                assert!(start.elapsed() < ANSWERED, "{method} {path} took {:?}", start.elapsed());
                match answer.status.as_u16() {
                    200 | 204 => served += 1,
                    503 => {}
                    _ => panic!("{method} {path}: {answer:?}"),
                }
            }
        }
        served
    };
    let served = tokio::select! {
        served = ask => served,
        () = slow => unreachable!("it never ends"),
    };
    assert!(served > 0, "what takes one round trip is served");
}

async fn assert_all_routes_say_unavailable(server: &Server) {
    for (method, path) in [
        ("POST", "/image/a"),
        ("PUT", "/image/new"),
        ("POST", "/imageForm/a"),
        ("GET", "/image/a"),
        ("GET", "/image/a?wait=30"),
        ("HEAD", "/image/a"),
        ("GET", "/stats"),
        ("DELETE", "/session/a"),
        ("GET", "/readyz"),
    ] {
        let start = Instant::now();
        let request = server.request(method, path);
        let request = if path.starts_with("/imageForm") {
            request.multipart(form_with("image", PHOTO_JPEG))
        } else {
            request.body(PHOTO_JPEG)
        };
        let answer = Answer::to(request).await;
        let took = start.elapsed();
        assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
        assert!(answer.has("retry-after"));
        if method != "HEAD" {
            answer.is_refused(503, "store_unavailable");
        }
        assert!(took < ANSWERED, "{method} {path} took {took:?}");
    }
    for path in ["/healthz", "/session", "/openapi.json"] {
        assert_eq!(server.get(path).await.status, 200, "{path} needs no Redis");
    }
}

async fn assert_recovers(server: &Server) {
    until(RECOVERED, "Redis is used again", || async {
        let pushed = server.post("/image/back", PHOTO_JPEG).await.status == 200;
        let taken = server.get("/image/back").await.status == 200;
        (pushed && taken && server.get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_redis_closed_while_idle_costs_no_request() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for number in 0..10 {
        server.push("a", &numbered(number, 100)).await;
        let _: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        // The server hears of it by the end of the connection, which takes a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
    }
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again_without_a_failed_request() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for number in 0..5 {
        server.push("a", &numbered(number, 100)).await;
        let _: String = redis.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(server.stats().await, [("a".into(), 1)]);
        let _: String = redis.command(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(server.take("a").await.map(|frame| number_of(&frame)), Some(number));
        let _: String = redis.command(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn a_flushed_redis_is_just_an_empty_one_and_numbers_do_not_go_back() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for number in 0..100 {
        server.push("a", &numbered(number, 100)).await;
    }
    let last = server.push("a", PHOTO_JPEG).await;
    let _: String = redis.command(&["FLUSHALL"]).await;
    assert!(server.stats().await.is_empty());
    assert!(server.push("a", PHOTO_JPEG).await > last);
    assert_eq!(server.stats().await, [("a".into(), 1)], "it is listed again");
}

/// What is told as failed is not done later: neither does a push that was answered 503 turn up, nor does a take that was
/// answered 503 lose a frame, when a Redis that hung goes on.
#[tokio::test]
async fn requests_that_failed_in_a_hanging_redis_are_not_done_when_it_goes_on() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("EXPIRE", "300")]).await;
    for number in 0..40 {
        server.push("queue", &numbered(number, 5000)).await;
    }
    server.push("fresh", &numbered(0, 5000)).await;
    // Connections that are open and trusted when Redis stops answering.
    redis.freeze();
    let takes = futures_util::future::join_all((0..10).map(|_| server.get("/image/queue")));
    let pushes =
        futures_util::future::join_all((1..10).map(|number| server.post("/image/fresh", numbered(number, 5000))));
    let (takes, pushes) = tokio::join!(takes, pushes);
    for answer in takes.iter().chain(&pushes) {
        answer.is_refused(503, "store_unavailable");
    }
    redis.thaw();
    assert_recovers(&server).await;
    let stats = server.stats().await;
    let len = |session: &str| stats.iter().find(|(id, _)| id == session).map(|(_, len)| *len);
    assert_eq!((len("queue"), len("fresh")), (Some(40), Some(1)), "{stats:?}");
}

/// Under load, with Redis hanging again and again: every acknowledged frame comes out once and in order. Only a frame whose
/// push was done in the instant before Redis stopped, with its answer still to be sent, may be there unacknowledged.
#[tokio::test]
async fn nothing_acknowledged_is_lost_while_redis_hangs_and_goes_on_under_load() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("EXPIRE", "600"), ("MAX_QUEUE", "100000")]).await;
    let done = AtomicBool::new(false);
    let acknowledged: Mutex<[Vec<u64>; 4]> = Mutex::default();
    let next = AtomicU64::new(0);
    let producer = async |index: usize| {
        while !done.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let answer = server.post(&format!("/image/s{index}"), numbered(number, 20_000)).await;
            if answer.status == 200 {
                acknowledged.lock().unwrap()[index].push(number);
            } else {
                answer.is_refused(503, "store_unavailable");
            }
        }
    };
    let freezes = 3 * scale();
    let chaos = async {
        for _ in 0..freezes {
            tokio::time::sleep(Duration::from_millis(500)).await;
            redis.freeze();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            redis.thaw();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(chaos, producer(0), producer(1), producer(2), producer(3));
    let acknowledged = acknowledged.into_inner().unwrap();
    for (index, expected) in acknowledged.iter().enumerate() {
        assert!(expected.len() > 10, "the load was a load");
        let mut taken = Vec::new();
        while let Some(frame) = server.take(&format!("s{index}")).await {
            taken.push(number_of(&frame));
        }
        let (taken_set, expected_set) = (BTreeSet::from_iter(&taken), BTreeSet::from_iter(expected));
        let lost: Vec<_> = expected_set.difference(&taken_set).collect();
        let unasked: Vec<_> = taken_set.difference(&expected_set).collect();
        assert!(lost.is_empty() && taken.is_sorted(), "session s{index} lost {lost:?}");
        assert_eq!(taken.len(), taken_set.len(), "session s{index}: no frame twice");
        assert!(unasked.len() <= freezes, "session s{index}: refused and yet there {unasked:?}");
    }
}

/// Under load, with Redis killed and restarted empty: what comes out was acknowledged or at least sent, never twice.
#[tokio::test]
async fn a_killed_redis_loses_what_it_held_and_nothing_comes_out_twice() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    let done = AtomicBool::new(false);
    let (server, done) = (&server, &done);
    let producer = async move {
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                return number;
            }
            let answer = server.post("/image/a", numbered(number, 20_000)).await;
            assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
        }
        0
    };
    let consumer = async move {
        let mut seen = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let answer = server.get("/image/a?empty=204").await;
            match answer.status.as_u16() {
                200 => seen.push(number_of(&answer.body)),
                204 => {}
                503 => assert_eq!(answer.error_code(), "store_unavailable"),
                _ => panic!("{answer:?}"),
            }
        }
        seen
    };
    let chaos = async {
        for _ in 0..3 * scale() {
            tokio::time::sleep(Duration::from_millis(400)).await;
            redis.kill().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            redis.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        done.store(true, Ordering::Relaxed);
    };
    let (sent, seen, ()) = tokio::join!(producer, consumer, chaos);
    assert!(seen.len() > 10 && sent > 10, "the load was a load: {} of {sent}", seen.len());
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "no frame twice");
    assert!(seen.is_sorted());
    until(SOON, "all is well in the end", || async { (server.get("/readyz").await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn a_wait_is_ended_by_an_outage_and_works_again_after_it() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    let (answer, ()) = tokio::join!(server.get("/image/a?wait=30"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.kill().await;
    });
    answer.is_refused(503, "store_unavailable");
    redis.restart().await;
    assert_recovers(&server).await;
    let (taken, ()) = tokio::join!(server.get("/image/a?wait=10"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.push("a", PHOTO_JPEG).await;
    });
    assert_eq!(taken.body, PHOTO_JPEG);
}

#[tokio::test]
async fn a_removal_that_was_answered_with_an_error_is_not_done_later() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    server.push("a", PHOTO_JPEG).await;
    redis.freeze();
    server.ask("DELETE", "/session/a").await.is_refused(503, "store_unavailable");
    redis.thaw();
    assert_recovers(&server).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.stats().await.contains(&("a".into(), 1)));
    assert_eq!(server.take("a").await.as_deref(), Some(PHOTO_JPEG));
}

#[tokio::test]
async fn what_is_pushed_just_before_a_wait_ends_is_given_to_it_though_the_notice_was_lost() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for round in 0..5 {
        let path = format!("/image/s{round}");
        let wait = format!("{path}?wait=0.8&empty=204");
        let (answer, pushed) = tokio::join!(server.get(&wait), async {
            tokio::time::sleep(Duration::from_millis(650)).await;
            let killed: i64 = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            assert_eq!(killed, 1);
            server.post(&path, numbered(round, 1000)).await
        });
        assert_eq!(pushed.status, 200);
        assert_eq!((answer.status.as_u16(), number_of(&answer.body)), (200, round));
    }
}
