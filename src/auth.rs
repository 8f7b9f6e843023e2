//! Who may do what.
//!
//! A request carries [`Credentials`]; [`Auth::visitor`] tells whom they stand for, and a [`Visitor`] tells what may be
//! done. It is asked anew each time, by the users file as it is then, so what goes on for ever can ask again. Where a route
//! says what it needs is [`crate::http`]; nothing else decides who gets in.

pub mod clients;
mod passwords;
mod throttle;
pub mod tokens;
pub mod users;

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::passwords::{MAX_PASSWORD_BYTES, hash};
use self::{
    clients::{Client, Clients, Name},
    passwords::Passwords,
    tokens::{Key, Link, Login, now},
    users::{User, Users},
};
use crate::{config::Access, error::Error, reload::Reloading, session::SessionId, store::vault::Vault};

/// How long a login lasts that is not to be remembered: a day's work.
const LOGIN_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long one lasts that is.
pub const REMEMBERED_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest life of a link: a year.
pub const MAX_LINK_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often what goes on for ever asks whether it still may.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What can be granted on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To push pictures.
    Publish,
    /// To watch and to read without taking.
    View,
    /// To take frames off the queue.
    Take,
    /// To command a vehicle.
    Command,
}

impl Right {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Publish, Self::View, Self::Take, Self::Command];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::View => "view",
            Self::Take => "take",
            Self::Command => "command",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a client is, as far as it counts: an IPv4 address, or the /64 of an IPv6 one, which is one household's or one
/// machine's to choose addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

/// What a request says of who sent it.
pub struct Credentials<'a> {
    /// Its `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The cookie of a login.
    pub login: Option<&'a str>,
    /// A link's token.
    pub token: Option<&'a str>,
    /// Where it came from.
    pub address: IpAddr,
}

/// Users, and what is known of them and of those who are none.
pub struct Auth {
    /// Where there are none, everybody may do everything.
    users: Option<Reloading<Users>>,
    passwords: Option<Passwords>,
    key: OnceCell<Key>,
    vault: Arc<dyn Vault>,
    metrics_token: Option<String>,
    clients: Clients,
}

/// Why a visitor is let in. It holds for as long as what it names is as it was.
#[derive(Clone)]
enum Proof {
    /// A password of this hash.
    Password { user: String, hash: String },
    /// An API key.
    Key { user: String, key: String },
    /// A login's cookie.
    Login(Login),
    /// A link.
    Link(Link),
}

/// Somebody who may do something.
#[derive(Clone)]
pub struct Visitor {
    auth: Arc<Auth>,
    /// None where there are no users; more than one where a user who is logged in has opened a link.
    proofs: Vec<Proof>,
    network: Network,
}

impl Auth {
    /// As configured, on the current Tokio runtime. `session_life` is `EXPIRE`.
    ///
    /// # Errors
    /// When the users file cannot be read or makes no sense.
    pub fn new(config: &Access, vault: Arc<dyn Vault>, session_life: Duration) -> io::Result<Self> {
        let users = config.users_file.clone().map(|file| {
            let shown = file.display().to_string();
            Reloading::new("the users file", vec![file], Users::parse, None)
                .map_err(|fault| io::Error::other(format!("USERS_FILE={shown:?}: {fault}")))
        });
        let users = users.transpose()?;
        Ok(Self {
            passwords: users.is_some().then(Passwords::new).transpose()?,
            users,
            key: OnceCell::new_with(config.secret_key.as_ref().map(|secret| Key::new(secret.reveal().as_bytes()))),
            vault,
            metrics_token: config.metrics_token.as_ref().map(|token| token.reveal().to_owned()),
            clients: Clients::new(config.limits, session_life),
        })
    }

    /// Whether there are users, so that not everybody may do everything.
    pub fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Whoever is at this address, where there are no users.
    pub fn anybody(self: &Arc<Self>, address: IpAddr) -> Option<Visitor> {
        let network = Network::of(address);
        self.users.is_none().then(|| Visitor { auth: self.clone(), proofs: Vec::new(), network })
    }

    /// What whoever is at this address does at once, where nobody is asked for a login.
    pub fn client_at(&self, address: IpAddr) -> Arc<Client> {
        self.clients.get(Name::Address(Network::of(address)))
    }

    /// The user of this name and password, where there are users.
    ///
    /// # Errors
    /// [`Error::BadCredentials`], [`Error::TooManyLogins`], [`Error::LoginsWait`], or the store's.
    pub async fn user(self: &Arc<Self>, name: &str, password: &str, address: IpAddr) -> Result<Visitor, Error> {
        let users = self.users.as_ref().ok_or(Error::BadCredentials)?.get();
        let network = Network::of(address);
        let user = self.check_password(&users, name, password, network).await?;
        // Rights are told by it.
        self.key().await?;
        Ok(Visitor { auth: self.clone(), proofs: vec![Proof::of_password(&user)], network })
    }

    /// Which user the credentials stand for, or which link. Nobody, where nothing in them says so.
    ///
    /// # Errors
    /// [`Error::BadCredentials`] where the `Authorization` is wrong; [`Error::BadToken`] where the token is, and nothing else
    /// says who it is; [`Error::TooManyLogins`]; the store's.
    pub async fn visitor(self: &Arc<Self>, credentials: &Credentials<'_>) -> Result<Option<Visitor>, Error> {
        let network = Network::of(credentials.address);
        let Some(users) = self.users.as_ref().map(Reloading::get) else { return Ok(None) };
        let mut proofs = Vec::with_capacity(1);
        match credentials.authorization.map(parse_authorization) {
            Some(Some(Authorization::Basic { user, password })) => {
                let user = self.check_password(&users, &user, &password, network).await?;
                proofs.push(Proof::of_password(&user));
            }
            Some(Some(Authorization::Bearer(key))) => {
                let user = users.with_key(key).ok_or(Error::BadCredentials)?.name.clone();
                proofs.push(Proof::Key { user, key: key.to_owned() });
            }
            Some(None) => return Err(Error::BadCredentials),
            None => {}
        }
        if proofs.is_empty() && credentials.login.is_none() && credentials.token.is_none() {
            return Ok(None);
        }
        let key = self.key().await?;
        if let Some(login) = credentials.login.and_then(|login| key.verify::<Login>(login))
            && !self.vault.is_ended(login.id).await?
        {
            proofs.push(Proof::Login(login));
        }
        proofs.extend(credentials.token.and_then(|token| key.verify::<Link>(token)).map(Proof::Link));
        proofs.retain(|proof| proof.user(self).is_some());
        if proofs.is_empty() {
            return if credentials.token.is_some() { Err(Error::BadToken) } else { Ok(None) };
        }
        Ok(Some(Visitor { auth: self.clone(), proofs, network }))
    }

    /// Whether this `Authorization` is the one for `/metrics`.
    pub fn is_for_metrics(&self, authorization: Option<&str>) -> bool {
        match (&self.metrics_token, authorization.and_then(parse_authorization)) {
            (Some(token), Some(Authorization::Bearer(given))) => is_same(token, given),
            _ => false,
        }
    }

    /// Whether `/metrics` is open to everybody.
    pub fn metrics_are_open(&self) -> bool {
        self.users.is_none() && self.metrics_token.is_none()
    }

    /// Logs a user in: the login's cookie.
    ///
    /// # Errors
    /// [`Error::BadCredentials`], [`Error::TooManyLogins`], or the store's. Where there are no users, nobody can log in.
    pub async fn log_in(&self, name: &str, password: &str, remember: bool, address: IpAddr) -> Result<String, Error> {
        let users = self.users.as_ref().ok_or(Error::BadCredentials)?.get();
        let user = self.check_password(&users, name, password, Network::of(address)).await?;
        self.clients.get(Name::User(user.name.clone())).may_log_in()?;
        let life = if remember { REMEMBERED_LIFE } else { LOGIN_LIFE };
        let key = self.key().await?;
        let password = key.fingerprint(&user.password);
        let (id, user, expires) = (Uuid::new_v4(), user.name.clone(), now() + life.as_secs());
        Ok(key.sign(&Login { id, user, password, expires }))
    }

    /// Ends a login, for every replica.
    ///
    /// # Errors
    /// The store's.
    pub async fn log_out(&self, login: &str) -> Result<(), Error> {
        match self.key().await?.verify::<Login>(login) {
            // A second more: clocks of replicas differ.
            Some(login) => {
                self.vault.end_login(login.id, Duration::from_secs(login.expires.saturating_sub(now()) + 1)).await
            }
            None => Ok(()),
        }
    }

    async fn check_password(
        &self,
        users: &Arc<Users>,
        name: &str,
        password: &str,
        network: Network,
    ) -> Result<Arc<User>, Error> {
        let passwords = self.passwords.as_ref().ok_or(Error::BadCredentials)?;
        passwords.check(users, name, password, network).await
    }

    /// What everything is signed with, the same on all replicas.
    async fn key(&self) -> Result<&Key, Error> {
        let make = async || {
            let mut candidate = [0; 32];
            SystemRandom::new().fill(&mut candidate).map_err(|_| Error::unavailable("no random numbers"))?;
            let secret = self.vault.secret(&BASE64_STANDARD.encode(candidate)).await?;
            Ok(Key::new(secret.as_bytes()))
        };
        self.key.get_or_try_init(make).await
    }
}

impl Proof {
    /// That of a user whose password was right.
    fn of_password(user: &User) -> Self {
        Self::Password { user: user.name.clone(), hash: user.password.clone() }
    }

    /// The user's name; nothing for a link.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } | Self::Key { user, .. } | Self::Login(Login { user, .. }) => Some(user),
            Self::Link(_) => None,
        }
    }

    /// The user, as the users file has it now; of a link its maker. Nobody where the password or the key has changed, or where
    /// it has run out.
    fn user(&self, auth: &Auth) -> Option<Arc<User>> {
        let users = auth.users.as_ref()?.get();
        let user = |name: &str| users.get(name).cloned();
        match self {
            Self::Password { user: name, hash } => user(name).filter(|user| user.password == *hash),
            Self::Key { user: name, key } => users.with_key(key).filter(|user| user.name == *name).cloned(),
            Self::Login(login) => {
                let key = auth.key.get()?;
                let same = |user: &Arc<User>| is_same(&key.fingerprint(&user.password), &login.password);
                user(&login.user).filter(|user| now() < login.expires && same(user))
            }
            Self::Link(link) => users.with_id(link.maker.as_ref()?).filter(|_| now() < link.expires).cloned(),
        }
    }

    fn may(&self, auth: &Auth, right: Right, session: &SessionId) -> bool {
        let is_covered = match self {
            // Nobody drives blind: whom its maker lets drive sees what that user sees.
            Self::Link(link) => {
                let is_for_it = link.right == right || (link.right == Right::Command && right == Right::View);
                is_for_it && link.session == session.as_str()
            }
            _ => true,
        };
        // Whoever holds this was checked with the key.
        let (Some(user), Some(key)) = (self.user(auth), auth.key.get()) else { return false };
        is_covered && user.may(right, session, key)
    }
}

impl Visitor {
    /// Whether this may be done.
    ///
    /// # Errors
    /// [`Error::Forbidden`], which names the right.
    pub fn may(&self, right: Right, session: &SessionId) -> Result<(), Error> {
        if self.is_open() || self.proofs.iter().any(|proof| proof.may(&self.auth, right, session)) {
            return Ok(());
        }
        Err(Error::Forbidden { right: right.name(), session: session.clone() })
    }

    /// Whether this is an admin, or there are no users.
    ///
    /// # Errors
    /// [`Error::AdminNeeded`].
    pub fn must_be_admin(&self) -> Result<(), Error> {
        let is_admin = |proof: &Proof| proof.name().is_some() && proof.user(&self.auth).is_some_and(|user| user.admin);
        if self.is_open() || self.proofs.iter().any(is_admin) { Ok(()) } else { Err(Error::AdminNeeded) }
    }

    /// Whether this is a user, or there are none.
    ///
    /// # Errors
    /// [`Error::UserNeeded`] for who came through a link alone.
    pub fn must_be_user(&self) -> Result<(), Error> {
        if self.is_open() || self.name().is_some() { Ok(()) } else { Err(Error::UserNeeded) }
    }

    /// The user's name; nothing for who came through a link, or where there are no users.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.proofs.iter().find_map(Proof::name)
    }

    /// What others are told of who this is.
    #[must_use]
    pub fn public_name(&self) -> &str {
        self.name().unwrap_or(if self.proofs.is_empty() { "an operator" } else { "a guest" })
    }

    /// What tells this client from others: a user, wherever, or whoever is at this address. It holds no space.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let who = match self.name() {
            Some(user) => format!("user {user}"),
            None => format!("address {}", self.network.0),
        };
        BASE64_URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, who.as_bytes()).as_ref()[..12])
    }

    /// The user; nobody for who came through a link alone, or where there are no users.
    fn user(&self) -> Option<Arc<User>> {
        self.proofs.iter().find(|proof| proof.name().is_some())?.user(&self.auth)
    }

    /// What this client does at once: a user, wherever, or whoever is at this address.
    #[must_use]
    pub fn client(&self) -> Arc<Client> {
        let user = self.name().map(|user| Name::User(user.to_owned()));
        self.auth.clients.get(user.unwrap_or(Name::Address(self.network)))
    }

    /// There are no users, and everybody may do everything.
    fn is_open(&self) -> bool {
        self.auth.users.is_none()
    }

    /// A new session's id; where there are users, one that belongs to this one.
    #[must_use]
    pub fn new_session(&self) -> SessionId {
        match (self.user(), self.auth.key.get()) {
            (Some(user), Some(key)) => key.new_session(&user.id),
            _ => SessionId::random(),
        }
    }

    /// Makes a link for a right that this user holds: its token, and when it runs out in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::UserNeeded`], or the store's.
    pub async fn link(&self, session: &SessionId, right: Right, life: Duration) -> Result<(String, u64), Error> {
        self.must_be_user()?;
        let maker = self.maker(right, session);
        if !self.is_open() && maker.is_none() {
            return Err(Error::Forbidden { right: right.name(), session: session.clone() });
        }
        let key = self.auth.key().await?;
        let (maker, expires) = (maker.map(|user| user.id.clone()), now() + life.as_secs());
        Ok((key.sign(&Link { maker, session: session.to_string(), right, expires }), expires))
    }

    /// Whether this is a user who may make links for this right. Where there are no users, links are of no use.
    #[must_use]
    pub fn may_give(&self, right: Right, session: &SessionId) -> bool {
        self.maker(right, session).is_some()
    }

    fn maker(&self, right: Right, session: &SessionId) -> Option<Arc<User>> {
        let is_held = |proof: &&Proof| proof.name().is_some() && proof.may(&self.auth, right, session);
        self.proofs.iter().find(is_held)?.user(&self.auth)
    }

    /// Done when this visitor may no longer do what `may` asks for: found at most 2 s later.
    pub async fn lost(mut self, may: impl Fn(&Self) -> bool) {
        if self.is_open() {
            return std::future::pending().await;
        }
        while may(&self) && !self.proofs.is_empty() {
            tokio::time::sleep(ASK_AGAIN).await;
            let mut held = Vec::with_capacity(self.proofs.len());
            for proof in self.proofs.drain(..) {
                let ended = match &proof {
                    // While the store is away, what was known of it holds.
                    Proof::Login(login) => self.auth.vault.is_ended(login.id).await.unwrap_or(false),
                    _ => false,
                };
                if !ended && proof.user(&self.auth).is_some() {
                    held.push(proof);
                }
            }
            self.proofs = held;
        }
    }
}

/// The two schemes of `Authorization` that are understood.
enum Authorization<'a> {
    Basic { user: String, password: String },
    Bearer(&'a str),
}

/// Reads an `Authorization` header (RFC 7617, RFC 6750).
fn parse_authorization(header: &str) -> Option<Authorization<'_>> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let rest = rest.trim_start();
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        Some(Authorization::Basic { user: user.to_owned(), password: password.to_owned() })
    } else {
        scheme.eq_ignore_ascii_case("bearer").then_some(Authorization::Bearer(rest))
    }
}

/// Whether two secrets are the same, in a time that does not tell how much of them is.
fn is_same(one: &str, other: &str) -> bool {
    // Tags are compared in constant time, and have one length whatever the texts'.
    let key = hmac::Key::new(hmac::HMAC_SHA256, one.as_bytes());
    let tag = hmac::sign(&key, one.as_bytes());
    hmac::verify(&key, other.as_bytes(), tag.as_ref()).is_ok()
}
