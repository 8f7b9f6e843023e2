//! What people see: pages, and what they are made of, embedded in the binary.
//!
//! Templates, scripts and styles are beside this file. Every link in them is relative, so that pages work below any path and
//! behind any proxy. Templates escape what is put into them.

use std::{collections::HashMap, io::Write, sync::LazyLock};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, AcceptEncoding, Encoding, EntityTag, Header, IfNoneMatch},
    },
    web,
};
use askama::Template;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use flate2::{Compression, write::GzEncoder};
use ring::digest;
use utoipa_swagger_ui::Config as DocsConfig;

use crate::{
    auth::{Auth, Right, Visitor},
    config::{Live, Proxy},
    error::Error,
    hub::Hub,
    session::SessionId,
    wire::error_body::ErrorBody,
};

/// What a page may load, and who may show it in a frame: this server alone. Frames come as `blob:`.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; \
                           connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; \
                           frame-ancestors 'self'";
/// The same for the page that is a library's: it styles its parts as it makes them.
const DOCS_POLICY: &str = "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' blob: data:; \
                           connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'";
const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// What pages are made of: name, type, content.
const ASSETS: [(&str, &str, &str); 10] = [
    ("broadcast.js", SCRIPT, include_str!("ui/broadcast.js")),
    ("docs.js", SCRIPT, include_str!("ui/docs.js")),
    ("drive.js", SCRIPT, include_str!("ui/drive.js")),
    ("icon.svg", "image/svg+xml", include_str!("ui/icon.svg")),
    ("live.js", SCRIPT, include_str!("ui/live.js")),
    ("page.js", SCRIPT, include_str!("ui/page.js")),
    ("style.css", STYLE, include_str!("ui/style.css")),
    ("ticker.js", SCRIPT, include_str!("ui/ticker.js")),
    ("view.js", SCRIPT, include_str!("ui/view.js")),
    ("wall.js", SCRIPT, include_str!("ui/wall.js")),
];
/// What the library's page is made of, of all that the library has.
const DOCS_FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// What every page knows of whom it is for.
struct Site {
    /// From the page's address to that of the wall: `./`, `../`.
    root: String,
    /// The user who is logged in.
    user: Option<String>,
    /// Whether this is somebody who came through a link, and may see no more than what that is for.
    is_guest: bool,
    stale_after_ms: u128,
}

impl Site {
    fn of(request: &HttpRequest) -> Self {
        let visitor = request.extensions().get::<Visitor>().cloned();
        let user = visitor.as_ref().and_then(Visitor::name).map(str::to_owned);
        let live = request.app_data::<web::Data<Live>>();
        let base_path = request.app_data::<web::Data<Proxy>>().map_or("", |proxy| &proxy.base_path);
        Self {
            root: way_to_root(request.path(), base_path),
            is_guest: visitor.is_some() && user.is_none() && has_users(request),
            user,
            stale_after_ms: live.map_or(0, |live| live.stale_after.as_millis()),
        }
    }
}

fn has_users(request: &HttpRequest) -> bool {
    request.app_data::<web::Data<Auth>>().is_some_and(|auth| auth.has_users())
}

/// The relative address of the wall, as seen from this path. Within `BASE_PATH` that is known even to who knows nothing of the
/// proxies before us, and what they cut off.
fn way_to_root(path: &str, base_path: &str) -> String {
    let (rest, base) = match path.strip_prefix(base_path) {
        Some(rest) if rest.starts_with('/') => (rest, ""),
        _ => (path, base_path.trim_start_matches('/')),
    };
    let up = "../".repeat(rest.matches('/').count().saturating_sub(1));
    let slash = if base.is_empty() { "" } else { "/" };
    if up.is_empty() { format!("./{base}{slash}") } else { format!("{up}{base}{slash}") }
}

#[derive(Template)]
#[template(path = "wall.html")]
struct WallPage {
    site: Site,
}

#[derive(Template)]
#[template(path = "view.html")]
struct ViewPage {
    site: Site,
    session: SessionId,
    /// Rights on it that the visitor may give away, and words for them.
    rights: Vec<(&'static str, &'static str)>,
    may_drive: bool,
}

#[derive(Template)]
#[template(path = "drive.html")]
struct DrivePage {
    site: Site,
    session: SessionId,
}

#[derive(Template)]
#[template(path = "broadcast.html")]
struct BroadcastPage {
    site: Site,
    /// The type of pictures that are taken here.
    content_type: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    site: Site,
    has_users: bool,
    message: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    site: Site,
    status: u16,
    heading: &'a str,
    message: &'a str,
    /// Where to log in, perhaps as another user, where that may help.
    login: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage {
    site: Site,
}

fn page(status: StatusCode, page: &impl Template) -> HttpResponse {
    page_with(PAGE_POLICY, status, page)
}

fn page_with(policy: &str, status: StatusCode, page: &impl Template) -> HttpResponse {
    // Templates are checked when they are compiled, and writing to memory does not fail.
    let html = page.render().unwrap_or_default();
    HttpResponse::build(status)
        .content_type(HTML)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        // An address may hold a link's token, which stays here. Forms must yet be able to say that they are ours.
        .insert_header((header::REFERRER_POLICY, "strict-origin"))
        .body(html)
}

/// The wall: every session that the visitor may view.
#[utoipa::path(
    get, path = "/", tag = "pages", operation_id = "wall",
    responses((status = 200, description = "a page", content_type = "text/html", body = String)),
)]
pub async fn wall(request: HttpRequest) -> HttpResponse {
    page(StatusCode::OK, &WallPage { site: Site::of(&request) })
}

/// One session, large, and the ways to read it.
#[utoipa::path(
    get, path = "/view/{session}", tag = "pages", operation_id = "view",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 200, description = "a page", content_type = "text/html", body = String),
        (status = 400, description = "not a session id", body = ErrorBody),
        (status = 503, description = "the login cannot be checked now", body = ErrorBody),
    ),
)]
pub async fn view(session: SessionId, visitor: Visitor, request: HttpRequest) -> HttpResponse {
    let words = |right| match right {
        Right::Publish => "pushing pictures",
        Right::View => "watching",
        Right::Take => "taking pictures off the queue",
        Right::Command => "driving, and watching",
    };
    let rights = Right::ALL.into_iter().filter(|right| visitor.may_give(*right, &session));
    let rights = rights.map(|right| (right.name(), words(right))).collect();
    let may_drive = visitor.may(Right::Command, &session).is_ok();
    page(StatusCode::OK, &ViewPage { site: Site::of(&request), session, rights, may_drive })
}

/// A vehicle: what its camera sees, and what drives it.
#[utoipa::path(
    get, path = "/drive/{session}", tag = "pages", operation_id = "drive",
    params(("session" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 . _ @ -")),
    responses(
        (status = 200, description = "a page", content_type = "text/html", body = String),
        (status = 400, description = "not a session id", body = ErrorBody),
        (status = 503, description = "the login cannot be checked now", body = ErrorBody),
    ),
)]
pub async fn drive(session: SessionId, request: HttpRequest) -> HttpResponse {
    page(StatusCode::OK, &DrivePage { site: Site::of(&request), session })
}

/// This device as a camera.
#[utoipa::path(
    get, path = "/broadcast", tag = "pages", operation_id = "broadcast",
    params(("session" = Option<String>, Query, description = "where to push to; a new one where it is not given")),
    responses((status = 200, description = "a page", content_type = "text/html", body = String)),
)]
pub async fn broadcast(request: HttpRequest, hub: web::Data<Hub>) -> HttpResponse {
    let content_type = hub.common_type().unwrap_or("image/jpeg").to_owned();
    page(StatusCode::OK, &BroadcastPage { site: Site::of(&request), content_type })
}

/// The page of `DEFAULT_SESSION`, for who comes from a server of one camera.
#[utoipa::path(
    get, path = "/webcam", tag = "pages", operation_id = "webcam",
    responses((status = 302, description = "to /view/{session}")),
)]
pub async fn webcam(session: SessionId, request: HttpRequest) -> HttpResponse {
    let query = Some(request.query_string()).filter(|query| !query.is_empty());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    HttpResponse::Found()
        .insert_header((header::LOCATION, format!("{}view/{session}{query}", Site::of(&request).root)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

/// This interface, to be read and tried out.
#[utoipa::path(
    get, path = "/docs", tag = "pages", operation_id = "docs",
    responses((status = 200, description = "a page", content_type = "text/html", body = String)),
)]
pub async fn docs(request: HttpRequest) -> HttpResponse {
    page_with(DOCS_POLICY, StatusCode::OK, &DocsPage { site: Site::of(&request) })
}

/// The login page: for who is logged in as `user`, a way out; with what went wrong before, if anything did.
#[must_use]
pub fn login_page(
    request: &HttpRequest,
    status: StatusCode,
    user: Option<&str>,
    message: Option<&str>,
) -> HttpResponse {
    let has_users = has_users(request);
    let site = Site { user: user.map(str::to_owned), ..Site::of(request) };
    page(status, &LoginPage { site, has_users, message })
}

/// An error for a person. `login` is where to log in, if that may help where there are users.
#[must_use]
pub fn error_page(request: &HttpRequest, status: StatusCode, message: &str, login: Option<&str>) -> HttpResponse {
    let site = Site::of(request);
    let heading = match status {
        StatusCode::UNAUTHORIZED => "Please log in",
        StatusCode::FORBIDDEN => "This is not for you",
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::SERVICE_UNAVAILABLE => "Not just now",
        _ => "That did not work",
    };
    let login = login.filter(|_| has_users(request));
    page(status, &ErrorPage { site, status: status.as_u16(), heading, message, login })
}

/// A part of pages, with what tells whether it has changed; as it is, and smaller for browsers that take it so.
struct Asset {
    content_type: String,
    plain: (web::Bytes, EntityTag),
    gzip: (web::Bytes, EntityTag),
}

impl Asset {
    fn new(content_type: &str, bytes: impl Into<web::Bytes>) -> Self {
        let bytes = bytes.into();
        let mut gzip = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::best());
        // Writing to memory does not fail.
        let gzip = gzip.write_all(&bytes).and_then(|()| gzip.finish()).map(web::Bytes::from).unwrap_or_default();
        let tagged = |bytes: web::Bytes| {
            let digest = digest::digest(&digest::SHA256, &bytes);
            let tag = EntityTag::new_strong(BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]));
            (bytes, tag)
        };
        Self { content_type: content_type.to_owned(), plain: tagged(bytes), gzip: tagged(gzip) }
    }

    /// A browser asks each time whether it has changed: after an update no page is put together from two versions.
    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let takes_gzip = AcceptEncoding::parse(request).is_ok_and(|accepted| {
            accepted.negotiate([Encoding::gzip(), Encoding::identity()].iter()) == Some(Encoding::gzip())
        });
        let (bytes, tag) = if takes_gzip { &self.gzip } else { &self.plain };
        let is_known = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
            Ok(IfNoneMatch::Any) => true,
            Err(_) => false,
        };
        let mut response = match is_known {
            true => HttpResponse::NotModified(),
            false => HttpResponse::Ok(),
        };
        response
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::VARY, "accept-encoding"))
            .insert_header(header::ETag(tag.clone()));
        if is_known {
            return response.finish();
        }
        if takes_gzip {
            response.insert_header((header::CONTENT_ENCODING, "gzip"));
        }
        response.content_type(&*self.content_type).body(bytes.clone())
    }
}

static ASSETS_BY_NAME: LazyLock<HashMap<&str, Asset>> = LazyLock::new(|| {
    ASSETS.into_iter().map(|(name, content_type, text)| (name, Asset::new(content_type, text))).collect()
});
static DOCS_BY_NAME: LazyLock<HashMap<&str, Asset>> = LazyLock::new(|| {
    let config = std::sync::Arc::new(DocsConfig::default());
    let read = |name: &'static str| {
        let file = utoipa_swagger_ui::serve(name, config.clone()).ok()??;
        Some((name, Asset::new(&file.content_type, file.bytes.into_owned())))
    };
    DOCS_FILES.into_iter().filter_map(read).collect()
});

/// A part of pages.
///
/// # Errors
/// [`Error::NoAsset`] where there is none of that name.
pub async fn asset(name: web::Path<String>, request: HttpRequest) -> Result<HttpResponse, Error> {
    ASSETS_BY_NAME.get(name.as_str()).map(|asset| asset.answer(&request)).ok_or(Error::NoAsset)
}

/// A part of the library's page.
///
/// # Errors
/// [`Error::NoAsset`] where there is none of that name.
pub async fn docs_file(name: web::Path<String>, request: HttpRequest) -> Result<HttpResponse, Error> {
    DOCS_BY_NAME.get(name.as_str()).map(|asset| asset.answer(&request)).ok_or(Error::NoAsset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_wall_is_relative_from_everywhere() {
        for (path, base_path, way) in [
            ("/", "", "./"),
            ("/login", "", "./"),
            ("/view/a", "", "../"),
            ("/a/b/c", "", "../../"),
            ("/cams/", "/cams", "./"),
            ("/cams/view/a", "/cams", "../"),
            ("/other", "/cams", "./cams/"),
            ("/camsite/x", "/cams", "../cams/"),
            ("/cams", "/cams", "./cams/"),
        ] {
            assert_eq!(way_to_root(path, base_path), way, "{path} below {base_path:?}");
        }
    }

    #[test]
    fn the_library_has_the_files_that_its_page_needs() {
        assert_eq!(DOCS_BY_NAME.len(), DOCS_FILES.len());
        assert!(DOCS_BY_NAME["swagger-ui-bundle.js"].content_type.contains("javascript"));
    }
}
