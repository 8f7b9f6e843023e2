//! The test producer against the server.

use std::{process::Command, time::Duration};

use image_streamer::placeholder::Format;

use crate::harness::{
    Answer, Backend, RedisServer, SOON, Server, UsersFile,
    picture::{counted, label},
    port::free_port,
    process::{Process, workspace_binary},
    until,
    users::PASSWORD,
};

fn tester(server: &str, variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(workspace_binary("image-streamer-tester"));
    command.env_clear().env("SERVER_URL", server).envs(variables.iter().copied());
    Process::start(command)
}

async fn next_picture(server: &Server, session: &str) -> image::DynamicImage {
    let taken = until(SOON, "the tester's next picture", || async { server.take(session).await });
    image::load_from_memory(&taken.await).unwrap()
}

const SIZE: [(&str, &str); 3] = [("NODATA_HEIGHT", "90"), ("NODATA_ASPECT_RATIO", "9/16"), ("MIMETYPE", "image/png")];

fn label_of(number: u32) -> Vec<u8> {
    label(&counted(number, 160, 90, Format::Png))
}

/// How many pixels of the caption, which tells the time, are as bright as ink.
fn ink_in_caption(picture: &image::DynamicImage) -> usize {
    let top = picture.height() * 7 / 10;
    let caption = picture.crop_imm(0, top, picture.width(), picture.height() - top).to_rgb8();
    caption.pixels().filter(|pixel| pixel.0[0] > 180).count()
}

#[tokio::test]
async fn it_pushes_1_2_3_to_the_given_session_as_bodies_or_as_forms() {
    for backend in Backend::all().await {
        for form in ["0", "1"] {
            let server = backend.server(&[("MIMETYPE", "image/png")]).await;
            let session = format!("given-{form}");
            let more = [("TEST_SESSION", session.as_str()), ("INTERVAL_MS", "50"), ("FORM", form)];
            let mut tester = tester(&server.url("/"), &[&SIZE[..], &more].concat());
            assert_eq!(tester.line_with("SESSION").await, format!("SESSION: {session}"));
            for number in 1..=3 {
                let picture = next_picture(&server, &session).await;
                assert_eq!((picture.width(), picture.height()), (160, 90));
                assert!(label(&picture) == label_of(number), "it shows a {number}");
                assert!(ink_in_caption(&picture) > 20, "it tells the time");
                assert_eq!(ink_in_caption(&counted(number, 160, 90, Format::Png)), 0);
            }
        }
    }
}

#[tokio::test]
async fn it_asks_for_a_session_of_its_own_where_none_is_given() {
    let server = Backend::Memory.server(&[]).await;
    let variables = [("INTERVAL_MS", "50"), ("NODATA_HEIGHT", "90"), ("TEST_SESSION", "")];
    let (mut one, mut other) = (tester(&server.url(""), &variables), tester(&server.url(""), &variables));
    let mut sessions = Vec::new();
    for tester in [&mut one, &mut other] {
        let line = tester.line_with("SESSION: ").await;
        let session = line.strip_prefix("SESSION: ").unwrap().to_owned();
        assert!(uuid::Uuid::parse_str(&session).is_ok(), "{line}");
        next_picture(&server, &session).await;
        sessions.push(session);
    }
    assert_ne!(sessions[0], sessions[1]);
}

#[tokio::test]
async fn it_rides_out_a_server_that_is_not_there_yet_or_away_and_goes_on_counting() {
    let redis = RedisServer::start().await;
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    let mut tester = tester(&url, &[&SIZE[..], &[("INTERVAL_MS", "100")]].concat());
    tester.line_with("going on without the server").await;
    let redis_url = redis.url();
    let variables = [("REDIS_URL", redis_url.as_str()), ("MIMETYPE", "image/png")];
    let start = async || Server::start_with(&["-i", "127.0.0.1", "-p", &port], &variables).await;
    let server = start().await;
    let line = tester.line_with("SESSION: ").await;
    let session = line.strip_prefix("SESSION: ").unwrap();
    let number_of = |picture| (1..1000).find(|number| label(&picture) == label_of(*number)).expect("a number");
    let before = number_of(next_picture(&server, session).await);
    drop(server);
    tester.line_with("going on without the server").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let server = start().await;
    tester.line_with("takes pictures again").await;
    while server.take(session).await.is_some() {}
    let after = number_of(next_picture(&server, session).await);
    assert!(after > before, "{before}, then {after}");
}

#[tokio::test]
async fn it_says_which_of_its_variables_is_wrong() {
    let server = Backend::Memory.server(&[]).await;
    for (name, value) in [
        ("INTERVAL_MS", "soon"),
        ("INTERVAL_MS", "0"),
        ("NODATA_HEIGHT", "9000"),
        ("TEST_SESSION", "a/b"),
        ("MIMETYPE", "x"),
    ] {
        let (status, output) = tester(&server.url(""), &[(name, value)]).ended_within(SOON).await;
        assert!(!status.success() && output.contains(name), "{name}={value}: {output}");
    }
    assert_eq!(Answer::to(server.request("GET", "/stats")).await.json()["numSessions"], 0);
}

#[tokio::test]
async fn it_logs_in_with_name_and_password_from_the_url() {
    let users = UsersFile::with(&[("ann@home", &[]), ("root", &["--admin"])]).await;
    let server = users.server(&Backend::Memory, &[]).await;
    let url = server.url("").replace("http://", &format!("http://ann%40home:{}@", PASSWORD.replace(' ', "%20")));
    let mut tester = tester(&url, &[&SIZE[..2], &[("INTERVAL_MS", "50")]].concat());
    let session = tester.line_with("SESSION: ").await.trim_start_matches("SESSION: ").to_owned();
    until(SOON, "its pictures come", || async {
        let request = server.request("GET", &format!("/image/{session}?empty=204"));
        (Answer::to(request.basic_auth("ann@home", Some(PASSWORD))).await.status == 200).then_some(())
    })
    .await;
}
