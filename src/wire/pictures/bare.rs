//! Pictures back to back. After each one either type may follow.

use std::collections::VecDeque;

use memchr::{memchr, memchr2};

use super::{CUT_OFF, Fault, Item, buffer::Buffer, jpeg, png};

/// A type of picture that shows where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Jpeg,
    Png,
}

/// What stopped a walk through a picture.
#[derive(Debug)]
pub enum Step {
    /// The input is used up.
    More,
    /// The picture is whole.
    Done,
    /// There is no way on.
    Lost(Fault),
}

/// A body of pictures back to back.
#[derive(Debug)]
pub struct Bare {
    max: usize,
    buffer: Buffer,
    state: State,
}

#[derive(Debug)]
enum State {
    Between(Hunt),
    /// `refused`: the picture is over the limit, but still walked to its end, for a JPEG's segments may hold others.
    Within {
        walk: Walk,
        refused: bool,
    },
}

/// The place within a picture.
#[derive(Debug)]
enum Walk {
    Jpeg(jpeg::Walk),
    Png(png::Walk),
}

impl Bare {
    /// Right after the start of the first picture.
    pub fn new(kind: Kind, max: usize) -> Self {
        let mut bare = Self { max, buffer: Buffer::new(max), state: State::Between(Hunt::after_picture()) };
        bare.begin(kind);
        bare
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut input: &[u8], items: &mut VecDeque<Item>) {
        while !input.is_empty() {
            let taken = match &mut self.state {
                State::Between(hunt) => {
                    let (taken, found) = hunt.advance(input);
                    if let Some(kind) = found {
                        self.begin(kind);
                    }
                    taken
                }
                State::Within { walk, refused } => {
                    let (taken, step) = match walk {
                        Walk::Jpeg(walk) => walk.advance(input),
                        Walk::Png(walk) => walk.advance(input),
                    };
                    if !*refused && self.buffer.len() + taken > self.max {
                        *refused = true;
                        self.buffer.clear();
                        items.push_back(Item::Refused(Fault::TooLarge));
                    }
                    if !*refused && matches!(step, Step::More | Step::Done) {
                        self.buffer.append(input.get(..taken).unwrap_or_default());
                    }
                    match step {
                        Step::More => {}
                        Step::Done => {
                            if !*refused {
                                items.push_back(Item::Picture { bytes: self.buffer.finish(), captured: None });
                            }
                            self.state = State::Between(Hunt::after_picture());
                        }
                        Step::Lost(fault) => {
                            if !*refused {
                                items.push_back(Item::Refused(fault));
                            }
                            self.lose();
                        }
                    }
                    taken
                }
            };
            input = input.get(taken..).unwrap_or_default();
        }
    }

    /// Begins a picture whose start was found.
    fn begin(&mut self, kind: Kind) {
        let (walk, start) = match kind {
            Kind::Jpeg => (Walk::Jpeg(jpeg::Walk::new()), jpeg::START),
            Kind::Png => (Walk::Png(png::Walk::new(self.max)), png::START),
        };
        self.buffer.append(start);
        self.state = State::Within { walk, refused: false };
    }

    /// Drops the picture and looks for the next one, which may begin where this one broke.
    fn lose(&mut self) {
        self.buffer.clear();
        let State::Within { walk, .. } = &self.state else { return };
        let (mut hunt, doubtful) = match walk {
            Walk::Jpeg(walk) => (Hunt::after_broken_jpeg(), walk.doubtful()),
            Walk::Png(walk) => (Hunt::after_broken_png(), walk.doubtful()),
        };
        match hunt.advance(doubtful) {
            (_, Some(kind)) => self.begin(kind),
            (_, None) => self.state = State::Between(hunt),
        }
    }

    /// What the end of the body leaves.
    pub fn end(self) -> Option<Item> {
        matches!(self.state, State::Within { refused: false, .. }).then_some(Item::malformed(CUT_OFF))
    }

    pub fn held(&self) -> usize {
        self.buffer.len()
    }
}

/// Looks for the start of the next picture.
#[derive(Debug)]
struct Hunt {
    /// A JPEG's start, or `None` where it might show by chance: in the compressed data of a PNG.
    jpeg: Option<&'static [u8]>,
    /// The start that the latest bytes agree with, and how many of them.
    partial: Option<(Kind, usize)>,
}

impl Hunt {
    fn after_picture() -> Self {
        Self { jpeg: Some(jpeg::START), partial: None }
    }

    /// Asks for the marker after SOI as well, for this may be anywhere.
    fn after_broken_jpeg() -> Self {
        Self { jpeg: Some(b"\xFF\xD8\xFF"), partial: None }
    }

    fn after_broken_png() -> Self {
        Self { jpeg: None, partial: None }
    }

    /// Looks on. Returns how many bytes it took, up to the start's end, and what begins there.
    fn advance(&mut self, input: &[u8]) -> (usize, Option<Kind>) {
        let mut rest = input;
        while let Some((&byte, after)) = rest.split_first() {
            let Some((kind, matched)) = self.partial else {
                let first = match self.jpeg {
                    Some(_) => memchr2(0xFF, 0x89, rest),
                    None => memchr(0x89, rest),
                };
                let Some(first) = first else { break };
                self.partial = rest.get(first).and_then(|&byte| self.first(byte));
                rest = rest.get(first + 1..).unwrap_or_default();
                continue;
            };
            let start = self.start(kind);
            // No start repeats its first byte before it is told, so a mismatch begins at the latest byte or nowhere.
            self.partial = match start.get(matched) {
                Some(&expected) if expected == byte => Some((kind, matched + 1)),
                _ => self.first(byte),
            };
            if self.partial == Some((kind, start.len())) {
                // The marker after SOI is not taken: the walk goes on there.
                let rest = if start.len() > jpeg::START.len() && kind == Kind::Jpeg { rest } else { after };
                return (input.len() - rest.len(), Some(kind));
            }
            rest = after;
        }
        (input.len(), None)
    }

    fn start(&self, kind: Kind) -> &'static [u8] {
        match kind {
            Kind::Jpeg => self.jpeg.unwrap_or_default(),
            Kind::Png => png::START,
        }
    }

    /// The start that this byte begins.
    fn first(&self, byte: u8) -> Option<(Kind, usize)> {
        match byte {
            0xFF if self.jpeg.is_some() => Some((Kind::Jpeg, 1)),
            0x89 => Some((Kind::Png, 1)),
            _ => None,
        }
    }
}
