//! What viewers see.

use std::time::Duration;

use serde::Deserialize;

use super::{Faults, Texts, Variable};

pub(super) const VARIABLES: &[Variable] =
    &[("STALE_AFTER", "10", "seconds from a frame's receipt until it is not live any more, 0.5 to 86400")];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    stale_after: Option<String>,
}

/// What viewers see.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// `STALE_AFTER`: the age from which on a frame is not live any more.
    pub stale_after: Duration,
}

impl Live {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let seconds = faults.read("STALE_AFTER", env.stale_after.as_ref(), 10.0, "seconds from 0.5 to 86400", |text| {
            text.parse().ok().filter(|seconds| (0.5..=86_400.0).contains(seconds))
        });
        Self { stale_after: Duration::from_secs_f64(seconds) }
    }
}
