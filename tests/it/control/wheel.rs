//! One operator at a time holds the wheel.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::harness::{
    Backend, Server,
    drivers::{Peer, STOP},
};

const LEASE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_first_operator_drives_others_watch_and_one_may_take_over() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut vehicle = Peer::vehicle(&server, "car", LEASE).await;
        let mut first = Peer::operator(&server, "car").await;
        first.status(|status| status["driving"] == true && status["vehicles"] == 1).await;
        let mut second = Peer::operator(&server, "car").await;
        let status = second.status(|status| status["driving"] == false).await;
        assert!(status["driver"].is_string(), "{status}");
        second.send("mine");
        second.is_told("not_driving").await;
        second.status(|status| status["dropped"] == 1).await;
        first.send("1");
        vehicle.hears("1").await;

        let mut third = Peer::connect(server.address(), "/ws/control/car?role=operator&take=1").await;
        third.status(|status| status["driving"] == true).await;
        first.is_told("wheel_taken").await;
        first.status(|status| status["driving"] == false).await;
        first.send("still me?");
        first.is_told("not_driving").await;
        third.send("3");
        // The first one's lease may have run out meanwhile.
        let heard = vehicle.next().await.1;
        if heard.to_text().unwrap() == STOP {
            vehicle.hears("3").await;
        } else {
            assert_eq!(heard.to_text().unwrap(), "3");
        }
        vehicle.hears(STOP).await;
        drop(third);
        // A free wheel is taken by the next command.
        second.status(|status| status["driver"].is_null()).await;
        second.send("2");
        vehicle.hears("2").await;
        second.status(|status| status["driving"] == true).await;
        assert_eq!(server.metric(r#"image_streamer_commands_dropped_total{reason="not_driving"}"#).await, 2.0);
        assert_eq!(server.metric("image_streamer_operators").await, 2.0);
    }
}

#[tokio::test]
async fn an_operator_of_whom_nothing_is_heard_does_not_keep_the_wheel() {
    let server = Backend::Memory.server(&[]).await;
    let link = crate::harness::link::Link::to(server.address());
    let silent = Peer::connect(link.address(), "/ws/control/car").await;
    let mut watcher = Peer::operator(&server, "car").await;
    watcher.status(|status| status["driver"].is_string()).await;
    link.fall_silent();
    let start = Instant::now();
    watcher.status(|status| status["driver"].is_null()).await;
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(silent);
}

#[tokio::test]
async fn single_commands_take_a_free_wheel_for_a_lease_and_tell_who_listens() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let command = async |server: &Server, text: &'static str| server.post("/control/car", text).await;
        command(&server, "go").await.is_refused(409, "no_vehicle");
        let mut vehicles = [Peer::vehicle(&server, "car", LEASE).await, Peer::vehicle(&server, "car", LEASE / 2).await];
        let answer = command(&server, "go").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({ "vehicles": 2 })));
        for vehicle in &mut vehicles {
            vehicle.hears("go").await;
        }
        // It is held for the longest lease, and renewed by who has it.
        let mut watcher = Peer::connect(server.address(), "/ws/control/car?role=operator&take=0").await;
        watcher.send("mine");
        watcher.is_told("not_driving").await;
        assert_eq!(command(&server, "").await.status, 200, "a ping");
        for vehicle in &mut vehicles {
            vehicle.hears(STOP).await;
        }
        let end = Instant::now() + LEASE * 3;
        while vehicles[0].next_within(Duration::from_millis(50)).await.is_none() {
            assert!(Instant::now() < end, "the wheel is free");
            watcher.send("mine");
        }
        command(&server, "again").await.is_refused(409, "not_driving");
        drop(watcher);
        sleep(Duration::from_millis(100)).await;
        command(&server, "").await.is_refused(409, "not_driving");
        let too_large = server.post("/control/car", vec![b'x'; 65_537]).await;
        too_large.is_refused(413, "command_too_large");
        assert_eq!(server.post("/control/car", vec![0xff; 65_536]).await.status, 200);
    }
}

#[tokio::test]
async fn what_a_vehicle_says_is_shown_and_the_newest_wins() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let vehicle = Peer::connect(server.address(), "/ws/control/car?role=vehicle&lease=250&vehicle=front").await;
        let mut operators = [Peer::operator(&server, "car").await, Peer::operator(&server, "car").await];
        for operator in &mut operators {
            let status = operator.status(|status| status["rttMs"].is_number()).await;
            assert_eq!(status["leaseMs"], 250);
            assert!(status["operatorRttMs"].is_number(), "{status}");
        }
        for number in 0..500 {
            vehicle.send(format!("{number}"));
        }
        for operator in &mut operators {
            let mut seen = Vec::new();
            while seen.last() != Some(&499) {
                let telemetry = operator.told("telemetry", |_| true).await;
                assert!(telemetry["vehicle"].as_str().unwrap().starts_with("front-"), "{telemetry}");
                seen.push(telemetry["text"].as_str().unwrap().parse::<u32>().unwrap());
            }
            assert!(seen.is_sorted() && seen.len() < 100, "{seen:?}");
        }
    }
}
