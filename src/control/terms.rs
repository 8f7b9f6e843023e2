//! [`Terms`]: what a vehicle says on connecting, and [`Words`]: what it is sent.

use std::time::Duration;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;

use crate::{error::Error, session::SessionId, wire::query::Query};

/// The lease of a vehicle that names none.
const DEFAULT_LEASE: Duration = Duration::from_millis(500);
/// The longest name of a vehicle, in characters.
const MAX_NAME: usize = 64;

/// One message to a vehicle.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Words {
    /// Whether it is a text.
    pub is_text: bool,
    /// What it says.
    pub bytes: Bytes,
}

impl Words {
    /// A text, if it is one.
    #[must_use]
    pub fn of(bytes: Bytes) -> Self {
        Self { is_text: std::str::from_utf8(&bytes).is_ok(), bytes }
    }
}

/// What a vehicle says on connecting: what stops it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How long it may go on after a command or an operator's ping.
    pub lease: Duration,
    /// What stops it; nothing where it stops by itself.
    pub stop: Option<Words>,
}

impl Terms {
    /// `lease` and `stop`, or `stop64`.
    ///
    /// # Errors
    /// [`Error::BadQuery`].
    pub(super) fn read(query: &Query) -> Result<Self, Error> {
        let lease = query.parse("lease", "whole milliseconds from 50 to 60000", |text| {
            text.parse().ok().filter(|ms| (50..=60_000).contains(ms))
        })?;
        let expected = "a text, percent-encoded; anything else as stop64=";
        // What was no UTF-8 has been replaced: it would be sent as something else.
        let text = query.parse("stop", expected, |text| (!text.contains('\u{FFFD}')).then(|| text.to_owned()))?;
        let expected = "base64, of the standard or the URL-safe alphabet, with padding or without";
        let bytes = query.parse("stop64", expected, |text| decode(&text.replace(' ', "+")))?;
        let stop = match (text, bytes) {
            (Some(_), Some(_)) => return Err(Error::BadQuery { name: "stop", expected: "either stop or stop64" }),
            (Some(text), None) => Some(Words { is_text: true, bytes: text.into() }),
            (None, Some(bytes)) => Some(Words { is_text: false, bytes: bytes.into() }),
            (None, None) => None,
        };
        // An empty message says nothing.
        let stop = stop.filter(|words| !words.bytes.is_empty());
        Ok(Self { lease: lease.map_or(DEFAULT_LEASE, Duration::from_millis), stop })
    }

    /// `vehicle`: what it is called.
    pub(super) fn read_name(query: &Query) -> Result<String, Error> {
        let expected = "1 to 64 characters of A-Z a-z 0-9 . _ @ -";
        let name = query.parse("vehicle", expected, |text| {
            (text.len() <= MAX_NAME).then(|| text.parse::<SessionId>().ok()).flatten().map(|name| name.to_string())
        })?;
        Ok(name.unwrap_or_default())
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(query: &str) -> Result<Terms, Error> {
        Terms::read(&Query::read(query))
    }

    #[test]
    fn a_vehicle_says_what_stops_it_as_text_or_as_bytes() {
        let stop = |query: &str| terms(query).unwrap().stop;
        let text = |text: &'static str| Some(Words { is_text: true, bytes: text.into() });
        let bytes = |bytes: &'static [u8]| Some(Words { is_text: false, bytes: Bytes::from_static(bytes) });
        assert_eq!(stop("stop=STOP"), text("STOP"));
        assert_eq!(stop("stop=%7B%22linear%22%3A%7B%7D%7D%0A"), text("{\"linear\":{}}\n"));
        for coded in ["-_8=", "-_8", "%2B/8%3D", "+/8=", "%2b%2F8"] {
            assert_eq!(stop(&format!("stop64={coded}")), bytes(b"\xfb\xff"), "{coded}");
        }
        assert_eq!((stop(""), stop("stop=")), (None, None));
        assert_eq!(terms("").unwrap().lease, DEFAULT_LEASE);
        assert_eq!(terms("lease=250").unwrap().lease, Duration::from_millis(250));
    }

    #[test]
    fn terms_that_make_no_sense_are_named() {
        for (query, wrong) in [
            ("lease=49", "lease"),
            ("lease=60001", "lease"),
            ("lease=1e3", "lease"),
            ("stop=%FF", "stop"),
            ("stop64=?", "stop64"),
            ("stop=a&stop64=YQ", "stop"),
        ] {
            assert!(matches!(terms(query), Err(Error::BadQuery { name, .. }) if name == wrong), "{query}");
        }
        assert!(Terms::read_name(&Query::read("vehicle=a%20b")).is_err());
        assert_eq!(Terms::read_name(&Query::read("vehicle=car-1")).unwrap(), "car-1");
    }
}
