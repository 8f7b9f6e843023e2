//! Checking passwords: slow on purpose, so on a thread of its own that yields to all others.

use std::{
    collections::VecDeque,
    io,
    panic::catch_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{
    Network,
    throttle::Throttle,
    users::{MAX_NAME_BYTES, User, Users},
};
use crate::error::Error;

/// The longest password that is looked at, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Logins of users at addresses where they are known that may wait: at some 30 ms each, the last one waits for half a
/// minute. That many cameras come at once when the users file has changed.
const MAX_KNOWN_WAITING: usize = 1024;
/// Logins of others that may wait, after those: the last one for 2 s.
const MAX_STRANGERS_WAITING: usize = 64;
/// When to come back where more wait.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// The lowest priority that Linux has: frames go before passwords.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// A login to be checked.
struct Job {
    users: Arc<Users>,
    name: String,
    password: String,
    address: Network,
    answer: oneshot::Sender<Result<Arc<User>, Error>>,
}

/// The logins that wait, those of known users before those of strangers.
#[derive(Default)]
struct Waiting {
    known: VecDeque<Job>,
    strangers: VecDeque<Job>,
    closed: bool,
}

/// What the thread and those who ask it share.
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing more will come.
    woken: Condvar,
    throttle: Mutex<Throttle>,
    /// A hash that is checked where there is no such user: that takes as long as where there is one.
    nobody: String,
}

/// The thread that checks passwords. It ends when this is dropped.
pub struct Passwords(Arc<Shared>);

impl Passwords {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had, or no random number.
    pub fn new() -> io::Result<Self> {
        let nobody = hash("nobody has this").map_err(io::Error::other)?;
        let (waiting, woken, throttle) = (Mutex::default(), Condvar::new(), Mutex::new(Throttle::new()));
        let shared = Arc::new(Shared { waiting, woken, throttle, nobody });
        let passwords = Self(shared.clone());
        thread::Builder::new().name("passwords".into()).spawn(move || shared.work())?;
        Ok(passwords)
    }

    /// The user of this name and password.
    ///
    /// # Errors
    /// [`Error::BadCredentials`]; [`Error::TooManyLogins`] where there were too many failures of late; [`Error::LoginsWait`]
    /// where too many wait for their turn.
    pub async fn check(
        &self,
        users: &Arc<Users>,
        name: &str,
        password: &str,
        address: Network,
    ) -> Result<Arc<User>, Error> {
        if name.len() > MAX_NAME_BYTES || password.len() > MAX_PASSWORD_BYTES {
            return Err(Error::BadCredentials);
        }
        if let Some(known) = self.0.look_up(users, name, password, address) {
            return known;
        }
        let (answer, answered) = oneshot::channel();
        let is_known = self.0.throttle.lock().is_known(name, address, Instant::now());
        let (name, password) = (name.to_owned(), password.to_owned());
        self.0.queue(is_known, Job { users: users.clone(), name, password, address, answer })?;
        answered.await.unwrap_or(Err(Error::LoginsWait { retry_after: BUSY_PAUSE }))
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        self.0.waiting.lock().closed = true;
        self.0.woken.notify_one();
    }
}

impl Shared {
    fn queue(&self, is_known: bool, job: Job) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        let (queue, most) = match is_known {
            true => (&mut waiting.known, MAX_KNOWN_WAITING),
            false => (&mut waiting.strangers, MAX_STRANGERS_WAITING),
        };
        // Whoever has given up makes room.
        if queue.len() >= most {
            queue.retain(|job| !job.answer.is_closed());
        }
        if queue.len() >= most {
            return Err(Error::LoginsWait { retry_after: BUSY_PAUSE });
        }
        queue.push_back(job);
        self.woken.notify_one();
        Ok(())
    }

    /// The next login; nothing when no more will come.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.known.pop_front() {
                return Some(job);
            }
            if let Some(job) = waiting.strangers.pop_front() {
                return Some(job);
            }
            self.woken.wait(&mut waiting);
        }
    }

    /// What can be said at once. It comes before the memory is asked: else whoever guesses would be told of every right
    /// guess.
    fn look_up(&self, users: &Users, name: &str, password: &str, address: Network) -> Option<Result<Arc<User>, Error>> {
        let now = Instant::now();
        let mut throttle = self.throttle.lock();
        if let Err(retry_after) = throttle.check(name, address, now) {
            return Some(Err(Error::TooManyLogins { retry_after }));
        }
        let user = users.remembered(&users.pair(name, password))?;
        if user.is_some() {
            throttle.succeeded(name, address, now);
        }
        Some(user.ok_or(Error::BadCredentials))
    }

    fn work(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "the thread that checks passwords keeps its priority");
        }
        while let Some(Job { users, name, password, address, answer }) = self.next() {
            // Whoever asked may have gone, and the same may have been asked while it waited.
            if answer.is_closed() {
                continue;
            }
            if let Some(known) = self.look_up(&users, &name, &password, address) {
                let _ = answer.send(known);
                continue;
            }
            let user = users.get(&name);
            let hash = user.map(|user| &user.password).or(users.dearest()).unwrap_or(&self.nobody);
            // Whatever became of one hash, the next login is looked at.
            let right = catch_unwind(|| verify(&password, hash)).unwrap_or(false);
            let user = user.filter(|_| right).cloned();
            users.remember(users.pair(&name, &password), user.clone());
            let now = Instant::now();
            match &user {
                Some(_) => self.throttle.lock().succeeded(&name, address, now),
                None => self.throttle.lock().failed(&name, address, now),
            }
            let _ = answer.send(user.ok_or(Error::BadCredentials));
        }
    }
}

fn verify(password: &str, hash: &str) -> bool {
    let hash = PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The hash of a password, as a PHC string: argon2id with 19 MiB and two passes, as OWASP recommends
/// (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>).
///
/// # Errors
/// When the system gives no random numbers.
pub fn hash(password: &str) -> Result<String, String> {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_hashed_once_and_unknown_users_cost_as_much_as_known_ones() {
        let users = format!("[users.ann]\npassword = {:?}", hash("correct horse").unwrap());
        let (users, passwords) = (Arc::new(Users::read(&users).unwrap()), Passwords::new().unwrap());
        // What came of it, and how many hashes it took: what is not remembered has to be hashed.
        let check = async |name: &str, password: &str| {
            let hashes = u32::from(users.remembered(&users.pair(name, password)).is_none());
            let result = passwords.check(&users, name, password, Network::of([192, 0, 2, 1].into())).await;
            (result.map(|user| user.name.clone()).map_err(|error| error.code()), hashes)
        };
        let (ann, bad) = (Ok("ann".to_owned()), Err("bad_credentials"));
        assert_eq!(check("ann", "correct horse").await, (ann.clone(), 1));
        assert_eq!(check("ann", "correct horse").await, (ann.clone(), 0), "it is remembered");
        assert_eq!(check("ann", "wrong horse").await, (bad.clone(), 1));
        assert_eq!(check("bob", "correct horse").await, (bad.clone(), 1), "nobody is told that there is no bob");
        assert_eq!(cost(&hash("nobody").unwrap()), cost(&users.get("ann").unwrap().password));
        // The same wrong password again is no new guess, and costs nothing.
        for _ in 0..100 {
            assert_eq!(check("ann", "wrong horse").await, (bad.clone(), 0));
        }
        for number in 0..4 {
            assert_eq!(check("ann", &format!("guess {number}")).await, (bad.clone(), 1));
        }
        assert_eq!(check("ann", "correct horse").await, (ann, 0), "this address has logged in before");
        let elsewhere = passwords.check(&users, "ann", "correct horse", Network::of([192, 0, 2, 2].into())).await;
        assert_eq!(elsewhere.err().map(|error| error.code()), Some("too_many_logins"));
        assert_eq!(check("ann", &"x".repeat(MAX_PASSWORD_BYTES + 1)).await.0, bad);
    }

    /// What a hash says of its cost: version, memory, passes, lanes.
    fn cost(hash: &str) -> String {
        hash.split('$').skip(1).take(3).collect::<Vec<_>>().join("$")
    }
}
