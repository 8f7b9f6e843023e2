//! The names of our own headers.

use actix_web::http::header::HeaderName;

/// When the picture was taken, as the producer says: unix seconds.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
/// A frame's number within its session.
pub const FRAME_SEQ: HeaderName = HeaderName::from_static("x-frame-seq");
/// When the frame was taken, else received: unix seconds with six digits after the point.
pub const FRAME_TIMESTAMP: HeaderName = HeaderName::from_static("x-frame-timestamp");
/// Frames that are left in the queue.
pub const QUEUE_LENGTH: HeaderName = HeaderName::from_static("x-queue-length");
/// 1 where there was no frame.
pub const NO_DATA: HeaderName = HeaderName::from_static("x-no-data");
/// How old the frame is, in whole milliseconds since it was received.
pub const FRAME_AGE_MS: HeaderName = HeaderName::from_static("x-frame-age-ms");
/// Frames that a cursor came too late for.
pub const FRAMES_MISSED: HeaderName = HeaderName::from_static("x-frames-missed");
/// Viewers of the session that was pushed to.
pub const VIEWERS: HeaderName = HeaderName::from_static("x-viewers");

/// The cookie of a login.
pub const LOGIN_COOKIE: &str = "image_streamer_login";
