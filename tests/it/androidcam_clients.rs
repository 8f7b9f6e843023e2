//! The Socket.IO gateway with the clients that people have: every frame, in order, whatever they are and however they connect.

use serde_json::json;

use crate::harness::{
    SOON,
    phones::{AndroidCamServer, Client, Gateway, Phones, TRANSPORTS, picture},
    until,
};

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
            let said = Phones::start(client, server.url(), &options).done_within(SOON).await;
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
