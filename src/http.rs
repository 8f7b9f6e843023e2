//! Every route on one page, and what is around them all.

pub mod error;
mod extract;
mod guard;
mod lasting;
pub mod openapi;
mod refusal;
mod site;

use std::rc::Rc;

use actix_cors::Cors;
use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder,
    dev::{AppService, HttpServiceFactory},
    http::{
        Method,
        header::{self, HeaderName},
    },
    middleware::from_fn,
    web::{self, ServiceConfig},
};

use self::guard::Needs;
pub use self::{
    guard::refuse_before_body,
    refusal::{DRAIN_TIME, bound_unread},
};
use crate::{
    account, acme, api,
    auth::Right,
    config, control, egress, ingest, ui,
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

/// Every route, below `BASE_PATH`.
pub fn routes_below(base_path: &str, app: &mut ServiceConfig) {
    // A certificate authority asks for it at the root, whatever is served where.
    app.service(at(acme::CHALLENGES).public(acme::challenge));
    if base_path.is_empty() {
        return routes(app);
    }
    // Links on the wall are relative to it.
    let wall = format!("{}/", base_path.rsplit('/').next().unwrap_or_default());
    app.service(web::redirect(base_path.to_owned(), wall))
        .service(web::scope(base_path).configure(routes))
        .default_service(web::to(error::no_route));
}

/// Every route, and what each needs of whoever asks. Those below `public` need nothing.
fn routes(app: &mut ServiceConfig) {
    use Needs::{Admin, Either, Metrics, OwnPage, Somebody, User};
    const PUBLISH: Needs = Needs::Right(Right::Publish);
    const VIEW: Needs = Needs::Right(Right::View);
    const TAKE: Needs = Needs::Right(Right::Take);
    const COMMAND: Needs = Needs::Right(Right::Command);

    // They are tried in this order: those of frames come before those of people.
    app.service(at("/session").read(User, api::new_session))
        .service(at("/session/{session}").on(Method::DELETE, Admin, api::remove_session))
        .service(
            at("/image/{session}")
                .on(Method::GET, TAKE, egress::queue::take)
                .on(Method::HEAD, TAKE, egress::queue::peek)
                .on(Method::POST, PUBLISH, ingest::body::push)
                .on(Method::PUT, PUBLISH, ingest::body::put),
        )
        .service(at("/imageForm/{session}").on(Method::POST, PUBLISH, ingest::form::push))
        .service(
            at("/stream/{session}")
                .on(Method::GET, VIEW, egress::mjpeg::watch)
                .on(Method::HEAD, VIEW, egress::mjpeg::peek)
                .on(Method::POST, PUBLISH, ingest::stream::push),
        )
        .service(at("/video_feed").on(Method::GET, VIEW, egress::mjpeg::watch_default).on(
            Method::HEAD,
            VIEW,
            egress::mjpeg::peek,
        ))
        .service(at("/snapshot/{session}").read(VIEW, egress::snapshot::show))
        .service(at("/frames/{session}").read(VIEW, egress::cursor::next))
        .service(at("/ws/view").on(Method::GET, Somebody, egress::websocket::view))
        .service(at("/ws/push/{session}").on(Method::GET, PUBLISH, ingest::websocket::push))
        .service(
            at("/control/{session}")
                .on(Method::GET, Either(Right::Command, Right::Publish), control::events::listen)
                .on(Method::POST, COMMAND, control::post::send),
        )
        .service(at("/ws/control/{session}").on(
            Method::GET,
            Either(Right::Publish, Right::Command),
            control::websocket::control,
        ))
        .service(at("/stats").read(Somebody, api::stats))
        .service(at("/metrics").read(Metrics, api::metrics))
        .service(at("/link").on(Method::POST, User, account::link))
        .service(at("/logout").on(Method::POST, OwnPage, account::log_out))
        .service(at("/login").on(Method::POST, OwnPage, account::log_in).public(account::login_page))
        .service(at("/healthz").public(api::healthz))
        .service(at("/readyz").public(api::readyz))
        .service(at("/openapi.json").public(openapi::serve))
        .service(at("/").read(Somebody, ui::wall))
        .service(at("/view/{session}").read(VIEW, ui::view))
        .service(at("/drive/{session}").read(COMMAND, ui::drive))
        .service(at("/broadcast").read(Somebody, ui::broadcast))
        .service(at("/webcam").read(VIEW, ui::webcam))
        .service(at("/docs").public(ui::docs))
        .service(at("/docs/{file}").public(ui::docs_file))
        .service(at("/assets/{file}").public(ui::asset))
        .default_service(web::to(error::no_route));
}

/// A path and the methods that it answers to.
fn at(path: &'static str) -> Path {
    Path { resource: web::resource(path), methods: Vec::new() }
}

struct Path {
    resource: Resource,
    methods: Vec<Method>,
}

impl Path {
    /// A method, for who has what it needs.
    fn on<F, Args>(mut self, method: Method, needs: Needs, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = web::method(method.clone()).to(handler);
        let route = route.wrap(from_fn(move |request, next| guard::admit(needs, request, next)));
        self.methods.push(method);
        Self { resource: self.resource.route(route), methods: self.methods }
    }

    /// GET and HEAD, for who has what they need.
    fn read<F, Args>(self, needs: Needs, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, needs, handler.clone()).on(Method::HEAD, needs, handler)
    }

    /// GET and HEAD, for everybody.
    fn public<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let routes = [web::get().to(handler.clone()), web::head().to(handler)];
        self.methods.extend([Method::GET, Method::HEAD]);
        Self { resource: routes.into_iter().fold(self.resource, Resource::route), methods: self.methods }
    }
}

impl HttpServiceFactory for Path {
    fn register(mut self, config: &mut AppService) {
        self.methods.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        let methods: Rc<str> = self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ").into();
        // For methods that the path does not have.
        let otherwise = web::to(move |request: HttpRequest| {
            let methods = methods.clone();
            async move {
                if request.method() == Method::OPTIONS {
                    HttpResponse::NoContent().insert_header((header::ALLOW, &*methods)).finish()
                } else {
                    error::wrong_method(&methods)
                }
            }
        });
        self.resource.default_service(otherwise).register(config);
    }
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
