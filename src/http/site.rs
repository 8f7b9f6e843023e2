//! What pages of other sites may not do.

use actix_web::{
    dev::ServiceRequest,
    http::header::{self, HeaderName},
    web,
};

use super::guard::{Needs, authorization};
use crate::{
    auth::Right,
    config::{Cors, Sites, parse_origin},
    edge::{Edge, is_own_origin},
    error::Error,
};

/// Refuses what pages of other sites may not do in a visitor's name, and what nobody's may (<https://fetch.spec.whatwg.org/>:
/// browsers tell a page's origin with every request that writes, and with every WebSocket).
pub(super) fn check(needs: Needs, request: &ServiceRequest) -> Result<(), Error> {
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or("null"));
    let Some(sites) = request.app_data::<web::Data<Sites>>() else { return Ok(()) };
    let is_socket = request.headers().contains_key(header::UPGRADE);
    let changes = !request.method().is_safe() || needs == Needs::Right(Right::Take);
    // What a browser adds by itself, whichever page asks.
    let by_itself = request.headers().contains_key(header::COOKIE)
        || authorization(request.headers())
            .is_some_and(|text| text.get(..6).is_some_and(|it| it.eq_ignore_ascii_case("basic ")));
    let guarded = match needs {
        Needs::OwnPage => !request.method().is_safe(),
        Needs::Right(Right::Command) | Needs::Either(..) => true,
        _ => by_itself && (is_socket || changes),
    };
    let Some(origin) = header(header::ORIGIN) else {
        // Pictures and links of other pages come without an origin.
        let site = header(HeaderName::from_static("sec-fetch-site"));
        let elsewhere = matches!(site, Some("cross-site" | "same-site"));
        return match guarded && elsewhere {
            true => Err(Error::CrossSite { origin: "another site".into() }),
            false => Ok(()),
        };
    };
    let is_own = is_own_origin(sites, origin, header(header::HOST), Edge::of(request.request()).https);
    let is_listed = matches!(&sites.cors, Cors::Only(origins) if parse_origin(origin).is_some_and(|origin| origins.contains(&origin)));
    // What a socket says can be read by any page, whatever the answer's headers: here that is for us to refuse.
    let unreadable = is_socket && sites.cors != Cors::Any;
    if is_own || is_listed || !(guarded || unreadable) {
        return Ok(());
    }
    Err(Error::CrossSite { origin: origin.to_owned() })
}
