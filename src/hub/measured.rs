//! [`Measured`]: a store whose calls are timed and whose errors are counted.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use prometheus::{Histogram, IntCounter};

use crate::{
    error::Error,
    frame::{NewFrame, Seq},
    session::SessionId,
    store::{FrameStore, Newest, Next, Notices, Pushed, Seen, SessionStats, Taken},
    telemetry::metrics::Metrics,
};

/// Another store with a clock beside it.
pub(super) struct Measured {
    store: Arc<dyn FrameStore>,
    push: Operation,
    take: Operation,
    newest: Operation,
    get: Operation,
    after: Operation,
    queued: Operation,
    stats: Operation,
    remove: Operation,
    ping: Operation,
    notices: Operation,
    note_viewers: Operation,
    sessions: Operation,
}

struct Operation {
    seconds: Histogram,
    errors: IntCounter,
}

impl Operation {
    async fn time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let start = Instant::now();
        let result = call.await;
        self.seconds.observe(start.elapsed().as_secs_f64());
        // What a client did wrong is not the store's error.
        if let Err(Error::StoreUnavailable(_) | Error::StoreFull(_)) = result {
            self.errors.inc();
        }
        result
    }
}

impl Measured {
    pub(super) fn new(store: Arc<dyn FrameStore>, metrics: &Metrics) -> Self {
        let operation = |name| {
            let (seconds, errors) = metrics.operation(name);
            Operation { seconds, errors }
        };
        Self {
            store,
            push: operation("push"),
            take: operation("take"),
            newest: operation("newest"),
            get: operation("get"),
            after: operation("after"),
            queued: operation("queued"),
            stats: operation("stats"),
            remove: operation("remove"),
            ping: operation("ping"),
            notices: operation("notices"),
            note_viewers: operation("note_viewers"),
            sessions: operation("sessions"),
        }
    }
}

#[async_trait]
impl FrameStore for Measured {
    async fn push(&self, session: &SessionId, frame: NewFrame) -> Result<Pushed, Error> {
        self.push.time(self.store.push(session, frame)).await
    }

    async fn take(&self, session: &SessionId) -> Result<Option<Taken>, Error> {
        self.take.time(self.store.take(session)).await
    }

    async fn newest(&self, session: &SessionId, known: Option<Seq>) -> Result<Option<Newest>, Error> {
        self.newest.time(self.store.newest(session, known)).await
    }

    async fn get(&self, session: &SessionId, seq: Seq) -> Result<Option<Seen>, Error> {
        self.get.time(self.store.get(session, seq)).await
    }

    async fn after(&self, session: &SessionId, seq: Seq) -> Result<Option<Next>, Error> {
        self.after.time(self.store.after(session, seq)).await
    }

    async fn queued(&self, session: &SessionId) -> Result<usize, Error> {
        self.queued.time(self.store.queued(session)).await
    }

    async fn stats(&self) -> Result<Vec<SessionStats>, Error> {
        self.stats.time(self.store.stats()).await
    }

    async fn remove(&self, session: &SessionId) -> Result<(), Error> {
        self.remove.time(self.store.remove(session)).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.ping.time(self.store.ping()).await
    }

    async fn notices(&self, session: &SessionId) -> Result<Notices, Error> {
        self.notices.time(self.store.notices(session)).await
    }

    async fn note_viewers(&self, viewers: &[(SessionId, usize)]) -> Result<(), Error> {
        self.note_viewers.time(self.store.note_viewers(viewers)).await
    }

    async fn sessions(&self) -> Result<usize, Error> {
        self.sessions.time(self.store.sessions()).await
    }

    fn expired(&self) -> u64 {
        self.store.expired()
    }
}
