//! [`Seeker`]: where the parts of a multipart body end.

use memchr::{memmem, memrchr};

/// The most bytes of a boundary line after the boundary.
const MAX_PADDING: usize = 64;

/// Finds boundary lines: at the start of a line the delimiter, perhaps two dashes, perhaps white space, a line end.
#[derive(Debug)]
pub struct Seeker {
    /// For a line feed and the delimiter. There is no other line feed in it, so a mismatch begins anew at the latest
    /// byte or nowhere.
    finder: memmem::Finder<'static>,
    /// Bytes of it that the latest ones agree with.
    matched: usize,
    /// Bytes after it, once all of it has matched.
    padding: usize,
    after: After,
    closes: bool,
}

/// The latest thing from the delimiter on.
#[derive(Debug, Clone, Copy)]
enum After {
    Delimiter,
    Dash,
    Dashes,
    Space,
    Return,
}

/// A boundary line.
#[derive(Debug)]
pub struct Boundary {
    /// It ends the body.
    pub closes: bool,
    /// Its bytes from the line feed before it to its own.
    pub length: usize,
}

impl Seeker {
    /// At the start of a line.
    pub fn new(delimiter: &[u8]) -> Self {
        let needle = [b"\n", delimiter].concat();
        let finder = memmem::Finder::new(&needle).into_owned();
        Self { finder, matched: 1, padding: 0, after: After::Delimiter, closes: false }
    }

    /// Begins anew after this byte.
    fn restart(&mut self, byte: u8) {
        self.matched = usize::from(byte == b'\n');
        self.padding = 0;
        self.after = After::Delimiter;
        self.closes = false;
    }

    pub fn delimiter(&self) -> &[u8] {
        self.finder.needle().get(1..).unwrap_or_default()
    }

    /// The most bytes from the end of a picture to the end of its boundary line.
    pub fn longest(&self) -> usize {
        b"\r".len() + self.finder.needle().len() + MAX_PADDING
    }

    /// The length of a boundary line that lacks its end only.
    pub fn seen(&self) -> Option<usize> {
        (self.matched == self.finder.needle().len()).then_some(self.matched + self.padding)
    }

    /// Looks on. Returns how many bytes it took, up to the boundary line's end, and that line.
    pub fn advance(&mut self, input: &[u8]) -> (usize, Option<Boundary>) {
        let mut rest = input;
        while let Some((&byte, following)) = rest.split_first() {
            if let Some(seen) = self.seen() {
                rest = following;
                self.padding += 1;
                self.after = match (self.after, byte) {
                    (After::Delimiter | After::Dashes | After::Space | After::Return, b'\n') => {
                        let boundary = Boundary { closes: self.closes, length: seen + 1 };
                        self.restart(byte);
                        return (input.len() - rest.len(), Some(boundary));
                    }
                    _ if self.padding == MAX_PADDING => {
                        self.restart(byte);
                        continue;
                    }
                    (After::Delimiter, b'-') => After::Dash,
                    (After::Dash, b'-') => {
                        self.closes = true;
                        After::Dashes
                    }
                    (After::Delimiter | After::Dashes | After::Space, b' ' | b'\t') => After::Space,
                    (After::Delimiter | After::Dashes | After::Space, b'\r') => After::Return,
                    _ => {
                        self.restart(byte);
                        continue;
                    }
                };
            } else if self.matched > 0 {
                rest = following;
                if self.finder.needle().get(self.matched) == Some(&byte) {
                    self.matched += 1;
                } else {
                    self.restart(byte);
                }
            } else if let Some(found) = self.finder.find(rest) {
                let needle = self.finder.needle().len();
                self.matched = needle;
                rest = rest.get(found + needle..).unwrap_or_default();
            } else {
                // Only the very end can be the start of a delimiter.
                let needle = self.finder.needle();
                let end = rest.get(rest.len().saturating_sub(needle.len() - 1)..).unwrap_or_default();
                let start = memrchr(b'\n', end).and_then(|found| end.get(found..)).unwrap_or_default();
                if needle.starts_with(start) {
                    self.matched = start.len();
                }
                rest = &[];
            }
        }
        (input.len(), None)
    }
}
