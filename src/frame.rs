//! [`NewFrame`] and [`Frame`]: one encoded picture on its way in, and the same once a store has numbered it.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use image::ImageFormat;

use crate::error::Error;

/// A frame's number within its session. Numbers of a session only ever grow, across restarts too: an absent counter
/// starts at the current time in microseconds, which no session can outrun below a million frames a second. They fit
/// into 53 bits, so JSON readers keep them exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number that precedes a session's first frame when it starts now.
    #[must_use]
    pub fn before_first() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros() as u64))
    }

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A point in time in seconds since 1970-01-01 UTC, finite and ≥ 0. It is a label: nothing is decided by comparing two.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Timestamp(f64);

impl Timestamp {
    /// The current time by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64()))
    }

    /// Seconds since 1970, or `None` for a number that is negative or not finite.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        // Adding zero turns -0 into 0.
        (seconds.is_finite() && seconds >= 0.0).then_some(Self(seconds + 0.0))
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0
    }
}

/// Reads what producers send in `X-Timestamp`: decimal seconds.
impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.trim().parse().ok().and_then(Self::from_seconds).ok_or(Error::BadTimestamp)
    }
}

/// Seconds with a fraction of six digits: `1700000000.123456`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

/// The picture types that can be carried. SVG is not among them and never will be: it is a document with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ImageType {
    /// JPEG.
    Jpeg = 1,
    /// PNG.
    Png = 2,
    /// GIF.
    Gif = 3,
    /// WebP.
    WebP = 4,
    /// AVIF.
    Avif = 5,
    /// Windows bitmap.
    Bmp = 6,
}

impl ImageType {
    /// Every type, in the order of their documentation.
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::Gif, Self::WebP, Self::Avif, Self::Bmp];

    /// Tells the type by the magic bytes at the start, whatever a client claims.
    #[must_use]
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match image::guess_format(bytes).ok()? {
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Gif => Some(Self::Gif),
            ImageFormat::WebP => Some(Self::WebP),
            ImageFormat::Avif => Some(Self::Avif),
            // "BM" alone would let plain text pass. The size of the second header, little-endian at byte 14, is one of
            // the few that were ever defined.
            ImageFormat::Bmp => {
                matches!(bytes.get(14..18)?, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]).then_some(Self::Bmp)
            }
            _ => None,
        }
    }

    /// The registered media type.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Avif => "image/avif",
            Self::Bmp => "image/bmp",
        }
    }

    /// The type behind a number that `as u8` made.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for ImageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mime())
    }
}

/// A picture that was received and checked, before a store has numbered it.
#[derive(Debug, Clone)]
pub struct NewFrame {
    /// The picture as it came, never empty.
    pub bytes: Bytes,
    /// Its type by its magic bytes.
    pub kind: ImageType,
    /// When the picture was taken, as the producer says.
    pub captured: Option<Timestamp>,
}

/// One encoded picture of a session.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its number within the session.
    pub seq: Seq,
    /// Its type by its magic bytes.
    pub kind: ImageType,
    /// When the picture was taken, as the producer says, else when it was received.
    pub captured: Timestamp,
    /// When it was received, by the clock of the server that it was pushed to.
    pub received: Timestamp,
    /// The picture as it came.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_told_by_its_magic_bytes() {
        let mut bmp = b"BM".to_vec();
        bmp.resize(14, 0);
        bmp.extend([40, 0, 0, 0]);
        for (bytes, kind) in [
            (&b"\xFF\xD8\xFF\xE0"[..], ImageType::Jpeg),
            (b"\x89PNG\r\n\x1a\n", ImageType::Png),
            (b"GIF89a", ImageType::Gif),
            (b"GIF87a", ImageType::Gif),
            (b"RIFF\x10\0\0\0WEBPVP8 ", ImageType::WebP),
            (b"\0\0\0\x1cftypavif", ImageType::Avif),
            (&bmp, ImageType::Bmp),
        ] {
            assert_eq!(ImageType::sniff(bytes), Some(kind));
            assert_eq!(ImageType::from_u8(kind as u8), Some(kind));
        }
    }

    #[test]
    fn text_markup_and_fragments_are_no_pictures() {
        for bytes in
            [&b""[..], b"\xFF\xD8", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"BMW cars are not bitmaps", b"hello"]
        {
            assert_eq!(ImageType::sniff(bytes), None);
        }
    }

    #[test]
    fn timestamps_are_finite_and_not_negative_and_keep_their_microseconds() {
        for (text, written) in
            [("1700000000.123456", "1700000000.123456"), ("0", "0.000000"), ("-0", "0.000000"), (" 12.5 ", "12.500000")]
        {
            assert_eq!(text.parse::<Timestamp>().map(|stamp| stamp.to_string()).ok().as_deref(), Some(written));
        }
        for text in ["", "-1", "inf", "NaN", "1e999", "yesterday", "2026-11-21"] {
            assert!(matches!(text.parse::<Timestamp>(), Err(Error::BadTimestamp)), "{text:?}");
        }
    }
}
