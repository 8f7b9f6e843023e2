//! Programs that people use: ffmpeg's pictures, sent by curl as the README tells.

use std::{path::Path, process::Stdio, time::Duration};

use crate::harness::{Backend, process::program};

async fn run(mut command: std::process::Command) -> Vec<u8> {
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn photo() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/chelsea.jpg").to_owned()
}

#[tokio::test]
async fn ffmpegs_test_pictures_go_through_and_are_the_same_pictures_after() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        let directory = tempfile::tempdir().unwrap();
        let mut ffmpeg = program("ffmpeg", "ffmpeg");
        ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=640x480:rate=5", "-frames:v", "5"]);
        ffmpeg.arg(directory.path().join("%d.jpg"));
        run(ffmpeg).await;
        let file = |number: usize| directory.path().join(format!("{number}.jpg"));
        for number in 1..=5 {
            let body = format!("@{}", file(number).display());
            if number % 2 == 1 {
                run_curl(&["--data-binary", &body, &server.url("/image/test")]).await;
            } else {
                run_curl(&["-F", &format!("image={body}"), &server.url("/imageForm/test")]).await;
            }
        }
        for number in 1..=5 {
            let taken = directory.path().join("taken.jpg");
            run_curl(&["-o", &taken.display().to_string(), &server.url("/image/test")]).await;
            assert_eq!(std::fs::read(&taken).unwrap(), std::fs::read(file(number)).unwrap());
            assert_eq!(decoded_by_ffmpeg(&taken).await, decoded_by_ffmpeg(&file(number)).await);
        }
    }
}

/// The raw pixels, as ffmpeg sees them.
async fn decoded_by_ffmpeg(picture: &Path) -> Vec<u8> {
    let mut ffmpeg = program("ffmpeg", "ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(picture).args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let pixels = run(ffmpeg).await;
    assert_eq!(pixels.len(), 640 * 480 * 3);
    pixels
}

async fn run_curl(arguments: &[&str]) -> String {
    let mut curl = program("curl", "curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "30"]).args(arguments);
    String::from_utf8(run(curl).await).unwrap()
}

#[tokio::test]
async fn curl_sees_the_answer_to_a_body_that_is_far_too_large() {
    let server = Backend::Memory.server(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(200 << 20).unwrap();
    for framing in ["Content-Length:", "Transfer-Encoding: chunked"] {
        let mut curl = program("curl", "curl");
        curl.args(["--silent", "--noproxy", "*", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]);
        if framing.ends_with("chunked") {
            curl.args(["-H", framing]);
        }
        curl.arg("-T").arg(&large).arg(server.url("/image/a"));
        // curl may say that it could not send everything; what counts is that it saw the answer.
        let output = tokio::process::Command::from(curl).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "413", "{framing}");
    }
}

#[tokio::test]
async fn curl_pushes_a_photo_and_reads_the_answer_the_old_clients_way() {
    let server = Backend::Memory.server(&[]).await;
    let session = run_curl(&[&server.url("/session")]).await;
    let url = server.url(&format!("/image/{session}"));
    let answer = run_curl(&["-T", &photo(), "-H", "Accept: application.json", &url]).await;
    assert!(answer.starts_with(r#"{"seq":"#), "{answer}");
    let headers = run_curl(&["-D", "-", "-o", "/dev/null", &url]).await;
    assert!(headers.to_ascii_lowercase().contains("x-frame-seq: "), "{headers}");
}
