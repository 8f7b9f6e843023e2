//! `image-streamer demo`: a producer inside the server, so that there is something to see at once.

use std::{sync::Arc, time::Duration};

use anyhow::bail;

use crate::{
    error::Error,
    hub::Hub,
    placeholder::{self, Size},
    session::SessionId,
    telemetry::metrics::WayIn,
};

/// The demo's session.
pub const SESSION: &str = "xyzabc";
/// The time from one picture to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pushes 1, 2, 3, … of this size until it is dropped.
///
/// # Errors
/// When a picture cannot be drawn, or none can of the type that is carried.
pub async fn produce(hub: Arc<Hub>, session: SessionId, size: Size) -> anyhow::Result<()> {
    let format = hub.no_data().format;
    let mut tick = tokio::time::interval(INTERVAL);
    for number in 1_u64.. {
        tick.tick().await;
        let picture = tokio::task::spawn_blocking(move || {
            placeholder::draw(&number.to_string(), &placeholder::clock(), size, format)
        });
        match hub.push(&session, picture.await??, None, WayIn::Body).await {
            Err(error @ Error::WrongType { .. }) => bail!("the demo's camera draws JPEG and PNG only: {error}"),
            Err(error) => tracing::warn!(%error, number, "the demo's picture was refused"),
            Ok(_) => {}
        }
    }
    Ok(())
}
