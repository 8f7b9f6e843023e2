//! What stands between visitors and this server.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::{Faults, Texts, Variable};

pub(super) const VARIABLES: &[Variable] = &[
    (
        "TRUSTED_PROXIES",
        "unset",
        "addresses of proxies whose X-Forwarded-For, -Proto and -Prefix count, like 127.0.0.1,10.0.0.0/8",
    ),
    ("BASE_PATH", "/", "path below which everything is served, like /cams"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    trusted_proxies: Option<String>,
    base_path: Option<String>,
}

/// What stands between visitors and this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// `TRUSTED_PROXIES`.
    pub trusted: Vec<IpNet>,
    /// `BASE_PATH`: empty, or a path that begins with a slash and does not end in one.
    pub base_path: String,
}

impl Proxy {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let allowed = "addresses or networks like 127.0.0.1 or 10.0.0.0/8, with commas between";
        let trusted = faults.read("TRUSTED_PROXIES", env.trusted_proxies.as_ref(), Vec::new(), allowed, |text| {
            text.split(',').map(str::trim).filter(|network| !network.is_empty()).map(parse_network).collect()
        });
        let allowed = "a path like /cams, of letters, digits and . _ ~ - between the slashes";
        let base_path = faults.read("BASE_PATH", env.base_path.as_ref(), String::new(), allowed, parse_base_path);
        Self { trusted, base_path }
    }

    /// Whether what this address says of others counts.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A path below which something is served: without a slash at its end, so empty for the root.
#[must_use]
pub fn parse_base_path(text: &str) -> Option<String> {
    let path = text.trim_end_matches('/');
    let is_segment = |segment: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
    };
    match path.strip_prefix('/') {
        None => path.is_empty().then(String::new),
        Some(segments) => segments.split('/').all(is_segment).then(|| path.to_owned()),
    }
}
