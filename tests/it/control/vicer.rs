//! VICER's own wire: scripts that speak it, and peers that do not.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::harness::{
    Backend, SOON, Server, UsersFile,
    drivers::Peer,
    picture::{PHOTO_JPEG, numbered},
    process::program,
    python::{Conversation, script},
    server::command,
    until,
};

/// A server with VICER's ports.
struct Vicer {
    server: Server,
    control: SocketAddr,
    stream: SocketAddr,
}

impl Vicer {
    async fn start(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let ports = [("VICER_CONTROL_PORT", "0"), ("VICER_STREAM_PORT", "0")];
        Self::of(backend.server(&[&ports, variables].concat()).await).await
    }

    async fn of(mut server: Server) -> Self {
        let mut address = async |words: &str| -> SocketAddr {
            let line = server.process().line_with(words).await;
            line.split(' ').next_back().unwrap().trim_matches('"').parse().unwrap()
        };
        let control = address("VICER's controllers and vehicles on").await;
        let stream = address("VICER's cameras and viewers on").await;
        Self { server, control, stream }
    }

    async fn peer(&self, role: &str) -> Conversation {
        let address = if matches!(role, "vehicle" | "controller") { self.control } else { self.stream };
        let mut peer = script("vicer.py");
        peer.args([role, &address.ip().to_string(), &address.port().to_string()]);
        let mut peer = Conversation::start(peer);
        assert_eq!(peer.hear().await["connected"], true);
        peer
    }

    async fn vehicles(&self, count: usize) {
        until(SOON, format!("{count} vehicles"), || async {
            (self.server.metric("image_streamer_vehicles").await == count as f64).then_some(())
        })
        .await;
    }
}

/// Its commands until one ends so, put together: unframed as they are, one read may bring several.
async fn hears(vehicle: &mut Conversation, text: &str) {
    let mut heard = String::new();
    while heard != text {
        let said = vehicle.hear().await;
        heard += said["command"].as_str().unwrap_or_else(|| panic!("{said}"));
        assert!(text.starts_with(&heard), "{heard:?} is no beginning of {text:?}");
    }
}

#[tokio::test]
async fn its_programs_connect_unchanged_and_everybody_else_is_on_the_same_session() {
    for backend in Backend::all().await {
        let vicer = Vicer::start(&backend, &[]).await;
        // Three vehicles, a controller, a camera of each kind and two viewers at once.
        let mut vehicles = [vicer.peer("vehicle").await, vicer.peer("vehicle").await, vicer.peer("vehicle").await];
        vicer.vehicles(3).await;
        let mut web = Peer::operator(&vicer.server, "vicer").await;
        web.status(|status| status["vehicles"] == 3).await;
        let mut viewers = [vicer.peer("viewer").await, vicer.peer("viewer").await];
        for viewer in &mut viewers {
            // The No Data picture.
            assert_eq!(viewer.hear().await["starts"], "ffd8");
        }
        let directory = tempfile::tempdir().unwrap();
        let mut camera = vicer.peer("camera").await;
        for number in 0..10_u64 {
            let file = directory.path().join(format!("{number}.jpg"));
            std::fs::write(&file, numbered(number, 20_000)).unwrap();
            camera.say(file.to_str().unwrap()).await;
            assert_eq!(camera.hear().await["sent"], 20_000);
            for viewer in &mut viewers {
                let seen = viewer.hear().await;
                assert_eq!((&seen["bytes"], &seen["number"]), (&20_000.into(), &number.into()), "{seen}");
            }
        }
        // They are frames like any other: taken, in order.
        for number in 0..10 {
            assert_eq!(vicer.server.take("vicer").await, Some(numbered(number, 20_000)));
        }
        let mut ffmpeg = program("ffmpeg", "ffmpeg");
        ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=20:duration=1"]);
        ffmpeg.args(["-c:v", "mjpeg", "-f", "mjpeg", &format!("tcp://{}", vicer.stream)]).stdin(Stdio::null());
        let pushing = tokio::task::spawn_blocking(move || ffmpeg.output().unwrap());
        for viewer in &mut viewers {
            let seen = viewer.hear().await;
            assert!(seen["bytes"].as_u64().unwrap() > 1000 && seen["starts"] == "ffd8", "{seen}");
        }
        let pushed = pushing.await.unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        until(SOON, "each of ffmpeg's pictures is a frame", || async {
            (vicer.server.metric(r#"image_streamer_frames_in_total{way="vicer"}"#).await == 30.0).then_some(())
        })
        .await;

        drop(web);
        let mut controller = vicer.peer("controller").await;
        sleep(Duration::from_millis(300)).await;
        for letters in ["F", "L", "B", "12"] {
            controller.say(letters).await;
            controller.hear().await;
            for vehicle in &mut vehicles {
                hears(vehicle, letters).await;
            }
        }
        let sent = controller_sends(&mut controller, "F").await;
        for vehicle in &mut vehicles {
            hears(vehicle, "F").await;
            let stop = vehicle.hear().await;
            assert_eq!(stop["command"], "S");
            let after = stop["at"].as_f64().unwrap() - sent;
            assert!(after <= 0.55, "stopped after {after} s");
        }
        controller.say("F").await;
        controller.hear().await;
        for vehicle in &mut vehicles {
            hears(vehicle, "F").await;
        }
        drop(controller);
        for vehicle in &mut vehicles {
            hears(vehicle, "S").await;
        }
        // A web page drives them too, and they are vehicles like any other.
        assert_eq!(vicer.server.post("/control/vicer", "W").await.json()["vehicles"], 3);
        for vehicle in &mut vehicles {
            hears(vehicle, "W").await;
        }
    }
}

/// Sends a command; when, by the clock of all scripts.
async fn controller_sends(controller: &mut Conversation, letters: &str) -> f64 {
    controller.say(letters).await;
    controller.hear().await["at"].as_f64().unwrap()
}

#[tokio::test]
async fn one_controller_at_a_time_drives_and_the_wheel_is_free_after_a_lease() {
    let variables = [("VICER_SESSION", "car"), ("VICER_STOP", "halt"), ("VICER_LEASE_MS", "300")];
    let vicer = Vicer::start(&Backend::Memory, &variables).await;
    let mut vehicle = vicer.peer("vehicle").await;
    vicer.vehicles(1).await;
    let (mut first, mut second) = (vicer.peer("controller").await, vicer.peer("controller").await);
    first.say("1").await;
    hears(&mut vehicle, "1").await;
    second.say("2").await;
    hears(&mut vehicle, "halt").await;
    sleep(Duration::from_millis(100)).await;
    second.say("3").await;
    hears(&mut vehicle, "3").await;
    hears(&mut vehicle, "halt").await;
}

#[tokio::test]
async fn absurd_silent_and_flooding_peers_are_cut_off_and_nobody_else_is() {
    let vicer = Vicer::start(&Backend::Memory, &[("MAX_IMAGE_BYTES", "100000")]).await;
    let mut vehicle = vicer.peer("vehicle").await;
    vicer.vehicles(1).await;
    let is_cut_off = async |mut stream: TcpStream, what: &str| {
        let end = async {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        };
        timeout(Duration::from_secs(15), end).await.unwrap_or_else(|_| panic!("{what} goes on"));
    };
    let connect = async |to: SocketAddr, bytes: &[u8]| {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    };
    is_cut_off(connect(vicer.stream, b"\x99\xa1\x86\x01\0").await, "a length over the limit").await;
    is_cut_off(connect(vicer.stream, b"\x99\xff\xff\xff\xffgarbage").await, "an absurd length").await;
    // Whatever else is no picture is refused, and the camera goes on.
    let mut camera = connect(vicer.stream, b"\x99\x05\0\0\0hello").await;
    let picture = numbered(7, 500);
    camera.write_all(&[&500_u32.to_le_bytes()[..], &picture].concat()).await.unwrap();
    until(SOON, "the picture is there", || async { vicer.server.take("vicer").await }).await;

    let mut flood = connect(vicer.control, b"flood").await;
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    // As many reads as there are writes, or nearly.
    while flood.write_all(b"F").await.is_ok() {
        assert!(begun.elapsed() < SOON, "the flood goes on");
        std::thread::sleep(Duration::from_micros(300));
    }
    loop {
        let heard = vehicle.hear().await;
        if heard["command"].as_str().unwrap().ends_with('S') {
            break;
        }
    }
    assert_eq!(vicer.server.post("/control/vicer", "on").await.status, 200);
    hears(&mut vehicle, "on").await;
    let silent = [
        ("who says nothing at the control port", connect(vicer.control, b"").await),
        ("who says nothing at the stream port", connect(vicer.stream, b"").await),
        ("a picture that does not come to its end", connect(vicer.stream, b"\x99\x10\0\0\0\xff\xd8").await),
    ];
    futures_util::future::join_all(silent.map(|(what, stream)| is_cut_off(stream, what))).await;
    assert!(vicer.server.resident_bytes() < 100 << 20);
}

#[tokio::test]
async fn a_viewer_sees_no_picture_that_is_not_live_and_a_slow_one_skips() {
    let vicer = Vicer::start(&Backend::Memory, &[("STALE_AFTER", "1")]).await;
    let mut viewer = vicer.peer("viewer").await;
    let nothing = viewer.hear().await;
    let mut slow = TcpStream::connect(vicer.stream).await.unwrap();
    slow.write_all(b" ").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    for number in 0..60 {
        vicer.server.push("vicer", &numbered(number, 500_000)).await;
        assert_eq!(viewer.hear().await["number"], number);
    }
    assert_eq!(viewer.hear().await, nothing, "no picture after a second without one");
    let (mut seen, mut length) = (Vec::new(), [0; 4]);
    while timeout(Duration::from_secs(2), slow.read_exact(&mut length)).await.is_ok_and(|read| read.is_ok()) {
        let mut picture = vec![0; u32::from_le_bytes(length) as usize];
        slow.read_exact(&mut picture).await.unwrap();
        seen.push(picture);
    }
    assert!((3..40).contains(&seen.len()), "{} pictures", seen.len());
}

#[tokio::test]
async fn where_there_are_users_its_ports_are_opened_to_everybody_only_on_purpose() {
    let file = UsersFile::with(&[("root", &["--admin"])]).await;
    let path = file.path();
    let users = [("USERS_FILE", path.to_str().unwrap()), ("VICER_CONTROL_PORT", "0"), ("VICER_STREAM_PORT", "0")];
    let refused = command(&["-p", "0"], &users).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("VICER_ALLOW_ANONYMOUS") && said.contains("know no login"), "{said}");
    let variables = [&users[..], &[("VICER_ALLOW_ANONYMOUS", "1")]].concat();
    let vicer = Vicer::of(Server::start(&variables).await).await;
    let _vehicle = vicer.peer("vehicle").await;
    let mut camera = vicer.peer("camera").await;
    camera.say(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/chelsea.jpg").to_str().unwrap()).await;
    assert_eq!(camera.hear().await["sent"], PHOTO_JPEG.len());
    let mut viewer = vicer.peer("viewer").await;
    let seen: Value = viewer.hear().await;
    assert!(seen["bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{seen}");
}
