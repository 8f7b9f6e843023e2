//! What stands between a visitor and this server: proxies that are trusted, TLS, a sub-path.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    config::{Proxy, Sites, parse_base_path, parse_origin},
    connection::Encrypted,
};
use actix_web::{
    Error, FromRequest, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
    web,
};

/// The header in which proxies tell whose request they hand on.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// How a request has come.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Where from: the client itself, as far as trusted proxies tell.
    pub address: IpAddr,
    /// Whether over HTTPS, at least up to a trusted proxy.
    pub https: bool,
    /// What stands before the paths of routes as the visitor sees them: empty, or `/cams`.
    pub prefix: String,
}

impl Edge {
    /// That of a request.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        match request.app_data::<web::Data<Proxy>>() {
            Some(proxy) => Self::behind(proxy, request),
            None => Self::behind(&Proxy::default(), request),
        }
    }

    fn behind(proxy: &Proxy, request: &HttpRequest) -> Self {
        let peer = request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical());
        let encrypted = request.conn_data::<Encrypted>().is_some_and(|encrypted| encrypted.0);
        if !proxy.trusts(peer) {
            warn_of_proxy(request.headers(), peer);
            return Self { address: peer, https: encrypted, prefix: proxy.base_path.clone() };
        }
        let headers = request.headers();
        let stripped = last(headers, "x-forwarded-prefix").and_then(parse_base_path).unwrap_or_default();
        Self {
            address: forwarded_for(headers.get_all(FORWARDED_FOR).map(HeaderValue::as_bytes), proxy).unwrap_or(peer),
            https: last(headers, "x-forwarded-proto").map_or(encrypted, |scheme| scheme.eq_ignore_ascii_case("https")),
            prefix: stripped + &proxy.base_path,
        }
    }
}

impl FromRequest for Edge {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of(request)))
    }
}

/// Says once what a tired person would look for long: a proxy that nobody has named makes all its visitors one.
fn warn_of_proxy(headers: &HeaderMap, peer: IpAddr) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.load(Ordering::Relaxed) && headers.contains_key(FORWARDED_FOR) && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a request from {peer} carries X-Forwarded-For, and TRUSTED_PROXIES does not name that address: if it is your \
             proxy, all its visitors count as one, and what it says of HTTPS is not believed"
        );
    }
}

/// What the nearest proxy says: further ones may have been made up.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(name).last()?.to_str().ok()?.rsplit(',').next().map(str::trim)
}

/// Where a request came from that actix did not receive: the client itself, as far as trusted proxies tell.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &::http::HeaderMap, proxy: &Proxy) -> IpAddr {
    let peer = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().map(::http::HeaderValue::as_bytes);
    if proxy.trusts(peer) { forwarded_for(lines, proxy).unwrap_or(peer) } else { peer }
}

/// The address nearest to us that is none of a trusted proxy, by the lines of [`FORWARDED_FOR`].
fn forwarded_for<'a>(lines: impl Iterator<Item = &'a [u8]>, proxy: &Proxy) -> Option<IpAddr> {
    let mut nearest = None;
    for entry in lines.collect::<Vec<_>>().into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let entry = std::str::from_utf8(entry).unwrap_or_default().trim();
        let address = entry.parse::<IpAddr>().or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()));
        // Whoever wrote this was trusted, and what it did not understand says nothing.
        let Ok(address) = address.map(|address| address.to_canonical()) else { return nearest };
        nearest = Some(address);
        if !proxy.trusts(address) {
            return nearest;
        }
    }
    nearest
}

/// Whether an origin, as browsers send it, is this server's own: that of `PUBLIC_URL`, or where there is none of the `Host` that
/// was asked for.
#[must_use]
pub fn is_own_origin(sites: &Sites, origin: &str, host: Option<&str>, https: bool) -> bool {
    match (&sites.public_url, parse_origin(origin)) {
        (_, None) => false,
        (Some(url), Some(origin)) => *url == origin,
        // A proxy that is not trusted may speak HTTPS without our knowing.
        (None, Some(origin)) => host.is_some_and(|host| {
            let is = |scheme: &str| parse_origin(&format!("{scheme}://{host}")).as_ref() == Some(&origin);
            is("https") || (!https && is("http"))
        }),
    }
}

/// Tells browsers that came over HTTPS to stay there.
///
/// # Errors
/// The service's own.
pub async fn stay_with_https<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let seconds = request.app_data::<web::Data<Hsts>>().map(|hsts| hsts.0);
    let https = Edge::of(request.request()).https;
    let mut response = next.call(request).await?;
    if let (true, Some(seconds @ 1..)) = (https, seconds)
        && let Ok(value) = HeaderValue::try_from(format!("max-age={seconds}"))
    {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    Ok(response)
}

/// `HSTS_MAX_AGE` in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Hsts(pub u64);

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn edge(peer: &str, headers: &[(&'static str, &'static str)]) -> (String, bool, String) {
        let proxy = Proxy {
            trusted: ["127.0.0.1/32", "10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).to_vec(),
            base_path: "/base".into(),
        };
        let request = TestRequest::default().peer_addr(SocketAddr::new(peer.parse().unwrap(), 1));
        let request = headers.iter().fold(request, |request, header| request.append_header(*header));
        let Edge { address, https, prefix } = Edge::behind(&proxy, &request.to_http_request());
        (address.to_string(), https, prefix)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let claims = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-prefix", "/cams")];
        assert_eq!(edge("192.0.2.1", &claims), ("192.0.2.1".into(), false, "/base".into()));
        for proxy in ["127.0.0.1", "10.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(edge(proxy, &claims), ("1.2.3.4".into(), true, "/cams/base".into()), "{proxy}");
        }
        assert_eq!(edge("127.0.0.1", &[]), ("127.0.0.1".into(), false, "/base".into()));
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_no_proxys() {
        let address = |lines: &[&'static str]| {
            edge("127.0.0.1", &lines.iter().map(|line| ("x-forwarded-for", *line)).collect::<Vec<_>>()).0
        };
        assert_eq!(address(&["6.6.6.6, 1.2.3.4, 10.0.0.1"]), "1.2.3.4");
        assert_eq!(address(&["6.6.6.6", "1.2.3.4,10.0.0.1"]), "1.2.3.4");
        assert_eq!(address(&["10.0.0.2, 10.0.0.1"]), "10.0.0.2");
        assert_eq!(address(&["nonsense, 10.0.0.1"]), "10.0.0.1");
        assert_eq!(address(&["1.2.3.4:567"]), "1.2.3.4");
        assert_eq!(address(&["[2001:db8::1]:567"]), "2001:db8::1");
        assert_eq!(address(&["2001:db8::1"]), "2001:db8::1");
        assert_eq!(address(&["\""]), "127.0.0.1");
    }

    #[test]
    fn a_prefix_that_is_no_path_is_none() {
        for wrong in ["cams", "//evil.example", "/a\"b", "/a/../b"] {
            let header: &'static str = Box::leak(wrong.to_owned().into_boxed_str());
            assert_eq!(edge("127.0.0.1", &[("x-forwarded-prefix", header)]).2, "/base", "{wrong}");
        }
    }
}
