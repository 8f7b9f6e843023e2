//! What is signed: links, logins, and the ids of sessions that belong to somebody.
//!
//! A token is what it says, as JSON, and an HMAC of that (RFC 2104, with SHA-256), both in base64url with a dot between. The
//! HMAC covers the kind of token too, so none can be used as another. What a token says can be read by whoever holds it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::Right;
use crate::session::SessionId;

/// The longest token that is looked at, in bytes: the longest names in it, and room to spare.
const MAX_TOKEN_BYTES: usize = 2048;
/// Bytes of a session's id that are random; the rest tell whose it is. With 60 random bits and 62 that only the holder of
/// the key can make, an id is as hard to guess as any UUID.
const RANDOM_BYTES: usize = 8;

/// What everything is signed with.
pub struct Key(hmac::Key);

/// What a token says.
pub trait Claims: Serialize + DeserializeOwned {
    /// The kind of token.
    const KIND: &'static str;

    /// When it runs out, in seconds since 1970.
    fn expires(&self) -> u64;
}

/// A login, as its cookie tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Login {
    /// Its own id, by which it is ended.
    pub id: Uuid,
    /// Who logged in.
    pub user: String,
    /// With which password: [`Key::fingerprint`] of its hash.
    pub password: String,
    /// When it runs out, in seconds since 1970.
    pub expires: u64,
}

/// A link: one right on one session, for a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    /// The id of the user who made it; nobody where there are no users.
    pub maker: Option<String>,
    /// The session.
    pub session: String,
    /// The right.
    pub right: Right,
    /// When it runs out, in seconds since 1970.
    pub expires: u64,
}

impl Claims for Login {
    const KIND: &'static str = "login";

    fn expires(&self) -> u64 {
        self.expires
    }
}

impl Claims for Link {
    const KIND: &'static str = "link";

    fn expires(&self) -> u64 {
        self.expires
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Signs.
    pub fn sign<C: Claims>(&self, claims: &C) -> String {
        // Claims are plain structs of texts and numbers.
        let text = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
        let tag = BASE64_URL_SAFE_NO_PAD.encode(self.tag(C::KIND, text.as_bytes()));
        format!("{text}.{tag}")
    }

    /// What the token says, if it was signed with this key and has not run out.
    pub fn verify<C: Claims>(&self, token: &str) -> Option<C> {
        let (text, tag) = token.split_once('.').filter(|_| token.len() <= MAX_TOKEN_BYTES)?;
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, &message(C::KIND, text.as_bytes()), &tag).ok()?;
        let claims: C = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (now() < claims.expires()).then_some(claims)
    }

    /// Something that changes with a text and does not tell it.
    pub fn fingerprint(&self, text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(&self.tag("fingerprint", text.as_bytes()).as_ref()[..16])
    }

    /// A new session id that tells, to holders of the key, whose session it is.
    ///
    /// So a right on it needs to be kept nowhere: no replica can lack it, and nothing has to be cleared away.
    pub fn new_session(&self, owner: &str) -> SessionId {
        self.owned(owner, *Uuid::new_v4().as_bytes())
    }

    /// Whether the session's id was made for this user.
    pub fn owns(&self, owner: &str, session: &SessionId) -> bool {
        // Only in the form that was given out: a UUID can be written in others too.
        Uuid::parse_str(session.as_str()).is_ok_and(|id| self.owned(owner, *id.as_bytes()) == *session)
    }

    /// The id for this owner that begins with these bytes.
    fn owned(&self, owner: &str, mut bytes: [u8; 16]) -> SessionId {
        let random = [&bytes[..RANDOM_BYTES], owner.as_bytes()].concat();
        let tag = self.tag("session", &random);
        bytes[RANDOM_BYTES..].copy_from_slice(&tag.as_ref()[..16 - RANDOM_BYTES]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().into()
    }

    fn tag(&self, kind: &str, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, &message(kind, text))
    }
}

/// What is signed. No kind holds a zero.
fn message(kind: &str, text: &[u8]) -> Vec<u8> {
    [kind.as_bytes(), b"\0", text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(expires: u64) -> Link {
        Link { maker: Some("ann".into()), session: "cam".into(), right: Right::View, expires }
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_runs_out() {
        let key = Key::new(b"key");
        let token = key.sign(&link(now() + 60));
        assert_eq!(key.verify::<Link>(&token).unwrap().session, "cam");
        assert!(key.verify::<Link>(&key.sign(&link(now()))).is_none());
    }

    #[test]
    fn what_was_changed_signed_otherwise_or_is_of_another_kind_says_nothing() {
        let key = Key::new(b"key");
        let token = key.sign(&link(now() + 60));
        assert!(Key::new(b"other").verify::<Link>(&token).is_none());
        assert!(key.verify::<Login>(&token).is_none());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of base64 without padding has bits that mean nothing, and those are refused too.
            assert!(key.verify::<Link>(&changed).is_none(), "{at}: {changed}");
        }
        for cut in 0..token.len() {
            assert!(key.verify::<Link>(&token[..cut]).is_none());
        }
        let text = token.split_once('.').unwrap().0;
        for nonsense in ["", ".", "..", text, &format!("{text}."), &"a".repeat(10_000), "ä.ö"] {
            assert!(key.verify::<Link>(nonsense).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn a_session_is_its_owners_and_nobody_elses() {
        let key = Key::new(b"key");
        let session = key.new_session("ann");
        assert_eq!(Uuid::parse_str(session.as_str()).map(|id| id.get_version_num()), Ok(4));
        assert_ne!(session, key.new_session("ann"));
        assert!(key.owns("ann", &session));
        assert!(!key.owns("bob", &session) && !Key::new(b"other").owns("ann", &session));
        let upper = session.as_str().to_uppercase();
        for other in [&upper, "cam", &session.as_str().replace('-', "")] {
            assert!(!key.owns("ann", &other.parse().unwrap()), "{other}");
        }
        assert!((0..1000).all(|_| !key.owns("ann", &SessionId::random())));
    }
}
