//! HTTPS: the same server, encrypted; certificates that change while it runs; and plain HTTP that is sent to it.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use rustls::version::TLS12;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::harness::{
    Answer, SOON, Server, Viewer,
    picture::{PHOTO_JPEG, numbered},
    process::{Process, program},
    server::command,
    tls::{CertificateFiles, NAME},
    until,
};

/// Longer than a program takes on a busy machine to start, do what it is for and end.
const DONE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn pictures_are_pushed_taken_and_watched_over_https() {
    let server = CertificateFiles::new().server(&[]).await;
    let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(viewer.part().await.seq(), None);
    // Smaller than one record of TLS, larger than what it holds back, and larger than what the kernel does.
    for (number, length) in [(1, 12), (2, 20_000), (3, 300_000), (4, 9_000_000)] {
        let picture = numbered(number, length);
        server.push("a", &picture).await;
        let part = viewer.part().await;
        assert!(part.picture == picture, "picture {number} is seen as it was sent");
        assert!(server.take("a").await.unwrap() == picture, "picture {number} is taken as it was sent");
    }
    assert_eq!(server.stats().await, [("a".to_owned(), 0)]);
}

#[tokio::test]
async fn websockets_work_over_https() {
    let server = CertificateFiles::new().server(&[]).await;
    let open = async |path: &str| {
        let url = format!("wss://{NAME}{path}");
        timeout(SOON, client_async(url, server.open().await)).await.expect("it opens in time").unwrap().0
    };
    let mut viewer = open("/ws/view?sessions=a").await;
    let mut camera = open("/ws/push/a").await;
    for number in 1..=20 {
        camera.send(Message::binary(numbered(number, 100_000))).await.unwrap();
        let frame = loop {
            let message = timeout(SOON, viewer.next()).await.expect("a message in time").unwrap().unwrap();
            if let Message::Binary(frame) = message {
                break frame;
            }
        };
        assert!(frame.ends_with(&numbered(number, 100_000)), "frame {number}");
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_too_and_http_1_1_is_what_is_agreed_upon() {
    let server = CertificateFiles::new().server(&[]).await;
    let trust = server.trusted();
    let mut rules = rustls::ClientConfig::builder_with_provider(trust.config().crypto_provider().clone())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(trust.roots.clone())
        .with_no_client_auth();
    rules.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = trust.connect_by(rules, server.address()).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn what_was_received_whole_is_pushed_though_the_client_leaves_without_a_farewell() {
    let server = CertificateFiles::new().server(&[]).await;
    for number in 1..=20 {
        let picture = numbered(number, 200_000);
        let mut socket = server.trusted().connect(server.address()).await.unwrap();
        let head = format!("POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", picture.len());
        socket.write_all(&[head.as_bytes(), &picture].concat()).await.unwrap();
        socket.flush().await.unwrap();
        // TCP ends, and TLS has not said that it would.
        socket.get_mut().0.shutdown().await.unwrap();
        let taken = until(SOON, "the picture is there", || server.take("a")).await;
        assert!(taken == picture, "picture {number}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_then_and_running_streams_go_on() {
    let files = CertificateFiles::new();
    let mut server = files.server(&[]).await;
    let (trust, address) = (server.trusted().clone(), server.address());
    let first = trust.shown(address).await.unwrap();
    let mut viewer = Viewer::open(&server, "/stream/a?repeat=0").await;
    assert_eq!(viewer.part().await.seq(), None);
    // Who has asked before may be silent for longer than who has not.
    let mut kept = server.open().await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut before = Vec::new();
    while !before.ends_with(b"\r\n\r\nok") {
        assert!(kept.read_buf(&mut before).await.unwrap() > 0, "an answer");
    }
    let mut number = 0;
    let mut goes_on = async |server: &Server| {
        number += 1;
        server.push("a", &numbered(number, 100_000)).await;
        assert_eq!(viewer.part().await.number(), number);
    };
    goes_on(&server).await;

    let second = files.renew();
    assert_ne!(first, second);
    until(SOON, "the new certificate is shown", || async { (trust.shown(address).await? == second).then_some(()) })
        .await;
    goes_on(&server).await;

    // Nonsense changes nothing, and the log tells what is wrong with which file.
    let (certificate, key) = (fs::read(files.certificate()).unwrap(), fs::read(files.key()).unwrap());
    fs::write(files.certificate(), "no certificate").unwrap();
    let line = server.process().line_with("stays as it was").await;
    assert!(line.contains("TLS_CERT") && line.contains(&files.certificate()) && line.contains("ERROR"), "{line}");
    fs::write(files.certificate(), &certificate).unwrap();
    server.process().line_with("read again").await;
    fs::write(files.key(), files.authority.issue().key).unwrap();
    let line = server.process().line_with("stays as it was").await;
    assert!(line.contains("TLS_KEY") && line.contains("not the key of the certificate"), "{line}");
    fs::remove_file(files.key()).unwrap();
    let line = server.process().line_with("stays as it was").await;
    assert!(line.contains("TLS_KEY") && line.contains(&files.key()), "{line}");
    assert_eq!(trust.shown(address).await.as_ref(), Some(&second));
    goes_on(&server).await;
    fs::write(files.key(), key).unwrap();
    server.process().line_with("read again").await;

    // A connection of before the first change still answers.
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn without_a_certificate_that_makes_sense_nothing_is_started_and_the_fault_names_the_file() {
    let files = CertificateFiles::new();
    let write = |name: &str, text: &str| fs::write(files.path(name), text).unwrap();
    write("empty.pem", "");
    write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("wrong-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    write("other.pem", &files.authority.issue().key);
    let webroot = files.path("");
    for (certificate, key, variable, words, is_missing) in [
        ("none.pem", "key.pem", "TLS_CERT", "No such file", true),
        ("cert.pem", "none.pem", "TLS_KEY", "No such file", true),
        ("empty.pem", "key.pem", "TLS_CERT", "holds no certificate", false),
        ("key.pem", "key.pem", "TLS_CERT", "holds no certificate", false),
        ("torn.pem", "key.pem", "TLS_CERT", "PEM", false),
        ("nonsense.pem", "key.pem", "TLS_CERT", "cannot be read", false),
        ("cert.pem", "empty.pem", "TLS_KEY", "holds no private key", false),
        ("cert.pem", "cert.pem", "TLS_KEY", "holds no private key", false),
        ("cert.pem", "wrong-key.pem", "TLS_KEY", "cannot be used", false),
        ("cert.pem", "other.pem", "TLS_KEY", "not the key of the certificate", false),
    ] {
        let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
        let variables = [("TLS_CERT", path(certificate)), ("TLS_KEY", path(key))];
        let mut variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let named = if variable == "TLS_CERT" { path(certificate) } else { path(key) };
        for webroot in [None, webroot.to_str()] {
            variables.extend(webroot.map(|webroot| ("ACME_WEBROOT", webroot)));
            if webroot.is_some() && is_missing {
                // It may come yet.
                let mut process = Process::start(command(&["--ip", "127.0.0.1", "--port", "0"], &variables));
                process.line_with("waits for its first certificate").await;
                process.line_with("listening on https://").await;
                continue;
            }
            let started = command(&["--ip", "127.0.0.1", "--port", "0"], &variables);
            let (status, output) = Process::start(started).ended_within(SOON).await;
            assert_eq!(status.code(), Some(1), "{certificate} {key}: {output}");
            for words in [variable, &named, words, "expected"] {
                assert!(output.contains(words), "{certificate} {key}: {words} in {output}");
            }
            assert!(!output.contains("listening"), "{output}");
        }
    }
}

#[tokio::test]
async fn where_a_first_certificate_may_come_yet_https_begins_with_it() {
    let files = CertificateFiles::none_yet();
    let webroot = files.path("webroot");
    let server = files.server(&[("ACME_WEBROOT", webroot.to_str().unwrap())]).await;
    let (trust, address) = (server.trusted(), server.address());
    trust.connect(address).await.unwrap_err();
    let certificate = files.renew();
    let shown = until(SOON, "a certificate is shown", || trust.shown(address)).await;
    assert_eq!(shown, certificate);
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn who_speaks_plain_http_to_the_https_port_is_told_to_use_https() {
    let server = CertificateFiles::new().server(&[]).await;
    // One of them sends more than is read before the answer.
    for body in [0, 100_000] {
        let mut socket = server.connect().await;
        let head = format!("POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n");
        socket.write_all(&[head.as_bytes(), &vec![7; body]].concat()).await.unwrap();
        let mut answer = Vec::new();
        let start = Instant::now();
        // The end may come as a reset, after the answer.
        let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.expect("the connection is closed");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", text.len())), "{answer}");
    }
    let answer = reqwest::get(format!("http://{}/stats", server.address())).await.unwrap();
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn plain_http_is_sent_to_https_with_path_and_query() {
    let files = CertificateFiles::new();
    let (webroot, public) = (files.path("webroot"), "https://cams.example.org");
    let challenges = webroot.join(".well-known/acme-challenge");
    fs::create_dir_all(challenges.join("directory")).unwrap();
    fs::write(challenges.join("a-Token_1"), "a-Token_1.thumbprint").unwrap();
    fs::write(challenges.join("large"), [b'a'; 5000]).unwrap();
    fs::write(webroot.join("secret"), "secret").unwrap();
    let webroot = webroot.to_str().unwrap();
    for public_url in [None, Some(public)] {
        let mut variables = vec![("HTTP_REDIRECT_PORT", "0"), ("ACME_WEBROOT", webroot)];
        variables.extend(public_url.map(|url| ("PUBLIC_URL", url)));
        let mut server = files.server(&variables).await;
        let line = server.process().line_with("redirecting http://").await;
        let plain = line.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let ask = async |method: &str, path: &str, body: &str| {
            let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let request = client.build().unwrap().request(method, format!("http://{plain}{path}"));
            Answer::to(request.body(body.to_owned())).await
        };
        let own = format!("https://127.0.0.1:{}", server.address().port());
        let origin = public_url.unwrap_or(&own);
        for (method, path) in
            [("GET", "/"), ("HEAD", "/stats?a=b&c=%20"), ("POST", "/image/a"), ("OPTIONS", "/.well-known/else")]
        {
            let answer = ask(method, path, "").await;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (308, &*format!("{origin}{path}")));
        }
        // A body is not waited for, and the answer is seen all the same.
        let large = "x".repeat(300_000);
        assert_eq!(ask("POST", "/image/a", &large).await.status, 308);

        let answer = ask("GET", "/.well-known/acme-challenge/a-Token_1", "").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "a-Token_1.thumbprint"));
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("text/plain", "no-store"));
        let answer = ask("HEAD", "/.well-known/acme-challenge/a-Token_1", "").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, "20"));
        let no_challenges = ["none", "large", "directory", "..%2F..%2Fsecret", "a.b", &"a".repeat(129)];
        for token in no_challenges {
            let path = format!("/.well-known/acme-challenge/{token}");
            ask("GET", &path, "").await.is_refused(404, "not_found");
            server.get(&path).await.is_refused(404, "not_found");
        }
        // The same challenge, for those behind a proxy.
        assert_eq!(server.get("/.well-known/acme-challenge/a-Token_1").await.text(), "a-Token_1.thumbprint");

        for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a@b\r\nConnection: close\r\n\r\n"] {
            let mut socket = TcpStream::connect(&plain).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            timeout(SOON, socket.read_to_string(&mut answer)).await.expect("an end").unwrap();
            let expected = if public_url.is_some() { "HTTP/1.0 308" } else { "HTTP/1.0 400" };
            let expected = if request.contains("1.1") { expected.replace("1.0", "1.1") } else { expected.to_owned() };
            assert!(answer.starts_with(&expected), "{request:?}: {answer}");
        }
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        let (status, log) = server.into_process().ended_within(SOON).await;
        assert!(status.success() && start.elapsed() < Duration::from_secs(3), "{status} {log}");
        TcpStream::connect(&plain).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_redirect_port_in_use_is_said_so() {
    let files = CertificateFiles::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let variables = [("TLS_CERT", &*files.certificate()), ("TLS_KEY", &files.key()), ("HTTP_REDIRECT_PORT", &port)];
    let started = command(&["--ip", "127.0.0.1", "--port", "0"], &variables);
    let (status, output) = Process::start(started).ended_within(SOON).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("HTTP_REDIRECT_PORT") && output.contains(&port), "{output}");
}

#[tokio::test]
async fn handshakes_that_stall_are_cut_off_after_10_s_and_delay_nobody() {
    let server = CertificateFiles::new().server(&[]).await;
    let mut stalled = Vec::new();
    for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        for _ in 0..100 {
            let mut socket = server.connect().await;
            socket.write_all(sent).await.unwrap();
            stalled.push(socket);
        }
    }
    let start = Instant::now();
    for _ in 0..20 {
        let answer = timeout(Duration::from_secs(1), server.trusted().connect(server.address()));
        answer.await.expect("others are not held up").unwrap();
    }
    let mut bytes = Vec::new();
    for mut socket in stalled {
        bytes.clear();
        let _ = timeout(SOON * 2, socket.read_to_end(&mut bytes)).await.expect("it is cut off");
        assert!(start.elapsed() > Duration::from_secs(8), "{:?}", start.elapsed());
    }
    assert!(start.elapsed() < Duration::from_secs(14), "{:?}", start.elapsed());
}

#[tokio::test]
async fn clients_that_handshake_badly_do_not_fill_the_log() {
    let server = CertificateFiles::new().server(&[]).await;
    // Many cameras name an address where a name belongs.
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let name = with_length(&[b"\0", &with_length(b"127.0.0.1")[..]].concat());
    let extensions = with_length(&[b"\0\0", &with_length(&name)[..]].concat());
    let hello = [b"\x03\x03", &[7; 32][..], b"\0\0\x02\x13\x01\x01\0", &extensions].concat();
    let handshake = [b"\x01\0", &with_length(&hello)[..]].concat();
    let record = [b"\x16\x03\x01", &with_length(&handshake)[..]].concat();
    for bytes in [&record[..], b"\x16\x03\x01\0\x05hello", b"\x16"] {
        let mut socket = server.connect().await;
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let _ = timeout(SOON, socket.read_to_end(&mut Vec::new())).await.expect("the connection is closed");
    }
    server.signal(Signal::SIGTERM);
    let (_, log) = server.into_process().ended_within(SOON).await;
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_the_end_up() {
    let server = CertificateFiles::new().server(&[]).await;
    let mut stalled = [server.connect().await, server.connect().await];
    stalled[1].write_all(b"\x16\x03\x01").await.unwrap();
    server.push("a", PHOTO_JPEG).await;
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    let (status, log) = server.into_process().ended_within(SOON).await;
    assert!(status.success() && start.elapsed() < Duration::from_secs(2), "{status} {:?} {log}", start.elapsed());
}

#[tokio::test]
async fn a_viewer_over_https_that_stops_reading_is_dropped_after_30_s() {
    let server = CertificateFiles::new().server(&[]).await;
    // Small frames too: what TLS holds back counts as not taken.
    for session in ["large", "small"] {
        server.push(session, &numbered(0, 1000)).await;
    }
    let stalled = (Viewer::open(&server, "/stream/large?repeat=0").await, Viewer::open(&server, "/stream/small").await);
    let start = Instant::now();
    let mut number = 0;
    until(Duration::from_secs(60), "the stalled viewers are dropped", || {
        number += 1;
        let (server, number) = (&server, number);
        async move {
            for (session, length) in [("large", 1_000_000), ("small", 60_000)] {
                server.push(session, &numbered(number, length)).await;
                server.take(session).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            (server.metric("image_streamer_viewers").await == 0.0).then_some(())
        }
    })
    .await;
    assert!(start.elapsed() > Duration::from_secs(28), "{:?}", start.elapsed());
    drop(stalled);
}

#[tokio::test]
async fn healthcheck_asks_over_https_whatever_the_certificate_is_for() {
    let files = CertificateFiles::new();
    let server = files.server(&[]).await;
    let port = server.address().port().to_string();
    let (certificate, key) = (files.certificate(), files.key());
    let variables = [("PORT", port.as_str()), ("TLS_CERT", &certificate), ("TLS_KEY", &key)];
    let check = async || Process::start(command(&["healthcheck"], &variables)).ended_within(SOON).await;
    let (status, output) = check().await;
    assert_eq!(status.code(), Some(0), "{output}");
    drop(server);
    let (status, output) = check().await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("https://127.0.0.1:") && output.contains("/readyz"), "{output}");
}

/// What a program printed that must end well.
async fn run(mut command: Command) -> String {
    // It must do with the authority that it is given.
    command.env_remove("SSL_CERT_FILE").env_remove("CURL_CA_BUNDLE").env_remove("REQUESTS_CA_BUNDLE");
    let shown = format!("{command:?}");
    let (status, output) = Process::start(command).ended_within(DONE).await;
    assert!(status.success(), "{shown}: {status} {output}");
    output
}

#[tokio::test]
async fn curl_pushes_and_takes_over_https() {
    let files = CertificateFiles::new();
    let server = files.server(&[]).await;
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");
    let taken = files.path("taken.jpg");
    let url = server.url("/image/a");
    let curl = || {
        let mut curl = program("curl", "curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30"]);
        curl
    };
    let mut push = curl();
    push.args(["--cacert", &files.ca(), "--data-binary", &format!("@{photo}"), &url]);
    run(push).await;
    let mut take = curl();
    take.args(["--cacert", &files.ca(), "-w", "%{http_version}", "-o"]).arg(&taken).arg(&url);
    assert_eq!(run(take).await, "1.1");
    assert!(fs::read(taken).unwrap() == PHOTO_JPEG);
    // It does look at the certificate.
    let mut stranger = curl();
    stranger.args(["--cacert", &CertificateFiles::new().ca(), &url]);
    assert!(!Process::start(stranger).ended_within(DONE).await.0.success());
}

#[tokio::test]
async fn python_pushes_and_takes_over_https() {
    let files = CertificateFiles::new();
    let server = files.server(&[]).await;
    let script = "
import ssl, sys, urllib.request
ca, photo, url = sys.argv[1:]
https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)
picture = open(photo, 'rb').read()
for number in range(5):
    assert opener.open(url, data=picture, timeout=20).status == 200
    assert opener.open(url, timeout=20).read() == picture
print('done')
";
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg");
    let mut python = program("python3", "python3");
    python.args(["-c", script, &files.ca(), photo, &server.url("/image/a")]);
    assert_eq!(run(python).await, "done");
}

#[tokio::test]
async fn ffmpeg_pushes_a_clip_and_records_it_over_https() {
    const FRAMES: usize = 20;
    let files = CertificateFiles::new();
    let server = files.server(&[("STALE_AFTER", "3")]).await;
    let verified = ["-tls_verify", "1", "-ca_file", &files.ca()].map(str::to_owned);
    let ffmpeg = || {
        let mut ffmpeg = program("ffmpeg", "ffmpeg");
        ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]);
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            ffmpeg.env_remove(proxy);
        }
        ffmpeg
    };
    let mut recorder = ffmpeg();
    recorder.args(&verified).args(["-rw_timeout", "20000000", "-f", "mpjpeg", "-i"]);
    recorder.arg(server.url("/stream/test?repeat=0&offline=close"));
    recorder.args(["-c", "copy", "-f", "image2"]).arg(files.path("%d.jpg"));
    let recorder = Process::start(recorder);
    until(SOON, "it watches", || async { (server.metric("image_streamer_viewers").await == 1.0).then_some(()) }).await;
    let mut camera = ffmpeg();
    camera.args(["-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10", "-threads", "1"]);
    camera.args(["-frames:v", &FRAMES.to_string()]).args(&verified);
    camera.args(["-f", "mpjpeg", &server.url("/stream/test")]);
    run(camera).await;
    let (status, output) = recorder.ended_within(DONE).await;
    assert!(status.success(), "{status} {output}");
    let mut pushed = Vec::new();
    while let Some(picture) = server.take("test").await {
        pushed.push(picture);
    }
    assert_eq!(pushed.len(), FRAMES);
    // A recorder that is late gets the newest frame and not those before it, which are counted: that is what live means.
    let mut left = pushed.iter();
    let mut passed_over = Vec::new();
    while let Ok(picture) = fs::read(files.path(&format!("{}.jpg", passed_over.len() + 1))) {
        let before = left.position(|pushed| *pushed == picture);
        passed_over.push(before.unwrap_or_else(|| panic!("picture {} is none that was sent", passed_over.len() + 1)));
    }
    assert!(passed_over.len() >= FRAMES / 2 && left.next().is_none(), "the last was recorded too: {passed_over:?}");
    let skipped = server.metric(r#"image_streamer_frames_dropped_total{reason="slow_viewer"}"#).await;
    assert_eq!(passed_over[1..].iter().sum::<usize>() as f64, skipped, "{passed_over:?}");
    let mut stranger = ffmpeg();
    stranger.args(["-tls_verify", "1", "-ca_file", &CertificateFiles::new().ca(), "-f", "mpjpeg", "-i"]);
    stranger.arg(server.url("/stream/test?offline=close")).args(["-f", "null", "-"]);
    assert!(!Process::start(stranger).ended_within(DONE).await.0.success(), "it does look at the certificate");
}

#[tokio::test]
async fn the_demo_prints_links_that_begin_with_https() {
    let files = CertificateFiles::new();
    let variables = [("TLS_CERT", &*files.certificate()), ("TLS_KEY", &files.key())];
    let mut demo = Process::start(command(&["demo", "--ip", "127.0.0.1", "--port", "0"], &variables));
    let line = demo.line_with("/image/xyzabc").await;
    assert!(line.contains(" https://localhost:"), "{line}");
}
