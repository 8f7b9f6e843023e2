//! The users file: who there is, and what each may do.

use std::{collections::HashMap, num::NonZero, sync::Arc};

use argon2::password_hash::phc::PasswordHash;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use glob::Pattern;
use lru::LruCache;
use parking_lot::Mutex;
use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::Deserialize;

use super::{Right, tokens::Key};
use crate::{reload::Contents, session::SessionId};

/// The longest user name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// How many right, and how many wrong, pairs of name and password are remembered, so that a camera that sends them with
/// every frame costs one hash.
const REMEMBERED: NonZero<usize> = NonZero::new(4096).unwrap();
/// The most memory that checking one password may take, in KiB: a users file cannot fill the machine.
const MAX_HASH_KIB: u32 = 256 * 1024;
/// The most passes over it, and the most lanes.
const MAX_HASH_PASSES: u32 = 16;
/// What an API key begins with, so that people and scanners of code see what it is.
const KEY_PREFIX: &str = "imgs_";
/// Random bytes in an API key.
const KEY_BYTES: usize = 32;

/// The file, as TOML has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    users: HashMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Option<String>,
    password: String,
    key: Option<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    view: Vec<String>,
    #[serde(default)]
    take: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    admin: bool,
}

/// One user.
pub struct User {
    /// The name.
    pub name: String,
    /// What links and sessions of this user's are known by: not the name, which somebody else may have later.
    pub(super) id: String,
    /// The password's hash, a PHC string.
    pub(super) password: String,
    /// What checking it costs: KiB times passes.
    cost: u64,
    /// The hash of the API key, as the file has it.
    key: Option<String>,
    rights: [Vec<Pattern>; Right::ALL.len()],
    /// Whether the user may do everything.
    pub admin: bool,
}

impl User {
    /// Whether the user has a right on a session.
    pub(super) fn may(&self, right: Right, session: &SessionId, key: &Key) -> bool {
        self.admin
            || self.rights[right as usize].iter().any(|glob| glob.matches(session.as_str()))
            || key.owns(&self.id, session)
    }

    /// The globs of a right, as the file has them.
    pub fn globs(&self, right: Right) -> impl Iterator<Item = &str> {
        self.rights[right as usize].iter().map(Pattern::as_str)
    }

    /// Whether the user has an API key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// Every user, and what was learned of their passwords. A file that is read again makes a new one of these, so nothing
/// that was learned outlives a change.
pub struct Users {
    by_name: HashMap<String, Arc<User>>,
    by_key: HashMap<String, Arc<User>>,
    by_id: HashMap<String, Arc<User>>,
    /// The hash that takes longest.
    dearest: Option<String>,
    /// What pairs of name and password are remembered by: their HMAC under a key that is never kept.
    pairs: hmac::Key,
    right: Mutex<LruCache<Pair, Arc<User>>>,
    wrong: Mutex<LruCache<Pair, ()>>,
}

/// A name and a password, as they are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair([u8; 32]);

impl Users {
    /// Reads the one file that was found.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(contents: &Contents) -> Result<Self, String> {
        let file = contents.first().ok_or("there is no users file")?.as_ref().map_err(ToString::to_string)?;
        let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8")?;
        // One that was emptied by accident, or is just being written, is to log nobody out.
        if text.trim().is_empty() {
            return Err("it is empty: `image-streamer user add` adds users".into());
        }
        Self::read(text)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            // Nothing of the line itself, and no value in it: that may be a password.
            let names_only =
                |message: &&str| message.starts_with("missing field") || message.starts_with("unknown field");
            let what = Some(error.message())
                .filter(names_only)
                .unwrap_or("this is not TOML, or not a value that is expected here");
            format!("line {line}: {what}")
        })?;
        let users = file.users.into_iter().map(|(name, entry)| read_user(name, entry).map(Arc::new));
        let users = users.collect::<Result<Vec<_>, String>>()?;
        let with_key = users.iter().filter_map(|user| Some((user.key.clone()?, user.clone())));
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| "the system gives no random numbers")?;
        Ok(Self {
            by_key: with_key.collect(),
            by_id: users.iter().map(|user| (user.id.clone(), user.clone())).collect(),
            dearest: users.iter().max_by_key(|user| user.cost).map(|user| user.password.clone()),
            by_name: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            pairs: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            right: LruCache::new(REMEMBERED).into(),
            wrong: LruCache::new(REMEMBERED).into(),
        })
    }

    /// The user of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user with this id.
    pub(super) fn with_id(&self, id: &str) -> Option<&Arc<User>> {
        self.by_id.get(id)
    }

    /// The hash that takes longest to check, for names that nobody has.
    pub(super) fn dearest(&self) -> Option<&String> {
        self.dearest.as_ref()
    }

    /// The user with this API key.
    pub(super) fn with_key(&self, key: &str) -> Option<&Arc<User>> {
        self.by_key.get(&hash_key(key))
    }

    /// Every user, by name.
    #[must_use]
    pub fn sorted(&self) -> Vec<&User> {
        let mut users: Vec<_> = self.by_name.values().map(|user| &**user).collect();
        users.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        users
    }

    pub(super) fn pair(&self, name: &str, password: &str) -> Pair {
        let mut context = hmac::Context::with_key(&self.pairs);
        for text in [name, password] {
            context.update(&(text.len() as u64).to_le_bytes());
            context.update(text.as_bytes());
        }
        let mut pair = [0; 32];
        pair.copy_from_slice(context.sign().as_ref());
        Pair(pair)
    }

    /// What is remembered of a pair: whose it is, or nobody's.
    pub(super) fn remembered(&self, pair: &Pair) -> Option<Option<Arc<User>>> {
        if let Some(user) = self.right.lock().get(pair) {
            return Some(Some(user.clone()));
        }
        self.wrong.lock().get(pair).map(|()| None)
    }

    pub(super) fn remember(&self, pair: Pair, user: Option<Arc<User>>) {
        match user {
            Some(user) => drop(self.right.lock().put(pair, user)),
            None => drop(self.wrong.lock().put(pair, ())),
        }
    }
}

fn read_user(name: String, entry: Entry) -> Result<User, String> {
    let fault = |what: String| format!("user {name:?}: {what}");
    check_name(&name).map_err(&fault)?;
    let hash = PasswordHash::new(&entry.password)
        .ok()
        .filter(|hash| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some() && hash.salt.is_some());
    let hash = hash
        .ok_or_else(|| fault("password: expected an argon2id hash, as `image-streamer user passwd` makes it".into()))?;
    let params = argon2::Params::try_from(&hash).map_err(|error| fault(format!("password: {error}")))?;
    if params.m_cost() > MAX_HASH_KIB || params.t_cost() > MAX_HASH_PASSES || params.p_cost() > MAX_HASH_PASSES {
        let limits = format!("{MAX_HASH_KIB} KiB, {MAX_HASH_PASSES} passes and as many lanes");
        return Err(fault(format!("password: its hash costs more than the limit of {limits}")));
    }
    let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if entry.key.as_ref().is_some_and(|key| key.len() != hash_key("").len()) {
        return Err(fault("key: expected a SHA-256 hash, as `image-streamer user key` makes it".into()));
    }
    let compile = |globs: &[String]| globs.iter().map(|glob| parse_glob(glob)).collect::<Result<Vec<_>, _>>();
    let lists = [&entry.publish, &entry.view, &entry.take, &entry.command];
    let mut rights: [Vec<Pattern>; Right::ALL.len()] = Default::default();
    for (right, globs) in Right::ALL.into_iter().zip(lists) {
        rights[right as usize] = compile(globs).map_err(|what| fault(format!("{right}: {what}")))?;
    }
    let Entry { id, password, key, admin, .. } = entry;
    Ok(User { id: id.unwrap_or_else(|| name.clone()), name, password, cost, key, rights, admin })
}

/// Checks a user's name.
///
/// # Errors
/// What is wrong with it, for people.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'+' | b'-');
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!("a name has 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 . _ @ + -"))
}

/// Reads a glob: `*` stands for any characters, `?` for one, `[abc]` for one of these.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_glob(glob: &str) -> Result<Pattern, String> {
    Pattern::new(glob).map_err(|error| format!("{glob:?} is no glob like cam-*: {}", error.msg))
}

/// What the file holds of an API key. Keys are random, so unlike passwords they need no slow hash.
#[must_use]
pub fn hash_key(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, key.as_bytes()))
}

/// A new API key.
///
/// # Errors
/// When the system gives no random numbers.
pub fn new_key() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers")?;
    Ok(format!("{KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=16,t=2,p=1$c29tZXNhbHQ$bmljZSB0cnkgb2YgeW91cnMh";

    fn users(text: &str) -> Result<Users, String> {
        Users::read(&text.replace("HASH", HASH))
    }

    #[test]
    fn rights_are_globs_admins_and_what_was_made_for_a_user() {
        let text = r#"
            [users."ann@example.org"]
            password = "HASH"
            publish = ["cam-*", "door"]
            view = ["*"]
            [users.root]
            password = "HASH"
            admin = true
        "#;
        let (users, key) = (users(text).unwrap(), Key::new(b"key"));
        let may =
            |user: &str, right, session: &str| users.get(user).unwrap().may(right, &session.parse().unwrap(), &key);
        let ann = "ann@example.org";
        for (right, session, granted) in [
            (Right::Publish, "cam-1", true),
            (Right::Publish, "door", true),
            (Right::Publish, "Cam-1", false),
            (Right::Publish, "my-cam-1", false),
            (Right::View, "anything", true),
            (Right::Take, "cam-1", false),
            (Right::Command, "door", false),
        ] {
            assert_eq!(may(ann, right, session), granted, "{right} {session}");
        }
        assert!(Right::ALL.into_iter().all(|right| may("root", right, "x")));
        let own = key.new_session(&users.get(ann).unwrap().id);
        assert!(Right::ALL.into_iter().all(|right| may(ann, right, own.as_str())));
        assert!(users.get("bob").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_the_users_name() {
        for (text, word) in [
            ("[users.a]", "password"),
            ("[users.ann]\npassword = \"secret\"", "argon2id"),
            ("[users.ann]\npassword = \"$argon2i$v=19$m=16,t=2,p=1$c29tZXNhbHQ$bmljZSB0cnkgb2YgeW91cnMh\"", "argon2id"),
            (
                "[users.ann]\npassword = \"$argon2id$v=19$m=9999999,t=2,p=1$c29tZXNhbHQ$bmljZSB0cnkgb2YgeW91cnMh\"",
                "KiB",
            ),
            ("[users.ann]\npassword = \"HASH\"\nview = [\"[\"]", "glob"),
            ("[users.ann]\npassword = \"HASH\"\nvieww = [\"*\"]", "vieww"),
            ("[users.\"a b\"]\npassword = \"HASH\"", "name"),
            ("[users.ann]\npassword = \"HASH\"\nkey = \"abc\"", "key"),
            ("users = 1", "line 1"),
            ("\n[users", "line 2"),
            ("[users.ann]\npassword = HASH", "line 2"),
            ("[users.ann]\npassword = 12345678", "line 2"),
            ("[users.ann]\npassword = \"HASH\"\nadmin = \"hunter2\"", "line 3"),
            ("[users.ann]\npassword = \"$argon2id$v=19$m=16,t=99,p=1$c29tZXNhbHQ$bmljZSB0cnkgb2YgeW91cnMh\"", "passes"),
        ] {
            let fault = users(text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(fault.contains(word), "{text}: {fault}");
            assert!(!["secret", "12345678", "hunter2"].iter().any(|value| fault.contains(value)));
            assert!(!fault.contains("bmljZSB0cnkgb2Y"), "{fault}");
        }
        assert!(users("").unwrap().sorted().is_empty());
    }

    #[test]
    fn keys_are_found_by_their_hash() {
        let key = new_key().unwrap();
        assert_ne!(key, new_key().unwrap());
        let text = format!("[users.ann]\npassword = \"HASH\"\nkey = \"{}\"", hash_key(&key));
        let users = users(&text).unwrap();
        assert_eq!(users.with_key(&key).unwrap().name, "ann");
        assert!(users.with_key("").is_none() && users.with_key(&key[1..]).is_none());
    }
}
