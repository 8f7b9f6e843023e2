//! Packed 4:2:2, as USB cameras send it, as the planes that a JPEG is made of.

use super::Rows;

/// Which byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `yuv422`: blueness, grey, redness, grey.
    Uyvy,
    /// `yuv422_yuy2`: grey, blueness, grey, redness.
    Yuyv,
}

/// Cameras leave room at both ends (ITU-R BT.601: grey from 16 to 235, colours from 16 to 240). A JPEG has none (JFIF 1.02).
const fn stretched(low: i32, span: i32, middle: i32) -> [u8; 256] {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        let numerator = (value - low) * 255;
        let rounded = (numerator * 2 + if numerator < 0 { -span } else { span }) / (span * 2) + middle;
        table[value as usize] = if rounded < 0 {
            0
        } else if rounded > 255 {
            255
        } else {
            rounded as u8
        };
        value += 1;
    }
    table
}

const GREY: [u8; 256] = stretched(16, 219, 0);
const COLOUR: [u8; 256] = stretched(128, 224, 128);

/// Appends the planes of grey, blueness and redness.
pub(super) fn planes(rows: Rows, order: Order, into: &mut Vec<u8>) {
    let [y, u, v] = match order {
        Order::Uyvy => [1, 0, 2],
        Order::Yuyv => [0, 1, 3],
    };
    let pairs = || rows.iter().flat_map(|row| row.as_chunks::<4>().0);
    into.reserve(rows.width * rows.height * 2);
    into.extend(pairs().flat_map(|pair| [GREY[usize::from(pair[y])], GREY[usize::from(pair[y + 2])]]));
    into.extend(pairs().map(|pair| COLOUR[usize::from(pair[u])]));
    into.extend(pairs().map(|pair| COLOUR[usize::from(pair[v])]));
}
