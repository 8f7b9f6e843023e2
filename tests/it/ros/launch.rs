//! As robots start it, and what they replay.

use serde_json::json;
use tempfile::TempDir;

use super::{newest, picture};
use crate::harness::{
    Backend, SOON,
    process::{Process, program},
    robot::Ros,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_is_played() {
    let ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    let _bridge = ros.bridge(&server.url(""), &["--topic", "/cam*/**={topic}"]);
    let directory = TempDir::new().unwrap();
    let bag = directory.path().join("drive.bag");
    let mut robot = ros.robot().await;
    let photo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/chelsea.jpg");
    let topics = json!({"/cam/raw": picture("bgr8", 160, 120), "/cam/compressed": {"file": photo, "format": "jpeg"}});
    robot.tell(&json!({"do": "record", "bag": bag, "topics": topics, "rate": 10, "count": 50})).await;
    robot.says("recorded").await;
    let mut play = program("rosbag", "python3-rosbag");
    play.arg("play").arg("--delay=1").arg(&bag);
    let _playing = Process::start(ros.command(play));
    for session in ["cam.raw", "cam.compressed"] {
        let answer = newest(&server, session).await;
        // It is stamped as it was recorded.
        let stamp: f64 = answer.header("x-frame-timestamp").parse().unwrap();
        assert!((1_700_000_000.0..1_700_000_005.0).contains(&stamp), "{stamp}");
    }
    let played = newest(&server, "cam.compressed").await;
    assert!(played.body == crate::harness::picture::PHOTO_JPEG);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_on_the_command_line_says_what_is_expected() {
    let ros = Ros::two();
    let server = "http://127.0.0.1:1";
    for (server, arguments, words) in [
        (server, &["--topic", "/a*=b"][..], "{topic}"),
        (server, &["--topic", "/a=b", "--topic", "/c=b"], "/a and /c"),
        (server, &["--cmd-vel", "/a"], "--drive"),
        (server, &[], "--topic"),
        ("localhost", &["--topic", "/a"], "https://example.org"),
    ] {
        let (status, output) = ros.bridge(server, arguments).ended_within(SOON).await;
        assert!(!status.success() && output.contains(words), "{arguments:?}: {output}");
    }
}
