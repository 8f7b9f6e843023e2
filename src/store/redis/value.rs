//! What stands in Redis for a frame: a small versioned header, then the picture as it came.

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

use crate::frame::{Frame, ImageType, NewFrame, Seq, Timestamp};

/// Version, type, two spare bytes, life in ms (u32), capture time (f64), receipt time (f64), all little-endian.
pub(super) const HEADER_BYTES: usize = 24;
const VERSION: u8 = 1;

/// A frame on its way to Redis. It writes itself into the command's buffer: that is the frame's first copy.
pub(super) struct FrameValue<'a> {
    header: [u8; HEADER_BYTES],
    picture: &'a [u8],
}

impl<'a> FrameValue<'a> {
    pub(super) fn new(frame: &'a NewFrame, ttl_ms: u64) -> Self {
        let received = Timestamp::now();
        let mut header = [0; HEADER_BYTES];
        header[0] = VERSION;
        header[1] = frame.kind as u8;
        header[4..8].copy_from_slice(&u32::try_from(ttl_ms).unwrap_or(u32::MAX).to_le_bytes());
        header[8..16].copy_from_slice(&frame.captured.unwrap_or(received).seconds().to_le_bytes());
        header[16..24].copy_from_slice(&received.seconds().to_le_bytes());
        Self { header, picture: &frame.bytes }
    }
}

impl ToRedisArgs for FrameValue<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        use bytes::BufMut;
        let mut buffer = out.bufmut_for_next_arg(HEADER_BYTES + self.picture.len());
        buffer.put_slice(&self.header);
        buffer.put_slice(self.picture);
    }
}

impl ToSingleRedisArg for FrameValue<'_> {}

/// What stands before a picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    kind: ImageType,
    life: Duration,
    captured: Timestamp,
    pub(super) received: Timestamp,
}

impl Header {
    /// Reads it from the beginning of a value. `None` if this version did not write that.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let header = value.first_chunk::<HEADER_BYTES>()?;
        let seconds = |at: usize| Timestamp::from_seconds(f64::from_le_bytes(*header.get(at..)?.first_chunk()?));
        Some(Self {
            kind: ImageType::from_u8(header[1]).filter(|_| header[0] == VERSION)?,
            life: Duration::from_millis(u32::from_le_bytes(*header[4..].first_chunk()?).into()),
            captured: seconds(8)?,
            received: seconds(16)?,
        })
    }

    /// How old the frame is if this is what it has left of its whole life, by the one clock that counts both.
    pub(super) fn age(&self, left: Duration) -> Duration {
        self.life.saturating_sub(left)
    }
}

/// Reads a frame back without copying the picture. `None` if this version did not write it.
pub(super) fn decode(seq: Seq, value: Vec<u8>) -> Option<Frame> {
    let Header { kind, captured, received, .. } = Header::read(&value)?;
    Some(Frame { seq, kind, captured, received, bytes: Bytes::from(value).slice(HEADER_BYTES..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_written_and_other_values_do_not() {
        let frame = NewFrame {
            bytes: Bytes::from_static(b"\xFF\xD8\xFFpicture"),
            kind: ImageType::Jpeg,
            captured: Timestamp::from_seconds(1_700_000_000.123_456),
        };
        let written = FrameValue::new(&frame, 120_000).to_redis_args().concat();
        let read = decode(Seq(7), written.clone()).unwrap();
        assert_eq!(
            (read.seq, read.kind, Some(read.captured), read.bytes),
            (Seq(7), frame.kind, frame.captured, frame.bytes)
        );
        let header = Header::read(&written).unwrap();
        assert_eq!(header.age(Duration::from_secs(119)), Duration::from_secs(1));
        assert_eq!(header.age(Duration::from_secs(121)), Duration::ZERO);
        assert!(decode(Seq(7), written[..HEADER_BYTES - 1].to_vec()).is_none());
        assert!(decode(Seq(7), [&[VERSION + 1], &written[1..]].concat()).is_none());
    }
}
