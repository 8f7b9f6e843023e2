//! Arguments, environment, exit codes.

use std::time::Duration;

use image_streamer::{config::variables, placeholder::Format};

use crate::harness::{
    Backend, SOON, Server,
    picture::{PHOTO_JPEG, counted, label},
    port::free_port,
    process::Process,
    server::command,
    until,
};

const QUICK: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_wrong_configuration_stops_the_start_with_code_2_and_every_fault() {
    let wrong =
        [("PORT", "many"), ("EXPIRE", "0"), ("MIMETYPE", "text/html"), ("NODATA_HEIGHT", "0"), ("MAX_QUEUE", "x")];
    let (status, output) = Process::start(command(&[], &wrong)).ended_within(QUICK).await;
    assert_eq!(status.code(), Some(2));
    for (variable, value) in wrong {
        let line = output.lines().find(|line| line.contains(&format!("{variable}=\"{value}\""))).expect(variable);
        assert!(line.contains("expected"), "{line}");
    }
    assert!(!output.contains("listening"));
}

#[tokio::test]
async fn help_documents_every_variable_flag_and_command() {
    for flag in ["--help", "-h"] {
        let (status, output) = Process::start(command(&[flag], &[])).ended_within(QUICK).await;
        assert_eq!(status.code(), Some(0));
        for (name, default, _) in variables() {
            assert!(output.contains(name) && output.contains(default), "{name}");
        }
        for word in ["-i, --ip", "-p, --port", "demo", "healthcheck"] {
            assert!(output.contains(word), "{word} in {output}");
        }
    }
    let (status, output) = Process::start(command(&["--version"], &[])).ended_within(QUICK).await;
    assert_eq!((status.code(), output.as_str()), (Some(0), concat!("image-streamer ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn address_and_port_come_from_the_environment_and_flags_win() {
    let port = free_port().to_string();
    let server = Server::start_with(&[], &[("HOST", "127.0.0.1"), ("PORT", &port)]).await;
    assert_eq!(server.address().to_string(), format!("127.0.0.1:{port}"));
    let other = free_port().to_string();
    let flags = ["-i", "127.0.0.1", "-p", &other];
    let second = Server::start_with(&flags, &[("HOST", "203.0.113.1"), ("PORT", &port)]).await;
    assert_eq!(second.address().to_string(), format!("127.0.0.1:{other}"));

    // A port in use is said so.
    let (status, output) = Process::start(command(&flags, &[])).ended_within(QUICK).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("cannot listen on 127.0.0.1") && output.contains(&other), "{output}");
}

#[tokio::test]
async fn the_log_can_be_json() {
    let mut server = Backend::Memory.server(&[("LOG_FORMAT", "json"), ("RUST_LOG", "debug")]).await;
    assert_eq!(server.post("/image/a", "no picture").await.status, 415);
    let line = server.process().line_with("not_an_image").await;
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["level"], "DEBUG");
}

#[tokio::test]
async fn a_password_in_the_redis_url_is_never_logged() {
    let url = format!("redis://me:hunter2@127.0.0.1:{}/", free_port());
    let server = Server::start(&[("REDIS_URL", &url), ("RUST_LOG", "trace")]).await;
    assert_eq!(server.post("/image/a", PHOTO_JPEG).await.status, 503);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, log) = server.into_process().ended_within(QUICK).await;
    assert!(log.contains("Redis cannot be reached"), "{log}");
    assert!(!log.contains("hunter2"));
}

#[tokio::test]
async fn healthcheck_tells_by_its_exit_code_whether_the_server_can_serve() {
    for mut backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let port = server.address().port().to_string();
        let check = async || Process::start(command(&["healthcheck"], &[("PORT", &port)])).ended_within(QUICK).await;
        assert_eq!(check().await.0.code(), Some(0));
        if let crate::harness::Backend::Redis(redis) = &mut backend {
            redis.kill().await;
            let (status, output) = check().await;
            assert_eq!(status.code(), Some(1));
            assert!(output.contains("/readyz"), "{output}");
        }
        drop(server);
        assert_eq!(check().await.0.code(), Some(1));
    }
}

#[tokio::test]
async fn the_demo_counts_on_its_session_and_prints_links_that_work() {
    let small = [("MIMETYPE", "image/png"), ("NODATA_HEIGHT", "90")];
    tokio::join!(check_demo(&[], (1280, 720, Format::Jpeg)), check_demo(&small, (160, 90, Format::Png)));
}

async fn check_demo(variables: &[(&str, &str)], (width, height, format): (u32, u32, Format)) {
    let variables = [&[("REDIS_HOST", "nowhere.invalid")], variables].concat();
    let mut process = Process::start(command(&["demo", "--ip", "127.0.0.1", "--port", "0"], &variables));
    let line = process.line_with("/image/xyzabc").await;
    let link = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let stats = process.line_with("/stats").await;
    let stats = stats.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let mut numbers = Vec::new();
    for shown in 1..=3 {
        let frame = until(SOON, "the next number", || async {
            let response = reqwest::get(&link).await.ok()?;
            (!response.headers().contains_key("x-no-data")).then_some(response)
        });
        let response = frame.await;
        numbers.push(response.headers()["x-frame-seq"].to_str().unwrap().parse::<u64>().unwrap());
        let picture = image::load_from_memory(&response.bytes().await.unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (width, height));
        assert!(label(&picture) == label(&counted(shown, width, height, format)), "it shows a {shown}");
    }
    assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
    assert!(reqwest::get(stats).await.unwrap().text().await.unwrap().contains("xyzabc"));
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.ended_within(QUICK).await.0.code(), Some(0));
}

#[tokio::test]
async fn the_demo_says_what_it_cannot_draw() {
    let demo = command(&["demo", "--ip", "127.0.0.1", "--port", "0"], &[("MIMETYPE", "image/gif")]);
    let (status, output) = Process::start(demo).ended_within(QUICK).await;
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("JPEG and PNG only") && output.contains("MIMETYPE"), "{output}");
}
