//! `image-streamer demo`: a producer inside the server, so that there is something to see at once.

use std::{sync::Arc, time::Duration};

use crate::{
    hub::Hub,
    placeholder::{self, Format, Size},
    session::SessionId,
};

/// The demo's session.
pub const SESSION: &str = "xyzabc";
/// The time from one picture to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pushes 1, 2, 3, … until it is dropped.
///
/// # Errors
/// When a picture cannot be drawn.
pub async fn produce(hub: Arc<Hub>, session: SessionId) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(INTERVAL);
    for number in 1_u64.. {
        tick.tick().await;
        let picture = tokio::task::spawn_blocking(move || {
            placeholder::draw(&number.to_string(), &placeholder::clock(), Size::default(), Format::Jpeg)
        });
        if let Err(error) = hub.push(&session, picture.await??, None).await {
            tracing::warn!(%error, number, "the demo's picture was refused");
        }
    }
    Ok(())
}
