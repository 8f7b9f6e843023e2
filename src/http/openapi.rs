//! `GET /openapi.json`: the description of every route, made from the handlers themselves.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ResponseBuilder,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{account, acme, api, control, egress, ingest, ui, wire::header::LOGIN_COOKIE};

/// The OpenAPI 3.1 description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Image Streamer",
        description = "Relays streams of still images: producers push pictures to a session, consumers take them in order, viewers watch them live.",
        license(name = "MIT", identifier = "MIT"),
    ),
    paths(
        api::new_session,
        api::remove_session,
        api::stats,
        api::healthz,
        api::readyz,
        api::metrics,
        egress::queue::take,
        egress::queue::peek,
        egress::mjpeg::watch,
        egress::mjpeg::watch_default,
        egress::mjpeg::peek,
        egress::snapshot::show,
        egress::cursor::next,
        egress::websocket::view,
        ingest::body::push,
        ingest::body::put,
        ingest::form::push,
        ingest::stream::push,
        ingest::websocket::push,
        control::websocket::control,
        control::post::send,
        control::events::listen,
        account::login_page,
        account::log_in,
        account::log_out,
        account::link,
        serve,
        acme::challenge,
        ui::wall,
        ui::view,
        ui::drive,
        ui::broadcast,
        ui::webcam,
        ui::docs,
    ),
    tags(
        (name = "queue", description = "Push a picture, take the next one"),
        (name = "live", description = "Watch, read in order without taking, push many pictures at once"),
        (name = "control", description = "Command vehicles, or be one"),
        (name = "sessions", description = "Begin, count and drop sessions"),
        (name = "access", description = "Log in and out, and let others see something"),
        (name = "health", description = "For probes"),
        (name = "pages", description = "For people"),
        (name = "meta", description = "About this interface"),
    ),
    modifiers(&Access),
)]
pub struct Description;

/// What each operation needs where there are users: a right on its session, or `user`, `admin`, or anybody who is `somebody`.
/// Those that are not here need nothing. `tests/it/access.rs` holds the routes to it.
const NEEDED: [(&str, &str); 26] = [
    ("wall", "somebody"),
    ("view", "view"),
    ("drive", "command"),
    ("broadcast", "somebody"),
    ("webcam", "view"),
    ("watchDefault", "view"),
    ("newSession", "user"),
    ("removeSession", "admin"),
    ("takeImage", "take"),
    ("peekImage", "take"),
    ("pushImage", "publish"),
    ("putImage", "publish"),
    ("pushImageForm", "publish"),
    ("watchStream", "view"),
    ("peekStream", "view"),
    ("pushStream", "publish"),
    ("snapshot", "view"),
    ("nextFrame", "view"),
    ("viewWebSocket", "somebody"),
    ("pushWebSocket", "publish"),
    ("controlWebSocket", "command"),
    ("sendCommand", "command"),
    ("listenToCommands", "publish"),
    ("stats", "somebody"),
    ("metrics", "admin"),
    ("newLink", "user"),
];

/// Tells of each operation what it needs, and how that is shown.
struct Access;

impl Modify for Access {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        let http = |scheme| SecurityScheme::Http(Http::new(scheme));
        components.add_security_scheme("basic", http(HttpAuthScheme::Basic));
        components.add_security_scheme("key", http(HttpAuthScheme::Bearer));
        components.add_security_scheme("login", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(LOGIN_COOKIE))));
        components.add_security_scheme("link", SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new("token"))));
        for item in description.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.head, &mut item.post, &mut item.put, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let id = operation.operation_id.as_deref();
                let Some((_, scope)) = NEEDED.iter().find(|(needing, _)| Some(*needing) == id) else { continue };
                let by_link = !matches!(*scope, "user" | "admin");
                let schemes = ["basic", "key", "login"].into_iter().chain(by_link.then_some("link"));
                operation.security =
                    Some(schemes.map(|scheme| SecurityRequirement::new(scheme, [scope.to_owned()])).collect());
                let refused = [
                    ("401", "where there are users: not logged in, or with wrong credentials"),
                    ("403", "the right is missing, or a page of another site asked"),
                    ("429", "more than one client may do, or too many failed logins: see Retry-After"),
                ];
                for (status, what) in refused {
                    let response = ResponseBuilder::new().description(what).build();
                    operation.responses.responses.entry(status.to_owned()).or_insert(response.into());
                }
            }
        }
    }
}

static JSON: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "meta", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
pub async fn serve() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(JSON.as_str())
}
