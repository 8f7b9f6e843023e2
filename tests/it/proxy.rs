//! Behind a proxy: Debian's nginx with the sites of `deploy/nginx`, and programs that come through it by HTTPS.

use std::{fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Child,
    time::timeout,
};

use crate::harness::{
    Backend, SOON, Server, UsersFile,
    example::{Example, Vehicle},
    nginx::{SITE, SITE_BELOW_A_PATH, Site},
    picture::{PHOTO_JPEG, numbered},
    process::{Process, program},
    python::{Conversation, script},
    until,
};

/// A frame must be at its viewer so soon after it was pushed, whatever comes after it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Longer than curl takes for the largest picture on a busy machine.
const DONE: Duration = Duration::from_secs(60);
/// The largest picture, as MAX_IMAGE_BYTES has it by default.
const LARGEST: usize = 16 * 1024 * 1024;
/// Both ways in which clients speak to nginx.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// What curl got.
#[derive(Debug)]
struct Got {
    status: u16,
    kind: String,
    location: String,
    version: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn start_curl(site: &Site, arguments: &[&str]) -> Child {
    let mut curl = program("curl", "curl");
    curl.args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--max-time", "50"]);
    curl.args(["--write-out", "%{stderr}%{http_code}\n%{content_type}\n%{redirect_url}\n%{http_version}"]);
    curl.arg("--cacert").arg(site.authority()).args(arguments);
    let mut curl = tokio::process::Command::from(curl);
    curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Runs curl to its end.
async fn curl(site: &Site, arguments: &[&str]) -> Got {
    got(start_curl(site, arguments)).await
}

async fn got(mut curl: Child) -> Got {
    drop(curl.stdin.take());
    let output = timeout(DONE, curl.wait_with_output()).await.expect("curl ends").unwrap();
    let written = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {written}", output.status);
    let [status, kind, location, version] =
        written.split('\n').map(str::to_owned).collect::<Vec<_>>().try_into().expect("four lines");
    Got { status: status.parse().unwrap(), kind, location, version, body: output.stdout }
}

/// A stream that curl reads.
struct Viewer {
    curl: Child,
    held: Vec<u8>,
}

impl Viewer {
    /// Opens it, and waits until it is open.
    async fn open(site: &Site, version: &str, path: &str) -> Self {
        let curl = start_curl(site, &[version, "--fail", &site.https(path)]);
        let mut viewer = Self { curl, held: Vec::new() };
        timeout(SOON, viewer.sees(b"--boundarydonotcross\r\n")).await.expect("a boundary soon");
        viewer
    }

    /// Reads on to the end of these bytes.
    async fn sees(&mut self, bytes: &[u8]) {
        let output = self.curl.stdout.as_mut().unwrap();
        loop {
            if let Some(at) = self.held.windows(bytes.len()).position(|window| window == bytes) {
                self.held.drain(..at + bytes.len());
                return;
            }
            let more = output.read_buf(&mut self.held).await.unwrap();
            assert!(more > 0, "the stream has ended");
        }
    }

    async fn sees_at_once(&mut self, picture: &[u8]) {
        timeout(AT_ONCE, self.sees(picture)).await.expect("a frame arrives before the next one is pushed");
    }
}

/// Pictures below and above what a proxy gathers before it sends.
fn pictures() -> impl Iterator<Item = Vec<u8>> {
    (0..10).map(|number| numbered(number, if number % 2 == 0 { 500 } else { 200_000 }))
}

#[tokio::test]
async fn pictures_go_in_and_out_over_https() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        for version in VERSIONS {
            let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");
            let pushed =
                curl(&site, &[version, "--data-binary", &format!("@{photo}"), &site.https("/image/test")]).await;
            assert_eq!((pushed.status, &*pushed.version), (200, version.trim_start_matches("--http")));
            let pushed =
                curl(&site, &[version, "-F", &format!("imageFile=@{photo}"), &site.https("/imageForm/test")]).await;
            assert_eq!(pushed.status, 200);
            for _ in 0..2 {
                let taken = curl(&site, &[version, &site.https("/image/test")]).await;
                assert_eq!((taken.status, &*taken.kind), (200, "image/jpeg"));
                assert!(taken.body == PHOTO_JPEG);
            }
        }
    }
}

#[tokio::test]
async fn plain_http_is_sent_to_https_with_path_and_query() {
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), SITE).await;
    for method in ["GET", "POST"] {
        let answer = curl(&site, &["-X", method, &site.http("/stream/a%20b?fps=5&token=x%2Fy")]).await;
        assert_eq!((answer.status, &*answer.location), (308, "https://localhost/stream/a%20b?fps=5&token=x%2Fy"));
    }
    assert_eq!(server.stats().await, []);
}

#[tokio::test]
async fn the_authority_finds_its_challenge_on_port_80_and_nothing_else() {
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), SITE).await;
    let folder = site.webroot().join(".well-known/acme-challenge");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a-token_1"), "a-token_1.thumbprint").unwrap();
    let answer = curl(&site, &[&site.http("/.well-known/acme-challenge/a-token_1")]).await;
    assert_eq!((answer.status, &*answer.kind, &*answer.body), (200, "text/plain", &b"a-token_1.thumbprint"[..]));
    for path in ["/.well-known/acme-challenge/another", "/.well-known/acme-challenge/"] {
        let status = curl(&site, &[&site.http(path)]).await.status;
        assert!(matches!(status, 403 | 404), "{status}");
    }
    assert_eq!(curl(&site, &[&site.http("/index.html")]).await.status, 308);
}

#[tokio::test]
async fn each_frame_of_a_stream_arrives_before_the_next_one_is_pushed() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        for version in VERSIONS {
            let mut viewer = Viewer::open(&site, version, "/stream/test?repeat=0").await;
            for picture in pictures() {
                server.push("test", &picture).await;
                viewer.sees_at_once(&picture).await;
            }
        }
    }
}

/// One part of an endless push, with the boundary after it.
fn part(picture: &[u8]) -> Vec<u8> {
    let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len());
    [head.as_bytes(), picture, b"\r\n--camera\r\n"].concat()
}

#[tokio::test]
async fn each_picture_of_an_endless_push_is_seen_before_the_next_one_is_sent() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        for version in VERSIONS {
            let mut viewer = Viewer::open(&site, version, "/stream/test?repeat=0").await;
            let url = site.https("/stream/test");
            let mut camera = start_curl(&site, &[version, "--fail", "-X", "POST", "-T", "-", &url]);
            let input = camera.stdin.as_mut().unwrap();
            input.write_all(b"--camera\r\n").await.unwrap();
            for picture in pictures() {
                input.write_all(&part(&picture)).await.unwrap();
                viewer.sees_at_once(&picture).await;
            }
            assert_eq!(got(camera).await.json(), json!({ "accepted": 10, "refused": 0 }));
        }
    }
}

#[tokio::test]
async fn every_picture_comes_through_of_a_camera_that_hangs_up_without_waiting_for_an_answer() {
    const FRAMES: usize = 40;
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), SITE).await;
    let mut ffmpeg = program("ffmpeg", "ffmpeg");
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=640x480:rate=10"]);
    ffmpeg.args(["-c:v", "mjpeg", "-threads", "1", "-frames:v", &FRAMES.to_string(), "-f", "mpjpeg"]);
    ffmpeg.arg(site.https("/stream/test")).env("no_proxy", "*");
    let (status, output) = Process::start(ffmpeg).ended_within(DONE).await;
    assert!(status.success(), "{status} {output}");
    until(SOON, "every picture is a frame", || async {
        (server.stats().await == [("test".to_owned(), FRAMES as u64)]).then_some(())
    })
    .await;
}

/// The other side of it: what waits for a client that has gone would count as a viewer, or take a frame for nobody.
#[tokio::test]
async fn who_hangs_up_on_a_silent_stream_is_gone_at_once() {
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), SITE).await;
    let viewers = async |count: f64| {
        until(SOON, format!("{count} viewers"), || async {
            (server.metric("image_streamer_viewers").await == count).then_some(())
        })
        .await;
    };
    for version in VERSIONS {
        let mut viewer = Viewer::open(&site, version, "/stream/test?repeat=0").await;
        viewers(1.0).await;
        viewer.curl.kill().await.unwrap();
        viewers(0.0).await;
    }
}

/// A Python client of a WebSocket route.
fn websocket(site: &Site, path: &str) -> Conversation {
    let mut client = script("ws.py");
    client.arg(site.websocket(path)).env("SSL_CERT_FILE", site.authority());
    Conversation::start(client)
}

/// What a WebSocket says next, where it is a text.
async fn text(socket: &mut Conversation) -> String {
    socket.hear().await["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn pictures_go_through_websockets() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        let directory = tempfile::tempdir().unwrap();
        let mut viewer = websocket(&site, "/ws/view?sessions=test");
        let state: Value = serde_json::from_str(&text(&mut viewer).await).unwrap();
        assert_eq!(state["state"], json!("empty"));
        let mut camera = websocket(&site, "/ws/push/test");
        for (number, picture) in pictures().enumerate() {
            let file = directory.path().join(number.to_string());
            fs::write(&file, &picture).unwrap();
            camera.say(&format!("@{}", file.display())).await;
            let answer: Value = serde_json::from_str(&text(&mut camera).await).unwrap();
            let frame = timeout(AT_ONCE, async {
                loop {
                    // The states of the session come in between.
                    let message = viewer.hear().await;
                    if message.get("text").is_none() {
                        return message;
                    }
                }
            })
            .await
            .expect("a frame arrives before the next one is pushed");
            assert_eq!(frame["seq"], answer["seq"]);
            let hex: String = picture.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(frame["picture"] == json!(hex));
        }
        assert_eq!(camera.end().await, [json!({ "closed": 1000 })]);
        assert_eq!(viewer.end().await, [json!({ "closed": 1000 })]);
    }
}

/// Vehicles by a WebSocket and by server-sent events obey an operator, and are stopped when it is killed.
async fn vehicles_are_driven_below(path: &str, site: &Site) {
    const COMMAND: &str = r#"{"linear":{"x":0.5},"angular":{"z":0}}"#;
    let mut example = Example::Python.command(&site.https(&format!("{path}/control/car")));
    example.env("SSL_CERT_FILE", site.authority());
    let mut events = Vehicle::run(example);
    let mut socket = websocket(site, &format!("{path}/ws/control/car?role=vehicle&lease=250&stop=STOP"));
    let mut operator = websocket(site, &format!("{path}/ws/control/car"));
    let both_are_there =
        async { while serde_json::from_str::<Value>(&text(&mut operator).await).unwrap()["vehicles"] != 2 {} };
    timeout(SOON, both_are_there).await.expect("both vehicles come");
    assert!(!events.next().await.moves, "it stands until it is told");
    operator.say(COMMAND).await;
    let go = async {
        assert_eq!(text(&mut socket).await, COMMAND);
        assert!(events.next().await.moves);
    };
    timeout(AT_ONCE, go).await.expect("a command arrives before the next one is sent");
    drop(operator);
    let stop = async {
        assert_eq!(text(&mut socket).await, "STOP");
        assert!(!events.next().await.moves);
    };
    timeout(AT_ONCE, stop).await.expect("the vehicles are stopped");
}

#[tokio::test]
async fn vehicles_are_driven_and_stopped_through_nginx() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        vehicles_are_driven_below("", &site).await;
    }
}

#[tokio::test]
async fn a_picture_of_the_full_size_goes_in_and_out_and_one_byte_more_gets_the_servers_own_answer() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let site = Site::before(server.address(), SITE).await;
        let directory = tempfile::tempdir().unwrap();
        let file = |length: usize| {
            let path = directory.path().join(length.to_string());
            fs::write(&path, numbered(1, length)).unwrap();
            path.display().to_string()
        };
        let (largest, over, far_over) = (file(LARGEST), file(LARGEST + 1), file(LARGEST + 4 * 1024 * 1024));
        for version in VERSIONS {
            let (image, form) = (site.https("/image/test"), site.https("/imageForm/test"));
            let largest = [
                vec!["--data-binary".to_owned(), format!("@{largest}"), image.clone()],
                vec!["-T".to_owned(), largest.clone(), image.clone()],
                vec!["-F".to_owned(), format!("image=@{largest}"), form],
            ];
            for arguments in &largest {
                let arguments: Vec<_> = [version].into_iter().chain(arguments.iter().map(String::as_str)).collect();
                let pushed = curl(&site, &arguments).await;
                assert_eq!(pushed.status, 200, "{pushed:?}");
                let taken = curl(&site, &[version, &image]).await;
                assert!(taken.body == numbered(1, LARGEST), "{}", taken.body.len());
            }
            // With a length, and without one. Not faster than a network: nginx looks for an answer when the client has nothing
            // more for it for a moment, and the server does not read on for ever.
            for header in ["Accept: */*", "Transfer-Encoding: chunked"] {
                let sent = ["--limit-rate", "30M", "--data-binary", &format!("@{over}")];
                let refused = curl(&site, &[&[version, "-H", header, &image], &sent[..]].concat()).await;
                assert_eq!((refused.status, &*refused.kind), (413, "application/json"), "{refused:?}");
                assert_eq!(refused.json()["error"]["code"], json!("too_large"));
            }
            let refused = curl(&site, &[version, "--data-binary", &format!("@{far_over}"), &image]).await;
            assert_eq!((refused.status, &*refused.kind), (413, "text/html"), "nginx has a limit of its own");
        }
        assert_eq!(server.stats().await, [("test".to_owned(), 0)]);
    }
}

#[tokio::test]
async fn no_log_holds_a_query_string_whatever_becomes_of_the_request() {
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), SITE).await;
    let directory = tempfile::tempdir().unwrap();
    let far_over = directory.path().join("far-over");
    fs::write(&far_over, numbered(1, LARGEST * 2)).unwrap();
    let far_over = format!("@{}", far_over.display());
    let photo = concat!("@", env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");
    let refers = "Referer: https://localhost/page?token=secret";

    for version in VERSIONS {
        let ask =
            async |url: &str, more: &[&str]| curl(&site, &[&[version, "-H", refers, url], more].concat()).await.status;
        assert_eq!(ask(&site.https("/image/pushed?token=secret"), &["--data-binary", photo]).await, 200);
        assert_eq!(ask(&site.https("/image/taken?token=secret"), &[]).await, 200);
        assert_eq!(ask(&site.https("/nothing?token=secret"), &[]).await, 404);
        assert_eq!(ask(&site.https("/image/large?token=secret"), &["--data-binary", &far_over]).await, 413);
        assert_eq!(ask(&site.http("/redirected?token=secret"), &[]).await, 308);
        let challenge = site.http("/.well-known/acme-challenge/none?token=secret");
        assert_eq!(ask(&challenge, &[]).await, 404);
    }
    websocket(&site, "/ws/view?sessions=viewed&token=secret").end().await;
    server.into_process().kill().await;
    for version in VERSIONS {
        let answer = curl(&site, &[version, "-H", refers, &site.https("/image/unreachable?token=secret")]).await;
        assert_eq!(answer.status, 502);
    }

    let words = [
        ("pushed", " 200 "),
        ("taken", " 200 "),
        ("nothing", " 404 "),
        ("large", " 413 "),
        ("redirected", " 308 "),
        ("none", " 404 "),
        ("/ws/view", " 101 "),
        ("unreachable", "upstream=502"),
    ];
    for (path, result) in words {
        until(SOON, format!("{path} is logged"), || async {
            site.logs().0.lines().any(|line| line.contains(path) && line.contains(result)).then_some(())
        })
        .await;
    }
    let (access, others) = site.logs();
    for log in [&access, &others] {
        assert!(!log.contains("secret") && !log.contains("token") && !log.contains('?'), "{log}");
    }
}

/// The head of a request as it arrives behind nginx.
async fn head_of(arguments: &[&str], site: &str, path: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::before(listener.local_addr().unwrap(), site).await;
    let _client = start_curl(&site, &[arguments, &[&site.https(path)]].concat());
    let (mut socket, _) = timeout(SOON, listener.accept()).await.expect("nginx passes the request on").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(timeout(SOON, socket.read_buf(&mut head)).await.expect("a head soon").unwrap() > 0);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[tokio::test]
async fn what_a_client_says_of_where_it_comes_from_is_replaced() {
    let forged = ["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: gopher", "X-Forwarded-Prefix: /forged"];
    for version in VERSIONS {
        for (site, prefix) in [
            (SITE.to_owned(), None),
            (SITE_BELOW_A_PATH.to_owned(), None),
            (prefix_is_cut_off(), Some("x-forwarded-prefix: /cams")),
        ] {
            for method in ["GET", "POST"] {
                let mut arguments = vec![version, "-X", method];
                arguments.extend(forged.iter().flat_map(|header| ["-H", header]));
                let head = head_of(&arguments, &site, "/cams/image/a?wait=1&token=x%2Fy").await;
                let headers: Vec<_> = head.lines().filter(|line| line.starts_with("x-forwarded-")).collect();
                let expected = ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: https"].into_iter().chain(prefix);
                assert_eq!(headers, expected.collect::<Vec<_>>(), "{head}");
                let path = if prefix.is_some() { "/image/a" } else { "/cams/image/a" };
                let line = format!("{method} {path}?wait=1&token=x%2Fy HTTP/1.1\r\n").to_ascii_lowercase();
                assert!(head.starts_with(&line), "{head}");
                assert!(!head.contains("\r\nupgrade:") && !head.contains("\r\nconnection:"), "{head}");
            }
        }
    }
}

/// The site below a path with its other variant: the server hears nothing of the path but in a header.
fn prefix_is_cut_off() -> String {
    let (mut variant, mut lines) = ("", String::new());
    for line in SITE_BELOW_A_PATH.lines() {
        match line.split(':').next() {
            Some("# Either") => variant = "either",
            Some("# Or") => variant = "or",
            _ => {}
        }
        if line.is_empty() {
            variant = "";
        }
        let code = line.strip_prefix('#').filter(|code| !code.starts_with(' ') || code.starts_with("    "));
        match (variant, code) {
            ("either", None) => {}
            ("or", Some(code)) => lines.extend([code, "\n"]),
            _ => lines.extend([line, "\n"]),
        }
    }
    lines
}

/// Everything that goes through a site goes through one below a path.
async fn everything_works_below(path: &str, site: &Site) {
    let at = |rest: &str| site.https(&format!("{path}{rest}"));
    let photo = concat!("@", env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");
    for version in VERSIONS {
        let other = curl(site, &[version, &site.https("/")]).await;
        assert_eq!((other.status, &*other.body), (200, &b"the other things"[..]));
        let moved = curl(site, &[version, &at("?token=secret")]).await;
        assert_eq!((moved.status, moved.location), (308, at("/")));

        assert_eq!(curl(site, &[version, "--data-binary", photo, &at("/image/queue")]).await.status, 200);
        assert!(curl(site, &[version, &at("/image/queue?wait=5")]).await.body == PHOTO_JPEG);

        let mut viewer = Viewer::open(site, version, &format!("{path}/stream/test?repeat=0")).await;
        let mut camera = start_curl(site, &[version, "--fail", "-X", "POST", "-T", "-", &at("/stream/test")]);
        let input = camera.stdin.as_mut().unwrap();
        input.write_all(b"--camera\r\n").await.unwrap();
        for picture in pictures() {
            input.write_all(&part(&picture)).await.unwrap();
            viewer.sees_at_once(&picture).await;
        }
        assert_eq!(got(camera).await.json(), json!({ "accepted": 10, "refused": 0 }));
    }
    vehicles_are_driven_below(path, site).await;
    let mut socket = websocket(site, &format!("{path}/ws/view?sessions=test&token=secret"));
    let state: Value = serde_json::from_str(&text(&mut socket).await).unwrap();
    assert_eq!(state["session"], json!("test"));
    drop(socket);
    let (access, others) = site.logs();
    assert!(access.contains("/cams/stream/test") && !access.contains('?'), "{access}");
    assert!(others.contains("GET / ") && !others.contains("secret"), "{others}");
}

#[tokio::test]
async fn a_site_that_cuts_its_prefix_off_serves_a_server_that_knows_of_none() {
    let server = Server::start(&[]).await;
    let site = Site::before(server.address(), &prefix_is_cut_off()).await;
    everything_works_below("/cams", &site).await;
}

#[tokio::test]
async fn a_site_that_passes_its_prefix_on_serves_a_server_with_the_same_base_path() {
    let server = Server::start(&[("BASE_PATH", "/cams"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let site = Site::before(server.address(), SITE_BELOW_A_PATH).await;
    everything_works_below("/cams", &site).await;
}

#[tokio::test]
async fn links_and_redirects_lead_through_the_proxy_at_the_root_and_below_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let users = UsersFile::with(&[("ann", &["--view", "*"])]).await;
    let file = users.path().display().to_string();
    let stripped = prefix_is_cut_off();
    for (site, base, prefix) in
        [(SITE, "/", ""), (SITE_BELOW_A_PATH, "/cams", "/cams"), (stripped.as_str(), "/", "/cams")]
    {
        let server =
            Server::start(&[("USERS_FILE", &file), ("BASE_PATH", base), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
        let site = Site::before(server.address(), site).await;
        let at = |rest: &str| site.https(&format!("{prefix}{rest}"));
        // A person who follows a link is sent to the login page, and from there back.
        let sent = curl(&site, &["-H", "Accept: text/html", "-H", "Sec-Fetch-Mode: navigate", &at("/stats")]).await;
        assert!(matches!(sent.status, 302 | 303 | 307), "{sent:?}");
        assert!(sent.location.starts_with(&at("/login")), "{sent:?}");
        assert_eq!(curl(&site, &[&sent.location]).await.status, 200);
        let link = r#"{"session":"cam-door","right":"view","expires_in":3600}"#;
        let link = curl(&site, &["-u", "ann:correct horse battery", "-d", link, &at("/link")]).await;
        let url = link.json()["url"].as_str().unwrap().to_owned();
        assert!(url.starts_with(&format!("{prefix}/snapshot/cam-door?token=")), "{url}");
        let seen = curl(&site, &[&site.https(&url)]).await;
        assert_eq!((seen.status, &*seen.kind), (200, "image/jpeg"), "{seen:?}");
        // Over HTTPS, as the proxy says.
        let jar = directory.path().join("jar").display().to_string();
        let form = ["-c", &jar, "-d", "name=ann", "-d", "password=correct horse battery"];
        curl(&site, &[&form[..], &[&at("/login")]].concat()).await;
        let cookies = fs::read_to_string(&jar).unwrap();
        let cookie: Vec<_> = cookies.lines().last().unwrap().split('\t').collect();
        let path = if prefix.is_empty() { "/" } else { prefix };
        assert_eq!((cookie[3], cookie[2]), ("TRUE", path), "secure, and for this path: {cookies}");
    }
}

#[tokio::test]
async fn ffmpeg_pushes_through_nginx_with_a_password_that_it_is_not_asked_for() {
    const FRAMES: usize = 10;
    let file = UsersFile::with(&[("garden", &["--publish", "garden"]), ("ann", &["--admin"])]).await;
    let users = file.path().display().to_string();
    let server = Server::start(&[("USERS_FILE", &users), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let site = Site::before(server.address(), SITE).await;
    let mut ffmpeg = program("ffmpeg", "ffmpeg");
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=640x480:rate=10"]);
    ffmpeg.args(["-c:v", "mjpeg", "-threads", "1", "-frames:v", &FRAMES.to_string(), "-f", "mpjpeg"]);
    let url = site.https("/stream/garden").replace("https://", "https://garden:correct%20horse%20battery@");
    ffmpeg.args(["-auth_type", "basic", &url]).env("no_proxy", "*");
    let (status, output) = Process::start(ffmpeg).ended_within(DONE).await;
    assert!(status.success(), "{status} {output}");
    until(SOON, "every picture is a frame", || async {
        let stats = curl(&site, &["-u", "ann:correct horse battery", &site.https("/stats")]).await.json();
        (stats["numImages"] == json!(FRAMES)).then_some(())
    })
    .await;
}
