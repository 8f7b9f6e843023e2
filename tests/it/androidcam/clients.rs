//! The Socket.IO gateway with the clients that people have: every frame, in order, whatever they are and however they connect.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Backend, SOON, Server, Viewer,
    link::Link,
    phones::{AndroidCamServer, Client, Gateway, Phones, TRANSPORTS, picture},
    picture::PHOTO_JPEG,
    scale, until,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a phone sends: pictures a second (0: as fast as they go), the size of one, and how many.
#[derive(Debug, Clone, Copy)]
struct Load {
    fps: usize,
    bytes: usize,
    frames: usize,
}

/// From one picture a second to thirty, from 10 KiB to 4 MiB, and as much as goes: then several wait for each request.
const LOADS: [Load; 5] = [
    Load { fps: 1, bytes: 10 * KIB, frames: 3 },
    Load { fps: 30, bytes: 30 * KIB, frames: 60 },
    Load { fps: 10, bytes: 400 * KIB, frames: 20 },
    Load { fps: 2, bytes: 4 * MIB, frames: 4 },
    Load { fps: 0, bytes: MIB, frames: 12 },
];

/// How long phones may take for what they do here, beyond the time that their rate makes it.
const DONE: Duration = Duration::from_secs(60);

/// A name that no other phone of a test has.
fn name(client: Client, transports: &[&str], load: &str) -> String {
    format!("{client:?}-{}-{load}", transports.join("-"))
}

/// As hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn phones_do_with_the_apps_own_server_what_these_tests_take_them_to_do() {
    const BYTES: usize = 200_000;
    let mut server = AndroidCamServer::start().await;
    let mut frames = 0;
    for client in [Client::Python, Client::Js2] {
        for transports in TRANSPORTS {
            let options = json!({
                "transports": transports, "user": "ann", "password": "x", "wait": true, "frames": 2, "bytes": BYTES,
                "ack": true, "phones": 2,
            });
            let said = Phones::start(client, server.url(), &options).done_within(DONE).await;
            frames += 4;
            assert_eq!(
                [said.total("handed"), said.total("sent"), said.total("acked")],
                [4; 3],
                "{client:?} {transports:?}"
            );
            assert_eq!(said.all("upgrade").len(), if transports.len() > 1 { 2 } else { 0 }, "{said:?}");
            let newest = json!({ "ann-1": sha256(&picture(1, 2, BYTES)), "ann-2": sha256(&picture(2, 2, BYTES)) });
            assert_eq!(server.received().await, (frames, newest), "{client:?} {transports:?}");
        }
    }
}

/// A phone every picture of which must come.
async fn all_come(gateway: &Gateway, client: Client, transports: &[&str], load: Load) {
    let user = name(client, transports, &format!("{}-{}", load.fps, load.bytes));
    let frames = load.frames * if load.fps > 0 { scale() } else { 1 };
    let options = json!({
        "transports": transports, "user": user, "password": "", "frames": frames, "fps": load.fps, "bytes": load.bytes,
        "wait": true,
    });
    let phones = gateway.phones(client, &options);
    let time = DONE + Duration::from_secs((frames / load.fps.max(1)) as u64);
    let (said, ()) = tokio::join!(phones.done_within(time), gateway.received(&user, 1, frames as u64, load.bytes));
    assert_eq!([said.total("handed"), said.total("sent")], [frames as u64; 2], "{user}");
    for unwanted in ["error", "disconnect"] {
        assert!(said.all(unwanted).is_empty(), "{user}: {said:?}");
    }
    let upgrades = usize::from(transports.len() > 1);
    assert_eq!((said.all("connect").len(), said.all("upgrade").len()), (1, upgrades), "{user}: {said:?}");
}

async fn every_picture_comes(client: Client) {
    let gateway = Gateway::start(&[]).await;
    for transports in TRANSPORTS {
        join_all(LOADS.map(|load| all_come(&gateway, client, transports, load))).await;
    }
}

#[tokio::test]
async fn every_picture_of_python_socketio_4_comes_whole_and_in_order() {
    every_picture_comes(Client::Python).await;
}

#[tokio::test]
async fn every_picture_of_socket_io_client_2_comes_whole_and_in_order() {
    every_picture_comes(Client::Js2).await;
}

#[tokio::test]
async fn every_picture_of_socket_io_client_4_comes_whole_and_in_order() {
    every_picture_comes(Client::Js4).await;
}

#[tokio::test]
async fn pictures_keep_their_order_while_phones_go_from_polling_to_a_websocket() {
    const PHONES: u64 = 8;
    let gateway = Gateway::start(&[]).await;
    // So slow that pictures go by polling first, and that a request with pictures is on its way when the WebSocket opens.
    let (near, far) = (Link::to(gateway.address()), Link::to(gateway.address()));
    near.delay_websockets(Duration::from_millis(300));
    far.delay_websockets(Duration::from_millis(300));
    far.limit(1_000_000);
    for round in 0..scale() {
        for client in Client::ALL {
            for (way, link, fps, bytes, frames) in [("near", &near, 30, 10 * KIB, 30), ("far", &far, 0, 60 * KIB, 20)] {
                let user = format!("{client:?}-{way}-{round}");
                let options = json!({
                    "user": user, "password": "", "phones": PHONES, "frames": frames, "fps": fps, "bytes": bytes,
                });
                let said = Phones::start(client, &link.url(""), &options).done_within(DONE).await;
                assert_eq!(said.total("sent"), PHONES * frames, "{user}");
                let upgrades = said.all("upgrade");
                assert_eq!(upgrades.len(), PHONES as usize, "{user}: {said:?}");
                // python-socketio keeps pictures until then; the others send them meanwhile.
                let sent_before =
                    |said: &&&Value| said["frames"].as_u64().is_some_and(|sent| (1..frames).contains(&sent));
                let crossing = upgrades.iter().filter(sent_before).count();
                assert!(client == Client::Python || crossing > 0, "{user}: this would prove nothing: {upgrades:?}");
                for phone in 1..=PHONES {
                    gateway.received(&format!("{user}-{phone}"), phone, frames, bytes).await;
                }
            }
        }
    }
}

/// Pushes until the viewer of a session counts; the number of the last frame.
async fn watched(server: &Server, session: &str) -> u64 {
    until(SOON, format!("a viewer of {session}"), || async {
        let request = server.request("POST", &format!("/image/{session}")).header("accept", "application/json");
        let answer = Answer::to(request.body(PHOTO_JPEG)).await;
        (answer.header("x-viewers") == "1").then(|| answer.json()["seq"].as_u64().unwrap())
    })
    .await
}

#[tokio::test]
async fn an_acknowledgement_tells_the_number_of_the_frame_and_how_many_watch() {
    const FRAMES: u64 = 10;
    for backend in Backend::all().await {
        let gateway = Gateway::on(&backend, &[]).await;
        for client in Client::ALL {
            for transports in TRANSPORTS {
                let user = name(client, transports, "acknowledged");
                let options = json!({
                    "transports": transports, "user": user, "password": "", "frames": FRAMES, "ack": true, "wait": true,
                    "hold": true,
                });
                let mut phones = gateway.phones(client, &options);
                phones.next("authenticated").await;
                let _viewer = Viewer::open(&gateway.server, &format!("/stream/{user}")).await;
                let mut after = watched(&gateway.server, &user).await;
                phones.go().await;
                let said = phones.done_within(DONE).await;
                for (number, ack) in (1..=FRAMES).zip(said.all("ack")) {
                    after = gateway.next_are(&user, after, 1, [number], 10 * KIB).await;
                    assert_eq!(ack["frame"], number, "{user}");
                    assert_eq!(ack["value"], json!({ "seq": after, "viewers": 1 }), "{user}");
                }
                assert_eq!(said.all("ack").len() as u64, FRAMES, "{user}");
                gateway.nothing_after(&user, after).await;
            }
        }
    }
}

#[tokio::test]
async fn a_picture_of_16_mib_comes_from_every_client_over_both_transports() {
    const BYTES: usize = 16 * MIB;
    let gateway = Gateway::start(&[]).await;
    for client in Client::ALL {
        for transports in TRANSPORTS {
            let user = name(client, transports, "large");
            let options = json!({
                "transports": transports, "user": user, "password": "", "frames": 2, "bytes": BYTES, "ack": true,
            });
            let said = gateway.phones(client, &options).done_within(DONE).await;
            let told: Vec<&Value> = said.all("ack").iter().map(|ack| &ack["value"]["viewers"]).collect();
            assert_eq!(told, [0, 0], "{user}: {said:?}");
            gateway.received(&user, 1, 2, BYTES).await;
        }
    }
}
