//! What pages of other sites may not do in their visitors' names.

use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

use crate::harness::{Answer, Backend, Server, UsersFile, picture::PHOTO_JPEG, users::PASSWORD};

const LISTED: &str = "https://listed.example";
const BASIC: (&str, &str) = ("authorization", "Basic cm9vdDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=");

async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(server.request(method, path), |request, (name, value)| request.header(*name, *value));
    Answer::to(if method == "POST" { request.body(PHOTO_JPEG) } else { request }).await
}

async fn opens(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> bool {
    let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("403"), "{error}");
            false
        }
    }
}

#[tokio::test]
async fn with_a_cookie_or_basic_only_own_and_listed_pages_write_take_or_open_sockets() {
    let file = UsersFile::with(&[("root", &["--admin"])]).await;
    let path = file.path();
    let users = ("USERS_FILE", path.to_str().unwrap());
    for variables in [vec![], vec![("CORS_ORIGINS", LISTED)], vec![users], vec![users, ("CORS_ORIGINS", LISTED)]] {
        let (with_users, lists) = (variables.contains(&users), variables.contains(&("CORS_ORIGINS", LISTED)));
        let server = Backend::Memory.server(&variables).await;
        let own = format!("http://{}", server.address());
        let credentials: &[(&'static str, &str)] =
            if with_users { &[BASIC] } else { &[BASIC, ("cookie", "any=thing")] };
        for credential in credentials {
            for (origin, allowed) in [
                (own.as_str(), true),
                (LISTED, lists),
                ("https://evil.example", false),
                ("null", false),
                ("", false),
                (&own.replace("http://", "http://sub."), false),
                (&format!("{own}0"), false),
            ] {
                let headers = [*credential, ("origin", origin)];
                for (method, path) in [
                    ("POST", "/image/a"),
                    ("PUT", "/image/a"),
                    ("GET", "/image/a"),
                    ("DELETE", "/session/a"),
                    ("POST", "/stream/a"),
                    ("POST", "/link"),
                ] {
                    let answer = ask(&server, method, path, &headers).await;
                    let refused = answer.status == 403 && answer.error_code() == "cross_site";
                    assert_eq!(!refused, allowed, "{headers:?} {method} {path}: {answer:?}");
                }
                for path in ["/ws/view?sessions=a", "/ws/push/a"] {
                    assert_eq!(opens(&server, path, &headers).await, allowed, "{headers:?} {path}");
                }
                // What only reads is for the browser to hide.
                assert_eq!(ask(&server, "GET", "/snapshot/a", &headers).await.status, 200);
            }
            // A picture of another page's comes without an origin, and would take a frame.
            let headers = [*credential, ("sec-fetch-site", "cross-site")];
            ask(&server, "GET", "/image/a", &headers).await.is_refused(403, "cross_site");
            let sibling = [*credential, ("sec-fetch-site", "same-site")];
            ask(&server, "GET", "/image/a", &sibling).await.is_refused(403, "cross_site");
            assert_eq!(
                ask(&server, "GET", "/image/a", &[*credential, ("sec-fetch-site", "same-origin")]).await.status,
                200
            );
            assert_eq!(ask(&server, "GET", "/snapshot/a", &headers).await.status, 200);
        }
    }
}

#[tokio::test]
async fn what_brings_no_credentials_of_a_browsers_is_not_stopped() {
    let server = Backend::Memory.server(&[]).await;
    let evil = ("origin", "https://evil.example");
    assert_eq!(ask(&server, "POST", "/image/a", &[evil]).await.status, 200);
    assert!(opens(&server, "/ws/view?sessions=a", &[evil]).await);
    let file = UsersFile::with(&[("root", &["--admin"])]).await;
    let key = file.must(&["key", "root"], "").await;
    let server = file.server(&Backend::Memory, &[]).await;
    let bearer = format!("Bearer {}", key.trim());
    assert_eq!(ask(&server, "POST", "/image/a", &[evil, ("authorization", &bearer)]).await.status, 200);
}

#[tokio::test]
async fn logging_in_and_out_is_for_own_pages_alone() {
    let file = UsersFile::with(&[("root", &["--admin"])]).await;
    let server = file.server(&Backend::Memory, &[("CORS_ORIGINS", LISTED)]).await;
    for path in ["/login", "/logout"] {
        for origin in ["https://evil.example", "null"] {
            ask(&server, "POST", path, &[("origin", origin)]).await.is_refused(403, "cross_site");
        }
        ask(&server, "POST", path, &[("sec-fetch-site", "cross-site")]).await.is_refused(403, "cross_site");
    }
    let own = format!("http://{}", server.address());
    let fields = format!("name=root&password={}", PASSWORD.replace(' ', "+"));
    let request = server.request("POST", "/login").header("origin", own).body(fields);
    let answer = Answer::to(request.header("content-type", "application/x-www-form-urlencoded")).await;
    assert_eq!(answer.status, 303);
}

#[tokio::test]
async fn the_public_url_is_whose_pages_are_ours_where_it_is_told() {
    let server = Backend::Memory.server(&[("PUBLIC_URL", "https://Cams.example.org:443/")]).await;
    let by_host = format!("http://{}", server.address());
    for (origin, allowed) in
        [("https://cams.example.org", true), ("http://cams.example.org", false), (by_host.as_str(), false)]
    {
        let answer = ask(&server, "POST", "/image/a", &[BASIC, ("origin", origin)]).await;
        assert_eq!(answer.status == 200, allowed, "{origin}");
    }
}
