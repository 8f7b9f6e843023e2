//! Pictures that say which they are, and the heads of HTTP and of parts.

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{KIB, Result};

/// What every picture begins with: the start of a JFIF file, then what tells it from a No Data picture.
const MAGIC: [u8; 12] = *b"\xFF\xD8\xFF\xE0viewers\0";
/// Bytes of a picture that are looked at: `MAGIC`, session, number, and the time of the post in microseconds.
pub(crate) const STAMP: usize = 28;
/// The most that is read where the head of a part is expected, in bytes.
pub(crate) const HEAD_READ: usize = 2 * KIB;

/// What a picture says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) session: u32,
    pub(crate) number: u32,
    /// When its post began, in microseconds since the start of this program.
    pub(crate) sent: u64,
}

impl Stamp {
    pub(crate) fn write(self, picture: &mut [u8]) {
        picture[..12].copy_from_slice(&MAGIC);
        picture[12..16].copy_from_slice(&self.session.to_le_bytes());
        picture[16..20].copy_from_slice(&self.number.to_le_bytes());
        picture[20..STAMP].copy_from_slice(&self.sent.to_le_bytes());
    }

    pub(crate) fn read(picture: &[u8; STAMP]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(picture[at..at + 4].try_into().unwrap());
        let sent = u64::from_le_bytes(picture[20..].try_into().unwrap());
        (picture[..12] == MAGIC).then(|| Self { session: word(12), number: word(16), sent })
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Mjpeg,
    WebSocket,
}

impl Protocol {
    /// The lengths of the head that `bytes` begin with and of the picture after it, once the head is whole.
    pub(crate) fn measure(self, bytes: &[u8]) -> Result<Option<(usize, usize)>> {
        match self {
            Self::Mjpeg => {
                let Some(end) = head_end(bytes) else { return Ok(None) };
                let length = field(&bytes[..end], "content-length").and_then(|value| value.parse().ok());
                Ok(Some((end, length.ok_or("a part has no Content-Length")?)))
            }
            Self::WebSocket => {
                let Some(&[_, short]) = bytes.first_chunk() else { return Ok(None) };
                let wide = match short {
                    126 => 2,
                    127 => 8,
                    0..126 => return Ok(Some((2, short.into()))),
                    _ => return Err("a server masks its messages".into()),
                };
                let length = bytes.get(2..2 + wide);
                Ok(length.map(|it| (2 + wide, it.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))))
            }
        }
    }
}

/// Where a head ends, its blank line included.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = str::from_utf8(head).ok()?.lines();
    lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|it| it.1.trim())
}

/// Reads up to the end of a head. Returns it and what came after it.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::with_capacity(HEAD_READ);
    loop {
        if let Some(end) = head_end(&head) {
            let rest = head.split_off(end);
            return Ok((head, rest));
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err("the connection was closed".into());
        }
    }
}

pub(crate) fn status(head: &[u8]) -> u16 {
    str::from_utf8(head).ok().and_then(|it| it.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}
