//! Multipart bodies, as RFC 2046 lays them out and as cameras bend it.

use std::{borrow::Cow, collections::VecDeque};

use memchr::memchr;

use super::{
    CUT_OFF, Fault, Item, MAX_HEADER_LINES, MAX_LINE, MAX_PREAMBLE, NotAStream,
    boundary::{Boundary, Seeker},
    buffer::Buffer,
};
use crate::frame::Timestamp;

/// A multipart body.
#[derive(Debug)]
pub enum Multipart {
    /// Before the first boundary line.
    Preamble(Preamble),
    /// After it.
    Parts(Box<Parts>),
}

impl Multipart {
    /// A body with the boundary that Content-Type names. Some producers name it with the two dashes before it, so one
    /// that begins with dashes is also found without two more.
    pub fn named(boundary: &str, max: usize) -> Self {
        let mut wanted = vec![format!("--{boundary}").into_bytes()];
        if boundary.starts_with("--") {
            wanted.push(boundary.as_bytes().to_vec());
        }
        Self::Preamble(Preamble { wanted, line: Line::default(), seen: 0, max })
    }

    /// A body whose first line, after the two dashes that were seen, shows the boundary.
    pub fn unnamed(max: usize) -> Self {
        Self::Preamble(Preamble { wanted: Vec::new(), line: Line { bytes: b"--".to_vec() }, seen: 0, max })
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut input: &[u8], items: &mut VecDeque<Item>) -> Result<(), NotAStream> {
        if let Self::Preamble(preamble) = self {
            let Some(parts) = preamble.feed(&mut input)? else { return Ok(()) };
            *self = Self::Parts(Box::new(parts));
        }
        if let Self::Parts(parts) = self {
            parts.feed(input, items)?;
        }
        Ok(())
    }

    /// What the end of the body leaves.
    pub fn end(self) -> Option<Item> {
        match self {
            Self::Preamble(preamble) => (preamble.seen > 0 || !preamble.line.bytes.is_empty())
                .then_some(Item::malformed("the multipart body ended before a boundary line")),
            Self::Parts(parts) => parts.end(),
        }
    }

    pub fn held(&self) -> usize {
        match self {
            Self::Preamble(preamble) => preamble.line.held(),
            Self::Parts(parts) => parts.line.held() + parts.buffer.len(),
        }
    }
}

/// What comes before the first boundary line.
#[derive(Debug)]
pub struct Preamble {
    /// What that line may begin with; empty where it is the first one and shows the boundary itself.
    wanted: Vec<Vec<u8>>,
    line: Line,
    /// Bytes taken so far.
    seen: usize,
    max: usize,
}

impl Preamble {
    fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Parts>, NotAStream> {
        loop {
            let before = input.len();
            let line = self.line.take(input);
            self.seen += before - input.len();
            if self.seen > MAX_PREAMBLE {
                return Err(NotAStream::NoBoundary);
            }
            let Some(line) = line else {
                return if self.wanted.is_empty() && self.line.is_overlong() {
                    Err(NotAStream::NoBoundary)
                } else {
                    Ok(None)
                };
            };
            let text = line.trim_ascii();
            if self.wanted.is_empty() {
                if line.len() > MAX_LINE || text.len() <= b"--".len() {
                    return Err(NotAStream::NoBoundary);
                }
                return Ok(Some(Parts::new(text, false, self.max)));
            }
            for wanted in &self.wanted {
                if let Some(closes) = closes(text, wanted) {
                    return Ok(Some(Parts::new(wanted, closes, self.max)));
                }
            }
        }
    }
}

/// Tells whether a line without its padding is a boundary line, and if so, whether it closes the body.
fn closes(line: &[u8], delimiter: &[u8]) -> Option<bool> {
    match line.strip_prefix(delimiter)? {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The parts, and what is between them.
#[derive(Debug)]
pub struct Parts {
    max: usize,
    seeker: Seeker,
    line: Line,
    buffer: Buffer,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Passing over everything up to the next boundary line.
    Between,
    Headers(Headers),
    /// In a picture of a declared length.
    Sized {
        length: usize,
        captured: Option<Timestamp>,
    },
    /// In a picture that the next boundary line ends.
    Unsized {
        captured: Option<Timestamp>,
    },
}

/// What is known of a part from its headers.
#[derive(Debug, Default)]
struct Headers {
    length: Option<usize>,
    captured: Option<Timestamp>,
    lines: usize,
}

impl State {
    fn after_boundary(closes: bool) -> Self {
        if closes { Self::Between } else { Self::Headers(Headers::default()) }
    }
}

impl Parts {
    fn new(delimiter: &[u8], closes: bool, max: usize) -> Self {
        let seeker = Seeker::new(delimiter);
        let buffer = Buffer::new(max.saturating_add(seeker.longest()));
        Self { max, seeker, line: Line::default(), buffer, state: State::after_boundary(closes) }
    }

    fn feed(&mut self, mut input: &[u8], items: &mut VecDeque<Item>) -> Result<(), NotAStream> {
        while !input.is_empty() {
            match &mut self.state {
                State::Between => {
                    let (taken, found) = self.seeker.advance(input);
                    input = input.get(taken..).unwrap_or_default();
                    if let Some(Boundary { closes, .. }) = found {
                        self.state = State::after_boundary(closes);
                    }
                }
                State::Headers(headers) => {
                    let line = self.line.take(&mut input);
                    if self.line.is_overlong() || line.as_ref().is_some_and(|line| line.len() > MAX_LINE) {
                        self.line = Line::default();
                        return Err(NotAStream::LongHeader);
                    }
                    let Some(line) = line else { return Ok(()) };
                    let line = line.strip_suffix(b"\r").unwrap_or(&line);
                    if let Some(closes) = closes(line.trim_ascii_end(), self.seeker.delimiter()) {
                        // Some producers write a boundary line after each part and another one before the next.
                        if headers.lines > 0 {
                            items.push_back(Item::malformed("the part's headers have no end"));
                        }
                        self.state = State::after_boundary(closes);
                    } else if !line.is_empty() {
                        headers.read(line);
                        headers.lines += 1;
                        if headers.lines > MAX_HEADER_LINES {
                            return Err(NotAStream::ManyHeaders);
                        }
                    } else {
                        let Headers { length, captured, .. } = *headers;
                        self.begin(length, captured, items);
                    }
                }
                State::Sized { length, captured } => {
                    let taken = (*length - self.buffer.len()).min(input.len());
                    self.buffer.append(input.get(..taken).unwrap_or_default());
                    input = input.get(taken..).unwrap_or_default();
                    if self.buffer.len() == *length {
                        items.push_back(Item::Picture { bytes: self.buffer.finish(), captured: *captured });
                        self.state = State::Between;
                    }
                }
                State::Unsized { captured } => {
                    let captured = *captured;
                    let (taken, found) = self.seeker.advance(input);
                    let fits = self.buffer.len() + taken <= self.max.saturating_add(self.seeker.longest());
                    if fits {
                        self.buffer.append(input.get(..taken).unwrap_or_default());
                    } else {
                        self.buffer.clear();
                    }
                    input = input.get(taken..).unwrap_or_default();
                    match found {
                        Some(Boundary { closes, length }) => {
                            items.push_back(if fits {
                                self.finish(length, captured)
                            } else {
                                Item::Refused(Fault::TooLarge)
                            });
                            self.state = State::after_boundary(closes);
                        }
                        None if !fits => {
                            items.push_back(Item::Refused(Fault::TooLarge));
                            self.state = State::Between;
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins the picture whose headers have ended. One that is declared too large is passed over by its boundary, for
    /// a length that is a lie would have no end.
    fn begin(&mut self, length: Option<usize>, captured: Option<Timestamp>, items: &mut VecDeque<Item>) {
        self.state = match length {
            None => State::Unsized { captured },
            Some(0) => {
                items.push_back(Item::malformed(EMPTY));
                State::Between
            }
            Some(length) if length > self.max => {
                items.push_back(Item::Refused(Fault::TooLarge));
                State::Between
            }
            Some(length) => {
                self.buffer.expect(length);
                State::Sized { length, captured }
            }
        };
    }

    /// The picture that `delimiter` bytes of a boundary line have ended.
    fn finish(&mut self, delimiter: usize, captured: Option<Timestamp>) -> Item {
        let bytes = self.buffer.finish_before(delimiter);
        if bytes.is_empty() {
            Item::malformed(EMPTY)
        } else if bytes.len() > self.max {
            Item::Refused(Fault::TooLarge)
        } else {
            Item::Picture { bytes, captured }
        }
    }

    fn end(mut self) -> Option<Item> {
        match self.state {
            State::Between => None,
            // ffmpeg ends with a boundary line that no part follows.
            State::Headers(Headers { lines: 0, .. }) if self.line.bytes.is_empty() => None,
            State::Headers(_) | State::Sized { .. } => Some(Item::malformed(CUT_OFF)),
            State::Unsized { captured } => Some(self.finish(self.seeker.seen().unwrap_or(0), captured)),
        }
    }
}

const EMPTY: &str = "the part is empty";

impl Headers {
    fn read(&mut self, line: &[u8]) {
        let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) else { return };
        let Ok(value) = str::from_utf8(value.get(1..).unwrap_or_default()) else { return };
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = read_length(value.trim());
        } else if name.eq_ignore_ascii_case(b"x-timestamp") {
            self.captured = value.parse().ok();
        }
    }
}

/// A length of digits; one beyond all measure is the largest there is. What is no number counts as none.
fn read_length(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// A line that may come in several pieces.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
}

impl Line {
    /// The line up to the next line feed, without it, or `None` while this has not come. Of one over [`MAX_LINE`] only
    /// one byte more than that is kept.
    fn take<'a>(&mut self, input: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let end = memchr(b'\n', input);
        let (piece, rest) = input.split_at_checked(end.unwrap_or(input.len()))?;
        let piece = piece.get(..MAX_LINE + 1 - self.bytes.len()).unwrap_or(piece);
        *input = rest.get(1..).unwrap_or_default();
        if self.bytes.is_empty() && end.is_some() {
            return Some(Cow::Borrowed(piece));
        }
        self.bytes.extend_from_slice(piece);
        end.map(|_| Cow::Owned(std::mem::take(&mut self.bytes)))
    }

    /// Whether it is too long before it has ended.
    fn is_overlong(&self) -> bool {
        self.bytes.len() > MAX_LINE
    }

    fn held(&self) -> usize {
        self.bytes.capacity()
    }
}
