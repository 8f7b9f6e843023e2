//! Live viewing, endless pushes and WebSockets with the programs that people use for them.

use std::{
    io::Cursor,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    pin::pin,
    process::{Command, Stdio},
    time::Duration,
};

use fantoccini::Locator;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::Child,
    task::JoinHandle,
    time::{interval, timeout},
};

use crate::harness::{
    Backend, SOON, Server,
    browser::Browser,
    nginx::Nginx,
    picture::{numbered, of_every_type},
    process::{Process, program},
    python::{Conversation, script},
    until,
};

/// Longer than a program takes on a busy machine to start, do what it is for and end.
const DONE: Duration = Duration::from_secs(60);
const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

/// Colours so far apart that no codec makes one of another, nor of the grey that motion writes without a camera.
const COLOURS: [[u8; 3]; 4] = [[200, 30, 30], [30, 160, 30], [30, 60, 200], [230, 210, 40]];

/// A picture of one colour.
fn coloured(colour: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(WIDTH, HEIGHT, Rgb(colour)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Which of the colours it is, after whatever a program did to it.
fn which(colour: [u8; 3]) -> Option<usize> {
    let near = |other: &[u8; 3]| colour.iter().zip(other).all(|(one, other)| one.abs_diff(*other) < 40);
    COLOURS.iter().position(near)
}

/// Which of the colours a picture is, by its middle. `None` also for what is no whole picture, or not yet.
fn which_picture(bytes: &[u8]) -> Option<usize> {
    let picture = image::load_from_memory(bytes).ok()?.to_rgb8();
    which(picture.get_pixel(picture.width() / 2, picture.height() / 2).0)
}

/// A JPEG camera that shows the colours in turn, until it is dropped.
struct Camera(JoinHandle<()>);

impl Camera {
    fn start(server: &Server, session: &str, pause: Duration) -> Self {
        let pictures = COLOURS.map(|colour| coloured(colour, ImageFormat::Jpeg));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = server.url(&format!("/image/{session}"));
        Self(tokio::spawn(async move {
            let mut tick = interval(pause);
            for picture in pictures.iter().cycle() {
                tick.tick().await;
                let answer = client.post(&url).body(picture.clone()).send().await.unwrap();
                assert_eq!(answer.status(), 200);
            }
        }))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A part of an MJPEG stream.
struct Part {
    kind: String,
    seq: Option<u64>,
    picture: Vec<u8>,
}

/// An MJPEG stream, part by part.
struct Parts {
    response: reqwest::Response,
    held: Vec<u8>,
}

impl Parts {
    async fn of(url: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, held: Vec::new() }
    }

    /// The next part with a frame, which must come soon.
    async fn frame(&mut self) -> Part {
        loop {
            let part = self.part().await;
            if part.seq.is_some() {
                return part;
            }
        }
    }

    /// The next part, which must come soon.
    async fn part(&mut self) -> Part {
        loop {
            if let Some((part, rest)) = cut(&self.held) {
                self.held = rest.to_vec();
                return part;
            }
            let chunk = timeout(SOON, self.response.chunk()).await.expect("more of the stream comes soon").unwrap();
            self.held.extend(chunk.expect("the stream goes on"));
        }
    }
}

/// Takes a whole part from the beginning of a stream.
fn cut(stream: &[u8]) -> Option<(Part, &[u8])> {
    let end = stream.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&stream[..end]).unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("--boundarydonotcross"), "{head}");
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: usize = header("Content-Length").unwrap().parse().unwrap();
    let kind = header("Content-Type").unwrap().to_owned();
    let seq = header("X-Frame-Seq").map(|seq| seq.parse().unwrap());
    let rest = &stream[end + 4..];
    let picture = rest.get(..length)?.to_vec();
    Some((Part { kind, seq, picture }, rest[length..].strip_prefix(b"\r\n")?))
}

async fn metric(server: &Server, name: &str) -> u64 {
    let answer = server.get("/metrics").await;
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {}", answer.text()))
}

async fn metric_is(server: &Server, name: &str, value: u64) {
    until(SOON, format!("{name} is {value}"), || async { (metric(server, name).await == value).then_some(()) }).await;
}

/// Takes frames until there are so many, in order.
async fn take_all(server: &Server, session: &str, count: usize) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let what = format!("frame {} of {session}", taken.len() + 1);
        taken.push(until(SOON, what, || server.take(session)).await);
    }
    taken
}

/// A program that goes straight to the server, however the machine reaches the world.
fn straight(mut command: Command) -> Command {
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// Waits for something that is to come while the program runs.
async fn while_running<T>(program: Process, what: impl Future<Output = T>) -> T {
    tokio::select! {
        (status, output) = program.ended_within(DONE * 2) => panic!("it has ended: {status}\n{output}"),
        found = what => found,
    }
}

/// ffmpeg that makes pictures in real time, up to where they go.
fn ffmpeg_camera(frames: Option<usize>) -> Command {
    let mut ffmpeg = straight(program("ffmpeg", "ffmpeg"));
    ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi"]);
    ffmpeg.args(["-i", &format!("testsrc=size={WIDTH}x{HEIGHT}:rate=10"), "-threads", "1"]);
    if let Some(frames) = frames {
        ffmpeg.args(["-frames:v", &frames.to_string()]);
    }
    ffmpeg
}

/// The ways in which ffmpeg sends one endless body, and what comes of them.
const FFMPEG_OUTPUTS: [(&str, &[&str], &str); 3] = [
    ("mpjpeg", &["-f", "mpjpeg"], "image/jpeg"),
    ("jpeg", &["-f", "image2pipe", "-c:v", "mjpeg", "-content_type", "video/x-motion-jpeg"], "image/jpeg"),
    ("png", &["-f", "image2pipe", "-c:v", "png", "-content_type", "video/x-motion-png"], "image/png"),
];

/// ffmpeg sends a clip to a session, and every picture of it is a frame as soon as it is sent.
async fn a_clip_comes_through(server: &Server, (session, output, kind): (&str, &[&str], &str)) {
    const FRAMES: usize = 30;
    let url = server.url(&format!("/stream/{session}"));
    let mut viewer = Parts::of(&format!("{url}?repeat=0")).await;
    let mut ffmpeg = ffmpeg_camera(Some(FRAMES));
    ffmpeg.args(output).arg(&url);
    let mut ended = pin!(Process::start(ffmpeg).ended_within(DONE));
    let first = tokio::select! {
        biased;
        (status, output) = &mut ended => panic!("{session} ended before its first frame was seen: {status} {output}"),
        first = viewer.frame() => first,
    };
    assert_eq!(first.kind, kind);
    let (status, output) = ended.await;
    assert!(status.success(), "{session}: {status} {output}");

    let taken = take_all(server, session, FRAMES).await;
    assert_eq!(first.picture, taken[0], "{session}: what was seen first was sent first");
    for (number, picture) in taken.iter().enumerate() {
        let decoded = image::load_from_memory(picture).unwrap_or_else(|error| panic!("{session} {number}: {error}"));
        assert_eq!((decoded.width(), decoded.height()), (WIDTH, HEIGHT));
        assert!(number == 0 || *picture != taken[number - 1], "{session}: {number} is another picture");
    }
    assert!(server.take(session).await.is_none(), "{session}: no more frames than were sent");
}

#[tokio::test]
async fn every_picture_of_ffmpegs_clips_is_a_frame_while_the_clip_goes_on() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MIMETYPE", "auto")]).await;
        let [mpjpeg, jpeg, png] = FFMPEG_OUTPUTS.map(|output| a_clip_comes_through(&server, output));
        tokio::join!(mpjpeg, jpeg, png);
        metric_is(&server, r#"image_streamer_frames_in_total{way="stream"}"#, 90).await;
    }
}

#[tokio::test]
async fn ffmpegs_pngs_come_through_where_pngs_are_carried() {
    let server = Backend::Memory.server(&[("MIMETYPE", "image/png")]).await;
    a_clip_comes_through(&server, FFMPEG_OUTPUTS[2]).await;
}

#[tokio::test]
async fn ffmpeg_with_a_password_in_the_address_asks_before_it_sends_and_comes_through() {
    let server = Backend::Memory.server(&[]).await;
    let url = server.url("/stream/test").replace("http://", "http://user:password@");
    let mut ffmpeg = ffmpeg_camera(Some(5));
    ffmpeg.args(["-f", "mpjpeg", &url]);
    let (status, output) = Process::start(ffmpeg).ended_within(DONE).await;
    assert!(status.success(), "{status} {output}");
    for picture in take_all(&server, "test", 5).await {
        image::load_from_memory(&picture).unwrap();
    }
    assert!(server.take("test").await.is_none());
}

#[tokio::test]
async fn ffmpeg_records_every_frame_byte_for_byte_until_the_camera_falls_silent() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "3")]).await;
        let directory = tempfile::tempdir().unwrap();
        let video = directory.path().join("video.mkv");
        let mut ffmpeg = straight(program("ffmpeg", "ffmpeg"));
        ffmpeg.args(["-nostdin", "-y", "-loglevel", "error", "-rw_timeout", "20000000", "-f", "mpjpeg", "-i"]);
        ffmpeg.arg(server.url("/stream/test?repeat=0&offline=close"));
        ffmpeg.args(["-c", "copy"]).arg(&video);
        ffmpeg.args(["-c", "copy", "-f", "image2"]).arg(directory.path().join("%d.jpg"));
        let ffmpeg = Process::start(ffmpeg);
        metric_is(&server, "image_streamer_viewers", 1).await;
        let pictures: Vec<_> = (0..12).map(|n| coloured([n * 20, 80, 250 - n * 20], ImageFormat::Jpeg)).collect();
        for (before, picture) in pictures.iter().enumerate() {
            server.push("test", picture).await;
            metric_is(&server, r#"image_streamer_frames_out_total{way="mjpeg"}"#, before as u64 + 1).await;
        }
        // It says that the stream ended; it does not call that a failure.
        let (status, output) = ffmpeg.ended_within(DONE).await;
        assert!(status.success(), "{status} {output}");

        for (before, picture) in pictures.iter().enumerate() {
            let recorded = std::fs::read(directory.path().join(format!("{}.jpg", before + 1))).unwrap();
            assert!(recorded == *picture, "picture {} is as it was sent", before + 1);
        }
        let mut ffprobe = program("ffprobe", "ffmpeg");
        ffprobe.args(["-v", "error", "-count_frames", "-select_streams", "v:0", "-of", "default=nw=1:nk=1"]);
        ffprobe.args(["-show_entries", "stream=nb_read_frames"]).arg(&video);
        let (status, frames) = Process::start(ffprobe).ended_within(DONE).await;
        assert!(status.success(), "{status} {frames}");
        assert_eq!(frames.trim(), pictures.len().to_string());
    }
}

#[tokio::test]
async fn opencv_reads_one_picture_after_another() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let _camera = Camera::start(&server, "test", Duration::from_millis(100));
        // Not before there is a frame: OpenCV keeps to the size of the first picture.
        until(SOON, "a frame", || async { server.stats().await.first().map(|_| ()) }).await;
        let mut opencv = straight(script("opencv.py"));
        opencv.args([&server.url("/stream/test?repeat=0"), "12"]);
        let (status, output) = Process::start(opencv).ended_within(DONE).await;
        assert!(status.success(), "{status} {output}");
        let mut seen = Vec::new();
        for line in output.lines() {
            let Ok([width, height, colour @ ..]) = serde_json::from_str::<[u32; 5]>(line) else { continue };
            assert_eq!([width, height], [WIDTH, HEIGHT]);
            seen.push(which(colour.map(|channel| channel as u8)).unwrap_or_else(|| panic!("not sent: {colour:?}")));
        }
        assert_eq!(seen.len(), 12, "{output}");
        assert!((0..COLOURS.len()).all(|colour| seen.contains(&colour)), "{seen:?}");
    }
}

/// Waits until the pictures that a program writes into a directory show so many of the colours.
async fn colours_in(directory: &Path, extension: &str, count: usize) {
    let mut seen = [false; COLOURS.len()];
    let mut read = std::collections::HashSet::new();
    until(DONE, format!("{count} colours in {}", directory.display()), || {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|found| found != extension) || read.contains(&path) {
                continue;
            }
            if let Some(colour) = std::fs::read(&path).ok().and_then(|bytes| which_picture(&bytes)) {
                read.insert(path);
                seen[colour] = true;
            }
        }
        let enough = seen.iter().filter(|seen| **seen).count() >= count;
        async move { enough.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn motion_sees_what_the_camera_shows() {
    let server = Backend::Memory.server(&[]).await;
    let _camera = Camera::start(&server, "test", Duration::from_millis(150));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("motion.conf");
    let url = server.url("/stream/test").replace("http://", "mjpeg://");
    let configuration = [
        "daemon off",
        "setup_mode off",
        "log_level 6",
        &format!("target_dir {}", directory.path().display()),
        &format!("netcam_url {url}"),
        "netcam_keepalive force",
        &format!("width {WIDTH}"),
        &format!("height {HEIGHT}"),
        "framerate 4",
        "minimum_frame_time 0",
        "webcontrol_port 0",
        "stream_port 0",
        "emulate_motion on",
        "pre_capture 0",
        "picture_output on",
        "picture_filename %Y%m%d%H%M%S-%q",
        "movie_output off",
        "locate_motion_mode off",
        "text_left",
        "text_right",
    ];
    std::fs::write(&file, configuration.join("\n") + "\n").unwrap();
    let mut motion = straight(program("motion", "motion"));
    motion.arg("-n").arg("-c").arg(file).current_dir(directory.path());
    while_running(Process::start(motion), colours_in(directory.path(), "jpg", 2)).await;
}

/// A directory for a program that refuses to be run by root, and that program's user made such.
fn as_ordinary_user(command: &mut Command) -> TempDir {
    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().unwrap();
    let metadata = std::fs::metadata(directory.path()).unwrap();
    if metadata.uid() == 0 {
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir(directory.path()).env("HOME", directory.path());
    directory
}

#[tokio::test]
async fn vlc_shows_one_picture_after_another() {
    let server = Backend::Memory.server(&[]).await;
    let _camera = Camera::start(&server, "test", Duration::from_millis(150));
    let mut vlc = straight(program("vlc", "vlc-bin vlc-plugin-base"));
    let directory = as_ordinary_user(&mut vlc);
    vlc.args(["-I", "dummy", "--no-dbus", "--ignore-config", "--no-audio", "--no-spu", "--no-video-title-show"]);
    vlc.args(["--vout=dummy", "--video-filter=scene", "--scene-format=png", "--scene-ratio=1", "--scene-prefix=f"]);
    vlc.arg(format!("--scene-path={}", directory.path().display())).arg(server.url("/stream/test"));
    while_running(Process::start(vlc), colours_in(directory.path(), "png", 3)).await;
}

/// What the browser has painted where the `<img>` is: the colour of its middle.
async fn painted(browser: &Browser) -> [u8; 3] {
    let element = browser.client.find(Locator::Css("img")).await.unwrap();
    let screenshot = image::load_from_memory(&element.screenshot().await.unwrap()).unwrap().to_rgb8();
    screenshot.get_pixel(screenshot.width() / 2, screenshot.height() / 2).0
}

async fn paints(browser: &Browser, colour: usize) {
    let what = format!("the browser paints {:?}", COLOURS[colour]);
    until(SOON, what, || async { (which(painted(browser).await) == Some(colour)).then_some(()) }).await;
}

#[tokio::test]
async fn an_img_tag_shows_no_data_and_then_each_frame_without_waiting_for_the_one_after_it() {
    let browser = Browser::start().await;
    for (kind, format) in [("image/jpeg", ImageFormat::Jpeg), ("image/png", ImageFormat::Png)] {
        for backend in Backend::all().await {
            // Nothing but the frame itself makes the browser paint it.
            let server = backend.server(&[("MIMETYPE", kind), ("STALE_AFTER", "600")]).await;
            let name = kind.trim_start_matches("image/");
            let page = "<style>body { margin: 0 }</style><img width=320 height=240>".into();
            let page = browser.page_of_another_site(page).await;
            browser.client.goto(&page).await.unwrap();
            let url = server.url("/stream/test");
            browser.run(&format!("document.querySelector('img').src = '{url}'")).await;
            until(SOON, "the browser has the No Data picture", || async {
                let size =
                    browser.run("let i = document.querySelector('img'); return [i.naturalWidth, i.naturalHeight]");
                (size.await == json!([1280, 720])).then_some(())
            })
            .await;
            let no_data = server.get("/image/another").await;
            assert_eq!(no_data.header("content-type"), kind);
            let no_data = image::load_from_memory(&no_data.body).unwrap().to_rgb8();
            let middle = no_data.get_pixel(no_data.width() / 2, no_data.height() / 2).0;
            until(SOON, "the browser paints the No Data picture", || async {
                let near = |(one, other): (&u8, &u8)| one.abs_diff(*other) < 60;
                painted(&browser).await.iter().zip(&middle).all(near).then_some(())
            })
            .await;
            browser.screenshot(&format!("stream-no-data-{name}")).await;
            for colour in [0, 1, 2] {
                server.push("test", &coloured(COLOURS[colour], format)).await;
                paints(&browser, colour).await;
                browser.screenshot(&format!("stream-frame-{colour}-{name}")).await;
            }
        }
    }
}

/// curl, with the server's answer on its standard output.
fn curl(arguments: &[&str]) -> Child {
    let mut curl = program("curl", "curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "50"]).args(arguments);
    let mut curl = tokio::process::Command::from(curl);
    curl.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Waits for curl to end well. Returns the answer.
async fn answer_of(mut curl: Child) -> Vec<u8> {
    drop(curl.stdin.take());
    let output = timeout(DONE, curl.wait_with_output()).await.expect("curl ends").unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    output.stdout
}

async fn json_answer_of(curl: Child) -> Value {
    serde_json::from_slice(&answer_of(curl).await).unwrap()
}

#[tokio::test]
async fn what_curl_pushes_in_any_way_is_seen_at_once() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let directory = tempfile::tempdir().unwrap();
        let pictures = COLOURS.map(|colour| coloured(colour, ImageFormat::Jpeg));
        let file = |number: usize| {
            let path = directory.path().join(format!("{number}.jpg"));
            std::fs::write(&path, &pictures[number]).unwrap();
            path.display().to_string()
        };
        let mut viewer = Parts::of(&server.url("/stream/test?repeat=0")).await;

        answer_of(curl(&["--fail", "-F", &format!("image=@{}", file(0)), &server.url("/imageForm/test")])).await;
        assert_eq!(viewer.frame().await.picture, pictures[0]);

        let mut pushing = curl(&["--fail", "--data-binary", "@-", &server.url("/image/test")]);
        pushing.stdin.as_mut().unwrap().write_all(&pictures[1]).await.unwrap();
        answer_of(pushing).await;
        assert_eq!(viewer.frame().await.picture, pictures[1]);

        let url = server.url("/stream/test");
        let mut pushing = curl(&["--fail", "-T", "-", "-X", "POST", &url]);
        for number in [2, 3] {
            pushing.stdin.as_mut().unwrap().write_all(&pictures[number]).await.unwrap();
            assert_eq!(viewer.frame().await.picture, pictures[number], "it is seen while the request goes on");
        }
        assert_eq!(json_answer_of(pushing).await, json!({ "accepted": 2, "refused": 0 }));

        let both = [format!("a=@{}", file(0)), format!("b=@{}", file(1))];
        let answer = json_answer_of(curl(&["--fail", "-F", &both[0], "-F", &both[1], &url])).await;
        assert_eq!(answer, json!({ "accepted": 2, "refused": 0 }));
        let taken = take_all(&server, "test", 6).await;
        assert!(taken == [0, 1, 2, 3, 0, 1].map(|number| pictures[number].clone()));
    }
}

#[tokio::test]
async fn curl_reads_a_stream_over_http_1_0_to_its_end() {
    for backend in Backend::all().await {
        let server = backend.server(&[("STALE_AFTER", "3")]).await;
        let pictures = COLOURS.map(|colour| coloured(colour, ImageFormat::Jpeg));
        let curl = curl(&["-0", "-N", "-i", &server.url("/stream/test?repeat=0&offline=close")]);
        metric_is(&server, "image_streamer_viewers", 1).await;
        for (before, picture) in pictures.iter().enumerate() {
            server.push("test", picture).await;
            metric_is(&server, r#"image_streamer_frames_out_total{way="mjpeg"}"#, before as u64 + 1).await;
        }
        let answer = answer_of(curl).await;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
        assert!(head.contains("multipart/x-mixed-replace") && !head.contains("transfer-encoding"), "{head}");
        let mut rest = &answer[end + 4..];
        for picture in &pictures {
            let (part, after) = cut(rest).expect("a whole part");
            assert!(part.picture == *picture);
            rest = after;
        }
        assert_eq!(rest, b"--boundarydonotcross\r\n", "nothing but the beginning of a part that never came");
    }
}

/// A Python client of a WebSocket route.
fn websocket(server: &Server, path: &str) -> Conversation {
    let mut client = straight(script("ws.py"));
    client.arg(server.url(path).replace("http://", "ws://"));
    Conversation::start(client)
}

/// The text of a message, which is JSON.
fn text(message: &Value) -> Value {
    let text = message["text"].as_str().unwrap_or_else(|| panic!("a text and not {message}"));
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn python_pushes_over_a_websocket_and_what_is_refused_costs_only_itself() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "100000")]).await;
        let directory = tempfile::tempdir().unwrap();
        let pictures = COLOURS.map(|colour| coloured(colour, ImageFormat::Jpeg));
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            format!("@{}", path.display())
        };
        let mut client = websocket(&server, "/ws/push/test");
        let mut seqs = Vec::new();
        let [_, (_, png), ..] = of_every_type();
        let refused = [
            (file("text", b"This is not a picture."), "not_an_image"),
            (file("empty", b""), "empty_body"),
            ("a text message".to_owned(), "bad_message"),
            (file("png", &png), "wrong_type"),
            (file("large", &numbered(1, 100_001)), "too_large"),
            (file("huge", &numbered(2, 3_000_000)), "too_large"),
        ];
        client.say(&file("first", &pictures[0])).await;
        let answer = text(&client.hear().await);
        assert_eq!(answer["viewers"], json!(0), "{answer}");
        seqs.push(answer["seq"].as_u64().unwrap());
        for (line, code) in refused {
            client.say(&line).await;
            let answer = text(&client.hear().await);
            assert_eq!(answer["error"]["code"], json!(code), "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().len() > 20, "{answer}");
        }
        // Sent before the answers are read: they come in the order of the pictures.
        for (number, picture) in pictures[1..].iter().enumerate() {
            client.say(&file(&format!("{number}.jpg"), picture)).await;
        }
        for _ in &pictures[1..] {
            seqs.push(text(&client.hear().await)["seq"].as_u64().unwrap());
        }
        assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
        assert!(take_all(&server, "test", 4).await == pictures);
        assert!(server.take("test").await.is_none());

        let mut viewer = Parts::of(&server.url("/stream/test?repeat=0")).await;
        drop(viewer.part().await);
        // The store hears of viewers a little later.
        until(SOON, "a push is told of the viewer", || async {
            (server.post("/image/test", pictures[1].clone()).await.header("x-viewers") == "1").then_some(())
        })
        .await;
        client.say(&file("last", &pictures[0])).await;
        assert_eq!(text(&client.hear().await)["viewers"], json!(1));
        while viewer.frame().await.picture != pictures[0] {}
        assert_eq!(client.end().await, [json!({ "closed": 1000 })]);
    }
}

/// The next messages in an order that does not depend on which session was faster.
async fn sorted<const N: usize>(client: &mut Conversation) -> [Value; N] {
    let mut messages = [const { Value::Null }; N];
    for message in &mut messages {
        *message = client.hear().await;
    }
    let key = |message: &Value| match message.get("text") {
        Some(_) => (text(message)["session"].as_str().unwrap().to_owned(), 0),
        None => (message["session"].as_str().unwrap().to_owned(), 1),
    };
    messages.sort_by_key(key);
    messages
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a message tells the state of a session.
fn is_state(message: &Value, session: &str, state: &str) {
    let message = text(message);
    assert_eq!((&message["session"], &message["state"]), (&json!(session), &json!(state)), "{message}");
    assert_eq!(message["ageMs"].is_u64(), state != "empty", "{message}");
}

#[tokio::test]
async fn python_views_sessions_over_a_websocket_and_changes_which() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let pictures = COLOURS.map(|colour| coloured(colour, ImageFormat::Jpeg));
        let request = server.request("POST", "/image/a").header("X-Timestamp", "1700000000.25");
        let answer = request.header("accept", "application/json").body(pictures[0].clone()).send().await.unwrap();
        let seq = answer.json::<Value>().await.unwrap()["seq"].clone();

        let mut client = websocket(&server, "/ws/view?sessions=a,b");
        let [state_a, frame, state_b] = sorted(&mut client).await;
        is_state(&state_a, "a", "live");
        let expected =
            json!({ "session": "a", "seq": seq, "captured": 1_700_000_000.25, "picture": hex(&pictures[0]) });
        assert_eq!(frame, expected);
        is_state(&state_b, "b", "empty");

        let seq = server.push("b", &pictures[1]).await;
        is_state(&client.hear().await, "b", "live");
        let frame = client.hear().await;
        assert_eq!((&frame["session"], frame["seq"].as_u64()), (&json!("b"), Some(seq.0)));
        assert_eq!(frame["picture"], json!(hex(&pictures[1])));

        for (line, code) in [(r#"{"subscribe":["c","no/id"]}"#, "bad_session"), ("subscribe c", "bad_message")] {
            client.say(line).await;
            let answer = text(&client.hear().await);
            assert_eq!(answer["error"]["code"], json!(code), "{answer}");
        }
        client.say(r#"{"subscribe":["c"],"unsubscribe":["a"]}"#).await;
        is_state(&client.hear().await, "c", "empty");
        server.push("a", &pictures[2]).await;
        let seq = server.push("c", &pictures[3]).await;
        is_state(&client.hear().await, "c", "live");
        let frame = client.hear().await;
        assert_eq!((&frame["session"], frame["seq"].as_u64()), (&json!("c"), Some(seq.0)));
        assert_eq!(frame["picture"], json!(hex(&pictures[3])));

        assert!(server.ask("DELETE", "/session/b").await.status.is_success());
        is_state(&client.hear().await, "b", "empty");
        assert_eq!(client.end().await, [json!({ "closed": 1000 })]);
    }
}

#[tokio::test]
async fn nginx_as_it_comes_passes_each_part_on_before_the_next_one() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let nginx = Nginx::before(&server, "").await;
        let mut viewer = Parts::of(&nginx.url("/stream/test?repeat=0")).await;
        for number in 0..10 {
            // Less than nginx would gather.
            let picture = numbered(number, 500);
            let seq = server.push("test", &picture).await;
            let part = viewer.frame().await;
            assert_eq!((part.seq, part.picture), (Some(seq.0), picture));
        }
    }
}

/// What nginx needs so that it passes on what is not at its end yet.
const NGINX_FOR_PUSHES: &str = "proxy_http_version 1.1; proxy_request_buffering off; client_max_body_size 0; \
                                proxy_buffering off; proxy_ignore_client_abort on;";

#[tokio::test]
async fn an_endless_push_through_nginx_is_seen_while_it_goes_on() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let nginx = Nginx::before(&server, NGINX_FOR_PUSHES).await;
        let url = nginx.url("/stream/test");
        let mut viewer = Parts::of(&format!("{url}?repeat=0")).await;
        let mut ffmpeg = ffmpeg_camera(None);
        ffmpeg.args(["-f", "mpjpeg", &url]);
        let seen = async {
            let mut pictures = std::collections::HashSet::new();
            for _ in 0..10 {
                let part = viewer.frame().await;
                image::load_from_memory(&part.picture).unwrap();
                pictures.insert(part.picture);
            }
            assert_eq!(pictures.len(), 10);
        };
        while_running(Process::start(ffmpeg), seen).await;
    }
}
