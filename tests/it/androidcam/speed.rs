//! Many phones on one server: nothing is lost, at a fifth of what the app's own server takes, or less.

use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    SOON,
    phones::{AndroidCamServer, Client, Gateway, Phones},
    process::cpu_time,
    scale, until,
};

const PHONES: u64 = 200;
const FPS: u64 = 2;
const BYTES: usize = 30 * 1024;
/// How many times less CPU a frame takes here, at least.
const TIMES_LESS: f64 = 5.0;
/// The newest frames that a session holds: enough to see their order, and little memory however long this goes on.
const HELD: u64 = 20;
/// Longer than it takes until all phones are connected, and until the last frame is in.
const ALL: Duration = Duration::from_secs(60);

fn seconds() -> u64 {
    10 * scale() as u64
}

/// What both servers are given. The app compresses no messages, and neither do these phones.
fn work() -> Value {
    json!({
        "user": "user", "password": "x", "wait": true, "hold": true, "deflate": false, "phones": PHONES, "fps": FPS,
        "bytes": BYTES, "frames": FPS * seconds(), "stay": ALL.as_secs(),
    })
}

/// Waits until all phones may send, on WebSockets.
async fn all_ready(phones: &mut Phones) {
    phones.have_said(PHONES as usize, "upgrade", ALL).await;
    phones.have_said(PHONES as usize, "authenticated", ALL).await;
    assert!(phones.all("authenticated").iter().all(|said| said["value"] == true));
}

/// CPU time that a frame takes, from the phones' first frame to their last.
struct PerFrame(Duration);

impl PerFrame {
    fn of(server: Pid, before: Duration, frames: u64) -> Self {
        Self((cpu_time(server) - before) / u32::try_from(frames).unwrap())
    }
}

/// On the gateway, which must take every frame.
async fn here() -> PerFrame {
    let gateway = Gateway::start(&[("MAX_QUEUE", &HELD.to_string())]).await;
    let mut phones = gateway.phones(Client::Js2, &work());
    all_ready(&mut phones).await;
    let before = cpu_time(gateway.server.id());
    phones.go().await;
    phones.have_said(PHONES as usize, "sent", Duration::from_secs(seconds()) + ALL).await;
    let frames = FPS * seconds();
    until(SOON, "every frame is in", || async { (gateway.frames_in().await >= PHONES * frames).then_some(()) }).await;
    let per_frame = PerFrame::of(gateway.server.id(), before, PHONES * frames);

    assert_eq!(gateway.frames_in().await, PHONES * frames);
    for phone in [1, PHONES / 2, PHONES] {
        let session = format!("user-{phone}");
        let last = gateway.next_are(&session, 0, phone, frames - HELD.min(frames) + 1..=frames, BYTES).await;
        gateway.nothing_after(&session, last).await;
    }
    assert_eq!(phones.hang_up().await.all("disconnect").len(), 0);
    per_frame
}

/// On the app's own server, which may take longer than there is time: those frames count that it has taken.
async fn there() -> PerFrame {
    let mut server = AndroidCamServer::start().await;
    let mut phones = Phones::start(Client::Js2, server.url(), &work());
    all_ready(&mut phones).await;
    let before = cpu_time(server.id());
    phones.go().await;
    sleep(Duration::from_secs(seconds())).await;
    let (frames, _) = server.received().await;
    assert!(frames > PHONES, "{frames} frames would prove nothing");
    let per_frame = PerFrame::of(server.id(), before, frames);
    phones.kill().await;
    per_frame
}

#[tokio::test]
async fn two_hundred_phones_lose_no_frame_and_each_frame_takes_a_fifth_of_the_cpu_that_the_apps_own_server_takes() {
    let (here, there) = (here().await.0, there().await.0);
    let times = there.as_secs_f64() / here.as_secs_f64();
    println!(
        "a frame of {BYTES} bytes took {here:?} of CPU, and {there:?} on the app's own server: {times:.1} times as much"
    );
    assert!(times >= TIMES_LESS, "{here:?} and {there:?}: {times:.1} times as much");
}
