//! From the pixels of `sensor_msgs/Image` to a JPEG.
//!
//! What libjpeg-turbo reads as it is (`rgb8`, `mono8` and the like, with whatever step) is not copied on the way. The rest
//! goes through one buffer that is kept from picture to picture.

mod bayer;
mod depth;
mod resize;
mod yuv;

use thiserror::Error;
use turbojpeg::{Compressor, Image, OutputBuf, PixelFormat, Subsamp, YuvPlanesImage};

pub use self::depth::DepthRange;
use self::{bayer::Mosaic, resize::Shrink, yuv::Order};
use crate::message::RawImage;

/// The largest width and height of a JPEG that libjpeg-turbo writes, in pixels.
pub const MAX_SIDE: u32 = 65_500;

/// How pictures are made.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Of JPEGs: 1 to 100.
    pub quality: u8,
    /// Wider pictures are made smaller, in pixels.
    pub max_width: Option<u32>,
    /// Which distances get which colours.
    pub depth: DepthRange,
}

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum Unusable {
    /// A name that is none of those below.
    #[error(
        "the encoding {0:?} is not known: rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422, yuv422_yuy2, bayer_*8, bayer_*16, 16UC1 and 32FC1 are"
    )]
    Encoding(String),
    /// Nothing to show, or more than a JPEG can.
    #[error("{width} x {height} is no size of a picture: 1 to {MAX_SIDE} in each direction are")]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Two pixels share their colour, and one has no partner.
    #[error("{encoding} needs an even width, and this one is {width}")]
    OddWidth {
        /// The encoding.
        encoding: String,
        /// In pixels.
        width: u32,
    },
    /// Rows would overlap.
    #[error("the step of {step} bytes is wrong: a row of {width} pixels in {encoding} has {row}")]
    Step {
        /// In bytes.
        step: u32,
        /// In bytes.
        row: u64,
        /// In pixels.
        width: u32,
        /// The encoding.
        encoding: String,
    },
    /// Fewer bytes than rows.
    #[error("the data is too short: {height} rows of {step} bytes are {wanted}, and {length} came")]
    Short {
        /// In rows.
        height: u32,
        /// In bytes.
        step: u32,
        /// In bytes.
        wanted: u64,
        /// In bytes.
        length: usize,
    },
    /// An error of a library that no checked picture is known to cause.
    #[error("the picture could not be made: {0}")]
    Failed(String),
}

impl From<turbojpeg::Error> for Unusable {
    fn from(error: turbojpeg::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What the pixels of an encoding are. The names are those of `sensor_msgs/image_encodings.h` and of `OpenCV`'s types.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pixels {
    /// As libjpeg-turbo reads them.
    Direct(PixelFormat),
    /// Grey in 16 bits, of which the high ones are shown.
    Grey16,
    /// Grey for each pixel and a colour for every two.
    Yuv422(Order),
    /// One colour for each pixel.
    Bayer(Mosaic),
    /// Distances in millimetres, 16 bits (REP 118).
    Millimetres,
    /// Distances in metres, floating point (REP 118).
    Metres,
}

impl Pixels {
    fn named(encoding: &str) -> Option<Self> {
        Some(match encoding {
            "rgb8" => Self::Direct(PixelFormat::RGB),
            "bgr8" | "8UC3" => Self::Direct(PixelFormat::BGR),
            "rgba8" => Self::Direct(PixelFormat::RGBA),
            "bgra8" | "8UC4" => Self::Direct(PixelFormat::BGRA),
            "mono8" | "8UC1" => Self::Direct(PixelFormat::GRAY),
            "mono16" => Self::Grey16,
            "yuv422" | "uyvy" => Self::Yuv422(Order::Uyvy),
            "yuv422_yuy2" | "yuyv" | "yuy2" => Self::Yuv422(Order::Yuyv),
            "16UC1" => Self::Millimetres,
            "32FC1" => Self::Metres,
            _ => Self::Bayer(Mosaic::named(encoding)?),
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::Direct(format) => format.size(),
            Self::Grey16 | Self::Yuv422(_) | Self::Millimetres => 2,
            Self::Bayer(mosaic) => mosaic.bytes(),
            Self::Metres => 4,
        }
    }
}

/// A picture whose sizes fit each other: every row is there.
#[derive(Clone, Copy)]
struct Rows<'a> {
    width: usize,
    height: usize,
    /// Bytes from one row to the next.
    step: usize,
    /// Bytes of a row that are pixels.
    row: usize,
    is_bigendian: bool,
    data: &'a [u8],
}

impl<'a> Rows<'a> {
    fn of(image: &RawImage<'a>, pixels: Pixels) -> Result<Self, Unusable> {
        let RawImage { width, height, step, is_bigendian, data, .. } = *image;
        let encoding = || image.encoding.to_owned();
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(Unusable::Size { width, height });
        }
        if matches!(pixels, Pixels::Yuv422(_)) && width % 2 == 1 {
            return Err(Unusable::OddWidth { encoding: encoding(), width });
        }
        let row = u64::from(width) * pixels.bytes() as u64;
        if u64::from(step) < row {
            return Err(Unusable::Step { step, row, width, encoding: encoding() });
        }
        // The last row may do without what fills the others up.
        let wanted = u64::from(step) * u64::from(height - 1) + row;
        if (data.len() as u64) < wanted {
            return Err(Unusable::Short { height, step, wanted, length: data.len() });
        }
        let (width, height, step) = (width as usize, height as usize, step as usize);
        Ok(Self { width, height, step, row: width * pixels.bytes(), is_bigendian, data })
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let (step, row, data) = (self.step, self.row, self.data);
        (0..self.height).map(move |number| &data[number * step..number * step + row])
    }

    /// Each number of two bytes in a row.
    fn numbers(&self, row: &'a [u8]) -> impl Iterator<Item = u16> + use<'a> {
        let is_bigendian = self.is_bigendian;
        let read = move |bytes: &[u8; 2]| {
            if is_bigendian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) }
        };
        row.as_chunks().0.iter().map(read)
    }

    /// Each number of four bytes in a row.
    fn floats(&self, row: &'a [u8]) -> impl Iterator<Item = f32> + use<'a> {
        let is_bigendian = self.is_bigendian;
        let read = move |bytes: &[u8; 4]| {
            if is_bigendian { f32::from_be_bytes(*bytes) } else { f32::from_le_bytes(*bytes) }
        };
        row.as_chunks().0.iter().map(read)
    }
}

/// Makes JPEGs of one topic's pictures, one after the other.
pub struct Jpeg {
    style: Style,
    compressor: Compressor,
    shrink: Shrink,
    /// What a picture is turned into first, where it has to be.
    turned: Vec<u8>,
}

impl Jpeg {
    /// With nothing made yet.
    ///
    /// # Errors
    /// When libjpeg-turbo has no memory.
    pub fn new(style: Style) -> Result<Self, Unusable> {
        let mut compressor = Compressor::new()?;
        compressor.set_quality(style.quality.into())?;
        Ok(Self { style, compressor, shrink: Shrink::default(), turned: Vec::new() })
    }

    /// A JPEG of these pixels.
    ///
    /// # Errors
    /// When the sizes in the message do not fit each other, or nothing is known of its encoding.
    pub fn of(&mut self, image: &RawImage) -> Result<Vec<u8>, Unusable> {
        let pixels = Pixels::named(image.encoding)
            .ok_or_else(|| Unusable::Encoding(image.encoding.chars().take(MAX_ENCODING_SHOWN).collect()))?;
        let rows = Rows::of(image, pixels)?;
        let mut turned = std::mem::take(&mut self.turned);
        // What growing would double, and most are made of three colours.
        if !matches!(pixels, Pixels::Direct(_)) {
            turned.reserve_exact(rows.width * rows.height * 3);
        }
        let jpeg = match pixels {
            Pixels::Direct(format) => self.packed(format, rows),
            Pixels::Yuv422(order) => {
                yuv::planes(rows, order, &mut turned);
                self.planes(rows.width, rows.height, &turned)
            }
            Pixels::Grey16 => {
                let high = |row| rows.numbers(row).map(|number| number.to_be_bytes()[0]);
                turned.extend(rows.iter().flat_map(high));
                self.packed(PixelFormat::GRAY, tight(rows, &turned, 1))
            }
            Pixels::Millimetres => {
                self.style
                    .depth
                    .paint(rows.iter().flat_map(|row| rows.numbers(row).map(|it| f32::from(it) / 1000.0)), &mut turned);
                self.packed(PixelFormat::RGB, tight(rows, &turned, 3))
            }
            Pixels::Metres => {
                self.style.depth.paint(rows.iter().flat_map(|row| rows.floats(row)), &mut turned);
                self.packed(PixelFormat::RGB, tight(rows, &turned, 3))
            }
            Pixels::Bayer(mosaic) => match mosaic.colours(rows, &mut turned) {
                Ok(()) => self.packed(PixelFormat::RGB, tight(rows, &turned, 3)),
                Err(error) => Err(error),
            },
        };
        turned.clear();
        turned.shrink_to(MAX_KEPT);
        self.turned = turned;
        jpeg
    }

    fn packed(&mut self, format: PixelFormat, rows: Rows) -> Result<Vec<u8>, Unusable> {
        let rows = match self.smaller(rows.width, rows.height) {
            Some((width, height)) => self.shrink.packed(rows, format.size(), width, height)?,
            None => rows,
        };
        // Half as many colours as pixels in each direction, as nearly every camera and OpenCV have it.
        let subsamp = if format == PixelFormat::GRAY { Subsamp::Gray } else { Subsamp::Sub2x2 };
        self.compressor.set_subsamp(subsamp)?;
        let Rows { width, height, step: pitch, data: pixels, .. } = rows;
        let mut output = OutputBuf::new_owned();
        self.compressor.compress(Image { pixels, width, pitch, height, format }, &mut output)?;
        Ok(output.to_vec())
    }

    /// From whole planes of grey, blueness and redness, one after the other.
    fn planes(&mut self, width: usize, height: usize, planes: &[u8]) -> Result<Vec<u8>, Unusable> {
        let (planes, width, height) = match self.smaller(width, height) {
            // Every two pixels share a colour here too.
            Some((smaller, lower)) => {
                let smaller = (smaller & !1).max(2);
                (self.shrink.planes(planes, (width, height), (smaller, lower))?, smaller, lower)
            }
            None => (planes, width, height),
        };
        let half = width / 2;
        let (y_plane, colours) = planes.split_at(width * height);
        let (u_plane, v_plane) = colours.split_at(half * height);
        let image = YuvPlanesImage {
            y_plane,
            u_plane,
            v_plane,
            width,
            height,
            y_stride: width,
            u_stride: half,
            v_stride: half,
            subsamp: Subsamp::Sub2x1,
        };
        let mut output = OutputBuf::new_owned();
        self.compressor.compress_yuv_planes(&image, &mut output)?;
        Ok(output.to_vec())
    }

    /// The size that a picture is to have which is too wide.
    fn smaller(&self, width: usize, height: usize) -> Option<(usize, usize)> {
        let max_width = self.style.max_width? as usize;
        (width > max_width).then(|| (max_width, (height * max_width / width).max(1)))
    }
}

/// What is kept from one picture to the next, in bytes: enough for 4096 x 2160.
const MAX_KEPT: usize = 32 << 20;
/// How much of a wrong encoding's name is told, in characters.
const MAX_ENCODING_SHOWN: usize = 40;

/// The rows of a buffer that holds nothing but pixels.
fn tight<'a>(of: Rows, data: &'a [u8], bytes: usize) -> Rows<'a> {
    let row = of.width * bytes;
    Rows { width: of.width, height: of.height, step: row, row, is_bigendian: false, data }
}

#[cfg(test)]
mod tests;
