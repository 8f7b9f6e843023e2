//! Live viewing through several servers on one Redis, and through its outages.

use std::time::{Duration, Instant};

use crate::harness::{RedisServer, SOON, Server, Viewer, picture::numbered, scale, until};

/// Viewers that have seen what there was to begin with.
async fn viewers(server: &Server, session: &str, count: usize) -> Vec<Viewer> {
    let mut viewers = Vec::new();
    for _ in 0..count {
        let mut viewer = Viewer::open(server, &format!("/stream/{session}?repeat=0")).await;
        viewer.part().await;
        viewers.push(viewer);
    }
    viewers
}

/// Bytes that Redis has sent since it began.
async fn bytes_out(redis: &RedisServer) -> u64 {
    let stats: String = redis.command(&["INFO", "stats"]).await;
    stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")?.trim().parse().ok()).unwrap()
}

#[tokio::test]
async fn a_frame_pushed_to_any_server_is_seen_through_every_other() {
    let redis = RedisServer::start().await;
    let servers = [redis.server(&[]).await, redis.server(&[]).await, redis.server(&[]).await];
    let mut watching = Vec::new();
    for server in &servers {
        watching.extend(viewers(server, "a", 2).await);
    }
    let mut last = None;
    for number in 0..30 * scale() as u64 {
        let seq = servers[number as usize % 3].push("a", &numbered(number, 5000)).await.0;
        assert!(last.is_none_or(|last| seq == last + 1));
        last = Some(seq);
        for viewer in &mut watching {
            let part = viewer.part_within(Duration::from_secs(1)).await.expect("it is live");
            assert_eq!((part.number(), part.seq()), (number, Some(seq)));
        }
    }
}

#[tokio::test]
async fn a_server_fetches_each_frame_once_for_all_its_viewers_and_none_without_viewers() {
    let redis = RedisServer::start().await;
    let (pushed_to, watched, idle) = (redis.server(&[]).await, redis.server(&[]).await, redis.server(&[]).await);
    let (frames, size) = (40, 50_000_u64);
    idle.get("/stats").await;

    let push_all = async |viewers: &mut [Viewer]| {
        let before = bytes_out(&redis).await;
        for number in 0..frames {
            pushed_to.push("a", &numbered(number, size as usize)).await;
            for viewer in viewers.iter_mut() {
                assert_eq!(viewer.part_within(Duration::from_secs(1)).await.expect("it is live").number(), number);
            }
        }
        (bytes_out(&redis).await - before) as f64 / (frames * size) as f64
    };
    let nobody = push_all(&mut []).await;
    assert!(nobody < 0.1, "{nobody} of each frame was fetched for nobody");
    let mut many = viewers(&watched, "a", 20).await;
    let once = push_all(&mut many).await;
    assert!((0.9..1.1).contains(&once), "each frame was fetched {once} times for 20 viewers");
    drop(many);
    until(SOON, "the viewers are gone", || async {
        (watched.metric("image_streamer_viewers").await == 0.0).then_some(())
    })
    .await;
    let mut local = viewers(&pushed_to, "a", 20).await;
    let local = push_all(&mut local).await;
    assert!(local < 0.1, "{local} of each frame was fetched by the server that it was pushed to");
}

#[tokio::test]
async fn a_producer_learns_of_viewers_at_any_server_and_of_their_leaving() {
    let redis = RedisServer::start().await;
    let servers = [redis.server(&[]).await, redis.server(&[]).await];
    let count = async |server: &Server, wanted: &str| {
        let server = &server;
        until(Duration::from_secs(6), format!("{wanted} viewers"), || async {
            let answer = server.post("/image/a", numbered(1, 1000)).await;
            (answer.header("x-viewers") == wanted).then_some(())
        })
        .await;
    };
    count(&servers[0], "0").await;
    let first = viewers(&servers[0], "a", 2).await;
    let mut second = viewers(&servers[1], "a", 3).await;
    for server in &servers {
        count(server, "5").await;
        assert_eq!(server.get("/stats").await.json()["sessions"][0]["viewers"], 5);
    }
    // Nor do those count less who stay while others come and go elsewhere.
    let stayed = Instant::now();
    while stayed.elapsed() < Duration::from_secs(6) {
        drop(viewers(&servers[1], "b", 1).await);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let answer = servers[0].post("/image/a", numbered(1, 1000)).await;
    assert_eq!(answer.header("x-viewers"), "5");
    second.pop();
    count(&servers[0], "4").await;
    drop(first);
    count(&servers[1], "2").await;
    // A server that is gone without a word has no viewers 5 s later.
    let [one, mut other] = servers;
    let killed = Instant::now();
    other.process().kill().await;
    count(&one, "0").await;
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn rate_age_and_number_are_the_same_through_every_server() {
    let redis = RedisServer::start().await;
    let servers = [redis.server(&[]).await, redis.server(&[]).await];
    let start = Instant::now();
    let mut seq = 0;
    for number in 0..30 {
        tokio::time::sleep_until((start + Duration::from_millis(number * 100)).into()).await;
        seq = servers[number as usize % 2].push("a", &numbered(number, 1000)).await.0;
    }
    for server in &servers {
        let stats = server.get("/stats").await.json();
        let session = &stats["sessions"][0];
        let (fps, age) = (session["fps"].as_f64().unwrap(), session["ageMs"].as_u64().unwrap());
        assert!((9.0..11.0).contains(&fps), "{stats}");
        assert!(age < 500, "{stats}");
        assert_eq!(session["seq"].as_u64(), Some(seq));
    }
}

#[tokio::test]
async fn viewers_resume_by_themselves_after_redis_was_killed_or_the_subscription_cut() {
    let mut redis = RedisServer::start().await;
    let (one, other) = (redis.server(&[]).await, redis.server(&[]).await);
    let mut watching = viewers(&other, "a", 3).await;
    let mut number = 0;
    let rounds = ["nothing", "the subscription is cut", "Redis is killed", "Redis hangs"];
    for round in rounds.into_iter().cycle().take(rounds.len() * scale()) {
        match round {
            "the subscription is cut" => redis.command::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
            "Redis is killed" => {
                redis.kill().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                redis.restart().await;
            }
            "Redis hangs" => {
                redis.freeze();
                tokio::time::sleep(Duration::from_secs(2)).await;
                redis.thaw();
            }
            _ => {}
        }
        until(SOON, format!("pushes succeed after: {round}"), || async {
            (one.post("/image/a", numbered(1000, 1000)).await.status == 200).then_some(())
        })
        .await;
        number += 1;
        one.push("a", &numbered(number, 1000)).await;
        let pushed = Instant::now();
        for viewer in &mut watching {
            viewer.part_with(number).await;
        }
        assert!(pushed.elapsed() < Duration::from_secs(2), "{round}: {:?}", pushed.elapsed());
    }
}

#[tokio::test]
async fn a_viewer_who_comes_while_redis_is_away_sees_no_data_and_then_the_stream() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    redis.kill().await;
    let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(viewer.part_within(Duration::from_secs(2)).await.expect("something is shown").seq(), None);
    redis.restart().await;
    until(SOON, "pushes succeed", || async {
        (server.post("/image/a", numbered(1, 1000)).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(viewer.part().await.number(), 1);
}
