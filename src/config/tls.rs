//! HTTPS.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Faults, Texts, Variable};

/// 180 days, in seconds: long enough to matter, and forgotten within half a year by browsers that must not keep it.
const DEFAULT_HSTS_SECONDS: u64 = 180 * 24 * 3600;
/// The largest HSTS_MAX_AGE: two years, in seconds.
const MAX_HSTS_SECONDS: u64 = 2 * 365 * 24 * 3600;

pub(super) const VARIABLES: &[Variable] = &[
    (
        "TLS_CERT",
        "unset",
        "file with the certificate chain (PEM); with TLS_KEY, PORT speaks HTTPS; read again when it changes",
    ),
    ("TLS_KEY", "unset", "file with its private key (PEM)"),
    ("HTTP_REDIRECT_PORT", "unset", "port that sends plain HTTP to HTTPS; 0 takes a free one"),
    (
        "ACME_WEBROOT",
        "unset",
        "directory from which /.well-known/acme-challenge/ is served, the --webroot-path of certbot",
    ),
    (
        "HSTS_MAX_AGE",
        "15552000",
        "seconds for which browsers that came over HTTPS use nothing else for this host, on any port; 0: not told",
    ),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    tls_cert: Option<String>,
    tls_key: Option<String>,
    http_redirect_port: Option<String>,
    acme_webroot: Option<String>,
    hsts_max_age: Option<String>,
}

/// HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `TLS_CERT` and `TLS_KEY`; `None` for plain HTTP.
    pub files: Option<TlsFiles>,
    /// `HTTP_REDIRECT_PORT`; 0 takes a free one.
    pub redirect_port: Option<u16>,
    /// `ACME_WEBROOT`.
    pub acme_webroot: Option<PathBuf>,
    /// `HSTS_MAX_AGE` in seconds; 0 where browsers are not to be told.
    pub hsts_seconds: u64,
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT`: the chain, leaf first, as PEM.
    pub certificate: PathBuf,
    /// `TLS_KEY`: the private key, as PEM.
    pub key: PathBuf,
}

impl Tls {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let mut path = |variable, text: &Option<String>| {
            faults.read(variable, text.as_ref(), None, "a path", |text| Some(Some(PathBuf::from(text))))
        };
        let (certificate, key) = (path("TLS_CERT", &env.tls_cert), path("TLS_KEY", &env.tls_key));
        let acme_webroot = path("ACME_WEBROOT", &env.acme_webroot);
        let files = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                faults.add("TLS_KEY", "", "the key's file, since TLS_CERT is set");
                None
            }
            (None, Some(_)) => {
                faults.add("TLS_CERT", "", "the certificate's file, since TLS_KEY is set");
                None
            }
        };
        let port = env.http_redirect_port.as_ref();
        let redirect_port = faults.read("HTTP_REDIRECT_PORT", port, None, "a port from 0 to 65535", |text| {
            text.parse::<u16>().ok().map(Some)
        });
        if let (Some(port), None) = (redirect_port, &files) {
            faults.add(
                "HTTP_REDIRECT_PORT",
                &port.to_string(),
                "TLS_CERT and TLS_KEY beside it: there is no HTTPS to send to",
            );
        }
        let allowed = format!("whole seconds from 0 to {MAX_HSTS_SECONDS}");
        let hsts = env.hsts_max_age.as_ref();
        let hsts_seconds = faults.read("HSTS_MAX_AGE", hsts, DEFAULT_HSTS_SECONDS, &allowed, |text| {
            text.parse().ok().filter(|seconds| *seconds <= MAX_HSTS_SECONDS)
        });
        Self { files, redirect_port, acme_webroot, hsts_seconds }
    }
}
