//! [`Buffer`]: the picture that is being received.

use bytes::Bytes;

/// Collects one picture after another, each in an allocation of its own.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// No growth plans beyond this many bytes.
    ceiling: usize,
    /// The length of the picture before, the best guess at the next one's.
    before: usize,
}

impl Buffer {
    pub fn new(ceiling: usize) -> Self {
        Self { bytes: Vec::new(), ceiling, before: 0 }
    }

    /// Makes room for exactly this many bytes.
    pub fn expect(&mut self, length: usize) {
        self.bytes.reserve_exact(length);
    }

    pub fn append(&mut self, more: &[u8]) {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            let guess = self.before + self.before / 16;
            let wanted = guess.max(self.bytes.capacity().saturating_mul(2)).min(self.ceiling).max(needed);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The picture, in an allocation of about its size. Nothing is held afterwards.
    pub fn finish(&mut self) -> Bytes {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.before = bytes.len();
        if bytes.capacity() - bytes.len() > bytes.len() / 8 {
            bytes.shrink_to_fit();
        }
        Bytes::from(bytes)
    }

    /// The picture without a line end and the `delimiter` bytes after it.
    pub fn finish_before(&mut self, delimiter: usize) -> Bytes {
        self.bytes.truncate(self.bytes.len().saturating_sub(delimiter));
        if delimiter > 0 && self.bytes.last() == Some(&b'\r') {
            self.bytes.pop();
        }
        self.finish()
    }

    /// Drops the picture and its memory.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
    }
}
