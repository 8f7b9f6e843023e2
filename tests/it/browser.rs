//! A real browser: Debian's Chromium, driven through its chromedriver.

use std::{path::Path, time::Duration};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::{
    Backend, SOON, Server,
    picture::{PHOTO_JPEG, PHOTO_PNG},
    process::{Process, program},
    redis::free_port,
    until,
};

/// A browser without a window, and the driver that ends it.
struct Browser {
    client: Client,
    _driver: Process,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Self {
        drop(program("chromium", "chromium"));
        let port = free_port();
        let mut driver = program("chromedriver", "chromium-driver");
        driver.arg(format!("--port={port}"));
        let driver = Process::start(driver);
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--window-size=1000,700",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let url = format!("http://127.0.0.1:{port}");
        let client = until(SOON * 3, "chromedriver starts a browser", || async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.clone()).connect(&url).await.ok()
        });
        Self { client: client.await, _driver: driver, _profile: profile }
    }

    async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Keeps what is seen as test output, for people.
    async fn screenshot(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), self.client.screenshot().await.unwrap()).unwrap();
    }
}

/// Serves a page with an empty `<img>`, once, from an origin of its own, and returns its address.
async fn page_of_another_site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = socket.read(&mut request).await;
        let page = "<!doctype html><title>elsewhere</title><link rel=icon href=data:,><img crossorigin>";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n", page.len());
        let _ = socket.write_all(format!("{head}Connection: close\r\n\r\n{page}").as_bytes()).await;
    });
    format!("http://{address}/")
}

/// Shows the server's picture in an `<img>` of a page of another site, and returns its size and the colour in its middle.
async fn shown(browser: &Browser, server: &Server, session: &str) -> Value {
    let url = server.url(&format!("/image/{session}"));
    browser.client.goto(&page_of_another_site().await).await.unwrap();
    browser.run(&format!("document.querySelector('img').src = '{url}'")).await;
    until(SOON, format!("the browser shows {url}"), || async {
        let state = browser.run("let i = document.querySelector('img'); return i.complete && i.naturalWidth > 0").await;
        (state == json!(true)).then_some(())
    })
    .await;
    browser
        .run(
            "let i = document.querySelector('img'), c = document.createElement('canvas');
             c.width = i.naturalWidth; c.height = i.naturalHeight;
             let g = c.getContext('2d'); g.drawImage(i, 0, 0);
             let p = g.getImageData(c.width / 2, c.height / 2, 1, 1).data;
             return [c.width, c.height, p[0], p[1], p[2]];",
        )
        .await
}

#[tokio::test]
async fn an_img_tag_shows_the_photos_that_were_pushed_and_then_no_data() {
    let browser = Browser::start().await;
    for backend in Backend::all().await {
        let server = backend.server(&[("MIMETYPE", "auto")]).await;
        server.push("cat", PHOTO_JPEG).await;
        server.push("cat", PHOTO_PNG).await;
        let photo = image::load_from_memory(PHOTO_PNG).unwrap().to_rgb8();
        let middle = photo.get_pixel(451 / 2, 300 / 2).0.map(i64::from);
        for _ in 0..2 {
            let seen = shown(&browser, &server, "cat").await;
            assert_eq!((&seen[0], &seen[1]), (&json!(451), &json!(300)));
            for channel in 0..3 {
                let difference = (seen[channel + 2].as_i64().unwrap() - middle[channel]).abs();
                assert!(difference < 16, "{seen} is not the colour of the photo, {middle:?}");
            }
        }
        browser.screenshot("img-photo").await;
        let nothing = shown(&browser, &server, "cat").await;
        assert_eq!((&nothing[0], &nothing[1]), (&json!(1280), &json!(720)));
        browser.screenshot("img-no-data").await;
    }
    browser.client.close().await.unwrap();
}

#[tokio::test]
async fn opening_a_session_as_a_page_shows_the_next_picture_and_takes_just_one() {
    let browser = Browser::start().await;
    let server = Backend::Memory.server(&[]).await;
    for _ in 0..3 {
        server.push("cat", PHOTO_JPEG).await;
    }
    for left in [2, 1, 0] {
        browser.client.goto(&server.url("/image/cat")).await.unwrap();
        let width = browser.run("return document.querySelector('img').naturalWidth").await;
        assert_eq!(width, json!(451));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.stats().await, [("cat".into(), left)]);
    }
    browser.screenshot("page-photo").await;
    browser.client.close().await.unwrap();
}
