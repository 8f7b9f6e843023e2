//! VICER's own wire.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde::Deserialize;

use super::{Faults, Texts, Variable};
use crate::session::SessionId;

pub(super) const VARIABLES: &[Variable] = &[
    (
        "VICER_CONTROL_PORT",
        "unset",
        "port for VICER's controllers and vehicles: its own is 8011; 0 takes a free one; unset: off",
    ),
    (
        "VICER_STREAM_PORT",
        "unset",
        "port for VICER's cameras and viewers: its own is 5001; 0 takes a free one; unset: off",
    ),
    ("VICER_HOST", "127.0.0.1", "address to listen on for both"),
    ("VICER_SESSION", DEFAULT_SESSION, "session that all of them are on"),
    ("VICER_STOP", DEFAULT_STOP, "what stops VICER's vehicles"),
    ("VICER_LEASE_MS", "500", "milliseconds without a command after which they are sent it, 50 to 60000"),
    (
        "VICER_ALLOW_ANONYMOUS",
        "0",
        "1: whoever reaches these ports is let in although there are users; they know no login",
    ),
];
const DEFAULT_SESSION: &str = "vicer";
const DEFAULT_STOP: &str = "S";
/// The longest VICER_STOP, in bytes: what its vehicles read at once.
const MAX_STOP_BYTES: usize = 1024;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    vicer_control_port: Option<String>,
    vicer_stream_port: Option<String>,
    vicer_host: Option<String>,
    vicer_session: Option<String>,
    vicer_stop: Option<String>,
    vicer_lease_ms: Option<String>,
    vicer_allow_anonymous: Option<String>,
    users_file: Option<String>,
}

/// VICER's own wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vicer {
    /// `VICER_CONTROL_PORT`; 0 takes a free one, `None` is off.
    pub control_port: Option<u16>,
    /// `VICER_STREAM_PORT`; 0 takes a free one, `None` is off.
    pub stream_port: Option<u16>,
    /// `VICER_HOST`.
    pub ip: IpAddr,
    /// `VICER_SESSION`.
    pub session: SessionId,
    /// `VICER_STOP`.
    pub stop: String,
    /// `VICER_LEASE_MS`.
    pub lease: Duration,
}

impl Vicer {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let mut port = |variable, text: Option<&String>| {
            faults.read(variable, text, None, "a port from 0 to 65535", |text| text.parse().ok().map(Some))
        };
        let control_port = port("VICER_CONTROL_PORT", env.vicer_control_port.as_ref());
        let stream_port = port("VICER_STREAM_PORT", env.vicer_stream_port.as_ref());
        let allowed = "an IP address, like 0.0.0.0, 127.0.0.1 or ::";
        let host = env.vicer_host.as_ref();
        let ip = faults.read("VICER_HOST", host, Ipv4Addr::LOCALHOST.into(), allowed, |text| text.parse().ok());
        let allowed = "1 to 128 characters of A-Z a-z 0-9 . _ @ -";
        let text = env.vicer_session.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_SESSION.to_owned());
        let session = text.trim().parse().unwrap_or_else(|_| {
            faults.add("VICER_SESSION", &text, allowed);
            SessionId::random()
        });
        let allowed = "1 to 1024 bytes of text";
        let stop = faults.read("VICER_STOP", env.vicer_stop.as_ref(), DEFAULT_STOP.to_owned(), allowed, |text| {
            (text.len() <= MAX_STOP_BYTES).then(|| text.to_owned())
        });
        let allowed = "whole milliseconds from 50 to 60000";
        let lease = faults.read("VICER_LEASE_MS", env.vicer_lease_ms.as_ref(), 500, allowed, |text| {
            text.parse().ok().filter(|ms| (50..=60_000).contains(ms))
        });
        let anonymous = faults.read(
            "VICER_ALLOW_ANONYMOUS",
            env.vicer_allow_anonymous.as_ref(),
            false,
            "0 or 1",
            |text| match text {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            },
        );
        let has_users = env.users_file.is_some_and(|file| !file.trim().is_empty());
        if has_users && !anonymous && (control_port.is_some() || stream_port.is_some()) {
            let allowed = "1 where there are users (USERS_FILE), since VICER's ports know no login and let in whoever reaches \
                           them; or leave VICER_CONTROL_PORT and VICER_STREAM_PORT unset";
            faults.add("VICER_ALLOW_ANONYMOUS", "0", allowed);
        }
        Self { control_port, stream_port, ip, session, stop, lease: Duration::from_millis(lease) }
    }
}
