//! The README's recipes are copied and work.

use std::{path::Path, process::Stdio, time::Duration};

use crate::harness::{Backend, SOON, Server, browser::Browser, picture::PHOTO_JPEG, process::program, until};

const README: &str = include_str!("../../README.md");
/// Where the README's server is.
const ITS_SERVER: &str = "http://localhost:3000";

/// The blocks of one language under "Recipes".
fn recipes(language: &str) -> Vec<&'static str> {
    let recipes = README.split("\n## Recipes\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("recipes");
    let opening = format!("```{language}\n");
    recipes.split(&*opening).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Runs a recipe in a folder of its own in which the repository's `tests` can be seen.
async fn run(interpreter: &[&str], recipe: &str, server: &Server) -> String {
    let directory = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    std::os::unix::fs::symlink(tests, directory.path().join("tests")).unwrap();
    let recipe = recipe.replace(ITS_SERVER, &server.url(""));
    let mut command = tokio::process::Command::from(program(interpreter[0], interpreter[0]));
    command.args(&interpreter[1..]).arg(&recipe).current_dir(directory.path());
    command.env("no_proxy", "*").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{recipe}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_shell_recipes_push_and_take() {
    drop((program("curl", "curl"), program("ffmpeg", "ffmpeg")));
    let server = Backend::Memory.server(&[]).await;
    let [files, form, ffmpeg] = recipes("sh").try_into().expect("three recipes");
    run(&["bash", "-e", "-c"], files, &server).await;
    assert_eq!(server.stats().await, [("cat".into(), 0)], "one pushed, one taken");
    run(&["bash", "-e", "-c"], form, &server).await;
    assert_eq!(server.take("cat").await.as_deref(), Some(PHOTO_JPEG));
    // The test source has no end; here it gets one.
    assert!(ffmpeg.contains("rate=2 "));
    run(&["bash", "-e", "-c"], &ffmpeg.replace("rate=2 ", "rate=2:duration=2 "), &server).await;
    let picture = image::load_from_memory(&server.take("test").await.unwrap()).unwrap();
    assert_eq!((picture.width(), picture.height()), (640, 480));
    assert_eq!(server.stats().await, [("cat".into(), 0), ("test".into(), 3)]);
}

#[tokio::test]
async fn the_page_shows_ffmpegs_moving_test_source() {
    let browser = Browser::start().await;
    let server = Backend::Memory.server(&[]).await;
    let ([page], [_, _, ffmpeg]) = (recipes("html").try_into().unwrap(), recipes("sh").try_into().unwrap());
    // What each picture is, told by its pixels; a page of another site may read them only where it says so beforehand.
    let notes = "<script>window.seen = [];
        document.addEventListener('load', e => {
            if (e.target.naturalWidth !== 640) return;
            let c = document.createElement('canvas');
            c.width = 640; c.height = 480;
            c.getContext('2d').drawImage(e.target, 0, 0);
            seen.push(c.toDataURL());
        }, true)</script>";
    let page = page.replace("<img id", "<img crossorigin id").replace(ITS_SERVER, &server.url(""));
    let site = browser.page_of_another_site(notes.to_owned() + &page.replace("/image/cat", "/image/test")).await;
    browser.client.goto(&site).await.unwrap();
    run(&["bash", "-e", "-c"], &ffmpeg.replace("rate=2 ", "rate=2:duration=2 "), &server).await;
    let different = || async { (browser.run("return new Set(seen).size").await == serde_json::json!(4)).then_some(()) };
    until(SOON, "four pictures, each another one", different).await;
    browser.screenshot("img-ffmpeg").await;
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn the_python_recipe_prints_number_and_size() {
    let server = Backend::Memory.server(&[]).await;
    let [recipe] = recipes("python").try_into().expect("one recipe");
    let printed = run(&["python3", "-c"], recipe, &server).await;
    assert!(printed.trim().ends_with(&format!(" {} bytes", PHOTO_JPEG.len())), "{printed}");
}

#[tokio::test]
async fn the_page_shows_each_picture_as_it_comes() {
    let browser = Browser::start().await;
    let server = Backend::Memory.server(&[]).await;
    let [page] = recipes("html").try_into().expect("one recipe");
    // Each picture is noted as it is loaded, before the recipe asks for the next one.
    let notes = "<script>window.seen = [];
        document.addEventListener('load', e => e.target.naturalWidth && seen.push(e.target.naturalWidth), true)</script>";
    let page = notes.to_owned() + &page.replace(ITS_SERVER, &server.url(""));
    let site = browser.page_of_another_site(page).await;
    browser.client.goto(&site).await.unwrap();
    let mut expected = vec![1280];
    for _ in 0..3 {
        let seen = || async { (browser.run("return seen").await == serde_json::json!(expected)).then_some(()) };
        until(SOON, format!("pictures of these widths: {expected:?}"), seen).await;
        server.push("cat", PHOTO_JPEG).await;
        expected.push(451);
    }
    browser.client.close().await.unwrap();
}
