//! The parameters of a query string.

use std::{ops::RangeInclusive, time::Duration};

use actix_web::web;

use crate::error::Error;

/// The longest `wait`, in seconds.
const MAX_WAIT_SECONDS: f64 = 60.0;

/// Parameters by name. Those that nobody asks for are ignored: clients add some to get around caches.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(web::Query::from_query(text).map(web::Query::into_inner).unwrap_or_default())
    }

    /// The value of the last parameter of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value as it is understood, if there is one.
    ///
    /// # Errors
    /// [`Error::BadQuery`] where it is not.
    pub fn parse<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.get(name).map(|value| parse(value).ok_or(Error::BadQuery { name, expected })).transpose()
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for anything else.
    pub fn number(
        &self,
        name: &'static str,
        expected: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, Error> {
        self.parse(name, expected, |value| value.parse().ok().filter(|number| range.contains(number)))
    }

    /// `wait`: 0 to 60 s, and 0 where it is not given.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for anything else.
    pub fn wait(&self) -> Result<Duration, Error> {
        let seconds = self.number("wait", "seconds from 0 to 60", 0.0..=MAX_WAIT_SECONDS)?;
        Ok(seconds.map(Duration::from_secs_f64).unwrap_or_default())
    }

    /// Whether `empty=204` asks for no picture where there is no frame.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for anything else.
    pub fn empty_is_204(&self) -> Result<bool, Error> {
        let asked = self.parse("empty", "204, or nothing for a picture", |value| (value == "204").then_some(()))?;
        Ok(asked.is_some())
    }

    /// `fps`: the time from one frame to the next at least, if it is given.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for anything but 0.1 to 60.
    pub fn interval(&self) -> Result<Option<Duration>, Error> {
        let fps = self.number("fps", "frames a second from 0.1 to 60", 0.1..=60.0)?;
        Ok(fps.map(|fps| Duration::from_secs_f64(1.0 / fps)))
    }
}

/// A yes or no.
#[must_use]
pub fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_ignored_and_what_is_wrong_is_named() {
        let query = Query::read("fps=5&x=.mjpg&t=1700000000&wait=0.5");
        assert_eq!(query.interval().ok().flatten(), Some(Duration::from_millis(200)));
        assert_eq!(query.wait().ok(), Some(Duration::from_millis(500)));
        assert_eq!(query.empty_is_204().ok(), Some(false));
        for bad in ["fps=0", "fps=61", "fps=NaN", "fps=", "fps=fast"] {
            assert!(matches!(Query::read(bad).interval(), Err(Error::BadQuery { name: "fps", .. })), "{bad}");
        }
        for bad in ["wait=-1", "wait=61", "wait=inf", "wait=1s"] {
            assert!(matches!(Query::read(bad).wait(), Err(Error::BadQuery { name: "wait", .. })), "{bad}");
        }
    }
}
