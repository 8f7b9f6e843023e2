//! What goes wrong: messages that are none, and everything that can be restarted.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{goes_on, newest, picture, seq};
use crate::harness::{Backend, SOON, Server, link::Link, port::free_port, robot::Ros};

/// Memory in use, in bytes (`VmHWM` of proc(5)): the most that there ever was.
fn most_memory(id: nix::unistd::Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_are_refused_by_name_and_cost_nothing() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let mut bridge = ros.bridge(&server.url(""), &["--topic", "/**={topic}"]);
        let mut robot = ros.robot().await;
        let wrong = |more: Value| {
            let mut picture = picture("rgb8", 160, 120);
            picture.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            picture
        };
        let refused = [
            ("/short", wrong(json!({"cut": 1})), "too short"),
            ("/empty", wrong(json!({"claim": {"data": []}})), "too short"),
            ("/step", wrong(json!({"claim": {"step": 479}})), "step of 479 bytes is wrong"),
            ("/none", wrong(json!({"claim": {"width": 0}})), "0 x 120"),
            ("/vast", wrong(json!({"claim": {"width": 4_000_000_000_u32, "height": 4_000_000_000_u32}})), "no size"),
            ("/tall", wrong(json!({"claim": {"height": 65_000}})), "too short"),
            ("/odd", json!({"encoding": "yuv422", "width": 160, "height": 120, "claim": {"width": 159}}), "even width"),
            ("/what", wrong(json!({"claim": {"encoding": "h265"}})), "h265"),
        ];
        let mut topics: serde_json::Map<_, _> =
            refused.iter().map(|(topic, picture, _)| ((*topic).to_owned(), picture.clone())).collect();
        topics.insert("/right".into(), picture("rgb8", 160, 120));
        robot.publish(topics.into(), 10.0, None).await;
        newest(&server, "right").await;
        let mut left: Vec<_> = refused.iter().map(|(topic, _, words)| (*topic, *words)).collect();
        while !left.is_empty() {
            let line = bridge.line_with("a message was refused").await;
            left.retain(|(topic, words)| !(line.contains(&format!("{topic} (")) && line.contains(words)));
        }
        goes_on(&server, "right").await;
        let sessions: Vec<_> = server.stats().await.into_iter().map(|(session, _)| session).collect();
        assert_eq!(sessions, ["right"]);
        let most = most_memory(bridge.id());
        assert!(most < 200 << 20, "{most} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_the_server_and_the_bridge_may_be_restarted_in_any_order() {
    for ros in Ros::all().await {
        let port = free_port().to_string();
        let start = async || Server::start_with(&["-i", "127.0.0.1", "-p", &port], &[]).await;
        let url = format!("http://127.0.0.1:{port}");
        let arguments = ["--topic", "/named=named", "--topic", "/found*={topic}"];
        let topics = json!({"/named": picture("rgb8", 160, 120), "/found_1": picture("mono8", 64, 48)});
        let sessions = ["named", "found_1"];
        // Nobody is there when the bridge comes.
        let mut bridge = ros.bridge(&url, &arguments);
        let mut robot = ros.robot().await;
        robot.publish(topics.clone(), 10.0, None).await;
        bridge.line_with("going on without the server").await;
        let mut server = start().await;
        for round in 0..2 {
            for session in sessions {
                goes_on(&server, session).await;
            }
            // The publisher is killed, and comes back as another.
            drop(robot);
            robot = ros.robot().await;
            robot.publish(topics.clone(), 10.0, None).await;
            for session in sessions {
                goes_on(&server, session).await;
            }
            server.process().kill().await;
            if round == 0 {
                server = start().await;
            }
            bridge.kill().await;
            bridge = ros.bridge(&url, &arguments);
            if round == 1 {
                server = start().await;
            }
            for session in sessions {
                goes_on(&server, session).await;
            }
        }
        bridge.signal(Signal::SIGTERM);
        assert!(bridge.ended_within(SOON).await.0.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_go_on_while_there_is_no_master_and_new_topics_come_with_it() {
    let mut ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    let mut bridge =
        ros.bridge(&server.url(""), &["--topic", "/**={topic}", "--drive", "front", "--cmd-vel", "/cmd_vel"]);
    let mut robot = ros.robot().await;
    robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 10.0, None).await;
    goes_on(&server, "front").await;
    for round in 0..2 {
        ros.master().kill().await;
        bridge.line_with("going on without the master").await;
        goes_on(&server, "front").await;
        ros.master().start_again().await;
        bridge.line_with("registered with").await;
        // Nodes of ROS do not register again; those that come later do.
        let mut other = ros.robot().await;
        let topic = format!("/late_{round}");
        other.publish(json!({&topic: picture("mono8", 64, 48)}), 10.0, None).await;
        goes_on(&server, &topic[1..]).await;
        goes_on(&server, "front").await;
        other.listen("/cmd_vel", "Twist").await;
        let driving = async {
            loop {
                server.post("/control/front", r#"{"linear":{"x":1}}"#).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = other.is_driven(1.0, 0.0, 0.0) => {}
            () = driving => {}
        }
    }
}

/// A bridge that is there before the master.
#[tokio::test(flavor = "multi_thread")]
async fn the_master_may_come_last() {
    let mut ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    ros.master().kill().await;
    let mut bridge = ros.bridge(&server.url(""), &["--topic", "/front=front"]);
    bridge.line_with("going on without the master").await;
    ros.master().start_again().await;
    let mut robot = ros.robot().await;
    robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 10.0, None).await;
    goes_on(&server, "front").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_waited_for_long_is_not_shown_as_new() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let link = Link::to(server.address());
        let _bridge = ros.bridge(&link.url(""), &["--topic", "/front=front"]);
        let mut robot = ros.robot().await;
        robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 10.0, Some(30)).await;
        goes_on(&server, "front").await;
        link.hold();
        let before = seq(&server, "front").await;
        robot.has_published(SOON).await;
        // One picture is on its way, and the last one waits: longer than it may.
        tokio::time::sleep(Duration::from_secs(11)).await;
        link.let_go();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = seq(&server, "front").await;
        assert!(after <= before + 1, "{} pictures came", after - before);
        robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 10.0, None).await;
        goes_on(&server, "front").await;
    }
}

/// As a camera driver does that opens its device anew: the node stays, and with it its address.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_taken_back_and_published_again_by_the_same_node_goes_on() {
    let ros = Ros::one().await;
    let server = Backend::Memory.server(&[]).await;
    let _bridge = ros.bridge(&server.url(""), &["--topic", "/front=front"]);
    let mut robot = ros.robot().await;
    for _ in 0..4 {
        robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 20.0, Some(10)).await;
        robot.has_published(SOON).await;
        robot.tell(&json!({"do": "take_back", "topic": "/front"})).await;
        robot.says("taken_back").await;
    }
    robot.publish(json!({"/front": picture("rgb8", 160, 120)}), 20.0, None).await;
    goes_on(&server, "front").await;
}
