//! The vehicles of docs/VEHICLES.md do what it says.

use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{
    Backend, SOON,
    drivers::{Peer, STOP_SLACK},
    example::{Example, Vehicle},
};

const LEASE: Duration = Duration::from_millis(250);

#[tokio::test]
async fn an_example_vehicle_drives_as_it_is_told_and_stops_when_it_is_not() {
    for example in Example::ALL {
        let mut server = Backend::Memory.server(&[]).await;
        let url = server.url("/control/car");
        let mut vehicle = Vehicle::start(example, &url);
        let mut operator = Peer::operator(&server, "car").await;
        operator.status(|status| status["vehicles"] == 1 && status["leaseMs"] == 250).await;
        for (number, twist) in [
            r#"{"linear":{"x":0.5},"angular":{"z":-0.25},"number":1}"#,
            r#"{"angular":{"z":1},"linear":{"x":0},"number":2}"#,
            r#"{"linear":{"x":-1,"y":0},"angular":{"x":0,"z":0},"number":3}"#,
        ]
        .into_iter()
        .enumerate()
        {
            operator.send(twist);
            let obeyed = loop {
                let obeyed = vehicle.next().await;
                if obeyed.number.is_some() {
                    break obeyed;
                }
                assert!(!obeyed.moves, "{example:?}");
            };
            assert_eq!((obeyed.number, obeyed.moves), (Some(number as u64 + 1), true), "{example:?}");
        }
        let last = Instant::now();
        let stopped = vehicle.next().await;
        assert!(!stopped.moves, "{example:?}: {stopped:?}");
        assert!(stopped.at - last <= LEASE + STOP_SLACK, "{example:?}: {:?}", stopped.at - last);
        // What it does not understand does not move it.
        for strange in
            ["", "{", "{}", "null", r#"{"linear":5}"#, r#"{"linear":{"x":"fast"},"angular":{"z":0}}"#, "forward"]
        {
            operator.send(strange);
        }
        operator.send("x".repeat(60_000));
        vehicle.watch_for(LEASE * 2).await;
        assert!(!vehicle.moves(), "{example:?}");
        operator.send(r#"{"linear":{"x":0.5},"angular":{"z":0},"number":9}"#);
        let mut next = vehicle.next().await;
        while !next.moves {
            next = vehicle.next().await;
        }
        assert_eq!(next.number, Some(9), "{example:?}");
        server.process().kill().await;
        let killed = Instant::now();
        vehicle.watch_for(SOON.min(LEASE * 2)).await;
        assert!(!vehicle.moves(), "{example:?}");
        let stop = vehicle.seen.iter().rev().take_while(|obeyed| !obeyed.moves).last().unwrap();
        assert!(stop.at - killed <= LEASE + STOP_SLACK, "{example:?}");
    }
}
