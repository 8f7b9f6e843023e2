//! [`Hub`]: the middle of the house. Every way in ends in [`Hub::push`], every way out begins here.

pub mod budget;
pub mod live;
mod measured;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    budget::Budget,
    live::{Live, Viewer},
    measured::Measured,
};
use crate::{
    config::{Carried, Intake},
    error::Error,
    frame::{Frame, ImageType, NewFrame, Seq, Timestamp},
    placeholder::Format,
    session::SessionId,
    store::{FrameStore, Newest, Next, Pushed, Taken},
    telemetry::metrics::{Metrics, WayIn},
};

/// What all ways in and out share. One for the process, shared by its threads.
pub struct Hub {
    store: Arc<dyn FrameStore>,
    carried: Carried,
    no_data: NoData,
    max_image_bytes: usize,
    incoming: Budget,
    outgoing: Budget,
    viewing: Budget,
    live: Live,
    stale_after: Duration,
    metrics: Metrics,
    closing: CancellationToken,
}

/// The picture for when there is none, drawn and encoded once.
#[derive(Debug, Clone)]
pub struct NoData {
    /// The encoded picture.
    pub bytes: Bytes,
    /// How it is encoded.
    pub format: Format,
}

/// What viewers are shown.
#[derive(Debug, Clone, Copy)]
pub struct LiveSettings {
    /// `STALE_AFTER`: the age from which on a frame is not live any more.
    pub stale_after: Duration,
    /// `MAX_SESSIONS`: as many can be watched, whether they exist or not.
    pub max_sessions: usize,
}

impl NoData {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ImageType {
        match self.format {
            Format::Jpeg => ImageType::Jpeg,
            Format::Png => ImageType::Png,
        }
    }
}

impl Hub {
    /// A hub over a store, on the current Tokio runtime. `closing` is cancelled when the process is to end.
    pub fn new(
        store: Arc<dyn FrameStore>,
        carried: Carried,
        no_data: NoData,
        intake: Intake,
        LiveSettings { stale_after, max_sessions }: LiveSettings,
        metrics: Metrics,
        closing: CancellationToken,
    ) -> Self {
        let Intake { max_image_bytes, max_inflight_bytes } = intake;
        let [incoming, outgoing, viewing] = std::array::from_fn(|_| Budget::new(max_inflight_bytes));
        let store: Arc<dyn FrameStore> = Arc::new(Measured::new(store, &metrics));
        let live = Live::new(store.clone(), viewing.clone(), metrics.viewers().clone(), max_sessions);
        Self {
            store,
            carried,
            no_data,
            max_image_bytes,
            incoming,
            outgoing,
            viewing,
            live,
            stale_after,
            metrics,
            closing,
        }
    }

    /// The store, for what needs no more than it.
    pub fn store(&self) -> &dyn FrameStore {
        &*self.store
    }

    /// The No Data picture.
    pub fn no_data(&self) -> &NoData {
        &self.no_data
    }

    /// The `Content-Type` of the No Data picture.
    pub fn no_data_type(&self) -> &str {
        self.content_type(self.no_data.kind())
    }

    /// The `Content-Type` of a picture.
    pub fn content_type(&self, kind: ImageType) -> &str {
        self.carried.content_type(kind)
    }

    /// The `Content-Type` of every picture, if there is one for all.
    pub fn common_type(&self) -> Option<&str> {
        self.carried.common_type()
    }

    /// The size of a picture at most, in bytes.
    pub fn max_image_bytes(&self) -> usize {
        self.max_image_bytes
    }

    /// What bodies that are being received may take together.
    pub fn incoming(&self) -> &Budget {
        &self.incoming
    }

    /// What pictures that are being sent one by one may take together.
    pub fn outgoing(&self) -> &Budget {
        &self.outgoing
    }

    /// What frames may take together that a newer one has replaced while they were on their way to slow viewers.
    pub fn viewing(&self) -> &Budget {
        &self.viewing
    }

    /// `STALE_AFTER`: the age from which on a frame is not live any more.
    pub fn stale_after(&self) -> Duration {
        self.stale_after
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Done when the process is to end: what goes on for ever ends then.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Checks a picture and appends it to its session.
    ///
    /// # Errors
    /// [`Error::EmptyBody`], [`Error::NotAnImage`], [`Error::WrongType`], or the store's.
    pub async fn push(
        &self,
        session: &SessionId,
        bytes: Bytes,
        captured: Option<Timestamp>,
        way: WayIn,
    ) -> Result<Pushed, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyBody);
        }
        let expected = || self.carried.to_string();
        let kind = ImageType::sniff(&bytes).ok_or_else(|| Error::NotAnImage { expected: expected() })?;
        if !self.carried.accepts(kind) {
            return Err(Error::WrongType { got: kind, expected: expected() });
        }
        // Those who watch through this process get the frame from here, and the store need not be asked for it.
        let watched = self.live.begin_push(session).map(|pushing| (pushing, bytes.clone()));
        let size = bytes.len();
        let pushed = self.store.push(session, NewFrame { bytes, kind, captured }).await?;
        if let Some((pushing, bytes)) = watched {
            let received = Timestamp::now();
            pushing.done(Frame { seq: pushed.seq, kind, captured: captured.unwrap_or(received), received, bytes });
        }
        self.metrics.received(way, size, pushed.dropped);
        Ok(pushed)
    }

    /// Takes the oldest frame, waiting for one for at most `wait`. The wait ends early when the process is to end.
    ///
    /// # Errors
    /// The store's, also when it is lost during the wait.
    pub async fn take(&self, session: &SessionId, wait: Duration) -> Result<Option<Taken>, Error> {
        self.wait_for(session, wait, async || self.store.take(session).await).await
    }

    /// The first frame after this number, waiting for one for at most `wait`.
    ///
    /// # Errors
    /// The store's, also when it is lost during the wait.
    pub async fn after(&self, session: &SessionId, seq: Seq, wait: Duration) -> Result<Option<Next>, Error> {
        self.wait_for(session, wait, async || self.store.after(session, seq).await).await
    }

    /// The newest frame that is at most so old, waiting for one for at most `wait`. Its picture is left out where its number
    /// is the one that the caller knows.
    ///
    /// # Errors
    /// The store's, also when it is lost during the wait.
    pub async fn newest(
        &self,
        session: &SessionId,
        max_age: Duration,
        known: Option<Seq>,
        wait: Duration,
    ) -> Result<Option<Newest>, Error> {
        let look = async || {
            let newest = self.store.newest(session, known).await?;
            Ok(newest.filter(|newest| newest.age.as_millis() <= max_age.as_millis()))
        };
        self.wait_for(session, wait, look).await
    }

    /// One more viewer of a session. It sees what there is as soon as the store has told.
    ///
    /// # Errors
    /// [`Error::TooManySessions`] where it would be one session too many that is watched.
    pub fn watch(&self, session: &SessionId) -> Result<Viewer, Error> {
        self.live.watch(session)
    }

    /// Looks until there is something, at every push, for at most `wait`.
    async fn wait_for<T>(
        &self,
        session: &SessionId,
        wait: Duration,
        look: impl AsyncFn() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let found = look().await?;
        if found.is_some() || wait.is_zero() {
            return Ok(found);
        }
        let deadline = Instant::now() + wait;
        // Listen first, then look again: what is pushed in between is not missed.
        let mut notices = self.store.notices(session).await?;
        loop {
            let found = look().await?;
            if found.is_some() {
                return Ok(found);
            }
            tokio::select! {
                notice = notices.next() => if notice.is_none() { return Ok(None) },
                // One last look, should a notice have been lost together with its connection.
                () = tokio::time::sleep_until(deadline) => return look().await,
                () = self.closing.cancelled() => return Ok(None),
            }
        }
    }
}
