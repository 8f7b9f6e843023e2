//! `/.well-known/acme-challenge/`: how an ACME certificate authority makes sure whose server this is.
//!
//! A client like certbot puts a file below `ACME_WEBROOT` (its `--webroot-path`); the authority asks for it over plain HTTP.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use actix_web::{HttpResponse, http::header, web};

use crate::wire::error_body::ErrorBody;

/// Where challenges are found, below the root of a server and below `ACME_WEBROOT` alike.
pub const CHALLENGES: &str = "/.well-known/acme-challenge/{token}";
/// The longest token, in characters: those in use have 43.
const MAX_TOKEN_LENGTH: usize = 128;
/// The most that is read of a challenge's file, in bytes: those in use have fewer than 128.
const MAX_CHALLENGE_BYTES: u64 = 4096;

/// `ACME_WEBROOT`, if it is set.
#[derive(Debug, Clone)]
pub struct Webroot(pub Option<PathBuf>);

/// Answers an ACME challenge from ACME_WEBROOT.
///
/// It is always at the root, whatever BASE_PATH says, and on HTTP_REDIRECT_PORT too.
#[utoipa::path(
    get, path = "/.well-known/acme-challenge/{token}", tag = "meta", operation_id = "acmeChallenge",
    params(("token" = String, Path, description = "1 to 128 characters of A-Z a-z 0-9 _ -")),
    responses(
        (status = 200, description = "what the ACME client has put there", body = String, content_type = "text/plain"),
        (status = 404, description = "no such challenge, or ACME_WEBROOT is not set", body = ErrorBody),
    ),
)]
pub async fn challenge(token: web::Path<String>, webroot: web::Data<Webroot>) -> HttpResponse {
    match read(webroot.0.clone(), token.into_inner()).await {
        Some(bytes) => {
            HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).content_type("text/plain").body(bytes)
        }
        None => {
            let message =
                "there is no such ACME challenge: it is read from .well-known/acme-challenge/ below ACME_WEBROOT";
            HttpResponse::NotFound()
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .json(ErrorBody::new("not_found", message.to_owned()))
        }
    }
}

async fn read(webroot: Option<PathBuf>, token: String) -> Option<Vec<u8>> {
    let path = webroot?.join(".well-known/acme-challenge").join(checked(&token)?);
    let read = move || {
        // Looked at before it is opened: a pipe would be waited for.
        let is_challenge = fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() <= MAX_CHALLENGE_BYTES);
        let mut bytes = Vec::new();
        if is_challenge {
            fs::File::open(&path)?.take(MAX_CHALLENGE_BYTES).read_to_end(&mut bytes)?;
        }
        io::Result::Ok(is_challenge.then_some(bytes))
    };
    web::block(read).await.ok()?.ok()?
}

/// The token, if it has the form of one: then it names a file in its directory and nothing else.
fn checked(token: &str) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    ((1..=MAX_TOKEN_LENGTH).contains(&token.len()) && token.bytes().all(allowed)).then_some(token)
}
