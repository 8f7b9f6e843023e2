//! MJPEG as it goes out: `multipart/x-mixed-replace`, in the form that clients of mjpg-streamer and ustreamer know.
//!
//! The stream begins with a boundary, and each part ends with the next one, so that a client has the whole part when it
//! has read that far.

use bytes::Bytes;

use crate::frame::{Seq, Timestamp};

/// The `Content-Type` of a stream. The boundary is not quoted (Safari), and nothing follows it (motion).
pub const CONTENT_TYPE: &str = "multipart/x-mixed-replace;boundary=boundarydonotcross";
/// What a stream begins with.
pub const FIRST_BOUNDARY: Bytes = Bytes::from_static(b"--boundarydonotcross\r\n");
/// What stands between two parts.
pub const NEXT_BOUNDARY: Bytes = Bytes::from_static(b"\r\n--boundarydonotcross\r\n");

/// The head of a part. Only frames have a number and a time.
#[must_use]
pub fn part_head(content_type: &str, length: usize, frame: Option<(Seq, Timestamp)>) -> Bytes {
    let mut head = format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
    if let Some((seq, captured)) = frame {
        head.push_str(&format!("X-Timestamp: {captured}\r\nX-Frame-Seq: {seq}\r\n"));
    }
    head.push_str("\r\n");
    head.into()
}
