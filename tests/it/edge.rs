//! Sub-paths, trusted proxies, and what one client may do at once.

use serde_json::json;

use crate::harness::{
    Answer, Backend, UsersFile, Viewer, picture::PHOTO_JPEG, process::Process, server::command, users::PASSWORD,
};

#[tokio::test]
async fn everything_is_served_below_the_base_path_and_nothing_beside_it() {
    for backend in Backend::all().await {
        let server = backend.server(&[("BASE_PATH", "/cams/")]).await;
        assert_eq!(server.post("/cams/image/a", PHOTO_JPEG).await.status, 200);
        assert!(server.get("/cams/image/a").await.body == PHOTO_JPEG);
        Viewer::open(&server, "/cams/stream/a").await.part().await;
        for path in [
            "/cams/session",
            "/cams/stats",
            "/cams/healthz",
            "/cams/readyz",
            "/cams/openapi.json",
            "/cams/login",
            "/cams/",
        ] {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
        for path in ["/session", "/stats", "/healthz", "/image/a", "/camstats", "/CAMS/stats", "/cams/cams/stats"] {
            server.get(path).await.is_refused(404, "not_found");
        }
        assert_eq!(server.get("/cams").await.header("location"), "cams/", "links on the wall are relative to it");
        let port = server.address().port().to_string();
        let check = command(&["healthcheck"], &[("PORT", &port), ("BASE_PATH", "/cams")]);
        let (status, output) = Process::start(check).ended_within(std::time::Duration::from_secs(10)).await;
        assert!(status.success(), "{output}");
    }
}

#[tokio::test]
async fn what_a_proxy_says_counts_only_where_it_is_trusted() {
    let file = UsersFile::with(&[("root", &["--admin"])]).await;
    for (trusted, counts) in [("127.0.0.0/8", true), ("10.0.0.0/8,::1", false)] {
        let server = file.server(&Backend::Memory, &[("TRUSTED_PROXIES", trusted)]).await;
        let wanted = json!({ "session": "cam", "right": "view", "expires_in": 60 }).to_string();
        let request = server.request("POST", "/link").basic_auth("root", Some(PASSWORD)).body(wanted);
        let answer =
            Answer::to(request.header("x-forwarded-prefix", "/cams").header("x-forwarded-proto", "https")).await;
        assert_eq!(answer.has("strict-transport-security"), counts);
        assert_eq!(answer.json()["url"].as_str().unwrap().starts_with("/cams/snapshot/"), counts);
        let page = server.request("GET", "/stats").header("accept", "text/html").header("x-forwarded-prefix", "/cams");
        let location = Answer::to(page).await.header("location").to_owned();
        assert_eq!(location, if counts { "/cams/login?next=/cams/stats" } else { "/login?next=/stats" });
    }
    let server = file.server(&Backend::Memory, &[("TRUSTED_PROXIES", "127.0.0.1"), ("HSTS_MAX_AGE", "0")]).await;
    let answer = Answer::to(server.request("GET", "/login").header("x-forwarded-proto", "https")).await;
    assert!(!answer.has("strict-transport-security"));
}

#[tokio::test]
async fn a_proxy_that_is_not_named_is_warned_of_once() {
    let mut server = Backend::Memory.server(&[]).await;
    let ask = |number: usize| {
        let request = server.request("GET", "/session").header("x-forwarded-for", format!("192.0.2.{number}"));
        Answer::to(request)
    };
    for number in 0..5 {
        assert_eq!(ask(number).await.status, 200);
    }
    let line = server.process().line_with("TRUSTED_PROXIES").await;
    assert!(line.contains("WARN") && line.contains("127.0.0.1"), "{line}");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, log) = server.into_process().ended_within(std::time::Duration::from_secs(10)).await;
    assert_eq!(log.matches("TRUSTED_PROXIES").count(), 1, "{log}");
}

#[tokio::test]
async fn one_client_may_do_so_much_at_once_and_others_go_on() {
    for backend in Backend::all().await {
        let file = UsersFile::with(&[("ann", &["--admin"]), ("bob", &["--admin"])]).await;
        let variables = [("MAX_CLIENT_VIEWERS", "2"), ("MAX_CLIENT_SESSIONS", "3"), ("TRUSTED_PROXIES", "127.0.0.1")];
        let open = backend.server(&variables).await;
        let with_users = file.server(&backend, &variables).await;
        for (server, users) in [(&open, false), (&with_users, true)] {
            let name = |request: reqwest::RequestBuilder, number: usize| match users {
                true => request.basic_auth(["ann", "bob"][number], Some(PASSWORD)),
                false => request.header("x-forwarded-for", ["192.0.2.1", "192.0.2.2"][number]),
            };
            let push = |number: usize, session: &str| {
                let request = server.request("POST", &format!("/image/{session}-{users}")).body(PHOTO_JPEG);
                Answer::to(name(request, number))
            };
            for session in ["a", "b", "c", "a"] {
                assert_eq!(push(0, session).await.status, 200);
            }
            let refused = push(0, "d").await;
            refused.is_refused(429, "client_limit");
            assert!(refused.has("retry-after") && refused.text().contains("MAX_CLIENT_SESSIONS"));
            assert_eq!(push(1, "d").await.status, 200);
            let watch = |number: usize| name(server.request("GET", &format!("/stream/a-{users}")), number).send();
            let (one, two) = (watch(0).await.unwrap(), watch(0).await.unwrap());
            assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
            assert_eq!(watch(0).await.unwrap().status(), 429);
            assert_eq!(watch(1).await.unwrap().status(), 200);
            drop(one);
            crate::harness::until(crate::harness::SOON, "there is room again", || async {
                (watch(0).await.unwrap().status() == 200).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn pictures_beyond_the_rate_are_refused_each_for_itself() {
    for backend in Backend::all().await {
        let server = backend.server(&[("MAX_CLIENT_PUSH_RATE", "5")]).await;
        let body = PHOTO_JPEG.repeat(40);
        let answer = server.post("/stream/a", body).await.json();
        let (accepted, refused) = (answer["accepted"].as_u64().unwrap(), answer["refused"].as_u64().unwrap());
        assert!((5..=20).contains(&accepted) && accepted + refused == 40, "{answer}");
        let statuses = futures_util::future::join_all((0..20).map(|_| server.post("/image/a", PHOTO_JPEG))).await;
        let refused: Vec<_> = statuses.iter().filter(|answer| answer.status == 429).collect();
        assert!(refused.len() >= 10, "{}", refused.len());
        assert!(refused.iter().all(|answer| answer.has("retry-after") && answer.error_code() == "client_limit"));
    }
}
