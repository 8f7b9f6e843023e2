//! `image-streamer healthcheck`: asks a running server whether it can serve, for a container's HEALTHCHECK.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use ureq::tls::TlsConfig;

use crate::config::Config;

/// How long the server may take to answer: longer than its own deadline for asking the store.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/readyz` of the server that listens as configured on this machine.
///
/// # Errors
/// When it does not answer, or not with 200.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let ip = match config.listen.ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let scheme = if config.tls.files.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}{}/readyz", SocketAddr::new(ip, config.listen.port), config.proxy.base_path);
    // The certificate is for the name that visitors use and not for this address. Nothing secret is sent, and who listens
    // on this machine is not in question: only whether it lives.
    let tls = TlsConfig::builder().disable_verification(true).build();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).tls_config(tls).build().into();
    agent.get(&url).call().with_context(|| format!("{url} does not answer with 200"))?;
    Ok(())
}
