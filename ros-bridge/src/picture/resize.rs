//! Makes pictures smaller.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};

use super::{Rows, Unusable};

/// Makes pictures smaller, into buffers that it keeps.
#[derive(Default)]
pub struct Shrink {
    resizer: Resizer,
    /// The rows without what lies between them.
    dense: Vec<u8>,
    made: Vec<u8>,
}

impl Shrink {
    /// Of pixels with so many bytes, one for each colour.
    pub(super) fn packed(
        &mut self,
        rows: Rows,
        bytes: usize,
        width: usize,
        height: usize,
    ) -> Result<Rows<'_>, Unusable> {
        self.dense.clear();
        let source = if rows.step == rows.row {
            &rows.data[..rows.row * rows.height]
        } else {
            self.dense.extend(rows.iter().flatten());
            &self.dense
        };
        let pixel = match bytes {
            1 => PixelType::U8,
            3 => PixelType::U8x3,
            _ => PixelType::U8x4,
        };
        self.made.clear();
        self.made.resize(width * height * bytes, 0);
        let from = ImageRef::new(rows.width as u32, rows.height as u32, source, pixel).map_err(failed)?;
        shrink(&mut self.resizer, &from, (width, height), &mut self.made)?;
        let row = width * bytes;
        Ok(Rows { width, height, step: row, row, is_bigendian: false, data: &self.made })
    }

    /// Of planes of which the second and third have half as many pixels in a row; all rows are of even length.
    pub(super) fn planes(
        &mut self,
        planes: &[u8],
        from: (usize, usize),
        to: (usize, usize),
    ) -> Result<&[u8], Unusable> {
        let ((width, height), (to_width, to_height)) = (from, to);
        let (half, to_half) = (width / 2, to_width / 2);
        self.made.clear();
        self.made.resize((to_width + 2 * to_half) * to_height, 0);
        let (mut source, mut made) = (planes, &mut self.made[..]);
        for (width, to_width) in [(width, to_width), (half, to_half), (half, to_half)] {
            let (plane, rest) = source.split_at(width * height);
            let (into, made_rest) = made.split_at_mut(to_width * to_height);
            let from = ImageRef::new(width as u32, height as u32, plane, PixelType::U8).map_err(failed)?;
            shrink(&mut self.resizer, &from, (to_width, to_height), into)?;
            (source, made) = (rest, made_rest);
        }
        Ok(&self.made)
    }
}

fn shrink(resizer: &mut Resizer, from: &ImageRef, to: (usize, usize), into: &mut [u8]) -> Result<(), Unusable> {
    let mut made = Image::from_slice_u8(to.0 as u32, to.1 as u32, into, from.pixel_type()).map_err(failed)?;
    // Each pixel is the mean of those that it stands for. What is see-through is shown as it is, as without shrinking.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box)).use_alpha(false);
    resizer.resize(from, &mut made, &options).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Unusable {
    Unusable::Failed(error.to_string())
}
