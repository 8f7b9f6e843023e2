//! Which other sites' pages may read the answers, and what every answer carries.

use crate::harness::{Answer, Backend, Server, picture::PHOTO_JPEG};

#[tokio::test]
async fn pages_of_any_site_may_read_by_default_and_never_with_credentials() {
    for backend in Backend::all().await {
        check_any_origin(&backend.server(&[]).await).await;
    }
}

async fn check_any_origin(server: &Server) {
    server.push("a", PHOTO_JPEG).await;
    for (method, path) in
        [("GET", "/image/a"), ("GET", "/image/a"), ("GET", "/stats"), ("GET", "/nothing"), ("POST", "/image/a")]
    {
        let answer = Answer::to(server.request(method, path).header("origin", "https://example.org")).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{method} {path}");
        assert!(!answer.has("access-control-allow-credentials"));
        let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
        for name in ["x-frame-seq", "x-frame-timestamp", "x-queue-length", "x-no-data", "retry-after"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
    let preflight = server
        .request("OPTIONS", "/image/a")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type, x-timestamp");
    let answer = Answer::to(preflight).await;
    assert!(answer.status.is_success(), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("access-control-allow-headers").to_ascii_lowercase().contains("x-timestamp"));
}

#[tokio::test]
async fn only_the_listed_origins_may_read_where_some_are_listed() {
    for backend in Backend::all().await {
        let variables = [("CORS_ORIGINS", "https://cams.example, http://localhost:8000")];
        check_listed_origins(&backend.server(&variables).await).await;
    }
}

async fn check_listed_origins(server: &Server) {
    for origin in ["https://cams.example", "http://localhost:8000"] {
        let answer = Answer::to(server.request("GET", "/stats").header("origin", origin)).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, origin));
        assert!(answer.header("vary").to_ascii_lowercase().contains("origin"));
    }
    let preflight = |origin| {
        let request = server.request("OPTIONS", "/image/a").header("origin", origin);
        Answer::to(request.header("access-control-request-method", "POST"))
    };
    let answer = preflight("https://cams.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://cams.example");
    assert!(!answer.has("access-control-allow-credentials"));
    let refused = preflight("https://evil.example").await;
    refused.is_refused(400, "bad_preflight");
    assert!(!refused.has("access-control-allow-origin"));
    assert_eq!(refused.header("x-content-type-options"), "nosniff");
    for origin in ["https://evil.example", "http://cams.example", "null"] {
        let answer = Answer::to(server.request("GET", "/stats").header("origin", origin)).await;
        assert!(!answer.has("access-control-allow-origin"), "{answer:?}");
    }
    assert_eq!(server.get("/stats").await.status, 200);
}

#[tokio::test]
async fn every_answer_forbids_sniffing_and_pictures_are_sandboxed() {
    for backend in Backend::all().await {
        let server = backend.server(&[]).await;
        for (method, path) in [
            ("GET", "/session"),
            ("GET", "/image/a"),
            ("HEAD", "/image/a"),
            ("GET", "/image/a?empty=204"),
            ("POST", "/image/a"),
            ("POST", "/imageForm/a"),
            ("GET", "/stats"),
            ("DELETE", "/session/a"),
            ("GET", "/healthz"),
            ("GET", "/readyz"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
            ("PATCH", "/stats"),
            ("OPTIONS", "/stats"),
        ] {
            let answer = server.ask(method, path).await;
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
            if answer.headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().starts_with("image/")) {
                assert!(answer.header("content-security-policy").contains("sandbox"), "{method} {path}");
            }
        }
    }
}
