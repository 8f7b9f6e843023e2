//! The OpenAPI description tells the truth about the routes, and tells all of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Answer, Backend, Server, picture::PHOTO_JPEG};

const METHODS: [&str; 7] = ["get", "head", "post", "put", "delete", "patch", "options"];

#[tokio::test]
async fn every_described_operation_exists_and_every_route_is_described() {
    for backend in Backend::all().await {
        // A stream is asked to end by itself, and soon.
        let webroot = tempfile::tempdir().unwrap();
        let challenges = webroot.path().join(".well-known/acme-challenge");
        std::fs::create_dir_all(&challenges).unwrap();
        std::fs::write(challenges.join("a"), "a").unwrap();
        let variables = [("STALE_AFTER", "0.5"), ("ACME_WEBROOT", webroot.path().to_str().unwrap())];
        check_description_against_routes(&backend.server(&variables).await).await;
    }
}

async fn check_description_against_routes(server: &Server) {
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let description = answer.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."), "{}", description["openapi"]);
    let paths = description["paths"].as_object().unwrap();
    let expected: BTreeSet<_> = [
        "/session",
        "/session/{session}",
        "/image/{session}",
        "/imageForm/{session}",
        "/stream/{session}",
        "/snapshot/{session}",
        "/frames/{session}",
        "/ws/view",
        "/ws/push/{session}",
        "/control/{session}",
        "/ws/control/{session}",
        "/stats",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/view/{session}",
        "/drive/{session}",
        "/broadcast",
        "/webcam",
        "/video_feed",
        "/docs",
        "/login",
        "/logout",
        "/link",
        "/openapi.json",
        "/.well-known/acme-challenge/{token}",
    ]
    .into();
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);

    for (path, operations) in paths {
        let concrete = path.replace("{session}", "a").replace("{token}", "a");
        // What the server itself says that it answers to.
        let options = server.ask("OPTIONS", &concrete).await;
        let allowed: BTreeSet<_> = options.header("allow").split(", ").map(str::to_ascii_lowercase).collect();
        let described: BTreeSet<_> =
            METHODS.into_iter().filter(|method| !operations[method].is_null()).map(str::to_owned).collect();
        for method in METHODS {
            let asked = format!("{concrete}?offline=close&wait=0");
            let answer = Answer::to(server.request(&method.to_uppercase(), &asked)).await;
            let exists = !matches!(answer.status.as_u16(), 404 | 405) && method != "options";
            assert_eq!(exists, allowed.contains(method), "{method} {path}: {answer:?}");
            // HEAD comes with GET and is described only where it does something else.
            assert!(!exists || method == "head" || described.contains(method), "{method} {path} is not described");
            assert!(exists || !described.contains(method), "{method} {path} is described and does not exist");
        }
        for method in &described {
            let operation = &operations[method];
            for field in ["operationId", "summary", "responses"] {
                assert!(!operation[field].is_null(), "{method} {path} has no {field}");
            }
            let described = |status: &str| !operation["responses"][status].is_null();
            if path.contains("{session}") {
                assert!(described("400") || described("4XX"), "{method} {path} does not tell of refusals");
                assert!(described("503"), "{method} {path} does not tell of a store that is away");
            }
            let is_push = matches!(method.as_str(), "post" | "put") && path.contains("{session}");
            let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let stamp = parameters.iter().any(|parameter| parameter["name"] == "X-Timestamp");
            // In a stream every part has one of its own.
            let takes_one_picture = is_push && !matches!(path.as_str(), "/stream/{session}" | "/control/{session}");
            assert_eq!(stamp, takes_one_picture, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_description_leads_somewhere() {
    let server = Backend::Memory.server(&[]).await;
    let description = server.get("/openapi.json").await.json();
    let mut references = Vec::new();
    collect_references(&description, &mut references);
    assert!(references.len() > 5);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.push(reference.to_owned());
            }
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn answers_have_the_described_fields() {
    let server = Backend::Memory.server(&[]).await;
    let description = server.get("/openapi.json").await.json();
    let fields = |schema: &str| -> BTreeSet<String> {
        let properties = &description["components"]["schemas"][schema]["properties"];
        properties.as_object().unwrap_or_else(|| panic!("no schema {schema}")).keys().cloned().collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let pushed = server.request("POST", "/image/a").header("accept", "application/json").body(PHOTO_JPEG);
    assert_eq!(keys(&Answer::to(pushed).await.json()), fields("PushAnswer"));
    let stats = server.get("/stats").await.json();
    assert_eq!(keys(&stats), fields("Stats"));
    assert_eq!(keys(&stats["sessions"][0]), fields("SessionStats"));
    let error = server.get("/nothing").await.json();
    assert_eq!(keys(&error), fields("ErrorBody"));
    assert_eq!(keys(&error["error"]), fields("ErrorDetail"));
}
