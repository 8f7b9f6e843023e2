//! `/login` and `/logout`, and those who guess.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::harness::{
    Answer, Backend, SOON, Server, UsersFile,
    picture::{PHOTO_JPEG, numbered},
    scale, until,
    users::PASSWORD,
};

/// Logs in as the page does.
async fn log_in(server: &Server, fields: &[(&str, &str)]) -> Answer {
    Answer::to(form(server, "/login", fields)).await
}

fn form(server: &Server, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let encoded: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            format!("{name}={escaped}")
        })
        .collect();
    let request = server.request("POST", path).header("content-type", "application/x-www-form-urlencoded");
    request.body(encoded.join("&"))
}

/// `name=value` of the cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

async fn with_cookie(server: &Server, method: &str, path: &str, cookie: &str) -> Answer {
    Answer::to(server.request(method, path).header("cookie", cookie)).await
}

async fn users() -> UsersFile {
    UsersFile::with(&[("ann@example.org", &["--view", "*", "--publish", "cam"]), ("bob", &["--admin"])]).await
}

#[tokio::test]
async fn a_login_opens_what_its_user_may_do_until_it_is_ended_on_every_server() {
    for backend in Backend::all().await {
        let file = users().await;
        let first = file.server(&backend, &[]).await;
        let second = match &backend {
            Backend::Memory => None,
            Backend::Redis(_) => Some(file.server(&backend, &[]).await),
        };
        let servers: Vec<_> = [&first].into_iter().chain(&second).collect();
        for field in ["name", "email", "username"] {
            let answer = log_in(&first, &[(field, "ann@example.org"), ("password", PASSWORD)]).await;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/"), "{answer:?}");
        }
        let answer = log_in(&first, &[("name", "ann@example.org"), ("password", PASSWORD)]).await;
        let attributes = answer.header("set-cookie").to_owned();
        assert!(
            attributes.contains("HttpOnly") && attributes.contains("SameSite=Lax") && attributes.contains("Path=/")
        );
        assert!(!attributes.contains("Secure") && !attributes.contains("Max-Age"), "{attributes}");
        let login = cookie(&answer);
        for server in &servers {
            assert_eq!(with_cookie(server, "GET", "/stats", &login).await.status, 200);
            assert_eq!(with_cookie(server, "POST", "/image/cam", &login).await.status, 400, "an empty body, let in");
            with_cookie(server, "POST", "/image/other", &login).await.is_refused(403, "forbidden");
            assert!(with_cookie(server, "GET", "/login", &login).await.text().contains("ann@example.org"));
        }
        // Another login of the same user is not touched by this one's end.
        let other = cookie(&log_in(&first, &[("name", "ann@example.org"), ("password", PASSWORD)]).await);
        let answer = with_cookie(servers[servers.len() - 1], "POST", "/logout", &login).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/login"));
        assert!(answer.header("set-cookie").contains("Max-Age=0"), "{answer:?}");
        for server in &servers {
            assert_eq!(with_cookie(server, "GET", "/stats", &login).await.status, 401);
            assert_eq!(with_cookie(server, "GET", "/stats", &other).await.status, 200);
        }
        // Another password ends them all.
        file.must(&["passwd", "ann@example.org"], "another long password").await;
        for server in servers {
            until(SOON, "the login ends", || async {
                (with_cookie(server, "GET", "/stats", &other).await.status == 401).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_login_to_be_remembered_says_for_how_long_and_is_sent_over_https_only_where_it_came_so() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("TRUSTED_PROXIES", "127.0.0.1"), ("BASE_PATH", "/cams")]).await;
    let fields = [("name", "bob"), ("password", PASSWORD), ("remember", "1")];
    let request =
        form(&server, "/cams/login?next=%2Fcams%2Fstats%3Fx%3D1", &fields).header("x-forwarded-proto", "https");
    let answer = Answer::to(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/cams/stats?x=1"));
    let attributes = answer.header("set-cookie");
    assert!(attributes.contains("Max-Age=2592000") && attributes.contains("Secure"), "{attributes}");
    assert!(attributes.contains("Path=/cams"), "{attributes}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=15552000");
    for elsewhere in ["https%3A%2F%2Fevil.example", "%2F%2Fevil.example", "%2F%5Cevil.example"] {
        let answer = Answer::to(form(&server, &format!("/cams/login?next={elsewhere}"), &fields)).await;
        assert_eq!(answer.header("location"), "/cams/");
        assert!(!answer.has("strict-transport-security"));
    }
}

#[tokio::test]
async fn a_person_is_sent_to_the_login_page_and_back_and_a_program_is_told() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("BASE_PATH", "/cams")]).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let page = client.get(server.url("/cams/stream/cam?fps=5&x=1")).header("accept", "text/html,*/*");
    let answer = Answer::to(page).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), "/cams/login?next=/cams/stream/cam?fps=5%26x=1");
    // Who has a link that is worth nothing is told so, and may log in all the same.
    let page = client.get(server.url("/cams/stream/cam?fps=5&token=secret&x=1")).header("accept", "text/html,*/*");
    let answer = Answer::to(page).await;
    assert_eq!((answer.status.as_u16(), answer.has("www-authenticate")), (401, false));
    assert!(answer.text().contains("ask for a new link"), "{}", answer.text());
    assert!(answer.text().contains("href=\"/cams/login?next=/cams/stream/cam?fps=5%26x=1\""), "{}", answer.text());
    let program = Answer::to(client.get(server.url("/cams/stream/cam"))).await;
    program.is_refused(401, "login_needed");
    let page = client.get(server.url("/cams/login")).send().await.unwrap();
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("referrer-policy"), "strict-origin", "an address may hold a token");
    assert!(header("content-security-policy").contains("default-src 'none'"));
    assert!(server.get("/login").await.status == 404 && server.get("/cams/assets/style.css").await.status == 200);
    // Wrong: a page says so, and a program is told.
    let wrong = [("name", "bob"), ("password", "wrong")];
    let answer = Answer::to(form(&server, "/cams/login", &wrong).header("accept", "text/html")).await;
    assert!(answer.status == 401 && answer.text().contains("role=\"alert\"") && !answer.has("www-authenticate"));
    Answer::to(form(&server, "/cams/login", &wrong)).await.is_refused(401, "bad_credentials");
    Answer::to(form(&server, "/cams/login", &[("name", "bob")])).await.is_refused(400, "bad_form");
    // A browser has a dialog of its own for `Basic`: a page's script is not to wake it.
    for (name, value, path) in
        [("x-requested-with", "XMLHttpRequest", "/cams/stats"), ("upgrade", "websocket", "/cams/ws/view?sessions=cam")]
    {
        let script = server.request("GET", path).header(name, value).header("origin", server.url(""));
        let answer = Answer::to(script).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("www-authenticate")),
            (401, "Bearer realm=\"Image Streamer\"")
        );
    }
}

#[tokio::test]
async fn guessing_is_slowed_by_account_and_by_address_and_locks_nobody_out() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let from = async |address: &str, name: &str, password: &str| {
        let fields = [("name", name), ("password", password)];
        Answer::to(form(&server, "/login", &fields).header("x-forwarded-for", address)).await
    };
    // Bob is at home, somebody guesses from elsewhere, a new place each time.
    assert_eq!(from("192.0.2.1", "bob", PASSWORD).await.status, 303);
    let mut refused = 0;
    for number in 0..20 {
        let answer = from(&format!("198.51.100.{number}"), "bob", &format!("guess {number}")).await;
        if answer.status == 429 {
            let pause: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=61).contains(&pause));
            assert_eq!(answer.error_code(), "too_many_logins");
            refused += 1;
        }
    }
    assert!(refused >= 12, "{refused} of 20 were refused");
    from("198.51.100.99", "bob", PASSWORD).await.is_refused(429, "too_many_logins");
    assert_eq!(from("192.0.2.1", "bob", PASSWORD).await.status, 303, "at home, bob stays in");
    // Basic is a login too, and the same for who is no user.
    let mut statuses = Vec::new();
    for number in 0..12 {
        let request = server.request("GET", "/stats").basic_auth("nobody", Some(format!("guess {number}")));
        statuses
            .push(Answer::to(request.header("x-forwarded-for", format!("203.0.113.{number}"))).await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
    // One address, many names.
    let mut statuses = Vec::new();
    for number in 0..40 {
        statuses.push(from("2001:db8::1", &format!("user{number}"), "guess").await.status.as_u16());
    }
    assert!(statuses[..20].iter().all(|status| *status == 401) && statuses[30..].contains(&429), "{statuses:?}");
    assert_eq!(from("2001:db8::2", "bob", "guess").await.status, 429, "the same network");
    // A camera with an old password sends it with every frame, which is one guess; others at its address stay in.
    for _ in 0..50 {
        let request = server.request("GET", "/stats").basic_auth("ann@example.org", Some("old password"));
        assert_eq!(Answer::to(request.header("x-forwarded-for", "192.0.2.77")).await.status, 401);
    }
    assert_eq!(from("192.0.2.77", "ann@example.org", PASSWORD).await.status, 303);
}

#[tokio::test]
async fn a_flood_of_logins_delays_no_frame() {
    let file = users().await;
    let server = file.server(&Backend::Memory, &[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let frames = 200 * scale();
    let slowest = async || {
        let mut times = Vec::with_capacity(frames);
        for number in 0..frames {
            let start = Instant::now();
            let push = server.request("POST", "/image/cam").basic_auth("ann@example.org", Some(PASSWORD));
            assert_eq!(Answer::to(push.body(numbered(number as u64, 10_000))).await.status, 200);
            times.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.sort_unstable();
        times[frames * 95 / 100]
    };
    let quiet = slowest().await;
    let flood = async {
        // Each from a new address and as a new user: nothing but the queue of hashes holds them.
        for round in 0.. {
            let logins = (0..16).map(|number| {
                let (name, address) =
                    (format!("u{round}-{number}"), format!("10.{}.{}.{number}", round / 250, round % 250));
                let request = form(&server, "/login", &[("name", &name), ("password", "guess")]);
                Answer::to(request.header("x-forwarded-for", address))
            });
            join_all(logins).await;
        }
    };
    let flooded = tokio::select! {
        time = slowest() => time,
        () = flood => unreachable!(),
    };
    println!("95 of 100 frames were pushed within {quiet:?}, and within {flooded:?} while logins flooded");
    assert!(flooded < quiet * 5 + Duration::from_millis(100), "{quiet:?} {flooded:?}");
    let push = server.request("POST", "/image/cam").basic_auth("ann@example.org", Some(PASSWORD)).body(PHOTO_JPEG);
    assert_eq!(Answer::to(push).await.status, 200);
}

#[tokio::test]
async fn one_secret_key_serves_all_servers_and_another_none() {
    let file = users().await;
    let key = "0123456789abcdef0123456789abcdef";
    let [first, second] = [
        file.server(&Backend::Memory, &[("SECRET_KEY", key)]).await,
        file.server(&Backend::Memory, &[("SECRET_KEY", key)]).await,
    ];
    let third = file.server(&Backend::Memory, &[]).await;
    let login = cookie(&log_in(&first, &[("name", "bob"), ("password", PASSWORD)]).await);
    assert_eq!(with_cookie(&second, "GET", "/stats", &login).await.status, 200);
    assert_eq!(with_cookie(&third, "GET", "/stats", &login).await.status, 401);
    for changed in [login[..login.len() - 1].to_owned(), login.replace('.', "A."), format!("{login}A")] {
        assert_eq!(with_cookie(&first, "GET", "/stats", &changed).await.status, 401);
    }
}
