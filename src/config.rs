//! Configuration: one struct per concern, read from the environment, checked whole before anything is bound.
//!
//! [`VARIABLES`] is the list that `--help` prints. A variable that is set to nothing counts as not set.

use std::{ffi::OsString, fmt, net::IpAddr, num::NonZero, str::FromStr, thread, time::Duration};

use actix_web::http::{Uri, header::HeaderValue};
use bytesize::ByteSize;
use serde::Deserialize;

use crate::{frame::ImageType, placeholder, store::StoreLimits};

/// The largest WORKERS: no machine that this runs on has more use for them.
const MAX_WORKERS: usize = 256;
/// The longest EXPIRE: 30 days, in seconds. In milliseconds it still fits into 32 bits.
const MAX_EXPIRE_SECONDS: u64 = 30 * 24 * 3600;
/// The largest MAX_QUEUE: what one script may walk through without holding up Redis for long.
const MAX_MAX_QUEUE: usize = 1_000_000;
/// The largest MAX_IMAGE_BYTES: Redis holds 512 MiB in one value, the frame's header included.
const MAX_MAX_IMAGE_BYTES: u64 = 511 << 20;

/// One variable as `--help` shows it: name, default, meaning.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("HOST", "0.0.0.0", "address to listen on (also -i, --ip)"),
    ("PORT", "3000", "port to listen on; 0 takes a free one (also -p, --port)"),
    ("WORKERS", "unset", "threads that serve requests, 1 to 256; unset: one less than there are cores"),
    ("REDIS_HOST", "unset", "host of the Redis that holds the frames; unset: they are held in memory"),
    ("REDIS_PORT", "6379", "its port"),
    ("REDIS_URL", "unset", "whole URL, redis:// or rediss://, with user, password, database; wins over REDIS_HOST"),
    ("EXPIRE", "120", "seconds that a frame lives, at least 1"),
    ("MIMETYPE", "image/jpeg", "type of the pictures: image/jpeg, png, gif, webp, avif, bmp, or auto for any of them"),
    ("NODATA_HEIGHT", "720", "height of the No Data picture in pixels, 1 to 8192"),
    ("NODATA_ASPECT_RATIO", "0.5625", "its height over its width, also written 9/16"),
    ("MAX_IMAGE_BYTES", "16MiB", "largest picture"),
    ("MAX_QUEUE", "1000", "frames that wait in a session at most; the oldest are dropped"),
    ("MAX_MEMORY", "1GiB", "memory store: bytes held at most, bookkeeping counted; the oldest frames are dropped"),
    (
        "MAX_INFLIGHT_BYTES",
        "256MiB",
        "bytes of bodies being received at most, as many of pictures being sent, as many that slow viewers hold; 503 beyond",
    ),
    ("MAX_SESSIONS", "100000", "sessions at most; 503 beyond"),
    ("STALE_AFTER", "10", "seconds from a frame's receipt until it is not live any more, 0.5 to 86400"),
    ("CORS_ORIGINS", "*", "origins whose pages may read the answers, with commas between; * for all"),
    ("LOG_FORMAT", "text", "text or json"),
    ("RUST_LOG", "info", "what is logged: error, warn, info, debug, trace, or module=level, with commas between"),
];

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where frames are held.
    pub store: Store,
    /// What the pictures are.
    pub pictures: Pictures,
    /// How much is let in at once.
    pub intake: Intake,
    /// What viewers see.
    pub live: Live,
    /// Which other sites' pages may read answers.
    pub cors: Cors,
    /// How to log.
    pub log: Log,
}

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `HOST`.
    pub ip: IpAddr,
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `WORKERS`: threads that serve requests.
    pub workers: usize,
}

/// Where frames are held.
#[derive(Clone)]
pub struct Store {
    /// `REDIS_URL`, or made from `REDIS_HOST` and `REDIS_PORT`; `None` for the memory store.
    pub redis_url: Option<String>,
    /// `EXPIRE`, `MAX_QUEUE`, `MAX_SESSIONS`.
    pub limits: StoreLimits,
    /// `MAX_MEMORY`, in bytes.
    pub max_memory: usize,
}

/// Leaves the URL out: it may hold a password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { redis_url, limits, max_memory } = self;
        let redis = redis_url.is_some();
        f.debug_struct("Store").field("redis", &redis).field("limits", limits).field("max_memory", max_memory).finish()
    }
}

/// What the pictures are.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// `MIMETYPE`.
    pub carried: Carried,
    /// Width and height of the No Data picture, in pixels.
    pub nodata_size: placeholder::Size,
}

/// How much is let in at once.
#[derive(Debug, Clone, Copy)]
pub struct Intake {
    /// `MAX_IMAGE_BYTES`.
    pub max_image_bytes: usize,
    /// `MAX_INFLIGHT_BYTES`.
    pub max_inflight_bytes: usize,
}

/// What viewers see.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// `STALE_AFTER`: the age from which on a frame is not live any more.
    pub stale_after: Duration,
}

/// Which other sites' pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// Those of any site.
    Any,
    /// Those of these origins.
    Only(Vec<String>),
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Log {
    /// `LOG_FORMAT`.
    pub format: LogFormat,
    /// `RUST_LOG`.
    pub filter: String,
}

/// `LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `MIMETYPE`: which pictures are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// One type, sent back under the name that was configured (`image/jpg` for one).
    One(ImageType, String),
    /// Any type, each sent back under its own name.
    Any,
}

impl Carried {
    /// Whether pictures of this type are carried.
    #[must_use]
    pub fn accepts(&self, kind: ImageType) -> bool {
        match self {
            Self::One(carried, _) => *carried == kind,
            Self::Any => true,
        }
    }

    /// The `Content-Type` of a picture.
    #[must_use]
    pub fn content_type(&self, kind: ImageType) -> &str {
        match self {
            Self::One(carried, name) if *carried == kind => name,
            _ => kind.mime(),
        }
    }

    /// The `Content-Type` of every picture, if there is one for all.
    #[must_use]
    pub fn common_type(&self) -> Option<&str> {
        match self {
            Self::One(_, name) => Some(name),
            Self::Any => None,
        }
    }

    /// The type of the No Data picture: one that can be drawn here and that clients of these pictures can read.
    #[must_use]
    pub fn placeholder_format(&self) -> placeholder::Format {
        match self {
            Self::One(ImageType::Jpeg, _) | Self::Any => placeholder::Format::Jpeg,
            Self::One(..) => placeholder::Format::Png,
        }
    }
}

/// What is expected, in words for an error.
impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(_, name) => f.write_str(name),
            Self::Any => f.write_str("image/jpeg, image/png, image/gif, image/webp, image/avif or image/bmp"),
        }
    }
}

impl FromStr for Carried {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "auto" => Ok(Self::Any),
            "image/jpg" => Ok(Self::One(ImageType::Jpeg, text.to_owned())),
            other => {
                let kind = ImageType::ALL.into_iter().find(|kind| kind.mime() == other).ok_or(())?;
                Ok(Self::One(kind, text.to_owned()))
            }
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub variable: &'static str,
    /// Its value; of a URL only what holds no password.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: expected {}", self.variable, self.value, self.allowed)
    }
}

/// The environment's texts as they are, before any is looked at.
#[derive(Debug, Default, Deserialize)]
struct Environment {
    host: Option<String>,
    port: Option<String>,
    workers: Option<String>,
    redis_host: Option<String>,
    redis_port: Option<String>,
    redis_url: Option<String>,
    expire: Option<String>,
    mimetype: Option<String>,
    nodata_height: Option<String>,
    nodata_aspect_ratio: Option<String>,
    max_image_bytes: Option<String>,
    max_queue: Option<String>,
    max_memory: Option<String>,
    max_inflight_bytes: Option<String>,
    max_sessions: Option<String>,
    stale_after: Option<String>,
    cors_origins: Option<String>,
    log_format: Option<String>,
    rust_log: Option<String>,
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, variable: &'static str, value: &str, allowed: impl Into<String>) {
        self.0.push(Fault { variable, value: value.to_owned(), allowed: allowed.into() });
    }

    /// The variable's value, or its default where it is not set or (which is noted) not allowed.
    fn read<T>(
        &mut self,
        variable: &'static str,
        text: Option<&String>,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let Some(text) = text.map(|text| text.trim()).filter(|text| !text.is_empty()) else { return default };
        parse(text).unwrap_or_else(|| {
            self.add(variable, text, allowed);
            default
        })
    }

    fn bytes(&mut self, variable: &'static str, text: Option<&String>, default: ByteSize, max: u64) -> usize {
        let allowed = format!("a size of 1 to {max} bytes, like 1048576 or 16MiB");
        let size = self.read(variable, text, default, &allowed, |text| {
            text.parse::<ByteSize>().ok().filter(|size| (1..=max).contains(&size.as_u64()))
        });
        usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn from_env() -> Result<Self, Vec<Fault>> {
        Self::from_vars(std::env::vars_os())
    }

    /// Reads the given variables; those of other names are ignored.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let mut texts = Vec::new();
        for (name, value) in vars {
            let Some(variable) = VARIABLES.iter().map(|(variable, ..)| *variable).find(|variable| name == *variable)
            else {
                continue;
            };
            match value.into_string() {
                Ok(value) => texts.push((variable.to_owned(), value)),
                Err(value) => faults.add(variable, &value.to_string_lossy(), "text in UTF-8"),
            }
        }
        // Every field is an optional text, so this cannot fail for any value.
        let env: Environment = envy::from_iter(texts).unwrap_or_default();
        let config = Self {
            listen: Listen::read(&env, &mut faults),
            store: Store::read(&env, &mut faults),
            pictures: Pictures::read(&env, &mut faults),
            intake: Intake::read(&env, &mut faults),
            live: Live::read(&env, &mut faults),
            cors: Cors::read(&env, &mut faults),
            log: Log::read(&env, &mut faults),
        };
        if faults.0.is_empty() { Ok(config) } else { Err(faults.0) }
    }

    /// What is right and will yet surprise, for the log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let image = ByteSize(self.intake.max_image_bytes as u64);
        let mut warnings = Vec::new();
        if self.store.redis_url.is_none() && self.store.max_memory <= self.intake.max_image_bytes {
            warnings.push(format!(
                "MAX_MEMORY is no more than MAX_IMAGE_BYTES ({image}): pictures that do not fit into it are answered 503 store_full"
            ));
        }
        if self.intake.max_inflight_bytes < self.intake.max_image_bytes {
            warnings.push(format!(
                "MAX_INFLIGHT_BYTES is less than MAX_IMAGE_BYTES ({image}): pictures that do not fit into it are answered 503 busy"
            ));
        }
        warnings
    }
}

impl Listen {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
        let any = IpAddr::from([0, 0, 0, 0]);
        let ip = faults.read("HOST", env.host.as_ref(), any, "an IP address, like 0.0.0.0, 127.0.0.1 or ::", |text| {
            text.parse().ok()
        });
        let port = faults.read("PORT", env.port.as_ref(), 3000, "a port from 0 to 65535", |text| text.parse().ok());
        let workers = faults.read(
            "WORKERS",
            env.workers.as_ref(),
            default_workers(),
            &format!("whole threads from 1 to {MAX_WORKERS}"),
            |text| text.parse().ok().filter(|workers| (1..=MAX_WORKERS).contains(workers)),
        );
        Self { ip, port, workers }
    }
}

/// One core is left to what every frame needs besides this process: the kernel's network work, Redis, a proxy. Threads
/// that compete with those for cores only make them and each other slower (`docs/BENCHMARKS.md`).
fn default_workers() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).clamp(1, MAX_WORKERS)
}

impl Store {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
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
            redis_url: Self::read_redis(env, faults),
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
}

impl Pictures {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
        const SIDE: u32 = placeholder::MAX_SIDE;
        let default = Carried::One(ImageType::Jpeg, ImageType::Jpeg.mime().to_owned());
        let carried = faults.read(
            "MIMETYPE",
            env.mimetype.as_ref(),
            default,
            "image/jpeg, image/jpg, image/png, image/gif, image/webp, image/avif, image/bmp or auto",
            |text| text.parse().ok(),
        );
        let height = faults.read(
            "NODATA_HEIGHT",
            env.nodata_height.as_ref(),
            720,
            &format!("pixels from 1 to {SIDE}"),
            |text| text.parse().ok().filter(|height| (1..=SIDE).contains(height)),
        );
        let default = placeholder::Size::from_height(height, 0.5625);
        let allowed = format!(
            "height over width as a number like 0.5625 or a fraction like 9/16 that makes a height of {height} a width of 1 to {SIDE}"
        );
        let nodata_size =
            faults.read("NODATA_ASPECT_RATIO", env.nodata_aspect_ratio.as_ref(), default, &allowed, |text| {
                Some(placeholder::Size::from_height(height, placeholder::parse_ratio(text)?)).filter(Option::is_some)
            });
        // Only a default can be missing here, for a height that is too large for the default ratio.
        let nodata_size = nodata_size.unwrap_or_else(|| {
            faults.add(
                "NODATA_HEIGHT",
                &height.to_string(),
                format!("a height that makes a width of at most {SIDE}; see NODATA_ASPECT_RATIO"),
            );
            placeholder::Size::default()
        });
        Self { carried, nodata_size }
    }
}

impl Intake {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
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

impl Live {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
        let seconds = faults.read("STALE_AFTER", env.stale_after.as_ref(), 10.0, "seconds from 0.5 to 86400", |text| {
            text.parse().ok().filter(|seconds| (0.5..=86_400.0).contains(seconds))
        });
        Self { stale_after: Duration::from_secs_f64(seconds) }
    }
}

impl Cors {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
        let allowed = "* or origins like https://example.org, with commas between";
        faults.read("CORS_ORIGINS", env.cors_origins.as_ref(), Self::Any, allowed, |text| {
            if text == "*" {
                return Some(Self::Any);
            }
            let origins = text.split(',').map(|origin| origin.trim().to_owned());
            origins.map(|origin| is_origin(&origin).then_some(origin)).collect::<Option<_>>().map(Self::Only)
        })
    }
}

/// Scheme, host and perhaps port, as browsers send them in `Origin`.
fn is_origin(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
        && text.parse::<Uri>().is_ok_and(|uri| {
            let bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/');
            bare && matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        })
}

impl Log {
    fn read(env: &Environment, faults: &mut Faults) -> Self {
        let format =
            faults.read("LOG_FORMAT", env.log_format.as_ref(), LogFormat::Text, "text or json", |text| match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            });
        let allowed = "error, warn, info, debug, trace, or module=level, with commas between";
        let filter = faults.read("RUST_LOG", env.rust_log.as_ref(), "info".to_owned(), allowed, |text| {
            text.parse::<tracing_subscriber::EnvFilter>().is_ok().then(|| text.to_owned())
        });
        Self { format, filter }
    }
}

/// The variables as `--help` shows them.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Environment variables:\n");
    for (name, default, meaning) in VARIABLES {
        text.push_str(&format!("  {name:<20} {meaning} [{default}]\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config, Vec<Fault>> {
        Config::from_vars(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn nothing_needs_to_be_set_and_empty_counts_as_unset() {
        for vars in [&[][..], &[("REDIS_HOST", ""), ("PORT", " "), ("MIMETYPE", "")]] {
            let config = config(vars).unwrap();
            assert_eq!((config.listen.port, config.store.redis_url), (3000, None));
            assert_eq!(config.store.limits.ttl, Duration::from_secs(120));
            assert!((1..=MAX_WORKERS).contains(&config.listen.workers));
            assert_eq!((config.store.max_memory, config.intake.max_image_bytes), (1 << 30, 16 << 20));
            assert_eq!((config.pictures.nodata_size.width(), config.pictures.nodata_size.height()), (1280, 720));
            assert_eq!(config.pictures.carried.content_type(ImageType::Jpeg), "image/jpeg");
            assert_eq!(config.listen.ip, IpAddr::from([0, 0, 0, 0]));
            assert_eq!((config.store.limits.max_queue, config.store.limits.max_sessions), (1000, 100_000));
            assert_eq!(config.intake.max_inflight_bytes, 256 << 20);
            assert_eq!((config.cors, config.log.format), (Cors::Any, LogFormat::Text));
            assert_eq!(config.log.filter, "info");
        }
    }

    #[test]
    fn every_fault_is_reported_at_once_with_variable_value_and_what_is_allowed() {
        let wrong = [
            ("HOST", "localhost:80"),
            ("PORT", "70000"),
            ("REDIS_HOST", "a b"),
            ("REDIS_PORT", "0"),
            ("REDIS_URL", "http://:secret@redis"),
            ("EXPIRE", "0"),
            ("MIMETYPE", "image/svg+xml"),
            ("NODATA_ASPECT_RATIO", "9/0"),
            ("WORKERS", "0"),
            ("NODATA_HEIGHT", "8193"),
            ("MAX_IMAGE_BYTES", "0"),
            ("MAX_QUEUE", "-1"),
            ("MAX_MEMORY", "much"),
            ("MAX_INFLIGHT_BYTES", "1 potato"),
            ("MAX_SESSIONS", "0"),
            ("CORS_ORIGINS", "https://good.example,example.org"),
            ("LOG_FORMAT", "xml"),
            ("RUST_LOG", "a=b=c"),
        ];
        let faults = config(&wrong).unwrap_err();
        for (variable, value) in wrong {
            let fault = faults.iter().find(|fault| fault.variable == variable).unwrap_or_else(|| panic!("{variable}"));
            assert!(!fault.allowed.is_empty());
            assert!(variable == "REDIS_URL" || fault.value == value, "{fault}");
        }
        assert_eq!(faults.len(), wrong.len());
        assert!(!faults.iter().any(|fault| fault.to_string().contains("secret")));
    }

    #[test]
    fn values_that_only_clash_together_are_reported() {
        let names = |vars: &[(&str, &str)]| -> Vec<_> {
            config(vars).err().unwrap_or_default().into_iter().map(|fault| fault.variable).collect()
        };
        assert_eq!(names(&[("NODATA_HEIGHT", "8192")]), ["NODATA_HEIGHT"]);
        assert!(names(&[("NODATA_HEIGHT", "8192"), ("NODATA_ASPECT_RATIO", "1")]).is_empty());
        assert_eq!(names(&[("NODATA_ASPECT_RATIO", "0.0001")]), ["NODATA_ASPECT_RATIO"]);
    }

    #[test]
    fn limits_that_keep_the_largest_picture_out_are_warned_of() {
        let warnings = |vars: &[(&str, &str)]| config(vars).unwrap().warnings();
        assert!(warnings(&[]).is_empty());
        assert!(warnings(&[("MAX_MEMORY", "16MiB")])[0].starts_with("MAX_MEMORY"));
        assert!(warnings(&[("MAX_MEMORY", "1MiB"), ("REDIS_HOST", "redis")]).is_empty());
        assert!(warnings(&[("MAX_INFLIGHT_BYTES", "1MiB")])[0].starts_with("MAX_INFLIGHT_BYTES"));
    }

    #[test]
    fn redis_is_named_by_host_and_port_or_by_a_url_that_wins() {
        let url = |vars: &[(&str, &str)]| config(vars).unwrap().store.redis_url;
        assert_eq!(url(&[("REDIS_HOST", "redis")]).as_deref(), Some("redis://redis:6379/"));
        assert_eq!(url(&[("REDIS_HOST", "::1"), ("REDIS_PORT", "7")]).as_deref(), Some("redis://[::1]:7/"));
        let whole = "rediss://me:secret@example.org:6380/3";
        assert_eq!(url(&[("REDIS_HOST", "redis"), ("REDIS_URL", whole)]).as_deref(), Some(whole));
        let shown = format!("{:?}", config(&[("REDIS_URL", whole)]).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn ratios_sizes_and_types_are_read_in_every_documented_form() {
        for ratio in ["0.75", "3/4", " 3 / 4 "] {
            let size =
                config(&[("NODATA_HEIGHT", "480"), ("NODATA_ASPECT_RATIO", ratio)]).unwrap().pictures.nodata_size;
            assert_eq!((size.width(), size.height()), (640, 480));
        }
        for size in ["33554432", "32MiB", "32 MiB"] {
            assert_eq!(config(&[("MAX_IMAGE_BYTES", size)]).unwrap().intake.max_image_bytes, 32 << 20);
        }
        let carried = |text| config(&[("MIMETYPE", text)]).unwrap().pictures.carried;
        assert_eq!(carried("image/jpg").content_type(ImageType::Jpeg), "image/jpg");
        assert!(!carried("image/png").accepts(ImageType::Jpeg));
        assert_eq!(carried("auto").content_type(ImageType::WebP), "image/webp");
        assert_eq!(carried("image/webp").placeholder_format(), placeholder::Format::Png);
    }

    #[test]
    fn help_names_every_variable() {
        let help = help();
        assert!(VARIABLES.iter().all(|(name, ..)| help.contains(name)));
    }
}
