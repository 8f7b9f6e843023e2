//! Draws labelled pictures: "No Data", and the tester's numbers.

use std::{fmt, io};

use bytes::Bytes;
use image::{
    ExtendedColorType, ImageEncoder, ImageError, Rgb, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use imageproc::{
    drawing::{draw_filled_rect_mut, draw_hollow_rect_mut},
    rect::Rect,
};
use rusttype::{Font, PositionedGlyph, Scale, point};
use time::{OffsetDateTime, macros::format_description};

/// The longest side of a picture, in pixels.
pub const MAX_SIDE: u32 = 8192;
/// Quality of the JPEG pictures, 1 to 100: text stays sharp, and 1280 × 720 takes some 50 kB.
const JPEG_QUALITY: u8 = 85;

const BACKGROUND: Rgb<u8> = Rgb([24, 32, 44]);
const BORDER: Rgb<u8> = Rgb([70, 88, 110]);
const BAND: Rgb<u8> = Rgb([36, 48, 66]);
const INK: Rgb<u8> = Rgb([232, 238, 246]);

/// The font only ever draws labels of our own: `rusttype` is never given a font or a size from outside.
static FONT: &[u8] = include_bytes!("../fonts/Roboto-Medium.ttf");

/// What the label may fill of the picture's width and height, and where its middle is from the top.
const LABEL: Place = Place { width: 0.8, height: 0.4, middle: 0.5 };
/// The same for a line below it.
const CAPTION: Place = Place { width: 0.8, height: 0.08, middle: 0.9 };

struct Place {
    width: f32,
    height: f32,
    middle: f32,
}

/// Width and height of a picture, each 1 to [`MAX_SIDE`] pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    width: u32,
    height: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { width: 1280, height: 720 }
    }
}

impl Size {
    /// A size, or `None` where a side is 0 or over [`MAX_SIDE`].
    #[must_use]
    pub fn new(width: u32, height: u32) -> Option<Self> {
        let valid = |side| (1..=MAX_SIDE).contains(&side);
        (valid(width) && valid(height)).then_some(Self { width, height })
    }

    /// The size with this height and this ratio of height to width.
    #[must_use]
    pub fn from_height(height: u32, ratio: f64) -> Option<Self> {
        // A float that does not fit saturates, and then `new` refuses it.
        Self::new((f64::from(height) / ratio).round() as u32, height)
    }

    /// Pixels across.
    #[must_use]
    pub fn width(self) -> u32 {
        self.width
    }

    /// Pixels down.
    #[must_use]
    pub fn height(self) -> u32 {
        self.height
    }
}

/// Reads a ratio of height to width, written `0.5625` or `9/16`.
#[must_use]
pub fn parse_ratio(text: &str) -> Option<f64> {
    let ratio = match text.split_once('/') {
        Some((height, width)) => height.trim().parse::<f64>().ok()? / width.trim().parse::<f64>().ok()?,
        None => text.parse().ok()?,
    };
    Some(ratio).filter(|ratio| ratio.is_finite() && *ratio > 0.0)
}

/// How a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG, for photos and MJPEG streams.
    Jpeg,
    /// PNG.
    Png,
}

/// Why a picture could not be drawn: in practice, that there was no memory for it.
#[derive(Debug)]
pub struct DrawError(ImageError);

impl fmt::Display for DrawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the placeholder picture could not be drawn: {}", self.0)
    }
}

impl std::error::Error for DrawError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Draws a picture with a label in its middle, as large as fits, and a small caption below (none if it is empty), and
/// encodes it. A frame of 1280 × 720 takes some 10 to 30 ms, the largest a few seconds: not for an event loop.
///
/// # Errors
/// When the font cannot be read or the picture not be encoded.
pub fn draw(label: &str, caption: &str, size: Size, format: Format) -> Result<Bytes, DrawError> {
    let font = Font::try_from_bytes(FONT).ok_or_else(|| {
        DrawError(ImageError::IoError(io::Error::new(io::ErrorKind::InvalidData, "the embedded font is damaged")))
    })?;
    let mut picture = RgbImage::from_pixel(size.width, size.height, BACKGROUND);
    draw_frame(&mut picture);
    draw_text(&mut picture, &font, label, &LABEL);
    draw_text(&mut picture, &font, caption, &CAPTION);
    encode(&picture, format).map_err(DrawError)
}

/// The time of day in UTC as the pictures show it: `2026-11-21 12:00:00.000 UTC`.
#[must_use]
pub fn clock() -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3] UTC");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

/// A band behind the caption and a border around everything, so that the edges of the picture can be seen on any page.
fn draw_frame(picture: &mut RgbImage) {
    let (width, height) = picture.dimensions();
    let band = height / 5;
    if band > 0 {
        draw_filled_rect_mut(picture, Rect::at(0, (height - band) as i32).of_size(width, band), BAND);
    }
    let thickness = (height.min(width) / 120).max(1);
    for inset in 0..thickness.min(width / 2).min(height / 2) {
        let edge = Rect::at(inset as i32, inset as i32).of_size(width - 2 * inset, height - 2 * inset);
        draw_hollow_rect_mut(picture, edge, BORDER);
    }
}

fn draw_text(picture: &mut RgbImage, font: &Font<'_>, text: &str, place: &Place) {
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    // Lay out once at a known scale; a layout grows in proportion.
    let unit = 100.0;
    let Some((left, top, right, bottom)) = bounds(&layout(font, text, unit, 0.0, 0.0)) else { return };
    let scale = unit * (width * place.width / (right - left)).min(height * place.height / (bottom - top));
    let grown = scale / unit;
    let x = (width - (right - left) * grown) / 2.0 - left * grown;
    let y = height * place.middle - (bottom - top) * grown / 2.0 - top * grown;
    for glyph in layout(font, text, scale, x, y) {
        let Some(place) = glyph.pixel_bounding_box() else { continue };
        glyph.draw(|dx, dy, coverage| {
            let (x, y) = (place.min.x + dx as i32, place.min.y + dy as i32);
            let inside = u32::try_from(x).ok().zip(u32::try_from(y).ok());
            if let Some(pixel) = inside.and_then(|(x, y)| picture.get_pixel_mut_checked(x, y)) {
                blend(pixel, coverage);
            }
        });
    }
}

fn layout<'f>(font: &Font<'f>, text: &str, scale: f32, x: f32, y: f32) -> Vec<PositionedGlyph<'f>> {
    font.layout(text, Scale::uniform(scale), point(x, y)).collect()
}

/// Left, top, right and bottom of the ink.
fn bounds(glyphs: &[PositionedGlyph<'_>]) -> Option<(f32, f32, f32, f32)> {
    glyphs
        .iter()
        .filter_map(|glyph| {
            let at = glyph.position();
            let ink = glyph.unpositioned().exact_bounding_box()?;
            Some((at.x + ink.min.x, at.y + ink.min.y, at.x + ink.max.x, at.y + ink.max.y))
        })
        .reduce(|a, b| (a.0.min(b.0), a.1.min(b.1), a.2.max(b.2), a.3.max(b.3)))
}

fn blend(pixel: &mut Rgb<u8>, coverage: f32) {
    let coverage = coverage.clamp(0.0, 1.0);
    for (channel, ink) in pixel.0.iter_mut().zip(INK.0) {
        *channel = (f32::from(*channel) * (1.0 - coverage) + f32::from(ink) * coverage).round() as u8;
    }
}

fn encode(picture: &RgbImage, format: Format) -> Result<Bytes, ImageError> {
    let mut encoded = Vec::new();
    let (width, height) = picture.dimensions();
    match format {
        Format::Jpeg => {
            JpegEncoder::new_with_quality(&mut encoded, JPEG_QUALITY).write_image(
                picture,
                width,
                height,
                ExtendedColorType::Rgb8,
            )?;
        }
        Format::Png => PngEncoder::new(&mut encoded).write_image(picture, width, height, ExtendedColorType::Rgb8)?,
    }
    // What is kept for good is not kept with room to grow.
    encoded.shrink_to_fit();
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(label: &str, width: u32, height: u32, format: Format) -> RgbImage {
        let bytes = draw(label, "", Size::new(width, height).unwrap(), format).unwrap();
        image::load_from_memory(&bytes).unwrap().to_rgb8()
    }

    /// Left, top, right and bottom of what is about as bright as ink.
    fn ink(picture: &RgbImage) -> Option<(u32, u32, u32, u32)> {
        let bright = picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0.iter().all(|channel| *channel > 180));
        bright.map(|(x, y, _)| (x, y, x, y)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1), a.2.max(b.2), a.3.max(b.3)))
    }

    #[test]
    fn the_label_is_centred_and_scaled_to_fit_in_any_shape() {
        for (width, height) in [(1280, 720), (320, 240), (64, 480), (2000, 100)] {
            for format in [Format::Jpeg, Format::Png] {
                let picture = drawn("No Data", width, height, format);
                assert_eq!(picture.dimensions(), (width, height));
                let (left, top, right, bottom) = ink(&picture).expect("a label");
                let off =
                    |from: u32, to: u32, side: u32| (i64::from(from) - (i64::from(side) - 1 - i64::from(to))).abs();
                assert!(off(left, right, width) <= 3, "{width}x{height}: {left} to {right}");
                assert!(off(top, bottom, height) <= 3, "{width}x{height}: {top} to {bottom}");
                let wide = f64::from(right - left + 1) / f64::from(width);
                let high = f64::from(bottom - top + 1) / f64::from(height);
                assert!(wide <= 0.85 && high <= 0.45, "{wide} {high}");
                assert!(wide >= 0.7 || high >= 0.33, "fills neither side: {wide} {high}");
            }
        }
    }

    #[test]
    fn the_smallest_and_the_longest_pictures_can_be_drawn() {
        for (width, height) in [(1, 1), (1, 8192), (8192, 1), (2, 2), (3, 5)] {
            assert_eq!(drawn("No Data", width, height, Format::Png).dimensions(), (width, height));
            assert_eq!(drawn("No Data", width, height, Format::Jpeg).dimensions(), (width, height));
        }
        assert!(Size::new(0, 1).is_none() && Size::new(1, 8193).is_none());
        assert!(Size::from_height(720, 0.0).is_none() && Size::from_height(720, f64::NAN).is_none());
    }

    #[test]
    fn other_labels_make_other_pictures_and_a_caption_stands_below() {
        let size = Size::default();
        let one = draw("1", "", size, Format::Png).unwrap();
        assert_ne!(one, draw("2", "", size, Format::Png).unwrap());
        assert_eq!(one, draw("1", "", size, Format::Png).unwrap());
        let with_caption =
            image::load_from_memory(&draw("", "12:00:00", size, Format::Png).unwrap()).unwrap().to_rgb8();
        let (_, top, _, bottom) = ink(&with_caption).unwrap();
        assert!(top > 720 * 4 / 5 && bottom < 720);
    }
}
