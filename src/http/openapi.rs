//! `GET /openapi.json`: the description of every route, made from the handlers themselves.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use utoipa::OpenApi;

use crate::{acme, api, egress, ingest};

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
        egress::mjpeg::peek,
        egress::snapshot::show,
        egress::cursor::next,
        egress::websocket::view,
        ingest::body::push,
        ingest::body::put,
        ingest::form::push,
        ingest::stream::push,
        ingest::websocket::push,
        serve,
        acme::challenge,
    ),
    tags(
        (name = "queue", description = "Push a picture, take the next one"),
        (name = "live", description = "Watch, read in order without taking, push many pictures at once"),
        (name = "sessions", description = "Begin, count and drop sessions"),
        (name = "health", description = "For probes"),
        (name = "meta", description = "About this interface"),
    ),
)]
pub struct Description;

static JSON: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "meta", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
pub async fn serve() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(JSON.as_str())
}
