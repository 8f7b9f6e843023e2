//! The header that begins each connection of TCPROS: fields as `name=value`, each with its length before it, and the length
//! of all of them before the first (wiki.ros.org/ROS/Connection Header).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest header that is read, in bytes. A publisher of pictures sends its definition too, some 5 kB.
const MAX_HEADER: usize = 64 << 10;

/// The fields of a header, in their order.
#[derive(Debug, Default, PartialEq)]
pub struct Header(Vec<(String, String)>);

impl Header {
    /// With these fields.
    #[must_use]
    pub fn new(fields: &[(&str, &str)]) -> Self {
        Self(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Reads a header from the beginning of a connection.
    ///
    /// # Errors
    /// When the connection ends before, or what comes is no header.
    pub async fn read(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = connection.read_u32_le().await? as usize;
        if length > MAX_HEADER {
            return Err(invalid("the connection header is longer than 65536 bytes"));
        }
        let mut bytes = vec![0; length];
        connection.read_exact(&mut bytes).await?;
        Self::parse(&bytes)
    }

    fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let mut fields = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let length = u32::from_le_bytes(*length) as usize;
            let (field, rest) =
                rest.split_at_checked(length).ok_or_else(|| invalid("a field of the connection header is cut off"))?;
            let field = String::from_utf8_lossy(field);
            let (name, value) =
                field.split_once('=').ok_or_else(|| invalid("a field of the connection header has no ="))?;
            fields.push((name.to_owned(), value.to_owned()));
            bytes = rest;
        }
        if bytes.is_empty() { Ok(Self(fields)) } else { Err(invalid("the connection header is cut off")) }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn write(&self, connection: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        connection.write_all(&self.bytes()).await
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for (name, value) in &self.0 {
            bytes.extend(((name.len() + 1 + value.len()) as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.push(b'=');
            bytes.extend(value.as_bytes());
        }
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_header_is_read_as_it_was_written() {
        let header =
            Header::new(&[("callerid", "/bridge"), ("md5sum", "*"), ("message_definition", "a=b\nc=d"), ("x", "")]);
        let bytes = header.bytes();
        assert_eq!(&bytes[..12], b"\x44\0\0\0\x10\0\0\0call");
        assert_eq!(Header::read(&mut &bytes[..]).await.unwrap(), header);
        for length in 0..bytes.len() {
            assert!(Header::read(&mut &bytes[..length]).await.is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_and_costs_no_memory() {
        for bytes in
            [&b"\xFF\xFF\xFF\xFFabc"[..], b"HTTP/1.1 400", b"\x06\0\0\0\x02\0\0\0ab", b"\x08\0\0\0\xFF\xFF\xFF\xFFabcd"]
        {
            assert!(Header::read(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}
