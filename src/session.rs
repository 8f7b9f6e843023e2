//! [`SessionId`]: the name of a stream of frames.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::error::Error;

/// The longest session id, in bytes (all of them ASCII).
pub const MAX_SESSION_LENGTH: usize = 128;

/// A checked session id: `[A-Za-z0-9._@-]{1,128}`, but neither `.` nor `..`, which URLs give another meaning.
///
/// Cheap to clone. Safe to put into a URL path, a Redis key or a log line as it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new id that nobody can guess (UUID version 4, 122 random bits).
    #[must_use]
    pub fn random() -> Self {
        Uuid::new_v4().into()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// In the usual form, with hyphens and small letters.
impl From<Uuid> for SessionId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'-');
        let valid =
            (1..=MAX_SESSION_LENGTH).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..");
        if valid { Ok(Self(text.into())) } else { Err(Error::BadSession) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_documented_form_are_accepted_and_no_others() {
        let longest = "a".repeat(MAX_SESSION_LENGTH);
        for good in ["a", "xyzabc", "A-Z.0_9@home", "...", "-", &longest] {
            assert_eq!(good.parse::<SessionId>().ok().map(|id| id.to_string()), Some(good.to_string()));
        }
        let too_long = "a".repeat(MAX_SESSION_LENGTH + 1);
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "ä", "a{b}", "a*", "%61", "a\n", &too_long] {
            assert!(matches!(bad.parse::<SessionId>(), Err(Error::BadSession)), "{bad:?}");
        }
    }

    #[test]
    fn random_ids_are_version_4_uuids_and_differ() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_ne!(one, other);
        assert_eq!(Uuid::parse_str(one.as_str()).map(|uuid| uuid.get_version_num()), Ok(4));
    }
}
