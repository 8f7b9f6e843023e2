//! As robots start it, and what they replay.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{newest, picture};
use crate::harness::{
    Backend, SOON,
    port::free_port,
    process::{Process, program, workspace_binary},
    robot::Ros,
    until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_is_played() {
    let ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    let _bridge = ros.bridge(&server.url(""), &["--topic", "/cam*/**={topic}"]);
    let directory = TempDir::new().unwrap();
    let bag = directory.path().join("drive.bag");
    let mut robot = ros.robot().await;
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/chelsea.jpg");
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

/// A node that cannot begin ends, and says why: somebody has to start it again.
#[tokio::test(flavor = "multi_thread")]
async fn more_topics_than_there_may_be_are_an_error_of_either_kind_of_node() {
    let topics: Vec<_> = (0..257).map(|number| format!("/topic_{number}")).collect();
    let arguments: Vec<_> = topics.iter().flat_map(|topic| ["--topic", topic]).collect();
    for ros in Ros::all().await {
        let (status, output) = ros.bridge("http://127.0.0.1:1", &arguments).ended_within(SOON * 2).await;
        assert!(!status.success() && output.contains("256"), "{output}");
    }
}

/// What roslaunch finds the package and the programs by.
fn roslaunch(ros: &Ros, words: &[&str]) -> Process {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = program("roslaunch", "ros-core");
    command.args(words);
    let mut command = ros.command(command);
    let programs = workspace_binary("image-streamer-ros").parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", programs.display())).env("ROS_PACKAGE_PATH", root.join("ros-bridge"));
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn roslaunch_starts_the_bridge() {
    let ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    let address = format!("server:={}", server.url(""));
    let words =
        ["image_streamer", "image_streamer.launch", "image_topic:=/camera/image_raw", &address, "options:=--width 80"];
    let launched = roslaunch(&ros, &words);
    let mut robot = ros.robot().await;
    robot.publish(json!({"/camera/image_raw": picture("rgb8", 160, 120)}), 10.0, None).await;
    let made = image::load_from_memory(&newest(&server, "camera.image_raw").await.body).unwrap();
    assert_eq!((made.width(), made.height()), (80, 60));
    launched.signal(Signal::SIGINT);
    launched.ended_within(Duration::from_secs(20)).await;
}

/// The parameters of `image_stream_server`: port, topic, certificate, key. Its pages are where they were.
#[tokio::test(flavor = "multi_thread")]
async fn roslaunch_starts_what_takes_the_place_of_image_stream_server() {
    let ros = Ros::one().await;
    let mut robot = ros.robot().await;
    robot.publish(json!({"/webcam/image": picture("rgb8", 160, 120)}), 10.0, None).await;
    let port = free_port();
    let (port_word, url) = (format!("port:={port}"), format!("http://127.0.0.1:{port}"));
    let words =
        ["image_streamer", "image_stream_server.launch", "image_topic:=/webcam/image", "host:=127.0.0.1", &port_word];
    let launched = roslaunch(&ros, &words);
    // No server of the harness's has done this.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let seen = until(Duration::from_secs(20), "the picture in the stream", || async {
        let mut stream = client.get(format!("{url}/video_feed")).send().await.ok()?;
        while let Some(chunk) = timeout(Duration::from_secs(1), stream.chunk()).await.ok()?.ok()? {
            // The picture itself, and not the one that says that there is none, has a number.
            if String::from_utf8_lossy(&chunk).to_lowercase().contains("x-frame-seq") {
                return Some(stream.headers()["content-type"].to_str().unwrap().to_owned());
            }
        }
        None
    });
    assert!(seen.await.starts_with("multipart/x-mixed-replace"));
    assert!(client.get(format!("{url}/webcam")).send().await.unwrap().status().is_success());
    launched.signal(Signal::SIGINT);
    launched.ended_within(Duration::from_secs(20)).await;
}
