//! Other sites' pages.

use actix_web::http::Uri;
use serde::Deserialize;

use super::{Faults, Texts, Variable};

pub(super) const VARIABLES: &[Variable] = &[
    ("CORS_ORIGINS", "*", "origins whose pages may read the answers, with commas between; * for all"),
    (
        "PUBLIC_URL",
        "unset",
        "what visitors call this server, like https://cams.example.org; unset: what their requests name as Host",
    ),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    cors_origins: Option<String>,
    public_url: Option<String>,
}

/// Whose pages may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sites {
    /// `CORS_ORIGINS`.
    pub cors: Cors,
    /// `PUBLIC_URL`: scheme, host and perhaps port, without a slash at the end.
    pub public_url: Option<String>,
}

/// Which other sites' pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// Those of any site.
    Any,
    /// Those of these origins.
    Only(Vec<String>),
}

impl Sites {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let allowed = "* or origins like https://example.org, with commas between";
        let cors = faults.read("CORS_ORIGINS", env.cors_origins.as_ref(), Cors::Any, allowed, |text| {
            if text == "*" {
                return Some(Cors::Any);
            }
            text.split(',').map(|origin| parse_origin(origin.trim())).collect::<Option<_>>().map(Cors::Only)
        });
        let allowed = "a URL without a path, like https://cams.example.org (a path goes into BASE_PATH)";
        let public_url = faults.read("PUBLIC_URL", env.public_url.as_ref(), None, allowed, |text| {
            parse_origin(text.trim_end_matches('/')).map(Some)
        });
        Self { cors, public_url }
    }
}

/// Scheme, host and perhaps port, as browsers send them in `Origin`: in small letters, and without the port that the scheme
/// means anyway.
#[must_use]
pub fn parse_origin(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/') && !text.contains('@');
    let (scheme, host) = (uri.scheme_str()?, uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase());
    match (scheme, uri.port_u16()) {
        ("http" | "https", None) | ("http", Some(80)) | ("https", Some(443)) => {
            bare.then(|| format!("{scheme}://{host}"))
        }
        ("http" | "https", Some(port)) => bare.then(|| format!("{scheme}://{host}:{port}")),
        _ => None,
    }
}
