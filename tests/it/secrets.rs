//! What never reaches the log, however much is logged.

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio_tungstenite::connect_async;

use crate::harness::{Answer, Backend, SOON, UsersFile, Viewer, picture::PHOTO_JPEG, users::PASSWORD};

#[tokio::test]
async fn no_password_key_token_or_cookie_is_logged_at_any_level() {
    for backend in Backend::all().await {
        for format in ["text", "json"] {
            let file = UsersFile::with(&[("ann", &["--admin"])]).await;
            let key = file.must(&["key", "ann"], "").await.trim().to_owned();
            let secret_key = "0123456789abcdef0123456789abcdef-secret";
            let variables = [
                ("RUST_LOG", "trace"),
                ("LOG_FORMAT", format),
                ("SECRET_KEY", secret_key),
                ("METRICS_TOKEN", "metrics-secret"),
            ];
            let server = file.server(&backend, &variables).await;
            let basic = |method: &str, path: &str| server.request(method, path).basic_auth("ann", Some(PASSWORD));
            let link = json!({ "session": "cam", "right": "view", "expires_in": 600 }).to_string();
            let link = Answer::to(basic("POST", "/link").body(link)).await.json();
            let token = link["token"].as_str().unwrap().to_owned();
            let fields = format!("name=ann&password={}", PASSWORD.replace(' ', "+"));
            let login = server.request("POST", "/login").header("content-type", "application/x-www-form-urlencoded");
            let login = Answer::to(login.body(fields)).await;
            let cookie = login.header("set-cookie").split(';').next().unwrap().to_owned();
            let (_, cookie_value) = cookie.split_once('=').unwrap();

            // Each is used well and badly, by every kind of request.
            for (method, path) in [
                ("POST", "/image/cam"),
                ("GET", "/snapshot/cam"),
                ("GET", "/nothing"),
                ("PATCH", "/stats"),
                ("GET", "/stats"),
                ("GET", "/image/a%2Fb"),
            ] {
                let with_token = format!("{path}?token={token}");
                for request in [
                    basic(method, path),
                    server.request(method, path).basic_auth("ann", Some("wrong-secret")),
                    server.request(method, path).bearer_auth(&key),
                    server.request(method, path).bearer_auth("metrics-secret"),
                    server.request(method, path).header("cookie", &cookie),
                    server.request(method, path).header("cookie", format!("{cookie}wrong")),
                    server.request(method, &with_token),
                    server.request(method, &format!("{with_token}wrong")).header("accept", "text/html"),
                ] {
                    Answer::to(request.body(PHOTO_JPEG)).await;
                }
            }
            let (mut socket, _) =
                connect_async(format!("ws://{}/ws/view?sessions=cam&token={token}", server.address())).await.unwrap();
            tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
            Viewer::open(&server, &format!("/stream/cam?token={token}")).await.part().await;
            Answer::to(server.request("POST", "/logout").header("cookie", &cookie)).await;
            // A head that is none.
            Viewer::request(
                &server,
                &format!("GET /stream/cam?token={token} HTTP/1.1\r\nCookie: {cookie}\r\nContent-Length: x\r\n\r\n"),
            )
            .await;

            server.signal(Signal::SIGTERM);
            let (_, log) = server.into_process().ended_within(SOON).await;
            assert!(log.to_lowercase().contains("trace") || log.to_lowercase().contains("debug"), "{log}");
            let basic = "YW5uOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ";
            let hash = file.read().split("$argon2id$").nth(1).unwrap().split('"').next().unwrap().to_owned();
            let token_tag = token.split('.').nth(1).unwrap();
            for secret in [
                PASSWORD,
                "correct+horse",
                "correct%20horse",
                "wrong-secret",
                basic,
                &key,
                &token,
                token_tag,
                cookie_value,
                secret_key,
                "metrics-secret",
                &hash,
            ] {
                let line = log.lines().find(|line| line.contains(secret));
                assert!(line.is_none(), "{secret} is logged: {line:?}");
            }
        }
    }
}
