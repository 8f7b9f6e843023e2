//! Image messages as they come over the wire of ROS 1 and of ROS 2, taken apart without copying a pixel.
//!
//! Both send the fields of `sensor_msgs/Image` and `sensor_msgs/CompressedImage` in the order of their definitions. ROS 1
//! packs them, little-endian, and has a sequence number in its header. ROS 2 sends CDR (OMG DDS-XTypes 1.3, 7.4): numbers at
//! multiples of their size, and texts that end in a NUL which is counted. Which byte of a number comes first is told before it.

use std::time::Duration;

use thiserror::Error;

/// The longest message that is read, in bytes. A picture of 4096 x 3072 in `rgba8` has 48 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Which of the two picture types a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `sensor_msgs/Image`: pixels.
    Image,
    /// `sensor_msgs/CompressedImage`: a file.
    Compressed,
}

impl Kind {
    /// What a topic carries of which nothing has been announced yet: `image_transport` has `compressed` in the names of its
    /// compressed topics.
    #[must_use]
    pub fn by_name(topic: &str) -> Self {
        if topic.contains("compressed") { Self::Compressed } else { Self::Image }
    }

    /// The type without its package: the same in ROS 1 and ROS 2.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Image => "Image",
            Self::Compressed => "CompressedImage",
        }
    }
}

/// How a message is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// ROS 1.
    Packed,
    /// ROS 2.
    Cdr {
        /// Whether numbers begin with their high byte.
        is_bigendian: bool,
    },
}

/// When the picture was taken, since 1970 or since a simulation began; `None` where the publisher left it at 0.
pub type Stamp = Option<Duration>;

/// A message that has been taken apart.
#[derive(Debug, PartialEq)]
pub struct Message<'a> {
    /// When the picture was taken.
    pub stamp: Stamp,
    /// The picture.
    pub picture: Picture<'a>,
}

/// What a message shows.
#[derive(Debug, PartialEq)]
pub enum Picture<'a> {
    /// Pixels.
    Raw(RawImage<'a>),
    /// A file, and what it calls itself.
    File {
        /// The message's `format`.
        format: &'a str,
        /// The file.
        data: &'a [u8],
    },
}

/// The fields of `sensor_msgs/Image` that tell how its pixels lie. None of them has been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawImage<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What a pixel is: `rgb8`.
    pub encoding: &'a str,
    /// Whether numbers of more than a byte begin with their high byte.
    pub is_bigendian: bool,
    /// Bytes from one row to the next.
    pub step: u32,
    /// The rows.
    pub data: &'a [u8],
}

/// Why a message could not be taken apart.
#[derive(Debug, Error, PartialEq)]
pub enum Malformed {
    /// It ended within a field.
    #[error("the message is cut off: {field} has {wanted} bytes, and {left} are left")]
    CutOff {
        /// The field.
        field: &'static str,
        /// How long it says it is.
        wanted: usize,
        /// What is there.
        left: usize,
    },
    /// A text is not UTF-8.
    #[error("{0} is no text")]
    NoText(&'static str),
}

/// Takes a message apart.
///
/// # Errors
/// When a field is longer than what is left of the message, or is no text where it should be one.
pub fn read(layout: Layout, kind: Kind, message: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut fields = Fields { layout, message, at: 0 };
    if layout == Layout::Packed {
        fields.number("header.seq")?;
    }
    let (seconds, nanoseconds) = (fields.number("header.stamp")?, fields.number("header.stamp")?);
    let stamp = Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds.into());
    fields.text("header.frame_id")?;
    let picture = match kind {
        Kind::Image => Picture::Raw(RawImage {
            height: fields.number("height")?,
            width: fields.number("width")?,
            encoding: fields.text("encoding")?,
            is_bigendian: fields.byte("is_bigendian")? != 0,
            step: fields.number("step")?,
            data: fields.bytes("data")?,
        }),
        Kind::Compressed => Picture::File { format: fields.text("format")?, data: fields.bytes("data")? },
    };
    Ok(Message { stamp: (!stamp.is_zero()).then_some(stamp), picture })
}

struct Fields<'a> {
    layout: Layout,
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, field: &'static str, wanted: usize) -> Result<&'a [u8], Malformed> {
        let left = &self.message[self.at..];
        let taken = left.get(..wanted).ok_or(Malformed::CutOff { field, wanted, left: left.len() })?;
        self.at += wanted;
        Ok(taken)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.take(field, 1)?[0])
    }

    fn number(&mut self, field: &'static str) -> Result<u32, Malformed> {
        if self.layout != Layout::Packed {
            self.take(field, self.at.next_multiple_of(4) - self.at)?;
        }
        let bytes = self.take(field, 4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let is_bigendian = self.layout == Layout::Cdr { is_bigendian: true };
        Ok(if is_bigendian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.number(field)?;
        self.take(field, length as usize)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        let mut bytes = self.bytes(field)?;
        if self.layout != Layout::Packed {
            bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        }
        std::str::from_utf8(bytes).map_err(|_| Malformed::NoText(field))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A 2 x 1 picture in `mono8`, by hand from the definitions.
    fn packed() -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [7_u32, 1_700_000_000, 250_000_000, 3] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"cam");
        for number in [1_u32, 2, 5] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"mono8\0");
        for number in [2_u32, 2] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([10, 200]);
        bytes
    }

    fn samples() -> [(Layout, Vec<u8>); 3] {
        let cdr = |is_bigendian| (Layout::Cdr { is_bigendian }, cdr(is_bigendian));
        [(Layout::Packed, packed()), cdr(false), cdr(true)]
    }

    fn cdr(bigendian: bool) -> Vec<u8> {
        let number = |value: u32| if bigendian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut bytes = Vec::new();
        for value in [1_700_000_000, 250_000_000, 4] {
            bytes.extend(number(value));
        }
        bytes.extend(b"cam\0");
        for value in [1, 2, 6] {
            bytes.extend(number(value));
        }
        // The flag stands right behind the text, and the number behind it at a multiple of four.
        bytes.extend(b"mono8\0\0\0");
        bytes.extend(number(2));
        bytes.extend(number(2));
        bytes.extend([10, 200]);
        bytes
    }

    #[test]
    fn both_layouts_say_the_same() {
        let expected = Message {
            stamp: Some(Duration::new(1_700_000_000, 250_000_000)),
            picture: Picture::Raw(RawImage {
                width: 2,
                height: 1,
                encoding: "mono8",
                is_bigendian: false,
                step: 2,
                data: &[10, 200],
            }),
        };
        assert_eq!(read(Layout::Packed, Kind::Image, &packed()), Ok(expected));
        for (layout, bytes) in samples() {
            assert_eq!(read(layout, Kind::Image, &bytes), read(Layout::Packed, Kind::Image, &packed()));
        }
    }

    #[test]
    fn a_message_that_is_cut_off_anywhere_is_refused() {
        for (layout, whole) in samples() {
            for length in 0..whole.len() {
                let error = read(layout, Kind::Image, &whole[..length]).unwrap_err();
                assert!(matches!(error, Malformed::CutOff { .. }), "{layout:?} {length}: {error}");
            }
        }
    }

    #[test]
    fn whatever_bytes_are_changed_it_neither_panics_nor_reaches_beyond() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        for (layout, whole) in samples() {
            for _ in 0..20_000 {
                let mut bytes = whole.clone();
                for _ in 0..=next() % 3 {
                    let at = next() % bytes.len();
                    bytes[at] = next() as u8;
                }
                for kind in [Kind::Image, Kind::Compressed] {
                    if let Ok(Message { picture: Picture::Raw(image), .. }) = read(layout, kind, &bytes) {
                        assert!(image.data.len() <= bytes.len());
                    }
                }
            }
        }
    }

    #[test]
    fn a_stamp_of_zero_is_none() {
        let mut bytes = packed();
        bytes[4..12].fill(0);
        assert_eq!(read(Layout::Packed, Kind::Image, &bytes).unwrap().stamp, None);
    }

    #[test]
    fn the_name_tells_the_kind_where_nothing_else_does() {
        assert_eq!(Kind::by_name("/camera/image_raw"), Kind::Image);
        assert_eq!(Kind::by_name("/camera/image_raw/compressed"), Kind::Compressed);
    }
}
