//! The bridge between robots and the server: real masters, real nodes, real DDS.

mod commands;
mod encodings;
mod faults;
mod launch;
mod rates;

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Answer, SOON, Server, until};

/// The newest picture of a session, once there is one.
async fn newest(server: &Server, session: &str) -> Answer {
    until(SOON, format!("a picture of {session}"), || async {
        let answer = server.get(&format!("/snapshot/{session}?empty=204")).await;
        (answer.status == 200).then_some(answer)
    })
    .await
}

/// The number of the newest picture; 0 where there is none.
async fn seq(server: &Server, session: &str) -> u64 {
    let stats = server.get(&format!("/stats?session={session}")).await.json();
    stats["sessions"][0]["seq"].as_u64().unwrap_or_default()
}

/// Waits for a picture that comes from now on.
async fn goes_on(server: &Server, session: &str) {
    let before = seq(server, session).await;
    let what = format!("another picture of {session}");
    until(Duration::from_secs(20), what, || async { (seq(server, session).await > before).then_some(()) }).await;
}

/// A topic's picture, as the robots are told of it.
fn picture(encoding: &str, width: u32, height: u32) -> Value {
    serde_json::json!({"encoding": encoding, "width": width, "height": height})
}
