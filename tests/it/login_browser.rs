//! Logging in as a person does, in a real browser.

use fantoccini::Locator;

use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile, browser::Browser, picture::PHOTO_JPEG, until, users::PASSWORD,
};

async fn fill_in(browser: &Browser, password: &str, remember: bool) {
    let client = &browser.client;
    client.find(Locator::Id("name")).await.unwrap().send_keys("ann@example.org").await.unwrap();
    client.find(Locator::Id("password")).await.unwrap().send_keys(password).await.unwrap();
    if remember {
        client.find(Locator::Css("[name=remember]")).await.unwrap().click().await.unwrap();
    }
    client.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
}

async fn arrives(browser: &Browser, path: &str) {
    until(SOON, format!("the browser is at {path}"), || async {
        browser.client.current_url().await.unwrap().as_str().ends_with(path).then_some(())
    })
    .await;
}

/// What is to be read; nothing while one page gives way to another.
async fn text(browser: &Browser) -> String {
    match browser.client.find(Locator::Css("body")).await {
        Ok(body) => body.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Whether the page's picture is there. A page that is just being left does not say.
async fn is_shown(browser: &Browser) -> Option<()> {
    let script = "const it = document.querySelector('img'); return it && it.complete && it.naturalWidth > 0";
    (browser.client.execute(script, vec![]).await.ok()? == true).then_some(())
}

/// By another name than `localhost`, where the browser knows of no secure origin: it then tells less of itself.
fn url(server: &Server, host: &str, path: &str) -> String {
    format!("http://{host}:{}{path}", server.address().port())
}

#[tokio::test]
async fn a_person_logs_in_is_remembered_sees_what_a_link_shows_and_logs_out() {
    let file = UsersFile::with(&[("ann@example.org", &["--view", "*", "--publish", "*"])]).await;
    for host in ["127.0.0.1", "cams.test"] {
        let server = file.server(&Backend::Memory, &[]).await;
        let push = server.request("POST", "/image/cam").basic_auth("ann@example.org", Some(PASSWORD)).body(PHOTO_JPEG);
        assert_eq!(Answer::to(push).await.status, 200);
        let browser = Browser::start().await;
        let client = &browser.client;
        client.goto(&url(&server, host, "/snapshot/cam?x=1")).await.unwrap();
        arrives(&browser, "/login?next=/snapshot/cam?x=1").await;
        if host == "127.0.0.1" {
            browser.screenshot("login").await;
        }
        fill_in(&browser, "wrong", false).await;
        until(SOON, "it says so", || async { text(&browser).await.contains("password is wrong").then_some(()) }).await;
        browser.screenshot("login-wrong").await;
        fill_in(&browser, PASSWORD, true).await;
        arrives(&browser, "/snapshot/cam?x=1").await;
        until(SOON, "the picture is shown", || is_shown(&browser)).await;
        // The driver may still speak of the page before.
        let cookie = until(SOON, "it has the cookie", || async {
            client.get_all_cookies().await.ok()?.into_iter().find(|cookie| cookie.name() == "image_streamer_login")
        })
        .await;
        assert_eq!((cookie.http_only(), cookie.expires().is_some()), (Some(true), true));

        // A page of the same browser makes a link, and whoever has it needs no login.
        let make = "const done = arguments[arguments.length - 1];
            fetch('/link', { method: 'POST', body: JSON.stringify({ session: 'cam', right: 'view', expires_in: 60 }) })
                .then(answer => answer.json()).then(link => done(link.url), error => done(String(error)))";
        client.goto(&url(&server, host, "/login")).await.unwrap();
        until(SOON, "it says who is logged in", || async {
            text(&browser).await.contains("logged in as ann@example.org").then_some(())
        })
        .await;
        browser.screenshot("logged-in").await;
        assert_eq!(browser.run("return document.cookie").await, "", "scripts do not see it");
        let link = client.execute_async(make, vec![]).await.unwrap();
        let link = link.as_str().unwrap();
        assert!(link.starts_with("/snapshot/cam?token="), "{link}");
        let stranger = Browser::start().await;
        let picture = url(&server, host, link);
        let page = stranger.page_of_another_site(format!("<img src=\"{picture}\">")).await;
        stranger.client.goto(&page).await.unwrap();
        until(SOON, "the link shows the picture", || is_shown(&stranger)).await;

        client.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
        until(SOON, "the form is back", || async { client.find(Locator::Id("password")).await.ok() }).await;
        client.goto(&url(&server, host, "/snapshot/cam")).await.unwrap();
        arrives(&browser, "/login?next=/snapshot/cam").await;
    }
}
