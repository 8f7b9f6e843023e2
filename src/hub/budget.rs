//! [`Budget`]: how many bytes of pictures may be on their way in, or out, at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::error::Error;

/// `MAX_INFLIGHT_BYTES`, and what is taken of it.
#[derive(Debug, Clone)]
pub struct Budget {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    /// So many bytes, of which none is taken.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    /// Whether there is any room.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none.
    pub fn check(&self) -> Result<(), Error> {
        let limit = self.limit;
        if self.taken.load(Ordering::Relaxed) < limit { Ok(()) } else { Err(Error::Busy { limit }) }
    }

    /// How many bytes there are in all.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A share of nothing, to be grown as bytes arrive: a body that is announced and does not come takes no room.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// The bytes of one picture on its way; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// Takes some more.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is not as much left; what was taken before stays taken.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let Budget { taken, limit } = &self.budget;
        let before = taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > *limit { Err(Error::Busy { limit: *limit }) } else { Ok(()) }
    }
}

impl Share {
    /// Takes so much in all.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is not as much left.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        let spare = self.bytes.saturating_sub(bytes);
        self.budget.taken.fetch_sub(spare, Ordering::Relaxed);
        self.bytes -= spare;
        self.grow(bytes - self.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_beyond_the_limit_is_refused_and_everything_is_given_back() {
        let budget = Budget::new(100);
        let mut one = budget.share();
        let mut other = budget.share();
        assert!(one.grow(60).is_ok());
        assert!(matches!(other.grow(41), Err(Error::Busy { limit: 100 })));
        drop(other);
        assert!(one.grow(40).is_ok());
        drop(one);
        assert!(budget.share().grow(100).is_ok());
    }
}
