//! `HTTP_REDIRECT_PORT`: plain HTTP is sent to HTTPS, and ACME challenges are answered, which are always asked for in plain.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Uri, header, uri::Authority},
    web::{self, ServiceConfig, get, head},
};

use crate::{acme, connection::Inlet, wire::error_body::ErrorBody};

/// The port that `https://` means where none is named.
const HTTPS_PORT: u16 = 443;
/// How much is read of the body of a request that is sent elsewhere, in bytes.
const DRAIN_BYTES: usize = 64 * 1024;

/// Where requests are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host and perhaps the port that visitors are to ask; `None`: the host that they have asked.
    public: Option<String>,
    /// The port that this server speaks HTTPS on.
    port: u16,
}

impl Target {
    /// To `PUBLIC_URL` where that is set, else to the host that was asked, at the port that was bound. Where `PUBLIC_URL` is
    /// an `http://` one, only its host counts: its port speaks no HTTPS.
    #[must_use]
    pub fn new(public_url: Option<&str>, port: u16) -> Self {
        let public = public_url.and_then(|url| {
            let uri: Uri = url.parse().ok()?;
            match uri.scheme_str() {
                Some("https") => uri
                    .authority()
                    .map(|authority| with_port(authority.host(), authority.port_u16().unwrap_or(HTTPS_PORT))),
                _ => uri.host().map(|host| with_port(host, port)),
            }
        });
        Self { public, port }
    }

    /// The address for a request, if it says which host it asks.
    fn of(&self, request: &HttpRequest) -> Option<String> {
        let authority = match &self.public {
            Some(public) => public.clone(),
            None => with_port(&asked_host(request)?, self.port),
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path } else { "/" };
        Some(format!("https://{authority}{path}"))
    }
}

fn with_port(host: &str, port: u16) -> String {
    if port == HTTPS_PORT { host.to_owned() } else { format!("{host}:{port}") }
}

/// The host that a request asks, without its port: the address of the request where it is a whole one, else its Host.
fn asked_host(request: &HttpRequest) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => request.headers().get(header::HOST)?.to_str().ok()?.trim().parse::<Authority>().ok()?,
    };
    let host = authority.host();
    (!host.is_empty() && !authority.as_str().contains('@')).then(|| host.to_owned())
}

/// The routes of the port: challenges, and everything else.
pub fn routes(app: &mut ServiceConfig) {
    let challenges = web::resource(acme::CHALLENGES)
        .route(get().to(acme::challenge))
        .route(head().to(acme::challenge))
        .default_service(web::to(redirect));
    app.service(challenges).default_service(web::to(redirect));
}

/// Keeps the method and the body's place: 308, so that a push is pushed again and not asked for.
async fn redirect(request: HttpRequest, target: web::Data<Target>) -> HttpResponse {
    // Nobody reads the body. What has been sent of it already is let in, so that the client sees the answer.
    if let Some(inlet) = request.conn_data::<Inlet>() {
        inlet.read_at_most(DRAIN_BYTES);
    }
    let Some(address) = target.of(&request) else {
        let message = "the request names no host to be sent to: send a Host header, or ask the HTTPS port itself";
        return HttpResponse::BadRequest()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .json(ErrorBody::new("bad_host", message.to_owned()));
    };
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, address)).finish()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn sent_to(public_url: Option<&str>, port: u16, host: Option<&str>, uri: &str) -> Option<String> {
        let request = TestRequest::with_uri(uri);
        let request = host.into_iter().fold(request, |request, host| request.insert_header((header::HOST, host)));
        Target::new(public_url, port).of(&request.to_http_request())
    }

    #[test]
    fn the_asked_host_is_kept_and_the_port_left_out_where_it_is_the_usual_one() {
        for (port, host, address) in [
            (443, "cams.example.org", "https://cams.example.org/a?b=c"),
            (443, "cams.example.org:80", "https://cams.example.org/a?b=c"),
            (3000, "cams.example.org:80", "https://cams.example.org:3000/a?b=c"),
            (3000, "192.0.2.7:80", "https://192.0.2.7:3000/a?b=c"),
            (443, "[2001:db8::7]:80", "https://[2001:db8::7]/a?b=c"),
            (3000, "[2001:db8::7]", "https://[2001:db8::7]:3000/a?b=c"),
        ] {
            assert_eq!(sent_to(None, port, Some(host), "/a?b=c").as_deref(), Some(address));
        }
    }

    #[test]
    fn the_public_url_wins_over_what_was_asked() {
        for (public_url, address) in [
            ("https://cams.example.org", "https://cams.example.org/a"),
            ("https://cams.example.org:443", "https://cams.example.org/a"),
            ("https://cams.example.org:8443", "https://cams.example.org:8443/a"),
            ("http://cams.example.org:8080", "https://cams.example.org:3000/a"),
        ] {
            for host in [Some("192.0.2.7"), None] {
                assert_eq!(sent_to(Some(public_url), 3000, host, "/a").as_deref(), Some(address));
            }
        }
    }

    #[test]
    fn without_a_host_that_makes_sense_there_is_nowhere_to_send_to() {
        for host in [None, Some(""), Some("me@example.org"), Some("a b"), Some("a/b"), Some(":80")] {
            assert_eq!(sent_to(None, 443, host, "/"), None, "{host:?}");
        }
    }

    #[test]
    fn a_request_with_a_whole_address_is_sent_there_and_one_without_a_path_to_the_root() {
        assert_eq!(sent_to(None, 443, Some("b"), "http://a:80/c").as_deref(), Some("https://a/c"));
        assert_eq!(sent_to(None, 443, Some("b"), "*").as_deref(), Some("https://b/"));
    }
}
