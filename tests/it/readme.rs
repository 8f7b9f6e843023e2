//! The README's recipes, and the commands of docs/CLIENTS.md, are copied and work.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::harness::{
    Backend, SOON, Server,
    browser::Browser,
    phones::Gateway,
    picture::PHOTO_JPEG,
    process::{Process, program},
    python::script,
    until,
};

const README: &str = include_str!("../../README.md");
const CLIENTS: &str = include_str!("../../docs/CLIENTS.md");
const ANDROID: &str = include_str!("../../docs/ANDROID.md");
/// Where the README's server is.
const ITS_SERVER: &str = "localhost:3000";

/// The blocks of one language under "Recipes".
fn recipes(language: &str) -> Vec<&'static str> {
    let recipes = README.split("\n## Recipes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("recipes");
    blocks(recipes, language)
}

/// The blocks of one language in a text.
fn blocks(text: &'static str, language: &str) -> Vec<&'static str> {
    let opening = format!("```{language}\n");
    text.split(&*opening).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Runs a recipe in a folder of its own in which the repository's `tests` can be seen.
async fn run(interpreter: &[&str], recipe: &str, server: &Server) -> String {
    let directory = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    std::os::unix::fs::symlink(tests, directory.path().join("tests")).unwrap();
    run_in(directory.path(), interpreter, recipe, server).await
}

async fn run_in(directory: &Path, interpreter: &[&str], recipe: &str, server: &Server) -> String {
    let recipe = recipe.replace(ITS_SERVER, &server.address().to_string());
    let command = match interpreter[0] {
        path if path.contains('/') => Command::new(path),
        name => program(name, name),
    };
    let mut command = tokio::process::Command::from(command);
    command.args(&interpreter[1..]).arg(&recipe).current_dir(directory);
    command.env("no_proxy", "*").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{recipe}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_shell_recipes_push_take_and_record() {
    drop((program("curl", "curl"), program("ffmpeg", "ffmpeg")));
    let server = Backend::Memory.server(&[("STALE_AFTER", "3")]).await;
    let [files, form, push, record] = recipes("sh").try_into().expect("four recipes");
    run(&["bash", "-e", "-c"], files, &server).await;
    assert_eq!(server.stats().await, [("cat".into(), 0)], "one pushed, one taken");
    run(&["bash", "-e", "-c"], form, &server).await;
    assert_eq!(server.take("cat").await.as_deref(), Some(PHOTO_JPEG));

    // The recorder waits for the camera, and ends when it falls silent.
    let recorded = tempfile::tempdir().unwrap();
    let file = recorded.path().join("recording.mkv");
    let record = record.replace("recording.mkv", file.to_str().unwrap());
    tokio::join!(run(&["bash", "-e", "-c"], &record, &server), async {
        until(SOON, "the recorder watches", || async {
            (server.metric("image_streamer_viewers").await == 1.0).then_some(())
        })
        .await;
        run(&["bash", "-e", "-c"], &with_an_end(push), &server).await;
    });
    let picture = image::load_from_memory(&server.take("test").await.unwrap()).unwrap();
    assert_eq!((picture.width(), picture.height()), (640, 480));
    assert_eq!(server.stats().await, [("cat".into(), 0), ("test".into(), 19)]);
    let mut count = program("ffprobe", "ffmpeg");
    count.args(["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]).arg(&file);
    let count = String::from_utf8(count.output().unwrap().stdout).unwrap();
    assert_eq!(count.trim(), "20", "every frame once");
}

/// The test source has no end; here it gets one, after 20 frames.
fn with_an_end(ffmpeg: &str) -> String {
    assert!(ffmpeg.contains("rate=10 "));
    ffmpeg.replace("rate=10 ", "rate=10:duration=2 ")
}

#[tokio::test]
async fn the_page_shows_ffmpegs_moving_test_source() {
    let browser = Browser::start().await;
    let server = Backend::Memory.server(&[]).await;
    let ([page], [_, _, push, _]) = (recipes("html").try_into().unwrap(), recipes("sh").try_into().unwrap());
    // What each picture is, told by its pixels; a page of another site may read them only where it says so beforehand.
    let notes = "<script>window.seen = new Set();
        setInterval(() => {
            let img = document.querySelector('img');
            if (!img || img.naturalWidth !== 640) return;
            let c = document.createElement('canvas');
            c.width = 640; c.height = 480;
            c.getContext('2d').drawImage(img, 0, 0);
            seen.add(c.toDataURL());
        }, 20)</script>";
    let page = page.replace("<img ", "<img crossorigin ").replace(ITS_SERVER, &server.address().to_string());
    let site = browser.page_of_another_site(notes.to_owned() + &page).await;
    browser.client.goto(&site).await.unwrap();
    run(&["bash", "-e", "-c"], &with_an_end(push), &server).await;
    // How many of the 20 it gets to paint depends on the machine.
    let different = || async { (browser.run("return seen.size").await.as_u64().unwrap() >= 5).then_some(()) };
    until(SOON, "pictures that change", different).await;
    browser.screenshot("img-ffmpeg").await;
}

#[tokio::test]
async fn the_python_recipe_prints_number_and_size() {
    let server = Backend::Memory.server(&[]).await;
    let [recipe] = recipes("python").try_into().expect("one recipe");
    let printed = run(&["python3", "-c"], recipe, &server).await;
    assert!(printed.trim().ends_with(&format!(" {} bytes", PHOTO_JPEG.len())), "{printed}");
}

#[tokio::test]
async fn the_recipe_for_socket_io_in_python_pushes_a_picture() {
    let gateway = Gateway::start(&[]).await;
    let [recipe] = blocks(ANDROID, "python").try_into().expect("one recipe");
    let recipe = recipe.replace("localhost:8080", &gateway.address().to_string());
    let python = script("phone.py").get_program().to_str().unwrap().to_owned();
    let printed = run(&[&python, "-c"], &recipe, &gateway.server).await;
    let [seq, viewers] = printed.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{printed}") };
    assert!(seq.parse::<u64>().is_ok() && viewers == "0", "{printed}");
    assert_eq!(gateway.server.take("ann").await.as_deref(), Some(PHOTO_JPEG));
}

#[tokio::test]
async fn the_clients_commands_push_watch_and_record() {
    const BASH: [&str; 3] = ["bash", "-e", "-c"];
    let server = Backend::Memory.server(&[("MIMETYPE", "auto"), ("STALE_AFTER", "3")]).await;
    let [push, record, curl] = blocks(CLIENTS, "sh").try_into().expect("three blocks");
    let [opencv, websockets] = blocks(CLIENTS, "python").try_into().expect("two blocks");
    let python = script("ws.py").get_program().to_str().unwrap().to_owned();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let make_clip = "ffmpeg -loglevel error -f lavfi -i testsrc=size=320x240:rate=10:duration=1 -c:v mpeg4 clip.mp4";
    run_in(directory, &BASH, make_clip, &server).await;
    for name in ["picture.jpg", "one.jpg", "two.jpg"] {
        fs::write(directory.join(name), PHOTO_JPEG).unwrap();
    }

    run_in(directory, &BASH, push, &server).await;
    assert_eq!(server.stats().await, [("clip".into(), 30)], "10 frames in each of three ways");
    let printed = run_in(directory, &BASH, curl, &server).await;
    assert!(printed.contains(r#"{"accepted":2,"refused":0}"#), "{printed}");
    assert_eq!(server.stats().await, [("clip".into(), 34)]);
    run_in(directory, &[&python, "-c"], websockets, &server).await;

    // FFmpeg and OpenCV read no PNG parts.
    let jpegs = push.lines().next().unwrap();
    let readers = record.lines().map(|line| (BASH.to_vec(), line));
    for (interpreter, reader) in readers.chain([(vec![&*python, "-c"], opencv)]) {
        server.ask("DELETE", "/session/clip").await;
        tokio::join!(run_in(directory, &interpreter, reader, &server), async {
            until(SOON, "it watches", || async {
                (server.metric("image_streamer_viewers").await == 1.0).then_some(())
            })
            .await;
            run_in(directory, &BASH, jpegs, &server).await;
        });
    }
    // Two frames that come at once may be one to a viewer; then that is counted.
    let skipped = server.metric(r#"image_streamer_frames_dropped_total{reason="slow_viewer"}"#).await as usize;
    let recorded = (1..).take_while(|number| directory.join(format!("picture{number:04}.jpg")).exists()).count();
    assert!((10 - skipped.min(9)..=10).contains(&recorded), "{recorded} recorded, {skipped} skipped");
    for number in 1..=recorded {
        let picture = image::open(directory.join(format!("picture{number:04}.jpg"))).unwrap();
        assert_eq!((picture.width(), picture.height()), (320, 240));
    }
    assert!(fs::metadata(directory.join("recording.mkv")).unwrap().len() > 10_000);
}

#[tokio::test]
async fn the_commands_about_access_make_users_and_let_them_in() {
    const ACCESS: &str = include_str!("../../docs/ACCESS.md");
    drop((program("curl", "curl"), program("ffmpeg", "ffmpeg")));
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("picture.jpg"), PHOTO_JPEG).unwrap();
    let binaries = Path::new(env!("CARGO_BIN_EXE_image-streamer")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let users = directory.path().join("users.toml");
    let bash = async |commands: &str, server: &str| {
        let mut command = tokio::process::Command::new("bash");
        command.args(["-e", "-c", commands]).current_dir(directory.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env("PATH", &path).env("SERVER", server).env("USERS_FILE", &users).env("no_proxy", "*");
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
        assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let [add, basic, key, login, link] = blocks(ACCESS, "sh").try_into().expect("five blocks");
    let list = bash(add, "").await;
    assert!(list.contains("ann") && list.contains("root@example.org  yes"), "{list}");
    let server = Backend::Memory.server(&[("USERS_FILE", users.to_str().unwrap())]).await;
    let address = server.url("");
    bash(basic, &address).await;
    assert!(image::open(directory.path().join("copy.png")).is_ok());
    bash(key, &address).await;
    let stats = bash(login, &address).await;
    assert!(stats.contains(r#""numImages":2"#), "{stats}");
    let link: serde_json::Value = serde_json::from_str(&bash(link, &address).await).unwrap();
    assert!(server.get(link["url"].as_str().unwrap()).await.body == PHOTO_JPEG);
    let ended = bash("curl --cookie jar \"$SERVER/stats\"", &address).await;
    assert!(ended.contains("login_needed"), "{ended}");
}

#[tokio::test]
async fn the_commands_about_vehicles_drive_one() {
    const VEHICLES: &str = include_str!("../../docs/VEHICLES.md");
    drop((program("curl", "curl"), program("ffmpeg", "ffmpeg")));
    let [_, command, vehicle, poll, _, push] = blocks(VEHICLES, "sh").try_into().expect("six blocks");
    assert!(README.contains(vehicle), "the README has the same vehicle");
    let mut server = Backend::Memory.server(&[("VICER_STREAM_PORT", "0")]).await;
    let line = server.process().line_with("VICER's cameras and viewers on").await;
    let stream_port = line.rsplit(':').next().unwrap().trim_matches('"').to_owned();
    let root = env!("CARGO_MANIFEST_DIR");
    let script = vehicle.replace("docs/vehicles", &format!("{root}/docs/vehicles"));
    let script = script.replace(ITS_SERVER, &server.address().to_string());
    let mut vehicle = Process::start({
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec {script}")]);
        bash
    });
    until(SOON, "it listens", || async { (server.metric("image_streamer_vehicles").await == 1.0).then_some(()) }).await;
    let answer = run(&["bash", "-e", "-c"], command, &server).await;
    assert_eq!(answer.trim(), r#"{"vehicles":1}"#);
    vehicle.line_with("drive 0.20 0.00").await;
    vehicle.line_with("drive 0.00 0.00").await;
    let (polled, ()) = tokio::join!(run(&["bash", "-e", "-c"], poll, &server), async {
        until(SOON, "it polls", || async { (server.metric("image_streamer_vehicles").await == 2.0).then_some(()) })
            .await;
        assert_eq!(server.post("/control/car", "go").await.status, 200);
    });
    assert_eq!(polled, "go");
    run(&["bash", "-e", "-c"], &with_an_end(push).replace(":5001", &format!(":{stream_port}")), &server).await;
    until(SOON, "ffmpeg's pictures are there", || async {
        let stats = server.stats().await;
        (stats == [("vicer".to_owned(), 20)]).then_some(())
    })
    .await;
}
