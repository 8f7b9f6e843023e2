//! Configuration: one struct per concern, each in a file of its own beside its variables, read from the environment and
//! checked whole before anything is bound.
//!
//! [`variables`] is the list that `--help` prints. A variable that is set to nothing counts as not set.

mod access;
mod control;
mod intake;
mod listen;
mod live;
mod log;
mod pictures;
mod proxy;
mod sites;
mod socketio;
mod store;
mod tls;
mod vicer;

use std::{ffi::OsString, fmt};

use bytesize::ByteSize;
use serde::de::DeserializeOwned;

pub use self::{
    access::{Access, ClientLimits, Secret},
    control::Control,
    intake::Intake,
    listen::Listen,
    live::Live,
    log::{Log, LogFormat},
    pictures::{Carried, Pictures},
    proxy::{Proxy, parse_base_path},
    sites::{Cors, Sites, parse_origin},
    socketio::{SessionTemplate, SocketIo},
    store::Store,
    tls::{Tls, TlsFiles},
    vicer::Vicer,
};

/// One variable as `--help` shows it: name, default, meaning.
pub type Variable = (&'static str, &'static str, &'static str);

/// Every variable, by concern.
const VARIABLES: [&[Variable]; 13] = [
    listen::VARIABLES,
    socketio::VARIABLES,
    vicer::VARIABLES,
    tls::VARIABLES,
    proxy::VARIABLES,
    access::VARIABLES,
    sites::VARIABLES,
    store::VARIABLES,
    pictures::VARIABLES,
    intake::VARIABLES,
    live::VARIABLES,
    control::VARIABLES,
    log::VARIABLES,
];

/// Every variable.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().copied().flatten()
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// The Socket.IO gateway.
    pub socketio: SocketIo,
    /// VICER's own wire.
    pub vicer: Vicer,
    /// HTTPS.
    pub tls: Tls,
    /// What stands between visitors and this server.
    pub proxy: Proxy,
    /// Who may do what, and how much of it.
    pub access: Access,
    /// Whose pages may do what.
    pub sites: Sites,
    /// Where frames are held.
    pub store: Store,
    /// What the pictures are.
    pub pictures: Pictures,
    /// How much is let in at once.
    pub intake: Intake,
    /// What viewers see.
    pub live: Live,
    /// The command relay.
    pub control: Control,
    /// How to log.
    pub log: Log,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub variable: &'static str,
    /// Its value; nothing of it that is secret.
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
struct Texts(Vec<(String, String)>);

impl Texts {
    /// Those of one concern. Every field of it is an optional text, so this cannot fail for any value.
    fn read<T: DeserializeOwned + Default>(&self) -> T {
        envy::from_iter(self.0.iter().cloned()).unwrap_or_default()
    }
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
        let mut texts = Texts(Vec::new());
        for (name, value) in vars {
            let Some(variable) = variables().map(|(variable, ..)| *variable).find(|variable| name == *variable) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => texts.0.push((variable.to_owned(), value)),
                Err(value) => faults.add(variable, &value.to_string_lossy(), "text in UTF-8"),
            }
        }
        let config = Self {
            listen: Listen::read(&texts, &mut faults),
            socketio: SocketIo::read(&texts, &mut faults),
            vicer: Vicer::read(&texts, &mut faults),
            tls: Tls::read(&texts, &mut faults),
            proxy: Proxy::read(&texts, &mut faults),
            access: Access::read(&texts, &mut faults),
            sites: Sites::read(&texts, &mut faults),
            store: Store::read(&texts, &mut faults),
            pictures: Pictures::read(&texts, &mut faults),
            intake: Intake::read(&texts, &mut faults),
            live: Live::read(&texts, &mut faults),
            control: Control::read(&texts, &mut faults),
            log: Log::read(&texts, &mut faults),
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

/// The variables as `--help` shows them.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Environment variables:\n");
    for (name, default, meaning) in variables() {
        text.push_str(&format!("  {name:<20} {meaning} [{default}]\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use super::*;
    use crate::{frame::ImageType, placeholder};

    fn config(vars: &[(&str, &str)]) -> Result<Config, Vec<Fault>> {
        Config::from_vars(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn nothing_needs_to_be_set_and_empty_counts_as_unset() {
        for vars in [&[][..], &[("REDIS_HOST", ""), ("PORT", " "), ("MIMETYPE", "")]] {
            let config = config(vars).unwrap();
            assert_eq!((config.listen.port, config.store.redis_url), (3000, None));
            assert_eq!(config.store.limits.ttl, Duration::from_secs(120));
            assert!(config.listen.workers >= 1);
            assert_eq!((config.store.max_memory, config.intake.max_image_bytes), (1 << 30, 16 << 20));
            assert_eq!((config.pictures.nodata_size.width(), config.pictures.nodata_size.height()), (1280, 720));
            assert_eq!(config.pictures.carried.content_type(ImageType::Jpeg), "image/jpeg");
            assert_eq!(config.listen.ip, IpAddr::from([0, 0, 0, 0]));
            assert_eq!((config.store.limits.max_queue, config.store.limits.max_sessions), (1000, 100_000));
            assert_eq!(config.intake.max_inflight_bytes, 256 << 20);
            assert_eq!((config.sites.cors, config.log.format), (Cors::Any, LogFormat::Text));
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
            ("PUBLIC_URL", "https://example.org/cams"),
            ("REDIS_CA_FILE", "/nowhere/ca.pem"),
            ("HTTP_REDIRECT_PORT", "80"),
            ("HSTS_MAX_AGE", "for ever"),
            ("TRUSTED_PROXIES", "127.0.0.1,localhost"),
            ("BASE_PATH", "/a/../b"),
            ("MAX_CLIENT_PUSH_RATE", "-1"),
            ("MAX_CLIENT_VIEWERS", "many"),
            ("MAX_CLIENT_SESSIONS", "1.5"),
            ("DEFAULT_SESSION", "a b"),
            ("SOCKETIO_PORT", "eight"),
            ("SOCKETIO_HOST", "phones"),
            ("SOCKETIO_SESSION", "{username}/{password}"),
            ("VICER_CONTROL_PORT", "-1"),
            ("VICER_STREAM_PORT", "http"),
            ("VICER_HOST", "cars"),
            ("VICER_SESSION", "a b"),
            ("VICER_LEASE_MS", "49"),
            ("VICER_ALLOW_ANONYMOUS", "yes"),
            ("COMMAND_TTL_MS", "0.5"),
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
        let whole = "rediss://me:hunter2@example.org:6380/3";
        assert_eq!(url(&[("REDIS_HOST", "redis"), ("REDIS_URL", whole)]).as_deref(), Some(whole));
        let shown = format!("{:?}", config(&[("REDIS_URL", whole)]).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
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
        assert!(variables().all(|(name, ..)| help.contains(name)));
    }

    #[test]
    fn secrets_that_are_wrong_are_reported_and_not_shown() {
        let faults = config(&[("SECRET_KEY", "hunter2"), ("METRICS_TOKEN", "open sesame")]).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.variable).collect::<Vec<_>>(), ["SECRET_KEY", "METRICS_TOKEN"]);
        let long = "0123456789abcdef0123456789abcdef";
        let config = config(&[("SECRET_KEY", long), ("METRICS_TOKEN", "sesame")]).unwrap();
        let shown = format!("{faults:?} {config:?}");
        assert!(!["hunter2", "sesame", long].iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    #[test]
    fn origins_are_compared_as_browsers_send_them() {
        let sites = config(&[("CORS_ORIGINS", "https://A.Example:443, http://b:8080"), ("PUBLIC_URL", "http://C:80/")]);
        let sites = sites.unwrap().sites;
        assert_eq!(sites.cors, Cors::Only(vec!["https://a.example".into(), "http://b:8080".into()]));
        assert_eq!(sites.public_url.as_deref(), Some("http://c"));
        for wrong in ["a.example", "https://", "https://a/b", "https://a?b", "https://u@a", "ftp://a", "null", ""] {
            assert_eq!(parse_origin(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_phones_session_is_made_of_its_users_name() {
        let session = |template: &str, name: &str| {
            let socketio = config(&[("SOCKETIO_SESSION", template)]).unwrap().socketio;
            socketio.session.session(name).ok().map(|session| session.to_string())
        };
        assert_eq!(session("", "ann").as_deref(), Some("ann"));
        assert_eq!(session("phone-{username}", "ann").as_deref(), Some("phone-ann"));
        assert_eq!(session("garage", "ann").as_deref(), Some("garage"));
        for unusable in ["", "a b", "..", "{username}", "a/b"] {
            assert_eq!(session("phone-{username}", unusable), None, "{unusable:?}");
        }
        assert_eq!(session("phone-{username}", &"a".repeat(123)), None);
    }

    #[test]
    fn where_there_are_users_vicers_ports_are_opened_only_to_who_says_so() {
        let opened = |vars: &[(&str, &str)]| config(&[vars, &[("VICER_STREAM_PORT", "5001")]].concat());
        let faults = opened(&[("USERS_FILE", "users.toml")]).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.variable).collect::<Vec<_>>(), ["VICER_ALLOW_ANONYMOUS"]);
        for vars in [&[("USERS_FILE", "users.toml"), ("VICER_ALLOW_ANONYMOUS", "1")][..], &[]] {
            let vicer = opened(vars).unwrap().vicer;
            assert_eq!((vicer.control_port, vicer.stream_port), (None, Some(5001)));
            assert_eq!((vicer.ip, vicer.session.as_str(), &*vicer.stop), (IpAddr::from([127, 0, 0, 1]), "vicer", "S"));
            assert_eq!(vicer.lease, Duration::from_millis(500));
        }
    }

    #[test]
    fn certificate_and_key_come_together() {
        let one = |name| config(&[(name, "file.pem")]).unwrap_err()[0].variable;
        assert_eq!((one("TLS_CERT"), one("TLS_KEY")), ("TLS_KEY", "TLS_CERT"));
        let both = config(&[("TLS_CERT", "a.pem"), ("TLS_KEY", "b.pem"), ("HTTP_REDIRECT_PORT", "80")]).unwrap().tls;
        assert_eq!((both.files.is_some(), both.redirect_port), (true, Some(80)));
    }

    #[test]
    fn proxies_are_addresses_or_networks_and_the_base_path_has_no_slash_at_its_end() {
        let proxy =
            config(&[("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,::1"), ("BASE_PATH", "/a/cams/")]).unwrap().proxy;
        for (address, trusted) in
            [("127.0.0.1", true), ("127.0.0.2", false), ("10.9.8.7", true), ("::1", true), ("::2", false)]
        {
            assert_eq!(proxy.trusts(address.parse().unwrap()), trusted, "{address}");
        }
        assert_eq!(proxy.base_path, "/a/cams");
        for root in ["", "/", "//"] {
            assert_eq!(config(&[("BASE_PATH", root)]).unwrap().proxy, Proxy::default());
        }
        for wrong in ["cams", "/a//b", "/.", "/a/..", "/a?b", "/a%20b", "/ä"] {
            assert!(config(&[("BASE_PATH", wrong)]).is_err(), "{wrong}");
        }
    }
}
