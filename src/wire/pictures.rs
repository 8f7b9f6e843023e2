//! One endless body taken apart into pictures as its bytes come: multipart, or JPEGs and PNGs back to back.
//!
//! Linear in the bytes, however they are cut into chunks, and what comes out does not depend on the cuts. At most one
//! unfinished picture is held, and never more of it than the limit and a boundary line.

mod bare;
mod boundary;
mod buffer;
mod jpeg;
mod multipart;
mod png;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

use bytes::Bytes;

use self::{
    bare::{Bare, Kind},
    multipart::Multipart,
};
use crate::frame::Timestamp;

/// The most bytes before the first picture or boundary line that are passed over.
pub const MAX_PREAMBLE: usize = 64 * 1024;
/// The most bytes of a part's header line or of the first boundary line, without its line feed.
pub const MAX_LINE: usize = 8 * 1024;
/// The most header lines of a part.
pub const MAX_HEADER_LINES: usize = 64;

/// What comes out of the body.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A whole picture.
    Picture {
        /// The picture as it came. Multipart parts are taken on trust: their type is still to be told by its bytes.
        bytes: Bytes,
        /// When it was taken, if its part has a valid `X-Timestamp`.
        captured: Option<Timestamp>,
    },
    /// A picture was lost; the stream goes on.
    Refused(Fault),
}

impl Item {
    /// The bytes of its picture.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Picture { bytes, .. } => bytes.len(),
            Self::Refused(_) => 0,
        }
    }

    fn malformed(why: &'static str) -> Self {
        Self::Refused(Fault::Malformed(why))
    }
}

/// Why one picture was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is over the limit.
    TooLarge,
    /// It is broken or unfinished; the text says how.
    Malformed(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the picture is too large"),
            Self::Malformed(why) => write!(f, "the picture is malformed: {why}"),
        }
    }
}

/// Why nothing more can be read from the body. The message names what was wrong, what is expected and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAStream {
    /// The first bytes are those of no form.
    UnknownForm,
    /// There is no boundary line at the start of a multipart body.
    NoBoundary,
    /// A header line of a part is over [`MAX_LINE`].
    LongHeader,
    /// A part has more than [`MAX_HEADER_LINES`].
    ManyHeaders,
}

impl fmt::Display for NotAStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownForm => f.write_str(
                "the body is not a stream of pictures: its first bytes are neither those of a JPEG or PNG nor a \
                 multipart boundary; send whole JPEGs or PNGs one after another, or multipart as `ffmpeg -f mpjpeg` \
                 does",
            ),
            Self::NoBoundary => write!(
                f,
                "the multipart body has no boundary line: expected \"--\", the boundary that Content-Type names, and \
                 a line end of at most {MAX_LINE} bytes in all, within the first {MAX_PREAMBLE} bytes; correct the \
                 boundary, or leave it out of Content-Type",
            ),
            Self::LongHeader => write!(
                f,
                "a header line in the multipart body is too long: the limit is {MAX_LINE} bytes; end the headers of \
                 each part with an empty line",
            ),
            Self::ManyHeaders => write!(
                f,
                "a part of the multipart body has too many header lines: the limit is {MAX_HEADER_LINES}; end the \
                 headers of each part with an empty line",
            ),
        }
    }
}

impl std::error::Error for NotAStream {}

/// One endless body taken apart into pictures.
#[derive(Debug)]
pub struct Splitter {
    max: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Not told yet: `head` bytes of `skipped` in all are a start of one.
    Unknown {
        head: Vec<u8>,
        skipped: usize,
    },
    Multipart(Multipart),
    Bare(Bare),
    Failed(NotAStream),
}

impl Splitter {
    /// `boundary` is the unquoted one of the Content-Type header, if it has one. Pictures over `max_picture_bytes` are
    /// refused.
    #[must_use]
    pub fn new(boundary: Option<&str>, max_picture_bytes: usize) -> Self {
        let form = match boundary.map(str::trim).filter(|boundary| !boundary.is_empty()) {
            Some(boundary) => Form::Multipart(Multipart::named(boundary, max_picture_bytes)),
            None => Form::Unknown { head: Vec::new(), skipped: 0 },
        };
        Self { max: max_picture_bytes, form }
    }

    /// Takes the next bytes; finished pictures are appended to `items`.
    ///
    /// # Errors
    ///
    /// When the body is no stream of pictures. `items` still got what came before, and every later call fails alike.
    pub fn feed(&mut self, chunk: &[u8], items: &mut VecDeque<Item>) -> Result<(), NotAStream> {
        let mut input = chunk;
        let outcome = self.tell(&mut input).and_then(|()| match &mut self.form {
            Form::Unknown { .. } => Ok(()),
            Form::Multipart(multipart) => multipart.feed(input, items),
            Form::Bare(bare) => {
                bare.feed(input, items);
                Ok(())
            }
            Form::Failed(reason) => Err(*reason),
        });
        if let Err(reason) = outcome {
            self.form = Form::Failed(reason);
        }
        outcome
    }

    /// Tells the form by the first bytes, and takes these from the input.
    fn tell(&mut self, input: &mut &[u8]) -> Result<(), NotAStream> {
        while let Form::Unknown { head, skipped } = &mut self.form
            && let Some((&byte, rest)) = input.split_first()
        {
            *input = rest;
            *skipped += 1;
            if *skipped > MAX_PREAMBLE {
                return Err(NotAStream::UnknownForm);
            }
            if head.is_empty() && matches!(byte, b'\r' | b'\n' | b' ') {
                continue;
            }
            head.push(byte);
            match head.as_slice() {
                b"--" => self.form = Form::Multipart(Multipart::unnamed(self.max)),
                whole if whole == jpeg::START => self.form = Form::Bare(Bare::new(Kind::Jpeg, self.max)),
                whole if whole == png::START => self.form = Form::Bare(Bare::new(Kind::Png, self.max)),
                b"-" => {}
                part if jpeg::START.starts_with(part) || png::START.starts_with(part) => {}
                _ => return Err(NotAStream::UnknownForm),
            }
        }
        Ok(())
    }

    /// The body has ended regularly. Returns what it still held: a last part that only this ended, or the fault of an
    /// unfinished picture.
    #[must_use]
    pub fn end(self) -> Option<Item> {
        match self.form {
            Form::Unknown { head, .. } => (!head.is_empty()).then_some(Item::malformed(CUT_OFF)),
            Form::Multipart(multipart) => multipart.end(),
            Form::Bare(bare) => bare.end(),
            Form::Failed(_) => None,
        }
    }

    /// Bytes held of what is not complete. A length that is announced counts for nothing until the bytes come.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.form {
            Form::Unknown { head, .. } => head.capacity(),
            Form::Multipart(multipart) => multipart.held(),
            Form::Bare(bare) => bare.held(),
            Form::Failed(_) => 0,
        }
    }
}

/// The fault of a picture that the end of the body cut off.
const CUT_OFF: &str = "the body ended within it";
