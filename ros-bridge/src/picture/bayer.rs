//! A camera chip's mosaic, in which each pixel has one colour, with all three for each.

use demosaic::{Algorithm, CfaPattern};

use super::{Rows, Unusable};

/// How the mosaic is laid, and in how many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mosaic {
    tiles: Tiles,
    is_deep: bool,
}

/// The first two colours of the first two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tiles {
    Rggb,
    Bggr,
    Gbrg,
    Grbg,
}

/// Rows that are worked on at once, which bounds the memory: the library works in floating point, plane by plane.
const STRIP: usize = 64;
/// Rows above and below that the colours of a strip's own rows depend on. Even, so that a strip begins like the picture.
const MARGIN: usize = 2;

impl Mosaic {
    pub(super) fn named(encoding: &str) -> Option<Self> {
        let (tiles, is_deep) = match encoding.strip_prefix("bayer_")? {
            name if name.ends_with("16") => (name.strip_suffix("16")?, true),
            name => (name.strip_suffix('8')?, false),
        };
        let tiles = match tiles {
            "rggb" => Tiles::Rggb,
            "bggr" => Tiles::Bggr,
            "gbrg" => Tiles::Gbrg,
            "grbg" => Tiles::Grbg,
            _ => return None,
        };
        Some(Self { tiles, is_deep })
    }

    pub(super) fn bytes(self) -> usize {
        if self.is_deep { 2 } else { 1 }
    }

    fn pattern(self) -> CfaPattern {
        match self.tiles {
            Tiles::Rggb => CfaPattern::bayer_rggb(),
            Tiles::Bggr => CfaPattern::bayer_bggr(),
            Tiles::Gbrg => CfaPattern::bayer_gbrg(),
            Tiles::Grbg => CfaPattern::bayer_grbg(),
        }
    }

    /// Appends red, green and blue for each pixel.
    pub(super) fn colours(self, rows: Rows, into: &mut Vec<u8>) -> Result<(), Unusable> {
        let pattern = self.pattern();
        let all: Vec<&[u8]> = rows.iter().collect();
        let (mut mosaic, mut planes) = (Vec::new(), Vec::new());
        for start in (0..rows.height).step_by(STRIP) {
            let own = start..(start + STRIP).min(rows.height);
            let from = start.saturating_sub(MARGIN);
            let seen = &all[from..(own.end + MARGIN).min(rows.height)];
            mosaic.clear();
            if self.is_deep {
                let high = |row| rows.numbers(row).map(|number| f32::from(number.to_be_bytes()[0]));
                mosaic.extend(seen.iter().copied().flat_map(high));
            } else {
                mosaic.extend(seen.iter().copied().flatten().copied().map(f32::from));
            }
            planes.resize(mosaic.len() * 3, 0.0);
            demosaic::demosaic(&mosaic, rows.width, seen.len(), &pattern, Algorithm::Bilinear, &mut planes)
                .map_err(|error| Unusable::Failed(error.to_string()))?;
            let (red, rest) = planes.split_at(mosaic.len());
            let (green, blue) = rest.split_at(mosaic.len());
            let pixels = (own.start - from) * rows.width..(own.end - from) * rows.width;
            let shades = red[pixels.clone()].iter().zip(&green[pixels.clone()]).zip(&blue[pixels]);
            into.extend(shades.flat_map(|((red, green), blue)| [*red, *green, *blue].map(|it| it.round() as u8)));
        }
        Ok(())
    }
}
