//! `GET /metrics`: what Prometheus is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::harness::{
    Backend, RedisServer, Viewer,
    picture::{PHOTO_JPEG, numbered},
    server::form_with,
};

#[tokio::test]
async fn frames_and_bytes_are_counted_by_way_and_drops_by_reason() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "2"), ("MAX_QUEUE", "5")]).await;
        let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
        viewer.part().await;
        for number in 0..8 {
            server.push("a", &numbered(number, 1000)).await;
            viewer.part_with(number).await;
        }
        let form = server.request("POST", "/imageForm/b").multipart(form_with("image", PHOTO_JPEG));
        assert_eq!(form.send().await.unwrap().status(), 200);
        server.take("a").await.unwrap();
        server.take("nobody").await;
        server.get("/snapshot/a").await;
        server.get("/frames/a").await;
        let check = async |name: &str, wanted: f64| assert_eq!(server.metric(name).await, wanted, "{name}");
        for (name, wanted) in [
            (r#"frames_in_total{way="body"}"#, 8.0),
            (r#"bytes_in_total{way="body"}"#, 8000.0),
            (r#"frames_in_total{way="form"}"#, 1.0),
            (r#"bytes_in_total{way="form"}"#, PHOTO_JPEG.len() as f64),
            (r#"frames_out_total{way="queue"}"#, 1.0),
            (r#"bytes_out_total{way="queue"}"#, 1000.0),
            (r#"frames_out_total{way="snapshot"}"#, 1.0),
            (r#"frames_out_total{way="cursor"}"#, 1.0),
            (r#"frames_out_total{way="mjpeg"}"#, 8.0),
            (r#"bytes_out_total{way="mjpeg"}"#, 8000.0),
            (r#"frames_dropped_total{reason="cap"}"#, 3.0),
            (r#"frames_dropped_total{reason="slow_viewer"}"#, 0.0),
            (r#"frames_dropped_total{reason="expired"}"#, 0.0),
            ("delivery_seconds_count", 8.0),
            ("sessions", 2.0),
            ("viewers", 1.0),
            (r#"store_seconds_count{operation="push"}"#, 9.0),
            (r#"store_errors_total{operation="push"}"#, 0.0),
        ] {
            check(&format!("image_streamer_{name}"), wanted).await;
        }
        assert!(server.metric("image_streamer_delivery_seconds_sum").await < 4.0);
    }
}

#[tokio::test]
async fn frames_that_nobody_took_in_time_are_counted() {
    for backend in Backend::all().await {
        let server = backend.server(&[("EXPIRE", "2")]).await;
        for number in 0..4 {
            server.push("a", &numbered(number, 1000)).await;
        }
        server.take("a").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        // The session goes on while those before have expired.
        server.push("a", &numbered(4, 1000)).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(server.stats().await, [("a".into(), 1)]);
        assert_eq!(server.metric(r#"image_streamer_frames_dropped_total{reason="expired"}"#).await, 3.0);
    }
}

#[tokio::test]
async fn the_text_is_well_formed_and_names_no_session() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        server.push("a-secret-session", PHOTO_JPEG).await;
        let _viewer = Viewer::open(&server, "/stream/a-secret-session").await;
        let answer = server.get("/metrics").await;
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text();
        assert!(!text.contains("secret"), "{text}");
        let (mut types, mut helped) = (BTreeMap::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(helped.contains(name) && types.insert(name, kind).is_none(), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                helped.insert(rest.split_once(' ').unwrap().0);
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(types.contains_key(name) || types.contains_key(family.unwrap_or(name)), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(name.starts_with("image_streamer_"), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn they_are_told_while_redis_is_away_but_for_the_sessions() {
    let mut redis = RedisServer::start().await;
    let server = redis.server(&[]).await;
    server.push("a", PHOTO_JPEG).await;
    redis.kill().await;
    assert_eq!(server.post("/image/a", PHOTO_JPEG).await.status, 503);
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("image_streamer_sessions"), "{}", answer.text());
    assert!(server.metric(r#"image_streamer_store_errors_total{operation="push"}"#).await >= 1.0);
    assert_eq!(server.metric(r#"image_streamer_frames_in_total{way="body"}"#).await, 1.0);
}
