//! Bodies of Engine.IO's polling transport (<https://github.com/socketio/engine.io-protocol>), packet by packet.
//!
//! engineioxide reads packets by itself. What it does for the first packet of a body in the text form of revision 3 grows with
//! the whole body, and for a large one with its square; and a packet may be as long as its body, however many there are in
//! it. So a body is cut here first: each packet within a bound, and each handed on alone. The text form of revision 3 leaves
//! as its binary form, in which a packet's end is known from its length in bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// Between the packets of revision 4.
const SEPARATOR_4: u8 = 0x1e;
/// Between a packet's length and its bytes, in the text form of revision 3.
const COLON: u8 = b':';
/// The same in the binary form.
const SEPARATOR_3: u8 = 0xff;
/// What a text begins with in the binary form of revision 3; anything else is binary.
const TEXT_3: u8 = 0;
/// Binary, in the binary form of revision 3.
const BINARY_3: u8 = 1;
/// Digits of a packet's length at most: lengths beyond are over any limit.
const MAX_DIGITS: usize = 8;

/// What is set aside for a packet that is announced, at most, in bytes.
const RESERVED_BYTES: usize = 64 << 10;

/// How many bytes of a text are looked at at once.
const ASCII_BYTES: usize = 4 << 10;

/// How a body's packets are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Revision 3, as text: a length in UTF-16 units, a colon, the packet.
    Text3,
    /// Revision 3, binary: a kind, a length in bytes as one digit a byte, 0xFF, the packet.
    Binary3,
    /// Revision 4: packets with 0x1E between.
    Text4,
}

/// Why a body is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A packet over the limit.
    TooLarge,
    /// A length that is none, or an end in the middle of a packet.
    Malformed,
}

/// Cuts a body into packets as its bytes come in.
pub struct Packets {
    form: Form,
    limit: usize,
    buffer: BytesMut,
    /// What is known of the packet that `buffer` begins with.
    begun: Option<Begun>,
    /// Bytes of `buffer` that have been looked at.
    looked_at: usize,
}

/// A packet of revision 3 whose length has come.
struct Begun {
    kind: u8,
    /// Bytes, or for [`Form::Text3`] UTF-16 units, that still come.
    missing: usize,
}

/// One packet: what stands before it, and its bytes.
pub type Packet = [Bytes; 2];

impl Packets {
    /// Cuts a body whose packets have at most `limit` bytes each.
    #[must_use]
    pub fn new(form: Form, limit: usize) -> Self {
        Self { form, limit, buffer: BytesMut::new(), begun: None, looked_at: 0 }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet, if all of it has come.
    ///
    /// # Errors
    /// [`Fault`]; nothing can be read after it.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, Fault> {
        match self.form {
            Form::Text4 => self.next_4(),
            Form::Text3 | Form::Binary3 => self.next_3(),
        }
    }

    /// The last packet, when no more bytes come.
    ///
    /// # Errors
    /// [`Fault::Malformed`] where the body ends in the middle of a packet.
    pub fn finish(&mut self) -> Result<Option<Packet>, Fault> {
        match self.form {
            _ if self.buffer.is_empty() && self.begun.is_none() => Ok(None),
            Form::Text4 => Ok(Some([self.buffer.split().freeze(), Bytes::from_static(&[SEPARATOR_4])])),
            Form::Text3 | Form::Binary3 => Err(Fault::Malformed),
        }
    }

    fn next_4(&mut self) -> Result<Option<Packet>, Fault> {
        let Some(end) = memchr::memchr(SEPARATOR_4, &self.buffer[self.looked_at..]) else {
            self.looked_at = self.buffer.len();
            return if self.looked_at > self.limit { Err(Fault::TooLarge) } else { Ok(None) };
        };
        let end = std::mem::take(&mut self.looked_at) + end;
        if end > self.limit {
            return Err(Fault::TooLarge);
        }
        let packet = self.buffer.split_to(end + 1).freeze();
        Ok(Some([packet, Bytes::new()]))
    }

    fn next_3(&mut self) -> Result<Option<Packet>, Fault> {
        if self.begun.is_none() {
            self.begun = self.begin()?;
        }
        let Some(begun) = &mut self.begun else { return Ok(None) };
        let end = match self.form {
            Form::Binary3 => (self.buffer.len() >= begun.missing).then_some(begun.missing),
            _ => end_of_units(&self.buffer, &mut self.looked_at, &mut begun.missing),
        };
        if end.unwrap_or(self.looked_at) > self.limit {
            return Err(Fault::TooLarge);
        }
        let Some(end) = end else { return Ok(None) };
        let kind = begun.kind;
        (self.begun, self.looked_at) = (None, 0);
        Ok(Some([head(kind, end), self.buffer.split_to(end).freeze()]))
    }

    /// Reads what stands before a packet.
    fn begin(&mut self) -> Result<Option<Begun>, Fault> {
        let (mark, kinds) = match self.form {
            Form::Binary3 => (SEPARATOR_3, 1),
            _ => (COLON, 0),
        };
        let longest = kinds + MAX_DIGITS + 1;
        let look = &self.buffer[..self.buffer.len().min(longest)];
        let Some(end) = memchr::memchr(mark, look) else {
            return if look.len() == longest { Err(Fault::Malformed) } else { Ok(None) };
        };
        let kind = if kinds == 1 { look[0] } else { TEXT_3 };
        if !matches!(kind, TEXT_3 | BINARY_3) || end <= kinds {
            return Err(Fault::Malformed);
        }
        let digit = |byte: &u8| match self.form {
            Form::Binary3 => Some(*byte).filter(|digit| *digit <= 9),
            _ => byte.is_ascii_digit().then(|| byte - b'0'),
        };
        let length = look[kinds..end]
            .iter()
            .try_fold(0, |length, byte| Some(length * 10 + usize::from(digit(byte)?)))
            .filter(|length| *length > 0)
            .ok_or(Fault::Malformed)?;
        // A unit takes a byte at least.
        if length > self.limit {
            return Err(Fault::TooLarge);
        }
        let _ = self.buffer.split_to(end + 1);
        // What is announced need not come.
        self.buffer.reserve(length.min(RESERVED_BYTES).saturating_sub(self.buffer.len()));
        Ok(Some(Begun { kind, missing: length }))
    }
}

/// The byte after so many UTF-16 units, if they have all come. What has been looked at is not looked at again.
fn end_of_units(bytes: &[u8], looked_at: &mut usize, missing: &mut usize) -> Option<usize> {
    // Base64, as a rule: a unit is a byte.
    while let ahead @ 1.. = (*missing).min(bytes.len() - *looked_at).min(ASCII_BYTES)
        && bytes[*looked_at..*looked_at + ahead].is_ascii()
    {
        *looked_at += ahead;
        *missing -= ahead;
    }
    while let Some(byte) = bytes.get(*looked_at) {
        let is_continued = byte & 0b1100_0000 == 0b1000_0000;
        if *missing == 0 && !is_continued {
            break;
        }
        if !is_continued {
            // What takes four bytes in UTF-8 takes two units.
            *missing = missing.saturating_sub(if *byte >= 0b1111_0000 { 2 } else { 1 });
        }
        *looked_at += 1;
    }
    let last = bytes.get(looked_at.checked_sub(1)?)?;
    // Only ASCII is known to be complete before the next byte has come.
    let is_complete = *looked_at < bytes.len() || last.is_ascii() || is_whole(&bytes[..*looked_at]);
    (*missing == 0 && is_complete).then_some(*looked_at)
}

/// Whether the last character of the text has all its bytes.
fn is_whole(text: &[u8]) -> bool {
    let start = text.len().saturating_sub(4);
    let last = text[start..].iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
    last.is_some_and(|last| std::str::from_utf8(&text[start + last..]).is_ok())
}

/// What stands before a packet in the binary form of revision 3.
fn head(kind: u8, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(MAX_DIGITS + 2);
    head.put_u8(kind);
    head.extend(length.to_string().bytes().map(|digit| digit - b'0'));
    head.put_u8(SEPARATOR_3);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packets of a body that comes in pieces of so many bytes, without what stands before them in the binary form.
    fn cut(form: Form, body: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut packets = Packets::new(form, 64);
        let mut found = Vec::new();
        let mut take = |packet: Packet| {
            let text = packet.concat();
            let end = text.iter().position(|byte| form != Form::Text4 && *byte == SEPARATOR_3).map_or(0, |end| end + 1);
            let text = text[end..].to_vec();
            found.push(text.strip_suffix(&[SEPARATOR_4]).map_or(text.clone(), <[u8]>::to_vec));
        };
        for bytes in body.chunks(piece) {
            packets.feed(bytes);
            while let Some(packet) = packets.next_packet()? {
                take(packet);
            }
        }
        if let Some(packet) = packets.finish()? {
            take(packet);
        }
        Ok(found)
    }

    #[test]
    fn packets_come_out_one_by_one_however_their_bytes_come_in() {
        let binary = [&[0, 6, 255][..], b"42[\"a\"", &[1, 1, 0, 255], &[4, 1, 2, 3, 4, 5, 6, 7, 8, 255]].concat();
        type Case<'a> = (Form, &'a [u8], &'a [&'a [u8]]);
        let cases: [Case; 5] = [
            (Form::Text3, "1:26:42[\"a\"2:b4".as_bytes(), &[b"2", b"42[\"a\"", b"b4"]),
            (Form::Text3, "5:4äöß€2:4😀".as_bytes(), &["4äöß€".as_bytes(), "4😀".as_bytes()]),
            (Form::Text3, "3:4😀1:2".as_bytes(), &["4😀".as_bytes(), b"2"]),
            (Form::Binary3, &binary, &[b"42[\"a\"", &[4, 1, 2, 3, 4, 5, 6, 7, 8, 255]]),
            (Form::Text4, b"2\x1e42[\"a\"]\x1ebAQID", &[b"2", b"42[\"a\"]", b"bAQID"]),
        ];
        for (form, body, expected) in cases {
            for piece in 1..=body.len() {
                assert_eq!(cut(form, body, piece).unwrap(), expected, "{form:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_body_is_refused() {
        use Fault::{Malformed, TooLarge};
        let long = [b"4".repeat(65), b"\x1e2".to_vec()].concat();
        let cases: [(Form, &[u8], Fault); 12] = [
            (Form::Text3, b"x:2", Malformed),
            (Form::Text3, b":2", Malformed),
            (Form::Text3, b"0:", Malformed),
            (Form::Text3, b"5:42", Malformed),
            (Form::Text3, b"123456789", Malformed),
            (Form::Text3, b"65:4", TooLarge),
            (Form::Text3, "64:€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€".as_bytes(), TooLarge),
            (Form::Binary3, &[2, 1, 255, b'2'], Malformed),
            (Form::Binary3, &[0, 12, 255, b'2'], Malformed),
            (Form::Binary3, &[1, 6, 5, 255], TooLarge),
            (Form::Binary3, &[0, 255], Malformed),
            (Form::Text4, &long, TooLarge),
        ];
        for (form, body, fault) in cases {
            for piece in [1, 3, body.len()] {
                assert_eq!(cut(form, body, piece), Err(fault), "{form:?} {body:?} in pieces of {piece}");
            }
        }
        assert_eq!(cut(Form::Text4, b"", 1), Ok(vec![]));
        // Bytes that are no UTF-8 are for engineioxide to refuse; here they only must not make it wait for ever.
        assert_eq!(cut(Form::Text3, &[b'1', b':', 0xff, b'1', b':', b'2'], 1).unwrap().len(), 2);
    }

    #[test]
    fn text_leaves_as_the_binary_form() {
        let mut packets = Packets::new(Form::Text3, 64);
        packets.feed("12:4[\"aäö😀\"]  ".as_bytes());
        let packet = packets.next_packet().unwrap().unwrap();
        assert_eq!(packet, [Bytes::from_static(&[0, 1, 6, 255]), Bytes::from("4[\"aäö😀\"]  ")]);
    }
}
