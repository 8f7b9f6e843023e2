//! [`Hub`]: the middle of the house. Every way in ends in [`Hub::push`], every way out begins here.

pub mod budget;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
use crate::{
    config::{Carried, Intake},
    error::Error,
    frame::{ImageType, NewFrame, Timestamp},
    placeholder::Format,
    session::SessionId,
    store::{FrameStore, Pushed, Taken},
};

/// What all ways in and out share. One for the process, shared by its threads.
pub struct Hub {
    store: Arc<dyn FrameStore>,
    carried: Carried,
    no_data: NoData,
    max_image_bytes: usize,
    incoming: Budget,
    outgoing: Budget,
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

impl Hub {
    /// A hub over a store. `closing` is cancelled when the process is to end.
    pub fn new(
        store: Arc<dyn FrameStore>,
        carried: Carried,
        no_data: NoData,
        intake: Intake,
        closing: CancellationToken,
    ) -> Self {
        let Intake { max_image_bytes, max_inflight_bytes } = intake;
        let (incoming, outgoing) = (Budget::new(max_inflight_bytes), Budget::new(max_inflight_bytes));
        Self { store, carried, no_data, max_image_bytes, incoming, outgoing, closing }
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
        self.content_type(match self.no_data.format {
            Format::Jpeg => ImageType::Jpeg,
            Format::Png => ImageType::Png,
        })
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

    /// What taken pictures that are being sent may take together.
    pub fn outgoing(&self) -> &Budget {
        &self.outgoing
    }

    /// Checks a picture and appends it to its session.
    ///
    /// # Errors
    /// [`Error::EmptyBody`], [`Error::NotAnImage`], [`Error::WrongType`], or the store's.
    pub async fn push(&self, session: &SessionId, bytes: Bytes, captured: Option<Timestamp>) -> Result<Pushed, Error> {
        if bytes.is_empty() {
            return Err(Error::EmptyBody);
        }
        let expected = || self.carried.to_string();
        let kind = ImageType::sniff(&bytes).ok_or_else(|| Error::NotAnImage { expected: expected() })?;
        if !self.carried.accepts(kind) {
            return Err(Error::WrongType { got: kind, expected: expected() });
        }
        self.store.push(session, NewFrame { bytes, kind, captured }).await
    }

    /// Takes the oldest frame, waiting for one for at most `wait`. The wait ends early when the process is to end.
    ///
    /// # Errors
    /// The store's, also when it is lost during the wait.
    pub async fn take(&self, session: &SessionId, wait: Duration) -> Result<Option<Taken>, Error> {
        let taken = self.store.take(session).await?;
        if taken.is_some() || wait.is_zero() {
            return Ok(taken);
        }
        let deadline = Instant::now() + wait;
        // Listen first, then look again: what is pushed in between is not missed.
        let mut notices = self.store.notices(session).await?;
        loop {
            let taken = self.store.take(session).await?;
            if taken.is_some() {
                return Ok(taken);
            }
            tokio::select! {
                more = notices.changed() => if !more { return Ok(None) },
                // One last look, should a notice have been lost together with its connection.
                () = tokio::time::sleep_until(deadline) => return self.store.take(session).await,
                () = self.closing.cancelled() => return Ok(None),
            }
        }
    }
}
