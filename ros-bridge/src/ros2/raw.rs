//! Messages as DDS delivers them: the library hands their bytes over, and they are copied once, into a buffer of ours.

use std::{io, sync::Arc};

use rustdds::{
    RepresentationIdentifier,
    no_key::{Decode, DeserializerAdapter},
};

use crate::{
    message::{Layout, MAX_MESSAGE},
    newest::Newest,
};

/// A message that has not been taken apart.
pub struct Cdr {
    /// How it is laid out.
    pub layout: Layout,
    /// Its bytes, without those that tell the layout.
    pub bytes: Vec<u8>,
}

/// What the library is told of [`Cdr`].
pub struct Adapter;

impl DeserializerAdapter<Cdr> for Adapter {
    type Error = io::Error;
    type Decoded = Cdr;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &[RepresentationIdentifier::CDR_LE, RepresentationIdentifier::CDR_BE]
    }

    fn transform_decoded(decoded: Cdr) -> Cdr {
        decoded
    }
}

/// Copies into buffers that go round.
#[derive(Clone)]
pub struct Decoder(pub Arc<Newest>);

impl Decode<'_, Cdr> for Decoder {
    type Error = io::Error;

    fn decode_bytes(self, message: &[u8], encoding: RepresentationIdentifier) -> io::Result<Cdr> {
        if message.len() > MAX_MESSAGE {
            let words = format!("a message has {} bytes, where {MAX_MESSAGE} are the limit", message.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let mut bytes = self.0.buffer();
        bytes.extend_from_slice(message);
        Ok(Cdr { layout: Layout::Cdr { is_bigendian: encoding == RepresentationIdentifier::CDR_BE }, bytes })
    }
}
