//! Operators drive robots.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile,
    drivers::Peer,
    link::Link,
    process::Process,
    robot::{Robot, Ros},
    tls::CertificateFiles,
    until,
    users::PASSWORD,
};

const LEASE: Duration = Duration::from_millis(250);
/// What a busy machine may take to do what is due.
const SLACK: Duration = Duration::from_millis(400);
const FORWARD: &str = r#"{"linear":{"x":0.5},"angular":{"z":-0.2}}"#;

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// A robot that listens, and an operator who waits until the bridge is there.
async fn driven(ros: &Ros, server: &Server) -> (Robot, Peer) {
    let mut robot = ros.robot().await;
    robot.listen("/cmd_vel", "Twist").await;
    robot.listen("/commands", "String").await;
    let mut operator = Peer::operator(server, "car").await;
    operator.status(|status| status["vehicles"] == 1).await;
    (robot, operator)
}

const ARGUMENTS: [&str; 6] = ["--drive", "car", "--cmd-vel", "/cmd_vel", "--command-topic", "commands"];

/// Drives until the robot has heard of it: what is published before a subscriber is connected is lost.
async fn drive(robot: &mut Robot, operator: &Peer) {
    let driving = async {
        loop {
            operator.send(FORWARD);
            if timeout(Duration::from_millis(100), robot.is_driven(0.5, -0.2, 0.0)).await.is_ok() {
                return;
            }
        }
    };
    timeout(SOON, driving).await.expect("the robot is driven");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_sends_is_published_and_its_end_stops_the_robot() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let _bridge = ros.bridge(&server.url(""), &ARGUMENTS);
        let (mut robot, operator) = driven(&ros, &server).await;
        drive(&mut robot, &operator).await;
        // The other subscriber may connect later.
        let heard = async {
            while !matches!(timeout(Duration::from_millis(100), robot.says("text")).await, Ok(said) if said["text"] == FORWARD)
            {
                operator.send(FORWARD);
            }
        };
        timeout(SOON, heard).await.expect("the text is published as it is");
        // What is no Twist is a text all the same.
        operator.send("lights on");
        while robot.says("text").await["text"] != "lights on" {}
        let silent = now();
        drop(operator);
        let stopped = robot.is_driven(0.0, 0.0, silent).await;
        assert!(stopped - silent < (LEASE + SLACK).as_secs_f64(), "stopped {:.3} s later", stopped - silent);
        while robot.says("text").await["text"] != "S" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_link_stops_the_robot_within_its_lease_and_it_is_driven_again_when_the_link_is_back() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let link = Link::to(server.address());
        let _bridge = ros.bridge(&link.url(""), &ARGUMENTS);
        let (mut robot, mut operator) = driven(&ros, &server).await;
        for _ in 0..2 {
            drive(&mut robot, &operator).await;
            let lost = now();
            link.fall_silent();
            let stopped = robot.is_driven(0.0, 0.0, lost).await;
            assert!(stopped - lost < (LEASE + SLACK).as_secs_f64(), "stopped {:.3} s later", stopped - lost);
            link.heal();
            operator.status(|status| status["vehicles"] == 0).await;
            operator.status(|status| status["vehicles"] == 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_a_bridge_that_is_told_to_end_stop_the_robot() {
    for ros in Ros::all().await {
        let mut server = Backend::Memory.server(&[]).await;
        let bridge = ros.bridge(&server.url(""), &ARGUMENTS);
        let (mut robot, mut operator) = driven(&ros, &server).await;
        drive(&mut robot, &operator).await;
        let told = now();
        bridge.signal(Signal::SIGTERM);
        robot.is_driven(0.0, 0.0, told).await;
        assert!(bridge.ended_within(SOON).await.0.success());
        operator.status(|status| status["vehicles"] == 0).await;

        let _bridge = ros.bridge(&server.url(""), &ARGUMENTS);
        operator.status(|status| status["vehicles"] == 1).await;
        drive(&mut robot, &operator).await;
        let killed = now();
        server.process().kill().await;
        let stopped = robot.is_driven(0.0, 0.0, killed).await;
        assert!(stopped - killed < (LEASE + SLACK).as_secs_f64(), "stopped {:.3} s later", stopped - killed);
    }
}

/// A node that listens and then hangs, as a laptop does that is out of the Wi-Fi's reach.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_hangs_keeps_no_command_from_the_others() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let _bridge = ros.bridge(&server.url(""), &ARGUMENTS);
        let mut hanging = ros.robot().await;
        hanging.listen("/cmd_vel", "Twist").await;
        let (mut robot, operator) = driven(&ros, &server).await;
        drive(&mut hanging, &operator).await;
        drive(&mut robot, &operator).await;
        hanging.signal(Signal::SIGSTOP);
        for _ in 0..20 {
            drive(&mut robot, &operator).await;
        }
        let told = now();
        operator.send("S");
        let stopped = robot.is_driven(0.0, 0.0, told).await;
        assert!(stopped - told < SLACK.as_secs_f64(), "stopped {:.3} s later", stopped - told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_users_a_name_or_a_key_opens_both_ways() {
    let users = UsersFile::with(&[("robot", &["--publish", "car", "--command", "car", "--view", "car"])]).await;
    let key = users.must(&["key", "robot"], "").await.trim().to_owned();
    for ros in Ros::all().await {
        let server = users.server(&Backend::Memory, &[]).await;
        let named = server.url("").replace("http://", &format!("http://robot:{}@", PASSWORD.replace(' ', "%20")));
        let mut arguments = ARGUMENTS.to_vec();
        arguments.extend(["--topic", "/camera=car"]);
        let mut robot = ros.robot().await;
        robot.publish(serde_json::json!({"/camera": super::picture("mono8", 64, 48)}), 10.0, None).await;
        for (url, key) in [(named, ""), (server.url(""), key.as_str()), (server.url(""), "wrong")] {
            let mut command = ros.bridge_command(&url, &arguments);
            let mut bridge = Process::start({
                command.env("SERVER_KEY", key);
                command
            });
            if key == "wrong" {
                // Which of them comes first is open.
                for _ in 0..2 {
                    let line = bridge.line_with(": 401").await;
                    assert!(
                        line.contains("going on without the server") || line.contains("nobody can drive"),
                        "{line}"
                    );
                }
                continue;
            }
            bridge.line_with("operators of car are obeyed").await;
            let before = seen(&server).await;
            until(SOON, "its pictures come", || async { (seen(&server).await > before).then_some(()) }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_commands_go_over_https_to_a_server_that_is_trusted() {
    let ros = Ros::one().await;
    let files = CertificateFiles::new();
    let server = files.server(&[]).await;
    let mut arguments = ARGUMENTS.to_vec();
    arguments.extend(["--topic", "/camera=car"]);
    let mut robot = ros.robot().await;
    robot.publish(serde_json::json!({"/camera": super::picture("mono8", 64, 48)}), 10.0, None).await;
    robot.listen("/cmd_vel", "Twist").await;
    let mut stranger = ros.bridge(&server.url(""), &arguments);
    stranger.line_with("going on without the server").await;
    stranger.kill().await;
    assert!(server.stats().await.is_empty());
    let mut command = ros.bridge_command(&server.url(""), &arguments);
    command.env("SSL_CERT_FILE", files.ca());
    let _bridge = Process::start(command);
    super::newest(&server, "car").await;
    let driving = async {
        loop {
            server.post("/control/car", FORWARD).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = robot.is_driven(0.5, -0.2, 0.0) => {}
        () = driving => {}
    }
}

/// The number of the newest picture, as the robot's own user may see it; 0 where there is none.
async fn seen(server: &Server) -> u64 {
    let request = server.request("GET", "/snapshot/car?empty=204").basic_auth("robot", Some(PASSWORD));
    let answer = Answer::to(request).await;
    if answer.status == 200 { answer.header("x-frame-seq").parse().unwrap() } else { 0 }
}
