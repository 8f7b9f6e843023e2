//! Bad input gets a clear error in one form, and loses nothing.

use std::time::{Duration, Instant};

use image_streamer::ingest::{BODY_IDLE, BODY_WHOLE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Answer, Backend, Server,
    picture::{PHOTO_JPEG, PHOTO_PNG, numbered},
    scale,
    server::{file_part, form_with},
};

#[tokio::test]
async fn bodies_that_are_no_picture_of_the_carried_type_are_refused() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "100000")]).await;
        server.push("a", PHOTO_JPEG).await;
        server.post("/image/a", "").await.is_refused(400, "empty_body");
        server.post("/image/a", "hello, I am no picture").await.is_refused(415, "not_an_image");
        server.post("/image/a", &b"\xFF\xD8"[..]).await.is_refused(415, "not_an_image");
        server.post("/image/a", PHOTO_PNG[..1000].to_vec()).await.is_refused(415, "wrong_type");
        let large = server.post("/image/a", numbered(1, 100_001)).await;
        large.is_refused(413, "too_large");
        assert!(large.text().contains("100000"), "{large:?}");
        assert_eq!(server.post("/image/a", numbered(1, 100_000)).await.status, 200);
        for stamp in ["-1", "inf", "nan", "1e999", "noon", ""] {
            let stamped = |method, path| server.request(method, path).header("x-timestamp", stamp);
            for method in ["POST", "PUT"] {
                Answer::to(stamped(method, "/image/a").body(PHOTO_JPEG)).await.is_refused(400, "bad_timestamp");
            }
            let form = stamped("POST", "/imageForm/a").multipart(form_with("a", PHOTO_JPEG));
            Answer::to(form).await.is_refused(400, "bad_timestamp");
        }
        assert_eq!(server.stats().await, [("a".into(), 2)], "nothing of that was pushed, nothing lost");
    }
}

#[tokio::test]
async fn forms_must_hold_exactly_one_file() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "100000")]).await;
        let send = async |form| Answer::to(server.request("POST", "/imageForm/a").multipart(form)).await;
        let form = reqwest::multipart::Form::new;
        send(form().text("a", "text").text("b", "more")).await.is_refused(400, "no_file");
        send(form().part("a", file_part(PHOTO_JPEG)).part("b", file_part(PHOTO_JPEG)))
            .await
            .is_refused(400, "too_many_files");
        send(form_with("a", b"")).await.is_refused(400, "empty_body");
        send(form_with("a", b"not a picture at all")).await.is_refused(415, "not_an_image");
        send(form_with("a", &numbered(1, 100_001))).await.is_refused(413, "too_large");
        let text = "x".repeat(200_000);
        send(form().text("story", text).part("f", file_part(PHOTO_JPEG))).await.is_refused(413, "too_large");
        assert!(server.stats().await.is_empty());
        // A browser sends a file field that was left empty as a file without a name and without bytes.
        let left_empty = || reqwest::multipart::Part::bytes(&b""[..]).file_name("");
        send(form().part("a", left_empty())).await.is_refused(400, "no_file");
        let unnamed = || reqwest::multipart::Part::bytes(PHOTO_JPEG).file_name("");
        send(form().part("a", file_part(PHOTO_JPEG)).part("b", unnamed())).await.is_refused(400, "too_many_files");
        assert!(server.stats().await.is_empty());
        for form in [
            form().part("a", file_part(PHOTO_JPEG)).part("b", left_empty()),
            form().part("a", left_empty()).part("b", file_part(PHOTO_JPEG)),
            form().part("a", unnamed()).part("b", left_empty()),
        ] {
            assert_eq!(send(form).await.status, 200);
            assert_eq!(server.take("a").await.as_deref(), Some(PHOTO_JPEG));
        }
        server.ask("DELETE", "/session/a").await;
        let good = form().text("before", "1").part("strange name", file_part(PHOTO_JPEG)).text("after", "2");
        let answer = send(good).await;
        assert_eq!(answer.status, 200, "{answer:?}");

        for content_type in
            ["image/jpeg", "multipart/mixed; boundary=x", "application/x-www-form-urlencoded", "multipart/form-datax"]
        {
            let request = server.request("POST", "/imageForm/a").header("content-type", content_type).body(PHOTO_JPEG);
            Answer::to(request).await.is_refused(415, "wrong_content_type");
        }
        server.post("/imageForm/a", PHOTO_JPEG).await.is_refused(415, "wrong_content_type");
    }
}

#[tokio::test]
async fn broken_multipart_is_named_as_such() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let whole = [
            b"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"p.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n",
            PHOTO_JPEG,
            b"\r\n--b--\r\n",
        ]
        .concat();
        let send = async |content_type: &str, body: &[u8]| {
            Answer::to(server.request("POST", "/imageForm/a").header("content-type", content_type).body(body.to_vec()))
                .await
        };
        assert_eq!(send("multipart/form-data; boundary=b", &whole).await.status, 200);
        assert_eq!(send("Multipart/Form-Data; boundary=\"b\"", &whole).await.status, 200);
        send("multipart/form-data", &whole).await.is_refused(400, "bad_multipart");
        send("multipart/form-data; boundary=other", &whole).await.is_refused(400, "bad_multipart");
        send("multipart/form-data; boundary=b", b"").await.is_refused(400, "bad_multipart");
        send("multipart/form-data; boundary=b", b"--b\r\nnot a header\r\n\r\nx\r\n--b--\r\n")
            .await
            .is_refused(400, "bad_multipart");
        for cut in [10, 60, 120, 5000, whole.len() - 8] {
            send("multipart/form-data; boundary=b", &whole[..cut]).await.is_refused(400, "bad_multipart");
        }
        assert_eq!(server.stats().await, [("a".into(), 2)]);
    }
}

#[tokio::test]
async fn session_ids_outside_the_rule_are_refused_on_every_route() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let long = "a".repeat(129);
        for id in ["a%20b", "a%2Fb", "%2e%2e", "%2E", "a%00", "%C3%A4", "%FF", "a*b", "a:b", "%7Bx%7D", &long] {
            for (method, route) in [
                ("GET", "image"),
                ("HEAD", "image"),
                ("POST", "image"),
                ("PUT", "image"),
                ("POST", "imageForm"),
                ("DELETE", "session"),
            ] {
                // Raw, because clients tidy paths.
                let answer = raw(
                    &server,
                    &format!(
                        "{method} /{route}/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    ),
                )
                .await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{method} /{route}/{id}: {answer}");
                assert!(method == "HEAD" || answer.contains(r#""code":"bad_session""#), "{answer}");
            }
        }
        for id in [".", ".."] {
            let answer =
                raw(&server, &format!("GET /image/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad_session"), "{answer}");
        }
        assert_eq!(server.post(&format!("/image/{}", &long[..128]), PHOTO_JPEG).await.status, 200);
        assert_eq!(server.post("/image/a%2Db", PHOTO_JPEG).await.status, 200);
        assert_eq!(server.take("a-b").await.as_deref(), Some(PHOTO_JPEG));
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told_in_the_same_form() {
    for backend in Backend::all().await {
        check_unknown_routes_and_methods(&backend.server(&[]).await).await;
    }
}

async fn check_unknown_routes_and_methods(server: &Server) {
    for path in ["/assets/nothing.js", "/docs/nothing.js", "/docs/index.html"] {
        server.get(path).await.is_refused(404, "not_found");
    }
    for path in ["/image", "/image/", "/image/a/b", "/nothing", "/IMAGE/a", "/session/", "//stats", "/assets/", "/view"]
    {
        server.get(path).await.is_refused(404, "not_found");
        server.post(path, PHOTO_JPEG).await.is_refused(404, "not_found");
    }
    for (method, path, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/view/a", "GET, HEAD"),
        ("POST", "/assets/style.css", "GET, HEAD"),
        ("POST", "/session", "GET, HEAD"),
        ("GET", "/session/a", "DELETE"),
        ("DELETE", "/image/a", "GET, HEAD, POST, PUT"),
        ("PATCH", "/image/a", "GET, HEAD, POST, PUT"),
        ("GET", "/imageForm/a", "POST"),
        ("PUT", "/imageForm/a", "POST"),
        ("DELETE", "/stats", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ] {
        let answer = server.ask(method, path).await;
        answer.is_refused(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let options = server.ask("OPTIONS", path).await;
        assert_eq!((options.status.as_u16(), options.header("allow")), (204, allow));
    }
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_without_being_buffered() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "1000000")]).await;
        let before = server.resident_bytes();
        for path in ["/image/a", "/imageForm/a"] {
            let mut socket = server.connect().await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            if path == "/imageForm/a" {
                let part = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n";
                socket.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.unwrap();
            }
            let answer = send_for_ever(&mut socket, &chunk(64 * 1024), Duration::from_secs(20)).await;
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"), "{path}: {answer}");
        }
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 20_000_000, "grew by {grown} bytes");
    }
}

#[tokio::test]
async fn a_refusal_before_the_body_was_read_is_seen_and_then_the_connection_is_closed() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_IMAGE_BYTES", "1000")]).await;
        for (path, status) in [
            ("/nothing", "404"),
            ("/image/a*b", "400"),
            ("/stats", "405"),
            ("/image/a", "413"),
            ("/imageForm/a", "415"),
        ] {
            for (framing, piece) in [
                ("Content-Length: 1000000000000", vec![7; 64 * 1024]),
                ("Transfer-Encoding: chunked", chunk(64 * 1024)),
            ] {
                let mut socket = server.connect().await;
                let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                let start = Instant::now();
                let answer = send_for_ever(&mut socket, &piece, Duration::from_secs(20)).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {framing}: {answer}");
                assert!(start.elapsed() < Duration::from_secs(3), "closed after {:?}", start.elapsed());
            }
        }
        // One that sends as fast as it can is not read for the whole of that time.
        let mut socket = server.connect().await;
        socket
            .write_all(b"POST /image/a*b HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
            .await
            .unwrap();
        let (mut sent, piece) = (0, vec![7; 64 * 1024]);
        let send = async {
            while let Ok(bytes) = socket.write(&piece).await {
                sent += bytes;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), send).await.expect("the connection is closed");
        assert!(sent < 24 << 20, "{sent} bytes: 4 MiB are read, and the sockets hold some");
        // A client that sends all of a body before it reads sees the answer too.
        for size in [10_000, 1 << 20, 4 << 20] {
            server.post("/image/a", numbered(1, size)).await.is_refused(413, "too_large");
        }
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_cut_off_after_a_named_time() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let start = Instant::now();
        let stall = async |path: &str| {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n"
            );
            raw(&server, &head).await
        };
        let (body, form) = tokio::join!(stall("/image/a"), stall("/imageForm/a"));
        for answer in [body, form] {
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_stalled"), "{answer}");
        }
        assert!(
            start.elapsed() >= BODY_IDLE && start.elapsed() < BODY_IDLE + Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_body_that_drips_is_let_be_for_a_while_and_not_for_ever() {
    // The end of that while takes minutes and belongs into `make proof`; otherwise the rest comes sooner.
    let proof = scale() > 1;
    let server = Backend::Memory.server(&[]).await;
    let mut socket = server.connect().await;
    let head = format!("POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", PHOTO_JPEG.len());
    socket.write_all(head.as_bytes()).await.unwrap();
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < if proof { BODY_WHOLE } else { BODY_IDLE * 3 / 2 } {
        socket.write_all(&PHOTO_JPEG[sent..=sent]).await.unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    if !proof {
        socket.write_all(&PHOTO_JPEG[sent..]).await.unwrap();
    }
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, if proof { b"HTTP/1.1 408" } else { b"HTTP/1.1 200" });
}

#[tokio::test]
async fn a_body_that_is_cut_off_pushes_nothing() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for _ in 0..10 {
            let mut socket = server.connect().await;
            let head = format!("POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", PHOTO_JPEG.len());
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(&PHOTO_JPEG[..PHOTO_JPEG.len() - 1]).await.unwrap();
        }
        server.push("b", PHOTO_JPEG).await;
        assert_eq!(server.stats().await, [("b".into(), 1)]);
    }
}

#[tokio::test]
async fn a_body_with_malformed_chunks_is_told_so() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for chunks in ["zz\r\nabc\r\n", "3\r\nabcdef\r\n"] {
            let head = "POST /image/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = raw(&server, &format!("{head}{chunks}")).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("body_cut_off"), "{answer}");
        }
        assert!(server.stats().await.is_empty());
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_harms_nobody() {
    let server = Backend::Memory.server(&[]).await;
    for noise in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "POST /image/a HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ] {
        let answer = raw(&server, noise).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{noise:?}: {answer}");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}

/// Sends one request and reads until the server closes.
async fn raw(server: &Server, request: &str) -> String {
    let mut socket = server.connect().await;
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(BODY_IDLE + Duration::from_secs(10), read_until_answered(&mut socket, &mut answer)).await;
    assert!(read.is_ok(), "no answer to {request:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads a head and what comes with it; a server that waits for more of the request does not close.
async fn read_until_answered(socket: &mut TcpStream, answer: &mut Vec<u8>) {
    loop {
        match socket.read_buf(answer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if answer.ends_with(b"}}") => return,
            Ok(_) => {}
        }
    }
}

/// One piece of a chunked body.
fn chunk(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").as_bytes(), &vec![7; length], b"\r\n"].concat()
}

/// Goes on sending, as a client does that does not listen, until the connection is closed; returns what was answered.
async fn send_for_ever(socket: &mut TcpStream, piece: &[u8], deadline: Duration) -> String {
    let (mut reader, mut writer) = socket.split();
    let mut answer = Vec::new();
    let read = async { while matches!(reader.read_buf(&mut answer).await, Ok(read) if read > 0) {} };
    let write = async { while writer.write_all(piece).await.is_ok() {} };
    let both = async { tokio::join!(read, write) };
    assert!(tokio::time::timeout(deadline, both).await.is_ok(), "the connection was not closed within {deadline:?}");
    String::from_utf8_lossy(&answer).into_owned()
}
