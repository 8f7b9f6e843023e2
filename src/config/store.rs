//! Where frames are held.

use std::{fmt, fs, time::Duration};

use actix_web::http::Uri;
use bytesize::ByteSize;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;

use super::{Faults, Texts, Variable};
use crate::store::StoreLimits;

/// The longest EXPIRE: 30 days, in seconds. In milliseconds it still fits into 32 bits.
const MAX_EXPIRE_SECONDS: u64 = 30 * 24 * 3600;
/// The largest MAX_QUEUE: what one script may walk through without holding up Redis for long.
const MAX_MAX_QUEUE: usize = 1_000_000;
pub(super) const VARIABLES: &[Variable] = &[
    ("REDIS_HOST", "unset", "host of the Redis that holds the frames; unset: they are held in memory"),
    ("REDIS_PORT", "6379", "its port"),
    ("REDIS_URL", "unset", "whole URL, redis:// or rediss://, with user, password, database; wins over REDIS_HOST"),
    (
        "REDIS_CA_FILE",
        "unset",
        "rediss://: file with the certificates (PEM) that its certificate is checked against; unset: the system's",
    ),
    ("EXPIRE", "120", "seconds that a frame lives, at least 1"),
    ("MAX_QUEUE", "1000", "frames that wait in a session at most; the oldest are dropped"),
    ("MAX_MEMORY", "1GiB", "memory store: bytes held at most, bookkeeping counted; the oldest frames are dropped"),
    ("MAX_SESSIONS", "100000", "sessions at most; 503 beyond"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    redis_host: Option<String>,
    redis_port: Option<String>,
    redis_url: Option<String>,
    redis_ca_file: Option<String>,
    expire: Option<String>,
    max_queue: Option<String>,
    max_memory: Option<String>,
    max_sessions: Option<String>,
}

/// Where frames are held.
#[derive(Clone)]
pub struct Store {
    /// `REDIS_URL`, or made from `REDIS_HOST` and `REDIS_PORT`; `None` for the memory store.
    pub redis_url: Option<String>,
    /// `REDIS_CA_FILE`: what its certificate is checked against, as PEM; `None` for the system's certificates.
    pub redis_ca: Option<Vec<u8>>,
    /// `EXPIRE`, `MAX_QUEUE`, `MAX_SESSIONS`.
    pub limits: StoreLimits,
    /// `MAX_MEMORY`, in bytes.
    pub max_memory: usize,
}

/// Leaves the URL out: it may hold a password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { redis_url, redis_ca: _, limits, max_memory } = self;
        let redis = redis_url.is_some();
        f.debug_struct("Store").field("redis", &redis).field("limits", limits).field("max_memory", max_memory).finish()
    }
}

impl Store {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        let expire = faults.read(
            "EXPIRE",
            env.expire.as_ref(),
            120,
            &format!("whole seconds from 1 to {MAX_EXPIRE_SECONDS}"),
            |text| text.parse().ok().filter(|seconds| (1..=MAX_EXPIRE_SECONDS).contains(seconds)),
        );
        let max_queue = faults.read(
            "MAX_QUEUE",
            env.max_queue.as_ref(),
            1000,
            &format!("frames from 1 to {MAX_MAX_QUEUE}"),
            |text| text.parse().ok().filter(|frames| (1..=MAX_MAX_QUEUE).contains(frames)),
        );
        let max_sessions =
            faults.read("MAX_SESSIONS", env.max_sessions.as_ref(), 100_000, "a number of at least 1", |text| {
                text.parse().ok().filter(|sessions| *sessions >= 1)
            });
        let max_memory = faults.bytes("MAX_MEMORY", env.max_memory.as_ref(), ByteSize::gib(1), u64::MAX);
        Self {
            redis_url: Self::read_redis(&env, faults),
            redis_ca: Self::read_ca(&env, faults),
            limits: StoreLimits { ttl: Duration::from_secs(expire), max_queue, max_sessions },
            max_memory,
        }
    }

    fn read_redis(env: &Environment, faults: &mut Faults) -> Option<String> {
        let port = faults.read("REDIS_PORT", env.redis_port.as_ref(), 6379_u16, "a port from 1 to 65535", |text| {
            text.parse().ok().filter(|port| *port > 0)
        });
        let from_host =
            faults.read("REDIS_HOST", env.redis_host.as_ref(), None, "a host name or an IP address", |host| {
                let host =
                    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
                let authority = format!("{host}:{port}");
                let is_host =
                    !host.contains('@') && authority.parse::<Uri>().is_ok_and(|uri| uri.port_u16() == Some(port));
                is_host.then(|| Some(format!("redis://{authority}/")))
            });
        let url = env.redis_url.as_ref().map(|url| url.trim()).filter(|url| !url.is_empty());
        let Some(url) = url else { return from_host };
        if crate::store::redis::connection_info(url).is_err() {
            let shown = url.rsplit_once('@').map_or(url.to_owned(), |(_, host)| format!("…@{host}"));
            faults.add("REDIS_URL", &shown, "a URL like redis://user:password@host:6379/0 or rediss://host:6380");
        }
        Some(url.to_owned())
    }

    fn read_ca(env: &Environment, faults: &mut Faults) -> Option<Vec<u8>> {
        let allowed = "a file with certificates in PEM form";
        faults.read("REDIS_CA_FILE", env.redis_ca_file.as_ref(), None, allowed, |path| {
            let pem = fs::read(path).ok()?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            certificates.is_ok_and(|certificates| !certificates.is_empty()).then_some(Some(pem))
        })
    }
}
