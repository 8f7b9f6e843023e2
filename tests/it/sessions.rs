//! Session ids, statistics, removal, health.

use std::collections::HashSet;

use serde_json::json;

use crate::harness::{
    Answer, Backend, RedisServer, Server,
    picture::{PHOTO_JPEG, numbered},
};

#[tokio::test]
async fn get_session_makes_unguessable_ids_as_text_or_json() {
    for backend in Backend::all().await {
        check_new_sessions(&backend.server(&[]).await).await;
    }
}

async fn check_new_sessions(server: &Server) {
    let mut ids = HashSet::new();
    for accept in ["*/*", "text/plain", "application/json", "application.json"] {
        for _ in 0..20 {
            let answer = Answer::to(server.request("GET", "/session").header("accept", accept)).await;
            assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
            let id = if accept.contains("json") {
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.json().as_object().unwrap().len(), 1);
                answer.json()["session"].as_str().unwrap().to_owned()
            } else {
                assert!(answer.header("content-type").starts_with("text/plain"));
                answer.text().to_owned()
            };
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
            assert!(ids.insert(id));
        }
    }
}

#[tokio::test]
async fn stats_count_what_can_still_be_taken_and_list_sessions_without_frames_too() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let empty = server.get("/stats").await;
        assert_eq!(empty.text(), r#"{"numImages":0,"numSessions":0,"sessions":[]}"#);
        for _ in 0..3 {
            server.push("b", PHOTO_JPEG).await;
        }
        let seq = server.push("a", PHOTO_JPEG).await;
        let stats = server.get("/stats").await.json();
        assert_eq!((&stats["numImages"], &stats["numSessions"]), (&json!(4), &json!(2)));
        assert_eq!(stats["sessions"].as_array().map(Vec::len), Some(2));
        let a = stats["sessions"][0].as_object().unwrap();
        assert_eq!(a.keys().collect::<Vec<_>>(), ["ageMs", "fps", "id", "len", "seq", "viewers"]);
        assert_eq!((&a["id"], &a["len"], &a["seq"], &a["viewers"]), (&json!("a"), &json!(1), &json!(seq.0), &json!(0)));
        assert!(a["ageMs"].as_u64().unwrap() < 2000 && a["fps"] == 0.0, "{a:?}");
        assert_eq!((&stats["sessions"][1]["id"], &stats["sessions"][1]["len"]), (&json!("b"), &json!(3)));
        server.take("a").await.unwrap();
        server.take("b").await.unwrap();
        assert_eq!(server.stats().await, [("a".into(), 0), ("b".into(), 2)]);
        for (session, count) in [("b", 1), ("c", 0)] {
            let one = server.get(&format!("/stats?session={session}")).await.json();
            assert_eq!((&one["numSessions"], one["sessions"].as_array().map(Vec::len)), (&json!(count), Some(count)));
        }
        server.get("/stats?session=a/b").await.is_refused(400, "bad_session");
    }
}

#[tokio::test]
async fn stats_never_walk_the_key_space() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for session in 0..50 {
        server.push(&format!("s{session}"), PHOTO_JPEG).await;
    }
    for number in 0..2000 {
        let _: () = redis.command(&["SET", &format!("somebody-elses-{number}"), "x"]).await;
    }
    let _: () = redis.command(&["CONFIG", "RESETSTAT"]).await;
    assert_eq!(server.stats().await.len(), 50);
    let commands: String = redis.command(&["INFO", "commandstats"]).await;
    assert!(commands.contains("cmdstat_evalsha"), "{commands}");
    assert!(
        !["cmdstat_keys", "cmdstat_scan", "cmdstat_sscan", "cmdstat_zscan"].iter().any(|name| commands.contains(name))
    );
}

#[tokio::test]
async fn delete_drops_a_session_whose_numbers_never_go_back() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("other", PHOTO_JPEG).await;
        let mut last = server.push("a", PHOTO_JPEG).await;
        for _ in 0..3 {
            server.push("a", PHOTO_JPEG).await;
            last = server.push("a", PHOTO_JPEG).await;
            let gone = server.ask("DELETE", "/session/a").await;
            assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
            assert_eq!(server.stats().await, [("other".into(), 1)]);
            assert_eq!(server.take("a").await, None);
            // It begins again with its next frame, and is listed again.
            let next = server.push("a", &numbered(1, 20)).await;
            assert!(next > last, "{next:?} after {last:?}");
            assert_eq!(server.stats().await, [("a".into(), 1), ("other".into(), 1)]);
        }
        assert_eq!(server.ask("DELETE", "/session/never-was").await.status, 204);
        server.ask("DELETE", "/session/..%2f").await.is_refused(400, "bad_session");
        assert!(last.0 > 0);
    }
}

#[tokio::test]
async fn removing_leaves_no_key_of_the_session_but_what_expires() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    for number in 0..10 {
        server.push("a", &numbered(number, 100)).await;
    }
    server.ask("DELETE", "/session/a").await;
    assert_eq!(redis.command::<Vec<String>>(&["KEYS", "*"]).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_key_in_redis_expires_by_itself() {
    let redis = RedisServer::start().await;
    let server = redis.server(&[("EXPIRE", "1")]).await;
    for number in 0..10 {
        server.push(&format!("s{}", number % 3), &numbered(number, 100)).await;
    }
    server.take("s1").await.unwrap();
    for key in redis.command::<Vec<String>>(&["KEYS", "*"]).await {
        let life: i64 = redis.command(&["PTTL", &key]).await;
        // The index is a few sets that are cleaned as they are used.
        assert!(life > 0 || key.starts_with("is:sessions:"), "{key} lives {life} ms");
        assert!(life <= 3000, "{key} lives {life} ms");
    }
}

#[tokio::test]
async fn health_and_readiness() {
    for mut backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for path in ["/healthz", "/readyz"] {
            let answer = server.get(path).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok"), "{path}");
            assert_eq!(server.ask("HEAD", path).await.status, 200);
        }
        if let Backend::Redis(redis) = &mut backend {
            redis.kill().await;
            assert_eq!(server.get("/healthz").await.status, 200);
            let answer = server.get("/readyz").await;
            answer.is_refused(503, "store_unavailable");
            assert!(answer.has("retry-after"));
        }
    }
}
