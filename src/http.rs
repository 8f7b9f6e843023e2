//! Every route on one page, and what is around them all.

pub mod error;
mod extract;
pub mod openapi;
mod origin;
mod refusal;

use actix_cors::Cors;
use actix_web::{
    HttpRequest, HttpResponse, Resource,
    http::{
        Method,
        header::{self, HeaderName},
    },
    middleware::from_fn,
    web::{self, ServiceConfig, delete, get, head, post, put},
};

pub use self::refusal::{DRAIN_TIME, bound_unread};
use crate::{
    acme, api, config, egress, ingest,
    wire::header::{FRAME_AGE_MS, FRAME_SEQ, FRAME_TIMESTAMP, FRAMES_MISSED, NO_DATA, QUEUE_LENGTH, VIEWERS},
};

/// Headers that pages of other sites may read, beside the few that they always may.
const EXPOSED: [HeaderName; 9] = [
    FRAME_SEQ,
    FRAME_TIMESTAMP,
    FRAME_AGE_MS,
    FRAMES_MISSED,
    QUEUE_LENGTH,
    NO_DATA,
    VIEWERS,
    header::ETAG,
    header::RETRY_AFTER,
];
/// How long a browser may remember the answer to a preflight, in seconds: what Chromium caps it to.
const PREFLIGHT_SECONDS: usize = 7200;

/// Every route. The words after a path are its methods: for wrong ones they are the answer's `Allow`.
pub fn routes(app: &mut ServiceConfig) {
    app.service(at("/session", "GET, HEAD").route(get().to(api::new_session)).route(head().to(api::new_session)))
        .service(at("/session/{session}", "DELETE").route(delete().to(api::remove_session)))
        .service(
            at("/image/{session}", "GET, HEAD, POST, PUT")
                .route(get().to(egress::queue::take))
                .route(head().to(egress::queue::peek))
                .route(post().to(ingest::body::push))
                .route(put().to(ingest::body::put)),
        )
        .service(at("/imageForm/{session}", "POST").route(post().to(ingest::form::push)))
        .service(
            at("/stream/{session}", "GET, HEAD, POST")
                .route(get().to(egress::mjpeg::watch))
                .route(head().to(egress::mjpeg::peek))
                .route(post().to(ingest::stream::push)),
        )
        .service(
            at("/snapshot/{session}", "GET, HEAD")
                .route(get().to(egress::snapshot::show))
                .route(head().to(egress::snapshot::show)),
        )
        .service(
            at("/frames/{session}", "GET, HEAD")
                .route(get().to(egress::cursor::next))
                .route(head().to(egress::cursor::next)),
        )
        .service(at("/ws/view", "GET").route(get().to(egress::websocket::view)).wrap(from_fn(origin::allowed_origin)))
        .service(
            at("/ws/push/{session}", "GET")
                .route(get().to(ingest::websocket::push))
                .wrap(from_fn(origin::allowed_origin)),
        )
        .service(at("/metrics", "GET, HEAD").route(get().to(api::metrics)).route(head().to(api::metrics)))
        .service(at("/stats", "GET, HEAD").route(get().to(api::stats)).route(head().to(api::stats)))
        .service(at("/healthz", "GET, HEAD").route(get().to(api::healthz)).route(head().to(api::healthz)))
        .service(at("/readyz", "GET, HEAD").route(get().to(api::readyz)).route(head().to(api::readyz)))
        .service(at("/openapi.json", "GET, HEAD").route(get().to(openapi::serve)).route(head().to(openapi::serve)))
        .service(at(acme::CHALLENGES, "GET, HEAD").route(get().to(acme::challenge)).route(head().to(acme::challenge)))
        .default_service(web::to(error::no_route));
}

/// A path, and the answer to methods that it has no route for.
fn at(path: &'static str, methods: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move |request: HttpRequest| async move {
        if request.method() == Method::OPTIONS {
            HttpResponse::NoContent().insert_header((header::ALLOW, methods)).finish()
        } else {
            error::wrong_method(methods)
        }
    }))
}

/// Which other sites' pages may read the answers: never with credentials.
pub fn cors(allowed: &config::Cors) -> Cors {
    let cors = Cors::default().allow_any_method().allow_any_header().expose_headers(EXPOSED).max_age(PREFLIGHT_SECONDS);
    match allowed {
        config::Cors::Any => cors.allow_any_origin().send_wildcard().disable_vary_header(),
        // A request from elsewhere is answered as if it were from nowhere: without the header the page reads nothing.
        config::Cors::Only(origins) => {
            origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)).block_on_origin_mismatch(false)
        }
    }
}
