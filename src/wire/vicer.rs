//! VICER's own wire: how its peers are told apart, and pictures with their length before them.

use bytes::{Buf, Bytes, BytesMut};

/// The longest first message to its control port, in bytes.
pub const MAX_FIRST_BYTES: usize = 1024;
/// What its camera app sends before its first picture.
const CAMERA_MARK: u8 = 0x99;
/// What a JPEG begins with.
const JPEG_START: [u8; 2] = [0xFF, 0xD8];
/// Bytes of a picture's length.
const LENGTH_BYTES: usize = 4;

/// Who is at the control port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPeer {
    /// It receives.
    Vehicle,
    /// It sends.
    Controller,
}

impl ControlPeer {
    /// By its first message.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match std::str::from_utf8(first) {
            Ok(text) if text.contains('K') => Self::Vehicle,
            _ => Self::Controller,
        }
    }
}

/// Who is at the stream port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPeer {
    /// It receives pictures.
    Viewer,
    /// It sends pictures, each after its length; its first message but for so many bytes belongs to them.
    Camera {
        /// Bytes that are none of a picture.
        skip: usize,
    },
    /// It sends JPEG after JPEG, from its first byte on.
    Bare,
}

impl StreamPeer {
    /// By what has come so far of its first message, if that is enough to tell.
    #[must_use]
    pub fn of(first: &[u8]) -> Option<Self> {
        match first {
            [] => None,
            [CAMERA_MARK, ..] => Some(Self::Camera { skip: 1 }),
            [one] if *one == JPEG_START[0] => None,
            [one, two, ..] if [*one, *two] == JPEG_START => Some(Self::Bare),
            first => match std::str::from_utf8(first) {
                Ok(_) => Some(Self::Viewer),
                // The beginning of a character, or of a length: the next byte tells.
                Err(error) if error.error_len().is_none() && first.len() < LENGTH_BYTES => None,
                Err(_) => Some(Self::Camera { skip: 0 }),
            },
        }
    }
}

/// A picture whose length makes no sense. Nothing after it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsurdLength(pub u32);

/// Pictures with their lengths before them, from bytes as they come. At most one unfinished picture is held.
pub struct Pictures {
    max: usize,
    buffer: BytesMut,
}

impl Pictures {
    /// Of at most so many bytes each.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, buffer: BytesMut::new() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next picture that is complete.
    ///
    /// # Errors
    /// [`AbsurdLength`] where one is announced that is over the limit.
    pub fn next_picture(&mut self) -> Result<Option<Bytes>, AbsurdLength> {
        loop {
            let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
            let announced = u32::from_le_bytes(*length);
            let length = usize::try_from(announced).unwrap_or(usize::MAX);
            if length > self.max {
                return Err(AbsurdLength(announced));
            }
            if self.buffer.len() - LENGTH_BYTES < length {
                return Ok(None);
            }
            self.buffer.advance(LENGTH_BYTES);
            // In a buffer of its own size, as it may be kept for long.
            let picture = Bytes::copy_from_slice(&self.buffer.split_to(length));
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            if !picture.is_empty() {
                return Ok(Some(picture));
            }
        }
    }

    /// Bytes held of what is not complete.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.len()
    }
}

/// What stands before a picture.
#[must_use]
pub fn picture_head(length: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_apart_by_their_first_message() {
        for (first, peer) in [
            (&b"K"[..], ControlPeer::Vehicle),
            (b"hello, K here", ControlPeer::Vehicle),
            (b"k", ControlPeer::Controller),
            (b"F", ControlPeer::Controller),
            (b"K\xff", ControlPeer::Controller),
        ] {
            assert_eq!(ControlPeer::of(first), peer, "{first:?}");
        }
        for (first, peer) in [
            (&b""[..], None),
            (b" ", Some(StreamPeer::Viewer)),
            ("héllo".as_bytes(), Some(StreamPeer::Viewer)),
            (b"\x99", Some(StreamPeer::Camera { skip: 1 })),
            (b"\x99\x99\x01\0\0", Some(StreamPeer::Camera { skip: 1 })),
            (b"\xff", None),
            (b"\xff\xd8", Some(StreamPeer::Bare)),
            (b"\xff\x10\0\0", Some(StreamPeer::Camera { skip: 0 })),
            (b"\xc3", None),
            (b"\xc3\x10\0\0\xff\xd8", Some(StreamPeer::Camera { skip: 0 })),
            (b"\x80", Some(StreamPeer::Camera { skip: 0 })),
        ] {
            assert_eq!(StreamPeer::of(first), peer, "{first:?}");
        }
    }

    #[test]
    fn pictures_come_out_however_their_bytes_come_in_and_an_absurd_length_ends_it() {
        let mut bytes = Vec::new();
        for picture in [&b"one"[..], b"", b"three"] {
            bytes.extend(picture_head(picture.len()));
            bytes.extend(picture);
        }
        for size in 1..bytes.len() {
            let (mut pictures, mut got) = (Pictures::new(5), Vec::new());
            for chunk in bytes.chunks(size) {
                pictures.feed(chunk);
                while let Some(picture) = pictures.next_picture().unwrap() {
                    got.push(picture);
                }
                assert!(pictures.held() < LENGTH_BYTES + 5);
            }
            assert_eq!((&got[..], pictures.held()), (&[Bytes::from("one"), Bytes::from("three")][..], 0), "{size}");
        }
        let mut pictures = Pictures::new(5);
        pictures.feed(&[6, 0, 0, 0]);
        assert_eq!(pictures.next_picture(), Err(AbsurdLength(6)));
        pictures.feed(b"anything");
        assert_eq!(pictures.next_picture(), Err(AbsurdLength(6)));
    }
}
