//! Pictures in a real browser's `<img>`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Backend, SOON, Server,
    browser::Browser,
    picture::{PHOTO_JPEG, PHOTO_PNG},
    until,
};

/// Shows the server's picture in an `<img>` of a page of another site, and returns its size and the colour in its middle.
async fn shown(browser: &Browser, server: &Server, session: &str) -> Value {
    let url = server.url(&format!("/image/{session}"));
    let page = browser.page_of_another_site("<img crossorigin>".into()).await;
    browser.client.goto(&page).await.unwrap();
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
}
