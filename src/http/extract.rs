//! What handlers take out of a request, checked on the way.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web};
use percent_encoding::percent_decode_str;

use crate::{
    auth::{Auth, Visitor},
    config::Live,
    edge::Edge,
    error::Error,
    session::SessionId,
    wire::accept::WantsJson,
};

/// The `{session}` of the path; `DEFAULT_SESSION` where the path has none.
impl FromRequest for SessionId {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let Some(text) = request.match_info().get("session") else {
            let live = request.app_data::<web::Data<Live>>();
            return ready(live.map(|live| live.default_session.clone()).ok_or(Error::BadSession));
        };
        let text = percent_decode_str(text).decode_utf8();
        ready(text.map_err(|_| Error::BadSession).and_then(|text| text.parse()))
    }
}

/// By the `Accept` header.
impl FromRequest for WantsJson {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        ready(Ok(accept.map_or(Self(false), Self::read)))
    }
}

/// Put there by `guard::admit`, on every route that needs somebody; anybody where there are no users.
impl FromRequest for Visitor {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Self>().cloned();
        let anybody = || request.app_data::<web::Data<Auth>>()?.anybody(Edge::of(request).address);
        ready(known.or_else(anybody).ok_or(Error::LoginNeeded))
    }
}
