//! Where a JPEG ends: its marker segments, walked as ITU-T T.81 annex B lays them out.

use memchr::memchr;

use super::{Fault, bare::Step};

/// The marker SOI, which begins every JPEG.
pub const START: &[u8] = b"\xFF\xD8";

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// The place within one JPEG.
#[derive(Debug)]
pub struct Walk {
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before the 0xFF of a marker.
    Marker,
    /// After it.
    Code,
    /// Before the first byte of a segment's length. `scan`: entropy-coded data follow the segment.
    Length { scan: bool },
    /// Before the second one.
    LengthLow { high: u8, scan: bool },
    /// Within a segment. What it holds does not matter: a thumbnail has markers of its own.
    Segment { left: usize, scan: bool },
    /// Within entropy-coded data.
    Scan,
    /// After a 0xFF there.
    ScanCode,
}

impl Walk {
    /// Right after SOI.
    pub fn new() -> Self {
        Self { place: Place::Marker }
    }

    /// Walks on, and says how many bytes it took and what stopped it.
    pub fn advance(&mut self, input: &[u8]) -> (usize, Step) {
        let mut rest = input;
        let step = loop {
            let Some((&byte, after)) = rest.split_first() else { break Step::More };
            match self.place {
                Place::Marker if byte == 0xFF => self.place = Place::Code,
                Place::Marker => break Self::lost("a JPEG segment does not begin with a marker"),
                Place::ScanCode if matches!(byte, 0x00 | 0xD0..=0xD7) => self.place = Place::Scan,
                Place::Code | Place::ScanCode => match byte {
                    // Fill.
                    0xFF => {}
                    SOI => break Self::lost("another one begins within it"),
                    EOI => {
                        rest = after;
                        break Step::Done;
                    }
                    // TEM and RST stand alone.
                    0x01 | 0xD0..=0xD7 => self.place = Place::Marker,
                    0xC0.. => self.place = Place::Length { scan: byte == SOS },
                    _ => break Self::lost("a JPEG marker is a reserved one"),
                },
                Place::Length { scan } => self.place = Place::LengthLow { high: byte, scan },
                Place::LengthLow { high, scan } => {
                    // The length counts its own two bytes.
                    let Some(left) = usize::from(u16::from_be_bytes([high, byte])).checked_sub(2) else {
                        rest = after;
                        break Self::lost("a JPEG segment is shorter than its length field");
                    };
                    self.place = Self::within(left, scan);
                }
                Place::Segment { left, scan } => {
                    let taken = left.min(rest.len());
                    self.place = Self::within(left - taken, scan);
                    rest = rest.get(taken..).unwrap_or_default();
                    continue;
                }
                Place::Scan => {
                    let Some(found) = memchr(0xFF, rest) else {
                        rest = &[];
                        continue;
                    };
                    self.place = Place::ScanCode;
                    rest = rest.get(found + 1..).unwrap_or_default();
                    continue;
                }
            }
            rest = after;
        };
        (input.len() - rest.len(), step)
    }

    /// The latest byte, if the start of another picture may begin with it.
    pub fn doubtful(&self) -> &'static [u8] {
        match self.place {
            Place::Code | Place::ScanCode => b"\xFF",
            _ => b"",
        }
    }

    fn lost(why: &'static str) -> Step {
        Step::Lost(Fault::Malformed(why))
    }

    fn within(left: usize, scan: bool) -> Place {
        match left {
            0 if scan => Place::Scan,
            0 => Place::Marker,
            _ => Place::Segment { left, scan },
        }
    }
}
