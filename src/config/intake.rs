//! How much is let in at once.

use bytesize::ByteSize;
use serde::Deserialize;

use super::{Faults, Texts, Variable};

/// The largest MAX_IMAGE_BYTES: Redis holds 512 MiB in one value, the frame's header included.
const MAX_MAX_IMAGE_BYTES: u64 = 511 << 20;

pub(super) const VARIABLES: &[Variable] = &[
    ("MAX_IMAGE_BYTES", "16MiB", "largest picture"),
    (
        "MAX_INFLIGHT_BYTES",
        "256MiB",
        "bytes of bodies being received at most, as many of pictures being sent, as many that slow viewers hold; 503 beyond",
    ),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    max_image_bytes: Option<String>,
    max_inflight_bytes: Option<String>,
}

/// How much is let in at once.
#[derive(Debug, Clone, Copy)]
pub struct Intake {
    /// `MAX_IMAGE_BYTES`.
    pub max_image_bytes: usize,
    /// `MAX_INFLIGHT_BYTES`.
    pub max_inflight_bytes: usize,
}

impl Intake {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let image = env.max_image_bytes.as_ref();
        Self {
            max_image_bytes: faults.bytes("MAX_IMAGE_BYTES", image, ByteSize::mib(16), MAX_MAX_IMAGE_BYTES),
            max_inflight_bytes: faults.bytes(
                "MAX_INFLIGHT_BYTES",
                env.max_inflight_bytes.as_ref(),
                ByteSize::mib(256),
                u64::MAX,
            ),
        }
    }
}
