//! What people see: pages and what they are made of, embedded in the binary.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};

/// What a page may load, and who may show it in a frame: this server alone.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                           form-action 'self'; base-uri 'none'; frame-ancestors 'self'";
/// How long a browser may use a page's parts before it asks again, in seconds.
const ASSET_SECONDS: u32 = 300;

/// A page. Nothing in it is taken from a request: what is put into it must be ours.
#[must_use]
pub fn page(status: StatusCode, html: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, PAGE_POLICY))
        // An address may hold a link's token.
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(html)
}

/// The login page, with what went wrong before if anything did.
#[must_use]
pub fn login_page(status: StatusCode, message: Option<&str>) -> HttpResponse {
    let message = message.map(|message| format!("<p class=\"bad\" role=\"alert\">{message}</p>")).unwrap_or_default();
    let form = include_str!("ui/login-form.html").replace("{message}", &message);
    page(status, include_str!("ui/login.html").replace("{content}", &form))
}

/// The same for who is logged in. A user's name has no characters that mean something in HTML.
#[must_use]
pub fn logged_in_page(name: &str) -> HttpResponse {
    let content = include_str!("ui/logged-in.html").replace("{name}", name);
    page(StatusCode::OK, include_str!("ui/login.html").replace("{content}", &content))
}

/// The same where there are no users.
#[must_use]
pub fn no_login_page() -> HttpResponse {
    let content = "<p>Nobody needs to log in here: this server has no users.</p>";
    page(StatusCode::OK, include_str!("ui/login.html").replace("{content}", content))
}

/// How pages look.
pub async fn style() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/css; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, format!("max-age={ASSET_SECONDS}")))
        .body(include_str!("ui/style.css"))
}
