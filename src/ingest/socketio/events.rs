//! Events of Socket.IO clients, from packets and to packets.

use std::fmt;

use bytes::Bytes;
use engineioxide::Str;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use socketioxide_core::{
    Sid, Value,
    packet::{ConnectPacket, Packet, PacketData},
    parser::{Parse, ParseConfig, ParseError, ParserError, ParserState},
};
use socketioxide_parser_common::CommonParser;

use super::flow::max_message_bytes;
use crate::error::Error;

/// The namespace that clients join unless they ask for another.
const ROOT: &str = "/";
/// What an event may carry beside its text: one picture, and a second one so that it can be refused in words.
const MAX_ATTACHMENTS: usize = 2;

/// What a client says.
pub(super) enum Said {
    /// It joins. In revision 3 it need not say so.
    Join,
    /// It joins something that there is not.
    JoinElsewhere(Str),
    /// `authenticate(username, password, callbackEvent)`.
    Authenticate { arguments: Vec<Argument>, ack: Ack },
    /// `receiveImage(bytes)`.
    Picture { picture: Result<Bytes, Error>, ack: Ack },
    /// It leaves.
    Leave,
    /// Something that means nothing here.
    Nothing,
}

impl Said {
    /// What it carries, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Picture { picture: Ok(picture), .. } => picture.len(),
            _ => 0,
        }
    }
}

/// The number by which a client knows its acknowledgement, where it asks for one.
pub(super) type Ack = Option<i64>;

/// An argument of an event, as far as it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// A text, or a number as a person types it.
    Text(String),
    /// Anything else.
    Other,
}

/// Puts the packets of one client together: the picture of an event comes after it, alone.
pub(super) struct Reader {
    config: ParseConfig,
    state: ParserState,
}

impl Reader {
    pub(super) fn new(max_image_bytes: usize) -> Self {
        let config = ParseConfig {
            max_incoming_binary_buf_size: max_message_bytes(max_image_bytes),
            max_incoming_binaries: MAX_ATTACHMENTS,
            ..ParseConfig::default()
        };
        Self { config, state: ParserState::default() }
    }

    /// What a text says; nothing when more is to come.
    ///
    /// # Errors
    /// [`ParseError`] where it is no packet, or one that may not come now.
    pub(super) fn text(&self, text: Str) -> Result<Option<Said>, ParseError> {
        understand(CommonParser.decode_str(&self.config, &self.state, text))
    }

    /// The same for bytes.
    ///
    /// # Errors
    /// [`ParseError`] where no event waits for them, or it has too many already.
    pub(super) fn bytes(&self, bytes: Bytes) -> Result<Option<Said>, ParseError> {
        understand(CommonParser.decode_bin(&self.config, &self.state, bytes))
    }
}

fn understand(packet: Result<Packet, ParseError>) -> Result<Option<Said>, ParseError> {
    let Packet { inner, ns } = match packet {
        Ok(packet) => packet,
        Err(ParseError::NeedsMoreBinaryData) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(match inner {
        // A copy: it would hold on to what it was read into, which may have carried a picture.
        PacketData::Connect(_) if ns.as_str() != ROOT => Said::JoinElsewhere(Str::copy_from_slice(&ns)),
        _ if ns.as_str() != ROOT => Said::Nothing,
        PacketData::Connect(_) => Said::Join,
        PacketData::Disconnect => Said::Leave,
        PacketData::Event(value, ack) | PacketData::BinaryEvent(value, ack) => event(value, ack)?,
        PacketData::EventAck(..) | PacketData::BinaryAck(..) | PacketData::ConnectError(_) => Said::Nothing,
    }))
}

fn event(value: Value, ack: Ack) -> Result<Said, ParserError> {
    Ok(match CommonParser.read_event(&value)? {
        "authenticate" => {
            let text = value.as_str().map(Str::as_str).unwrap_or_default();
            let mut arguments = serde_json::from_str::<Vec<Argument>>(text).unwrap_or_default().into_iter();
            // The first is the event's name.
            arguments.next();
            Said::Authenticate { arguments: arguments.collect(), ack }
        }
        "receiveImage" => {
            let expected = "receiveImage with one binary argument, the picture";
            let picture = match value {
                Value::Str(_, Some(attachments)) if attachments.len() == 1 => attachments.into_iter().next(),
                _ => None,
            };
            Said::Picture { picture: picture.ok_or(Error::BadMessage { expected }), ack }
        }
        _ => Said::Nothing,
    })
}

/// The packet that tells a client that it has joined.
pub(super) fn joined(sid: Option<Sid>) -> Option<Str> {
    let payload = sid.map(|sid| CommonParser.encode_default(&ConnectPacket { sid })).transpose().ok()?;
    encode(Packet::connect(ROOT, payload))
}

/// The packet that tells a client that there is nothing where it wanted to join.
pub(super) fn nothing_there(namespace: Str) -> Option<Str> {
    encode(Packet::connect_error(namespace, "Invalid namespace: there is only /"))
}

/// The packet that ends a client's stay.
pub(super) fn disconnect() -> Option<Str> {
    encode(Packet::disconnect(ROOT))
}

/// An event with one argument.
pub(super) fn emit(event: &str, argument: &impl Serialize) -> Option<Str> {
    encode(Packet::event(ROOT, CommonParser.encode_value(argument, Some(event)).ok()?))
}

/// The acknowledgement of an event, where its client asks for one.
pub(super) fn acknowledge(ack: Ack, argument: &impl Serialize) -> Option<Str> {
    encode(Packet::ack(ROOT, CommonParser.encode_value(argument, None).ok()?, ack?))
}

fn encode(packet: Packet) -> Option<Str> {
    match CommonParser.encode(packet) {
        Value::Str(text, _) => Some(text),
        Value::Bytes(_) => None,
    }
}

/// Texts are read, and numbers as a person types them; anything else, however large, is passed over.
impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Argument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an argument")
            }

            fn visit_str<E>(self, text: &str) -> Result<Argument, E> {
                Ok(Argument::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Argument, E> {
                Ok(Argument::Text(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Argument, E> {
                Ok(Argument::Text(number.to_string()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Argument, E> {
                Ok(Argument::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Argument, E> {
                Ok(Argument::Other)
            }

            fn visit_unit<E>(self) -> Result<Argument, E> {
                Ok(Argument::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Argument, A::Error> {
                while values.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Argument::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut values: A) -> Result<Argument, A::Error> {
                while values.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Argument::Other)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1000;

    fn text(packet: &str) -> Option<Said> {
        Reader::new(SIZE).text(Str::copy_from_slice(packet)).unwrap()
    }

    #[test]
    fn a_picture_is_put_together_from_an_event_and_what_follows_it() {
        let reader = Reader::new(SIZE);
        let event = Str::from(r#"51-7["receiveImage",{"_placeholder":true,"num":0}]"#);
        assert!(reader.text(event).unwrap().is_none());
        let picture = Bytes::from_static(b"picture");
        let Some(Said::Picture { picture: Ok(bytes), ack: Some(7) }) = reader.bytes(picture.clone()).unwrap() else {
            panic!("a picture with an acknowledgement");
        };
        assert_eq!(bytes, picture);
        assert!(reader.bytes(picture).is_err(), "nobody waits for more");
    }

    #[test]
    fn a_picture_that_is_none_is_refused_in_words() {
        for packet in [r#"2["receiveImage","text"]"#, r#"2["receiveImage"]"#, r#"50-["receiveImage"]"#] {
            assert!(matches!(text(packet), Some(Said::Picture { picture: Err(_), ack: None })), "{packet}");
        }
        let reader = Reader::new(SIZE);
        let two = r#"52-["receiveImage",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        assert!(reader.text(two.into()).unwrap().is_none());
        assert!(reader.bytes(Bytes::from_static(b"one")).unwrap().is_none());
        let said = reader.bytes(Bytes::from_static(b"two")).unwrap();
        assert!(matches!(said, Some(Said::Picture { picture: Err(_), ack: None })));
    }

    #[test]
    fn arguments_are_texts_and_numbers_and_whatever_else_there_is() {
        let arguments = |packet: &str| match text(packet) {
            Some(Said::Authenticate { arguments, .. }) => arguments,
            _ => panic!("{packet}"),
        };
        let text = |text: &str| Argument::Text(text.to_owned());
        assert_eq!(arguments(r#"2["authenticate","ann","pässword","done"]"#), ["ann", "pässword", "done"].map(text));
        assert_eq!(arguments(r#"21["authenticate","ann",1234]"#), ["ann", "1234"].map(text));
        assert_eq!(arguments(r#"2["authenticate"]"#), []);
        let others = arguments(r#"2["authenticate",null,true,1.5,[["x"]],{"a":"b"},"ann"]"#);
        assert!(others[..5].iter().all(|other| *other == Argument::Other) && others[5] == text("ann"));
    }

    #[test]
    fn what_is_no_event_of_ours_is_told_apart() {
        assert!(matches!(text("0"), Some(Said::Join)));
        assert!(matches!(text("0/admin,"), Some(Said::JoinElsewhere(namespace)) if namespace.as_str() == "/admin"));
        assert!(matches!(text("1"), Some(Said::Leave)));
        for packet in [r#"2["chat","hello"]"#, r#"2/admin,["receiveImage"]"#, "31[]"] {
            assert!(matches!(text(packet), Some(Said::Nothing)), "{packet}");
        }
        for packet in ["", "9", "2", "2{}", "53-[\"receiveImage\"]", "5x", "ä"] {
            assert!(Reader::new(SIZE).text(Str::copy_from_slice(packet)).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn answers_are_written_as_the_protocol_has_them() {
        let is = |text: Option<Str>, expected: &str| assert_eq!(text.unwrap().as_str(), expected);
        is(joined(None), "0");
        let sid = Sid::new();
        is(joined(Some(sid)), &format!("0{{\"sid\":\"{sid}\"}}"));
        is(disconnect(), "1");
        is(emit("onAuthentication", &true), "2[\"onAuthentication\",true]");
        is(acknowledge(Some(7), &false), "37[false]");
        assert!(acknowledge(None, &false).is_none());
    }
}
