//! Slows those who guess passwords: by account, and by address. Nothing is ever locked for good.

use std::{
    hash::Hash,
    num::NonZero,
    time::{Duration, Instant},
};

use lru::LruCache;

use super::Network;

/// Failures that cost an account nothing: a person's typing.
const FREE_FOR_ACCOUNT: u32 = 5;
/// Failures that cost an address nothing: many people and cameras may be behind one. As many cost nothing where an account is
/// known at an address.
const FREE_FOR_ADDRESS: u32 = 20;
/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same where the account is known at the address: who lives there waits too.
const LONGEST_WAIT_AT_HOME: Duration = Duration::from_secs(4);
/// Failures are forgotten so long after the last one.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// An address that has logged in as a user is known for so long: an account that others guess at stays open to it.
const KNOWN: Duration = Duration::from_secs(24 * 3600);
/// Accounts, addresses, and pairs of both that are remembered at most; the least recent are forgotten first.
const REMEMBERED: NonZero<usize> = NonZero::new(16_384).unwrap();

/// Who has failed of late, and who has not.
pub struct Throttle {
    accounts: LruCache<String, Failures>,
    addresses: LruCache<Network, Failures>,
    known: LruCache<(String, Network), Known>,
}

/// An account that has logged in at an address.
#[derive(Clone, Copy)]
struct Known {
    since: Instant,
    failures: Failures,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// What is left of the wait that follows the failures.
    fn wait(&self, free: u32, longest: Duration, now: Instant) -> Option<Duration> {
        let over = self.count.checked_sub(free)?;
        let wait = Duration::from_secs(1 << over.min(6)).min(longest);
        (self.last + wait).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn count(&mut self, now: Instant) {
        let before = if now.duration_since(self.last) > FORGET { 0 } else { self.count };
        *self = Self { count: before.saturating_add(1), last: now };
    }
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        Self {
            accounts: LruCache::new(REMEMBERED),
            addresses: LruCache::new(REMEMBERED),
            known: LruCache::new(REMEMBERED),
        }
    }

    /// Whether a login is looked at now, and if not, in what time.
    pub fn check(&mut self, account: &str, address: Network, now: Instant) -> Result<(), Duration> {
        let wait = match self.known(account, address, now) {
            // What others do, from here or from elsewhere, does not count.
            Some(known) => known.failures.wait(FREE_FOR_ADDRESS, LONGEST_WAIT_AT_HOME, now),
            None => {
                let of_address = self.addresses.get(&address);
                let of_address = of_address.and_then(|failures| failures.wait(FREE_FOR_ADDRESS, LONGEST_WAIT, now));
                let of_account = self.accounts.get(account);
                of_address.or(of_account.and_then(|failures| failures.wait(FREE_FOR_ACCOUNT, LONGEST_WAIT, now)))
            }
        };
        // In whole seconds, and never too early.
        wait.map_or(Ok(()), |wait| Err(Duration::from_secs(wait.as_secs() + 1)))
    }

    /// Whether the account has logged in at the address within [`KNOWN`].
    pub fn is_known(&mut self, account: &str, address: Network, now: Instant) -> bool {
        self.known(account, address, now).is_some()
    }

    fn known(&mut self, account: &str, address: Network, now: Instant) -> Option<&mut Known> {
        let known = self.known.get_mut(&(account.to_owned(), address));
        known.filter(|known| now.duration_since(known.since) <= KNOWN)
    }

    /// A login has failed.
    pub fn failed(&mut self, account: &str, address: Network, now: Instant) {
        if let Some(known) = self.known(account, address, now) {
            known.failures.count(now);
        }
        count(&mut self.accounts, account.to_owned(), now);
        count(&mut self.addresses, address, now);
    }

    /// A login has succeeded. What has failed before is not forgotten for it: whoever guesses would wait for others.
    pub fn succeeded(&mut self, account: &str, address: Network, now: Instant) {
        match self.known(account, address, now) {
            Some(known) => known.since = now,
            None => {
                let failures = Failures { count: 0, last: now };
                self.known.put((account.to_owned(), address), Known { since: now, failures });
            }
        }
    }
}

fn count<K: Hash + Eq>(failures: &mut LruCache<K, Failures>, key: K, now: Instant) {
    failures.get_or_insert_mut(key, || Failures { count: 0, last: now }).count(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> Network {
        Network::of([192, 0, 2, last].into())
    }

    /// Guesses for so many seconds, as often as it is let. How many guesses that were.
    fn guesses(
        throttle: &mut Throttle,
        account: &str,
        address: impl Fn(u64) -> Network,
        seconds: u64,
        start: Instant,
    ) -> u64 {
        let mut guesses = 0;
        for tenth in 0..seconds * 10 {
            let now = start + Duration::from_millis(tenth * 100);
            if throttle.check(account, address(guesses), now).is_ok() {
                throttle.failed(account, address(guesses), now);
                guesses += 1;
            }
        }
        guesses
    }

    #[test]
    fn guesses_get_few_by_account_and_by_address() {
        let start = Instant::now();
        let many = |guess: u64| network(guess as u8);
        let tried = guesses(&mut Throttle::new(), "ann", many, 600, start);
        assert!((10..=20).contains(&tried), "one account, many addresses: {tried}");
        let mut throttle = Throttle::new();
        let tried: u64 = (0..600)
            .map(|second| {
                let now = start + Duration::from_secs(second);
                guesses(&mut throttle, &format!("user{second}"), |_| network(1), 1, now)
            })
            .sum();
        assert!((25..=40).contains(&tried), "one address, many accounts: {tried}");
    }

    #[test]
    fn an_address_that_has_logged_in_stays_in_while_others_guess() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        throttle.succeeded("ann", network(1), now);
        guesses(&mut throttle, "ann", |guess| network(2 + (guess % 200) as u8), 60, now);
        let later = now + Duration::from_secs(60);
        assert!(throttle.check("ann", network(99), later).is_err());
        assert!(throttle.check("ann", network(1), later).is_ok());
        assert!(throttle.check("bob", network(99), later).is_ok());
        // Others at the same address guess too, at accounts that do not exist, and at this one.
        for number in 0..100 {
            throttle.failed(&format!("user{number}"), network(1), later);
        }
        assert!(throttle.check("eve", network(1), later).is_err());
        assert!(throttle.check("ann", network(1), later).is_ok());
        for _ in 0..100 {
            throttle.failed("ann", network(1), later);
        }
        assert!(throttle.check("ann", network(1), later).unwrap_err() <= LONGEST_WAIT_AT_HOME + Duration::from_secs(1));
        assert!(throttle.check("ann", network(1), later + KNOWN).is_ok(), "and the guesses are forgotten by then");
    }

    #[test]
    fn failures_are_forgotten_after_a_while_and_the_wait_is_bounded() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        for _ in 0..1000 {
            throttle.failed("ann", network(1), now);
        }
        assert!(throttle.check("ann", network(1), now).unwrap_err() <= LONGEST_WAIT + Duration::from_secs(1));
        let later = now + FORGET + Duration::from_secs(1);
        throttle.failed("ann", network(1), later);
        assert!(throttle.check("ann", network(1), later).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        for number in 0..REMEMBERED.get() as u32 + 100 {
            let address = Network::of(std::net::Ipv4Addr::from(number).into());
            throttle.failed(&number.to_string(), address, now);
            throttle.succeeded(&number.to_string(), address, now);
        }
        let sizes = [throttle.accounts.len(), throttle.addresses.len(), throttle.known.len()];
        assert_eq!(sizes, [REMEMBERED.get(); 3]);
    }
}
