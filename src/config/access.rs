//! Who may do what, and how much of it.

use std::{fmt, path::PathBuf};

use actix_web::http::header::HeaderValue;
use serde::Deserialize;

use super::{Faults, Texts, Variable};

/// The shortest SECRET_KEY, in characters: 128 bits in hexadecimal.
const MIN_SECRET_LENGTH: usize = 32;

pub(super) const VARIABLES: &[Variable] = &[
    ("USERS_FILE", "unset", "file of the users, made by `image-streamer user add`; unset: everybody may do everything"),
    (
        "SECRET_KEY",
        "unset",
        "what links and logins are signed with, 32 characters or more, the same on all replicas; unset: one kept in Redis, in memory a new one at each start",
    ),
    ("METRICS_TOKEN", "unset", "bearer token with which /metrics can be read"),
    (
        "MAX_CLIENT_PUSH_RATE",
        "100000",
        "pictures that one user or address may push a second; 0: any number; 429 beyond",
    ),
    ("MAX_CLIENT_VIEWERS", "10000", "sessions that one user or address may watch at once; 0: any number; 429 beyond"),
    (
        "MAX_CLIENT_SESSIONS",
        "100000",
        "sessions that one user or address may push to within EXPIRE; 0: any number; 429 beyond",
    ),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    users_file: Option<String>,
    secret_key: Option<String>,
    metrics_token: Option<String>,
    max_client_push_rate: Option<String>,
    max_client_viewers: Option<String>,
    max_client_sessions: Option<String>,
}

/// Who may do what, and how much of it.
#[derive(Debug, Clone)]
pub struct Access {
    /// `USERS_FILE`; `None` where everybody may do everything.
    pub users_file: Option<PathBuf>,
    /// `SECRET_KEY`.
    pub secret_key: Option<Secret>,
    /// `METRICS_TOKEN`.
    pub metrics_token: Option<Secret>,
    /// What one client may do at once.
    pub limits: ClientLimits,
}

/// What one user, or one address where nobody has logged in, may do at once on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// `MAX_CLIENT_PUSH_RATE`: pictures a second; 0 for any number.
    pub push_rate: u32,
    /// `MAX_CLIENT_VIEWERS`: sessions watched at once; 0 for any number.
    pub viewers: usize,
    /// `MAX_CLIENT_SESSIONS`: sessions pushed to within `EXPIRE`; 0 for any number.
    pub sessions: usize,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Access {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let users_file =
            faults.read("USERS_FILE", env.users_file.as_ref(), None, "a path", |text| Some(Some(PathBuf::from(text))));
        let allowed = format!("{MIN_SECRET_LENGTH} characters or more, as `openssl rand -hex 32` makes them");
        let secret_key = faults
            .secret("SECRET_KEY", env.secret_key.as_ref(), &allowed, |text| text.chars().count() >= MIN_SECRET_LENGTH);
        let is_sendable = |text: &str| !text.contains(' ') && HeaderValue::from_str(text).is_ok();
        let allowed = "visible ASCII characters without blanks, as `openssl rand -hex 32` makes them";
        let metrics_token = faults.secret("METRICS_TOKEN", env.metrics_token.as_ref(), allowed, is_sendable);
        let mut limit = |variable, text: &Option<String>, default: u32| {
            faults
                .read(variable, text.as_ref(), default, "a whole number from 0 to 4294967295", |text| text.parse().ok())
        };
        let limits = ClientLimits {
            push_rate: limit("MAX_CLIENT_PUSH_RATE", &env.max_client_push_rate, 100_000),
            viewers: limit("MAX_CLIENT_VIEWERS", &env.max_client_viewers, 10_000) as usize,
            sessions: limit("MAX_CLIENT_SESSIONS", &env.max_client_sessions, 100_000) as usize,
        };
        Self { users_file, secret_key, metrics_token, limits }
    }
}

impl Faults {
    /// A text that must not be shown when it is wrong.
    fn secret(
        &mut self,
        variable: &'static str,
        text: Option<&String>,
        allowed: &str,
        is_allowed: impl FnOnce(&str) -> bool,
    ) -> Option<Secret> {
        let text = text.map(|text| text.trim()).filter(|text| !text.is_empty())?;
        if !is_allowed(text) {
            self.add(variable, "…", allowed);
        }
        Some(Secret(text.to_owned()))
    }
}
