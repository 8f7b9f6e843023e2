//! WebSocket messages (RFC 6455), from bytes and to bytes.
//!
//! What comes in is taken apart by `actix-http`'s codec. What goes out is so little that it is put together here: that codec
//! would copy every picture.

use actix_http::ws::{CloseCode, Codec, Frame, Item, OpCode, ProtocolError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder as _;

/// The longest head of a message from a client: two bytes, a length of eight, a mask of four.
const MAX_HEAD_BYTES: usize = 14;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes.
    Binary(Bytes),
    /// A text; what is not UTF-8 in it is replaced.
    Text(String),
    /// A message over the limit. It was thrown away.
    TooLarge,
    /// To be answered by a pong with the same bytes.
    Ping(Bytes),
    /// The answer to a ping, with its bytes.
    Pong(Bytes),
    /// The end.
    Close,
}

/// Takes a client's messages apart as their bytes come in.
pub struct Decoder {
    codec: Codec,
    buffer: BytesMut,
    limit: usize,
    /// Bytes that still come of a message over the limit.
    skip: usize,
    fragments: Option<Fragments>,
}

/// A message that comes in fragments.
struct Fragments {
    is_text: bool,
    bytes: BytesMut,
    too_large: bool,
}

impl Decoder {
    /// Messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let codec = Codec::new().max_size(limit);
        Self { codec, buffer: BytesMut::new(), limit, skip: 0, fragments: None }
    }

    /// Takes the next bytes: what is skipped of them is not kept.
    pub fn feed(&mut self, bytes: &[u8]) {
        let skipped = if self.buffer.is_empty() { self.skip.min(bytes.len()) } else { 0 };
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next message that is complete.
    ///
    /// # Errors
    /// Where the client breaks the protocol: the connection is of no use any more.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            if let Some((whole, is_message)) = self.oversize() {
                if !is_message {
                    return Err(ProtocolError::Overflow);
                }
                self.skip = whole;
                return Ok(Some(Message::TooLarge));
            }
            let Some(frame) = self.codec.decode(&mut self.buffer)? else { return Ok(None) };
            let message = self.message(frame);
            if self.buffer.is_empty() {
                // A socket that is idle holds nothing of the large message before.
                self.buffer = BytesMut::new();
            }
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// How many bytes the frame at the beginning of the buffer takes if its payload is over the limit, and whether that is
    /// a whole message.
    fn oversize(&self) -> Option<(usize, bool)> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        let (length, head) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let whole_message = first & 0x80 != 0 && matches!(first & 0x0F, 1 | 2);
        (length > self.limit).then(|| (length.saturating_add(head + mask), whole_message))
    }

    fn message(&mut self, frame: Frame) -> Option<Message> {
        match frame {
            // In a buffer of their own size: what they came in may be much larger.
            Frame::Binary(bytes) => Some(Message::Binary(Bytes::copy_from_slice(&bytes))),
            Frame::Text(bytes) => Some(Message::Text(String::from_utf8_lossy(&bytes).into_owned())),
            Frame::Ping(bytes) => Some(Message::Ping(bytes)),
            Frame::Pong(bytes) => Some(Message::Pong(bytes)),
            Frame::Close(_) => Some(Message::Close),
            Frame::Continuation(Item::FirstBinary(bytes)) => self.begin(false, &bytes),
            Frame::Continuation(Item::FirstText(bytes)) => self.begin(true, &bytes),
            Frame::Continuation(Item::Continue(bytes)) => {
                self.add(&bytes);
                None
            }
            Frame::Continuation(Item::Last(bytes)) => {
                self.add(&bytes);
                let Fragments { is_text, bytes, too_large } = self.fragments.take()?;
                Some(match (too_large, is_text) {
                    (true, _) => Message::TooLarge,
                    (false, true) => Message::Text(String::from_utf8_lossy(&bytes).into_owned()),
                    (false, false) => Message::Binary(Bytes::copy_from_slice(&bytes)),
                })
            }
        }
    }

    fn begin(&mut self, is_text: bool, bytes: &[u8]) -> Option<Message> {
        self.fragments = Some(Fragments { is_text, bytes: BytesMut::from(bytes), too_large: false });
        None
    }

    fn add(&mut self, bytes: &[u8]) {
        let Some(fragments) = &mut self.fragments else { return };
        if fragments.bytes.len() + bytes.len() > self.limit {
            fragments.too_large = true;
            fragments.bytes = BytesMut::new();
        }
        if !fragments.too_large {
            fragments.bytes.extend_from_slice(bytes);
        }
    }

    /// Bytes that are held of messages that are not complete: twice the limit at most, and their heads.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.len() + self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len())
    }
}

/// What stands before so many bytes of a message that goes out whole and, as all that a server sends, without a mask
/// (RFC 6455 §5.2).
pub fn head(kind: OpCode, length: usize, into: &mut BytesMut) {
    into.put_u8(0x80 | u8::from(kind));
    match length {
        0..126 => into.put_u8(length as u8),
        126..=0xFFFF => {
            into.put_u8(126);
            into.put_u16(length as u16);
        }
        _ => {
            into.put_u8(127);
            into.put_u64(length as u64);
        }
    }
}

/// A whole message.
#[must_use]
pub fn message(kind: OpCode, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(MAX_HEAD_BYTES + payload.len());
    head(kind, payload.len(), &mut bytes);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The message that ends a connection.
#[must_use]
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code.into());
    payload.put_slice(reason.as_bytes());
    message(OpCode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it, with a mask of zeros.
    fn from_client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        head(OpCode::Binary, payload.len(), &mut frame);
        frame[0] = first;
        frame[1] |= 0x80;
        frame.put_slice(&[0; 4]);
        frame.put_slice(payload);
        frame.to_vec()
    }

    #[test]
    fn messages_come_out_whole_however_they_come_in_and_one_over_the_limit_costs_only_itself() {
        let large = vec![7; 70_000];
        let mut bytes = Vec::new();
        for (first, payload) in [
            (0x82, &b"one"[..]),
            (0x82, &large),
            (0x81, b"two"),
            (0x02, b"thr"),
            (0x89, b"ping"),
            (0x80, b"ee"),
            (0x02, &[1; 900]),
            (0x00, &[1; 900]),
            (0x80, &[1; 1]),
            (0x82, &[]),
            (0x82, &[3; 1000]),
            (0x88, b""),
        ] {
            bytes.extend(from_client(first, payload));
        }
        for size in [1, 2, 3, 7, 100, 1000, 100_000] {
            let mut decoder = Decoder::new(1000);
            let mut messages = Vec::new();
            for chunk in bytes.chunks(size) {
                decoder.feed(chunk);
                assert!(decoder.held() <= 2 * (1000 + MAX_HEAD_BYTES) + size);
                while let Some(message) = decoder.next_message().unwrap() {
                    messages.push(message);
                }
            }
            let expected = [
                Message::Binary("one".into()),
                Message::TooLarge,
                Message::Text("two".into()),
                Message::Ping("ping".into()),
                Message::Binary("three".into()),
                Message::TooLarge,
                Message::Binary(Bytes::new()),
                Message::Binary(vec![3; 1000].into()),
                Message::Close,
            ];
            assert_eq!(messages, expected, "in pieces of {size}");
            assert_eq!((decoder.held(), decoder.buffer.capacity()), (0, 0), "nothing is held between messages");
        }
    }

    #[test]
    fn what_goes_out_has_the_shortest_length_that_holds_it() {
        for (length, head_bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(message(OpCode::Binary, &vec![0; length]).len(), head_bytes + length);
        }
        assert_eq!(&close(CloseCode::Away, "bye")[..], b"\x88\x05\x03\xe9bye");
    }
}
