//! Commands come in time or not at all, and a vehicle that nobody commands any more is stopped.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::harness::{
    Backend, RedisServer, SOON, Server,
    drivers::{Peer, STOP, STOP_SLACK, vehicle_path},
    link::Link,
    scale, until,
};

const LEASE: Duration = Duration::from_millis(250);
const TTL: Duration = Duration::from_millis(500);

/// Sends a command until one gets there, and waits until the vehicle has been stopped again.
async fn warm_up(operator: &Peer, vehicle: &mut Peer) {
    operator.send("ready");
    vehicle.hears("ready").await;
    vehicle.hears(STOP).await;
}

/// When a stop came, after this moment; it has to be by the lease's end.
#[track_caller]
fn in_time(stopped: Instant, since: Instant, lease: Duration) {
    let after = stopped - since;
    assert!(after <= lease + STOP_SLACK, "stopped {after:?} after, with a lease of {lease:?}");
}

#[tokio::test]
async fn commands_come_unchanged_and_in_order_and_too_large_ones_are_told() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut vehicles = [Peer::vehicle(&server, "car", LEASE).await, Peer::vehicle(&server, "car", LEASE).await];
        let mut operator = Peer::operator(&server, "car").await;
        operator.status(|status| status["vehicles"] == 2 && status["driving"] == true).await;
        let mut commands: Vec<Message> = (0..500).map(|number| Message::text(format!("{number}"))).collect();
        commands.extend([
            Message::text("{\"linear\":{\"x\":0.5}}\r\n\0 é 🚗"),
            Message::binary(vec![0, 255, 13, 10]),
            Message::binary(vec![7; 65_536]),
            Message::text("x".repeat(65_536)),
        ]);
        for command in &commands {
            operator.send(command.clone());
            // It is no command.
            operator.ping();
        }
        for vehicle in &mut vehicles {
            for command in &commands {
                assert_eq!(vehicle.next().await.1, *command);
            }
        }
        operator.send(Message::binary(vec![7; 65_537]));
        let told = operator.is_told("command_too_large").await;
        assert!(told["message"].as_str().unwrap().contains("65536"), "{told}");
        operator.status(|status| status["dropped"] == 1).await;
        for vehicle in &mut vehicles {
            vehicle.hears(STOP).await;
        }
        assert_eq!(server.metric("image_streamer_commands_total").await, 2.0 * commands.len() as f64);
    }
}

#[tokio::test]
async fn the_lease_is_armed_by_commands_and_pings_alone_and_ends_once() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let mut vehicle = Peer::vehicle(&server, "car", LEASE).await;
        let mut operator = Peer::operator(&server, "car").await;
        vehicle.hears_nothing_for(LEASE * 2).await;
        for round in 0..3 {
            operator.send("go");
            let went = vehicle.hears("go").await;
            in_time(vehicle.hears(STOP).await, went, LEASE);
            operator.is_told("lease_ended").await;
            vehicle.hears_nothing_for(LEASE * 2).await;
            // A WebSocket's own ping says nothing of who holds it; the operator's does.
            operator.send(Message::Ping("still there".into()));
            vehicle.hears_nothing_for(LEASE + STOP_SLACK).await;
            let mut last = Instant::now();
            for _ in 0..6 {
                last = Instant::now();
                operator.ping();
                sleep(LEASE / 3).await;
            }
            let stopped = vehicle.hears(STOP).await;
            in_time(stopped, last, LEASE);
            assert!(stopped - last > LEASE / 2, "the pings kept it going in round {round}");
            // Told at most once a second.
            sleep(Duration::from_millis(600)).await;
        }
        // Nor does its answering ours.
        operator.send("go");
        let went = vehicle.hears("go").await;
        let mut pinging = Instant::now();
        while pinging.elapsed() < LEASE / 2 {
            operator.send(Message::Ping("x".into()));
            pinging -= Duration::from_millis(20);
            sleep(Duration::from_millis(20)).await;
        }
        in_time(vehicle.hears(STOP).await, went, LEASE);
        assert_eq!(server.metric(r#"image_streamer_stops_total{reason="lease"}"#).await, 7.0);
    }
}

#[tokio::test]
async fn vehicles_stop_at_once_when_their_operator_leaves_in_whatever_way_and_when_the_server_ends() {
    const LONG: Duration = Duration::from_secs(20);
    for backend in Backend::all().await {
        let mut server = backend.server(&[]).await;
        let mut vehicle = Peer::vehicle(&server, "car", LONG).await;
        let mut watcher = Peer::connect(server.address(), "/ws/control/car?take=0").await;
        watcher.status(|status| status["vehicles"] == 1 && status["driver"].is_null()).await;
        for way in ["close", "gone"] {
            let operator = Peer::operator(&server, "car").await;
            operator.send("go");
            vehicle.hears("go").await;
            // Who only watches may go.
            drop(Peer::connect(server.address(), "/ws/control/car").await);
            vehicle.hears_nothing_for(Duration::from_millis(100)).await;
            let left = Instant::now();
            match way {
                "close" => operator.send(Message::Close(None)),
                _ => drop(operator),
            }
            in_time(vehicle.hears(STOP).await, left, Duration::from_millis(100));
            watcher.status(|status| status["driver"].is_null()).await;
            vehicle.hears_nothing_for(Duration::from_millis(100)).await;
        }
        let operator = Peer::operator(&server, "car").await;
        operator.send("go");
        vehicle.hears("go").await;
        let ended = Instant::now();
        server.process().signal(Signal::SIGTERM);
        in_time(vehicle.hears(STOP).await, ended, Duration::from_millis(200));
        let (_, goodbye) = vehicle.next().await;
        assert!(matches!(&goodbye, Message::Close(Some(close)) if close.code == CloseCode::Away), "{goodbye:?}");
        let (status, _) = server.into_process().ended_within(Duration::from_secs(5)).await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn an_operator_who_is_cut_off_without_a_word_or_stopped_is_as_good_as_gone() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let link = Link::to(server.address());
        let mut vehicle = Peer::vehicle(&server, "car", LEASE).await;
        for _ in 0..2 * scale() {
            let operator = Peer::connect(link.address(), "/ws/control/car?take=1").await;
            let mut last = Instant::now();
            for number in 0..10 {
                last = Instant::now();
                operator.send(format!("{number}"));
                vehicle.hears(&format!("{number}")).await;
                sleep(Duration::from_millis(50)).await;
            }
            link.fall_silent();
            operator.send("never");
            in_time(vehicle.hears(STOP).await, last, LEASE);
            link.heal();
            vehicle.hears_nothing_for(LEASE).await;
        }
    }
}

#[tokio::test]
async fn what_piled_up_on_the_operators_way_is_dropped_and_what_comes_after_it_is_not() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let link = Link::to(server.address());
        let mut vehicle = Peer::vehicle(&server, "car", LEASE).await;
        let mut operator = Peer::connect(link.address(), "/ws/control/car").await;
        warm_up(&operator, &mut vehicle).await;
        // It is known by now to answer pings.
        sleep(Duration::from_secs(1)).await;
        for round in 0..scale() {
            let start = Instant::now();
            let sent = |number: u128| start + Duration::from_millis(number as u64 * 25);
            let mut obeyed = Vec::new();
            let drive = async {
                for number in 0..120_u128 {
                    tokio::time::sleep_until(sent(number)).await;
                    operator.send(format!("{round} {number}"));
                    match number {
                        30 => link.hold(),
                        90 => link.let_go(),
                        _ => {}
                    }
                }
                sleep(LEASE * 2).await;
            };
            let watch = async {
                loop {
                    let (at, message) = vehicle.next().await;
                    obeyed.push((at, message.to_text().unwrap().to_owned()));
                }
            };
            tokio::select! { () = drive => {}, () = watch => {} }
            let numbers: Vec<(Instant, u128)> = obeyed
                .iter()
                .filter(|(_, text)| text != STOP)
                .map(|(at, text)| (*at, text.split(' ').nth(1).unwrap().parse().unwrap()))
                .collect();
            assert!(numbers.is_sorted_by_key(|(_, number)| *number));
            for (at, number) in &numbers {
                assert!(*at - sent(*number) <= TTL + STOP_SLACK, "{number} came {:?} late", *at - sent(*number));
            }
            let count = |range: std::ops::Range<u128>| numbers.iter().filter(|(_, it)| range.contains(it)).count();
            let metrics = server.get("/metrics").await;
            let dropped: Vec<_> =
                metrics.text().lines().filter(|line| line.contains("commands_dropped_total{")).collect();
            assert_eq!(count(0..30), 30, "before: {dropped:?}");
            assert!(count(110..120) == 10, "soon after, all come: {dropped:?}");
            let held = sent(30);
            let stop = obeyed.iter().find(|(at, text)| text == STOP && *at > held).expect("it was stopped");
            in_time(stop.0, held, LEASE);
            operator.status(|status| status["dropped"].as_u64().unwrap() >= 30).await;
        }
    }
}

#[tokio::test]
async fn a_vehicle_that_does_not_answer_pings_is_sent_nothing_and_then_reset() {
    let server = Backend::Memory.server(&[]).await;
    let lease = Duration::from_millis(400);
    // It sends a handshake and then neither reads nor answers.
    let mut vehicle = TcpStream::connect(server.address()).await.unwrap();
    let path = vehicle_path("car", lease);
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let connected = Instant::now();
    vehicle.write_all(handshake.as_bytes()).await.unwrap();
    let operator = Peer::operator(&server, "car").await;
    let mut number = 0;
    let reset = until(SOON, "it is reset", || {
        number += 1;
        operator.send(format!("command {number:04}"));
        async { (server.metric("image_streamer_vehicles").await == 0.0).then(Instant::now) }
    })
    .await;
    let after = reset - connected;
    assert!((lease..lease + Duration::from_millis(200)).contains(&after), "{after:?}");
    // What was on its way is what was sent within half the lease; then comes the reset and no goodbye.
    let mut got = Vec::new();
    let end = timeout(SOON, vehicle.read_to_end(&mut got)).await.expect("it ends");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let got = String::from_utf8_lossy(&got).into_owned();
    let commands = got.matches("command ").count();
    assert!(commands > 0 && commands * 3 < number * 2, "{commands} of {number}");
}

#[tokio::test]
async fn commands_come_in_order_and_once_whichever_server_each_is_at_and_nothing_comes_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let servers = [redis.server(&[]).await, redis.server(&[]).await, redis.server(&[]).await];
    let mut vehicles = Vec::new();
    for server in &servers {
        vehicles.push(Peer::vehicle(server, "car", LEASE).await);
    }
    for (turn, server) in servers.iter().enumerate() {
        let mut operator = Peer::connect(server.address(), "/ws/control/car?take=1").await;
        operator.status(|status| status["vehicles"] == 3 && status["driving"] == true).await;
        let count = 200 * scale();
        for number in 0..count {
            operator.send(format!("{turn} {number}"));
            if number % 100 == 99 {
                sleep(Duration::from_millis(50)).await;
            }
        }
        let checks = vehicles.iter_mut().map(|vehicle| async {
            for number in 0..count {
                vehicle.hears(&format!("{turn} {number}")).await;
            }
            vehicle.hears(STOP).await;
        });
        futures_util::future::join_all(checks).await;
    }
    for way in ["hangs", "is killed"] {
        let operator = Peer::connect(servers[0].address(), "/ws/control/car?take=1").await;
        let mut last = Instant::now();
        for number in 0..5 {
            last = Instant::now();
            operator.send(format!("{number}"));
            for vehicle in &mut vehicles {
                vehicle.hears(&format!("{number}")).await;
            }
            sleep(Duration::from_millis(50)).await;
        }
        match way {
            "hangs" => redis.freeze(),
            _ => redis.kill().await,
        }
        for _ in 0..60 {
            operator.send("too late");
            sleep(Duration::from_millis(25)).await;
        }
        for vehicle in &mut vehicles {
            in_time(vehicle.hears(STOP).await, last, LEASE);
        }
        match way {
            "hangs" => redis.thaw(),
            _ => redis.restart().await,
        }
        // What was sent meanwhile never comes; what is sent then does.
        let vehicle = &mut vehicles[1];
        let returned = Instant::now();
        loop {
            operator.send("back");
            let heard = vehicle.next_within(Duration::from_millis(50)).await.map(|(_, message)| message);
            match heard {
                Some(message) if message == Message::text("back") => break,
                Some(message) => assert_eq!(message, Message::text(STOP), "{way}"),
                None => {}
            }
            assert!(returned.elapsed() < Duration::from_secs(5), "{way}");
        }
        drop(operator);
        for vehicle in &mut vehicles {
            while let Some((_, message)) = vehicle.next_within(LEASE * 2).await {
                assert!(["back", STOP].contains(&message.to_text().unwrap()), "{way}: {message:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_was_held_up_hands_nothing_on_that_came_meanwhile() {
    let server: Server = Backend::Memory.server(&[]).await;
    let mut vehicle = Peer::vehicle(&server, "car", Duration::from_secs(5)).await;
    let operator = Peer::operator(&server, "car").await;
    operator.send("go");
    vehicle.hears("go").await;
    sleep(Duration::from_millis(200)).await;
    server.signal(Signal::SIGSTOP);
    for _ in 0..20 {
        operator.send("old");
        sleep(Duration::from_millis(50)).await;
    }
    server.signal(Signal::SIGCONT);
    // By SIGCONT its pings are overdue by less than the lease, so the vehicle is still there.
    sleep(Duration::from_millis(500)).await;
    operator.send("new");
    vehicle.hears("new").await;
}
