//! What handlers take out of a request, checked on the way.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web};
use percent_encoding::percent_decode_str;

use crate::{
    auth::{Auth, Visitor},
    edge::Edge,
    error::Error,
    session::SessionId,
    wire::accept::WantsJson,
};

/// The `{session}` of the path.
impl FromRequest for SessionId {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = percent_decode_str(request.match_info().query("session")).decode_utf8();
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
