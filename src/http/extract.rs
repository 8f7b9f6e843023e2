//! What handlers take out of a request, checked on the way.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use percent_encoding::percent_decode_str;

use crate::{error::Error, session::SessionId};

/// The `{session}` of the path.
impl FromRequest for SessionId {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = percent_decode_str(request.match_info().query("session")).decode_utf8();
        ready(text.map_err(|_| Error::BadSession).and_then(|text| text.parse()))
    }
}
