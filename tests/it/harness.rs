//! What the tests are written in: servers, Redis, pictures, and waiting without sleeping.

pub mod acme;
pub mod axe;
pub mod browser;
pub mod cameras;
pub mod drivers;
pub mod example;
pub mod link;
pub mod nginx;
pub mod page_log;
pub mod phones;
pub mod picture;
pub mod port;
pub mod process;
pub mod python;
pub mod redis;
pub mod robot;
pub mod server;
pub mod tls;
pub mod users;
pub mod viewer;

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

pub use self::{
    redis::RedisServer,
    server::{Answer, Server},
    users::UsersFile,
    viewer::Viewer,
};

/// How long anything may take that is expected to happen soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// The pause between two looks at a state.
const POLL: Duration = Duration::from_millis(10);

/// Looks until something is so. Fails when it is not so by then.
pub async fn until<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: impl Display,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// How much larger than usual to test: 1 in `make test`, more in `make proof`.
pub fn scale() -> usize {
    std::env::var("PROOF").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Where a server keeps its frames.
pub enum Backend {
    Memory,
    Redis(Box<RedisServer>),
}

impl Backend {
    /// Every backend: what holds for one must hold for the other.
    pub async fn all() -> [Self; 2] {
        [Self::Memory, Self::Redis(Box::new(RedisServer::start().await))]
    }

    /// A server on this backend, with these variables besides.
    pub async fn server(&self, variables: &[(&str, &str)]) -> Server {
        match self {
            Self::Memory => Server::start(variables).await,
            Self::Redis(redis) => redis.server(variables).await,
        }
    }
}
