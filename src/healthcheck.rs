//! `image-streamer healthcheck`: asks a running server whether it can serve, for a container's HEALTHCHECK.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;

use crate::config::Listen;

/// How long the server may take to answer: longer than its own deadline for asking the store.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/readyz` of the server that listens as configured on this machine.
///
/// # Errors
/// When it does not answer, or not with 200.
pub fn check(listen: &Listen) -> anyhow::Result<()> {
    let ip = match listen.ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let url = format!("http://{}/readyz", SocketAddr::new(ip, listen.port));
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build().into();
    agent.get(&url).call().with_context(|| format!("{url} does not answer with 200"))?;
    Ok(())
}
