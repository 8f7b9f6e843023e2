//! What viewers see.

use std::time::Duration;

use serde::Deserialize;

use super::{Faults, Texts, Variable};
use crate::session::SessionId;

pub(super) const VARIABLES: &[Variable] = &[
    ("STALE_AFTER", "10", "seconds from a frame's receipt until it is not live any more, 0.5 to 86400"),
    ("DEFAULT_SESSION", DEFAULT_SESSION, "session of /webcam and /video_feed"),
];
/// What a camera without a name is called.
const DEFAULT_SESSION: &str = "camera";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    stale_after: Option<String>,
    default_session: Option<String>,
}

/// What viewers see.
#[derive(Debug, Clone)]
pub struct Live {
    /// `STALE_AFTER`: the age from which on a frame is not live any more.
    pub stale_after: Duration,
    /// `DEFAULT_SESSION`: what is shown where an address names no session.
    pub default_session: SessionId,
}

impl Live {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let seconds = faults.read("STALE_AFTER", env.stale_after.as_ref(), 10.0, "seconds from 0.5 to 86400", |text| {
            text.parse().ok().filter(|seconds| (0.5..=86_400.0).contains(seconds))
        });
        let allowed = "1 to 128 characters of A-Z a-z 0-9 . _ @ -";
        let text = env.default_session.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_SESSION.to_owned());
        let default_session = text.trim().parse().unwrap_or_else(|_| {
            faults.add("DEFAULT_SESSION", &text, allowed);
            SessionId::random()
        });
        Self { stale_after: Duration::from_secs_f64(seconds), default_session }
    }
}
