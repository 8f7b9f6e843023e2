//! Where a PNG ends: its chunks, walked up to IEND.

use super::{Fault, bare::Step};

/// The signature, which begins every PNG.
pub const START: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes of a chunk beside its data: length, type and checksum.
const CHUNK: usize = 12;
/// The longest data of a chunk that the format allows.
const MAX_CHUNK: u32 = i32::MAX as u32;

/// The place within one PNG.
#[derive(Debug)]
pub struct Walk {
    /// Length and type of the chunk, as far as they have come.
    header: [u8; 8],
    filled: usize,
    /// Bytes of the chunk that are still to come.
    left: usize,
    /// The chunk is IEND.
    last: bool,
    /// Bytes that chunks may still take beside an empty IEND, or `None` if not even that is within the limit.
    room: Option<usize>,
}

impl Walk {
    /// Right after the signature.
    pub fn new(max: usize) -> Self {
        let room = max.checked_sub(START.len() + CHUNK);
        Self { header: [0; 8], filled: 0, left: 0, last: false, room }
    }

    /// The bytes that were taken for length and type: the start of another picture may be among them.
    pub fn doubtful(&self) -> &[u8] {
        &self.header
    }

    /// Walks on, and says how many bytes it took and what stopped it. A chunk that will not fit is told by its header.
    pub fn advance(&mut self, input: &[u8]) -> (usize, Step) {
        let mut rest = input;
        let step = loop {
            let taken = self.left.min(rest.len());
            self.left -= taken;
            rest = rest.get(taken..).unwrap_or_default();
            if self.left > 0 {
                break Step::More;
            }
            if self.last {
                break Step::Done;
            }
            while let (Some(slot), Some((&byte, after))) = (self.header.get_mut(self.filled), rest.split_first()) {
                *slot = byte;
                self.filled += 1;
                rest = after;
            }
            if self.filled < self.header.len() {
                break Step::More;
            }
            self.filled = 0;
            if let Err(fault) = self.enter() {
                break Step::Lost(fault);
            }
        };
        (input.len() - rest.len(), step)
    }

    /// Enters the chunk whose header has come.
    fn enter(&mut self) -> Result<(), Fault> {
        let [a, b, c, d, kind @ ..] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > MAX_CHUNK {
            return Err(Fault::Malformed("a PNG chunk is longer than the format allows"));
        }
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(Fault::Malformed("a PNG chunk has no valid type"));
        }
        self.last = kind == *b"IEND";
        let length = length as usize;
        let takes = if self.last { length } else { length + CHUNK };
        self.room = self.room.and_then(|room| room.checked_sub(takes));
        if self.room.is_none() {
            return Err(Fault::TooLarge);
        }
        self.left = length + CHUNK - self.header.len();
        Ok(())
    }
}
