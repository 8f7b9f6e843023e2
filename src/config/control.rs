//! The command relay.

use std::time::Duration;

use serde::Deserialize;

use super::{Faults, Texts, Variable};

pub(super) const VARIABLES: &[Variable] = &[(
    "COMMAND_TTL_MS",
    "500",
    "milliseconds after which a command is too old to be handed to a vehicle, 50 to 60000",
)];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    command_ttl_ms: Option<String>,
}

/// The command relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// `COMMAND_TTL_MS`: no command older than this is handed on.
    pub command_ttl: Duration,
}

impl Control {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let allowed = "whole milliseconds from 50 to 60000";
        let ttl = faults.read("COMMAND_TTL_MS", env.command_ttl_ms.as_ref(), 500, allowed, |text| {
            text.parse().ok().filter(|ms| (50..=60_000).contains(ms))
        });
        Self { command_ttl: Duration::from_millis(ttl) }
    }
}
