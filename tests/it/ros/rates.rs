//! Fast topics, large ones, and links that are slower.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::{newest, picture, seq};
use crate::harness::{Backend, SOON, link::Link, robot::Ros, scale, until};

/// What a busy machine may miss of what is published.
const MISSED: f64 = 0.2;

#[tokio::test(flavor = "multi_thread")]
async fn small_pictures_at_30_hz_and_large_ones_at_10_hz_come_whole() {
    for ros in Ros::all().await {
        for (width, height, rate) in [(640, 480, 30.0), (1920, 1080, 10.0)] {
            let server = Backend::Memory.server(&[]).await;
            let _bridge = ros.bridge(&server.url(""), &["--topic", "/camera/image_raw=front"]);
            let mut robot = ros.robot().await;
            let count = rate as u32 * 5 * scale() as u32;
            robot.publish(json!({"/camera/image_raw": picture("bgr8", width, height)}), rate, Some(count)).await;
            let made = image::load_from_memory(&newest(&server, "front").await.body).unwrap();
            assert_eq!((made.width(), made.height()), (width, height));
            let first = server.get("/frames/front").await.header("x-frame-seq").parse::<u64>().unwrap();
            let published = robot.has_published(Duration::from_secs(30) * scale() as u32).await;
            let seen = seq(&server, "front").await - first + 1;
            let least = (published as f64 * (1.0 - MISSED)) as u64;
            assert!((least..=published).contains(&seen), "{seen} of {published} pictures of {width} x {height}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let _bridge = ros.bridge(&server.url(""), &["--topic", "/fast=slow", "--max-fps", "5"]);
        let mut robot = ros.robot().await;
        robot.publish(json!({"/fast": picture("mono8", 64, 48)}), 50.0, Some(200)).await;
        newest(&server, "slow").await;
        let (first, start) = (seq(&server, "slow").await, Instant::now());
        robot.has_published(SOON).await;
        let (seen, wanted) = (seq(&server, "slow").await - first, start.elapsed().as_secs_f64() * 5.0);
        assert!(
            (wanted * 0.7..wanted * 1.1 + 1.0).contains(&(seen as f64)),
            "{seen} pictures, where {wanted:.1} are right"
        );
    }
}

/// 30 pictures a second of some 15 kB over a link that carries four: those that come are new ones.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_slow_link_the_newest_wins() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let link = Link::to(server.address());
        link.limit(60_000);
        let _bridge = ros.bridge(&link.url(""), &["--topic", "/camera/image_raw=front"]);
        let mut robot = ros.robot().await;
        robot.publish(json!({"/camera/image_raw": picture("rgb8", 640, 480)}), 30.0, None).await;
        let first = newest(&server, "front").await;
        let one = Duration::from_secs_f64(first.body.len() as f64 / 60_000.0);
        let mut last = 0;
        for _ in 0..12 {
            last = until(SOON, "the next picture", || async {
                let now = seq(&server, "front").await;
                (now > last).then_some(now)
            })
            .await;
            let stamp: f64 = newest(&server, "front").await.header("x-frame-timestamp").parse().unwrap();
            let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - stamp;
            // It waited for the one before it at most, and then was on its way.
            let bound = one.as_secs_f64() * 2.0 + 0.7;
            assert!(age < bound, "a picture is {age:.2} s old, where {bound:.2} s would do");
        }
    }
}
