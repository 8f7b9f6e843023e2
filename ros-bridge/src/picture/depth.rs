//! Distances as colours.

use std::{str::FromStr, sync::LazyLock};

/// From near to far: red, over yellow and green, to blue. It is Google's Turbo, whose steps look alike, without its darkest
/// tenth: black stands for something else.
static COLOURS: LazyLock<[[u8; 3]; SHADES]> = LazyLock::new(|| {
    let at = |shade| 1.0 - 0.9 * shade as f64 / (SHADES - 1) as f64;
    std::array::from_fn(|shade| colorous::TURBO.eval_continuous(at(shade)).into_array())
});

const SHADES: usize = 256;

/// What lies within gets a colour of its own; what is nearer or farther gets the first or the last one. In metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthRange {
    near: f32,
    far: f32,
}

impl DepthRange {
    /// Appends red, green and blue for each distance in metres. Black stands for no distance: 0 or less, infinite, not a
    /// number (REP 117, REP 118).
    pub(super) fn paint(self, metres: impl Iterator<Item = f32>, into: &mut Vec<u8>) {
        let scale = (SHADES - 1) as f32 / (self.far - self.near);
        let colours = &*COLOURS;
        into.extend(metres.flat_map(|distance| {
            if distance > 0.0 && distance.is_finite() {
                // From below 0 and above 255 to the nearest: that is what `as` does.
                colours[usize::from(((distance - self.near) * scale) as u8)]
            } else {
                [0; 3]
            }
        }));
    }
}

impl DepthRange {
    /// What the depth cameras that makers have can see.
    pub const ZERO_TO_TEN: Self = Self { near: 0.0, far: 10.0 };
}

impl Default for DepthRange {
    fn default() -> Self {
        Self::ZERO_TO_TEN
    }
}

impl FromStr for DepthRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (near, far) = text.split_once(':')?;
            let (near, far): (f32, f32) = (near.parse().ok()?, far.parse().ok()?);
            (near >= 0.0 && far > near && far.is_finite()).then_some(Self { near, far })
        };
        parse().ok_or_else(|| "two distances in metres, the nearer one first: 0.3:8".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_red_and_far_is_blue_and_nothing_is_black() {
        let range: DepthRange = "1:3".parse().unwrap_or_default();
        let mut painted = Vec::new();
        let distances = [0.5, 1.0, 2.0, 3.0, 90.0, 0.0, -1.0, f32::NAN, f32::INFINITY];
        range.paint(distances.into_iter(), &mut painted);
        let colours: Vec<_> = painted.chunks(3).collect();
        assert_eq!(colours[0], colours[1]);
        assert!(colours[0][0] > 100 && colours[0][2] < 40, "{:?}", colours[0]);
        assert!(colours[2][1] > 200, "{:?}", colours[2]);
        assert!(colours[3][2] > colours[3][0], "{:?}", colours[3]);
        assert_eq!(colours[3], colours[4]);
        assert!(colours[5..].iter().all(|colour| colour == &[0, 0, 0]));
    }

    #[test]
    fn a_range_needs_two_distances_in_order() {
        for wrong in ["", "1", "3:1", "1:1", "-1:3", "0:inf", "0:nan", "a:b"] {
            assert!(wrong.parse::<DepthRange>().is_err(), "{wrong}");
        }
    }
}
