//! Extracts the header and the payload of a JSON object without extra memory: the line may be as long as the longest
//! message allows, and everything else in it is skipped.

use std::borrow::Cow;
use std::fmt;

use super::undecodable::not_base64;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde_core::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Returns the header, which may be empty, and the payload in a JSON object of the format `json`.
pub(crate) fn message_of_json(line: &[u8]) -> Result<(Vec<u8>, Cow<'_, [u8]>), String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let object = json.deserialize_any(ObjectVisitor).and_then(|object| json.end().map(|()| object));
    // The parser's scratch space grows to the longest string that contains an escape.
    drop(json);
    let object = object.map_err(|error| match error.is_data() {
        true => "not a JSON object".into(),
        false => {
            // The line of the parser is always 1; only its column says something.
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            format!("not JSON: {what} at byte {}", error.column())
        }
    })?;
    let header = object.header.text("header")?.unwrap_or_default();
    let header = HEXLOWER_PERMISSIVE
        .decode(header.as_bytes())
        .map_err(|error| format!("header is not hexadecimal: {error}"))?;
    let payload = object.payload.text("payload")?;
    let payload = match (payload, object.payload_base64.text("payload_base64")?) {
        (Some(Cow::Borrowed(text)), None) => Ok(Cow::Borrowed(text.as_bytes())),
        (Some(Cow::Owned(text)), None) => Ok(Cow::Owned(text.into_bytes())),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map(Cow::Owned)
            .map_err(|error| format!("payload_base64 is {}", not_base64(error, base64.as_bytes()))),
        (None, None) => Err("neither payload nor payload_base64 in the object".into()),
        (Some(_), Some(_)) => Err("both payload and payload_base64 in the object".into()),
    };
    Ok((header, payload?))
}

/// The relevant fields of an object.
#[derive(Default)]
struct Object<'a> {
    header: Found<'a>,
    payload: Found<'a>,
    payload_base64: Found<'a>,
}

/// The value of a field.
#[derive(Default)]
enum Found<'a> {
    #[default]
    Nothing,
    /// Borrowed from the line if it contains no escapes.
    Text(Cow<'a, str>),
    /// Not a string.
    Other,
    Twice,
}

impl<'a> Found<'a> {
    fn text(self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        match self {
            Found::Nothing => Ok(None),
            Found::Text(text) => Ok(Some(text)),
            Found::Other => Err(format!("{name} is not a string")),
            Found::Twice => Err(format!("the object contains {name} twice")),
        }
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<Name>()? {
            let place = match name {
                Name::Header => &mut object.header,
                Name::Payload => &mut object.payload,
                Name::PayloadBase64 => &mut object.payload_base64,
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value()?;
            *place = match place {
                Found::Nothing => value,
                _ => Found::Twice,
            };
        }
        Ok(object)
    }
}

enum Name {
    Header,
    Payload,
    PayloadBase64,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "header" => Name::Header,
            "payload" => Name::Payload,
            "payload_base64" => Name::PayloadBase64,
            _ => Name::Other,
        })
    }
}

impl<'de> Deserialize<'de> for Found<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FoundVisitor)
    }
}

struct FoundVisitor;

impl<'de> Visitor<'de> for FoundVisitor {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Found<'de>, E> {
        Ok(Found::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found<'de>, E> {
        Ok(Found::Text(Cow::Owned(text.into())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_without_a_payload_say_what_is_missing() {
        for (line, word) in [
            ("nonsense", "not JSON"),
            ("[1]", "not a JSON object"),
            ("7", "not a JSON object"),
            (r#""payload""#, "not a JSON object"),
            (r#"{"payload":"a"} x"#, "not JSON: trailing characters"),
            (r#"{"payload":"a","#, "not JSON: EOF"),
            ("{\"payload\":\"\u{1}\"}", "not JSON: control character"),
            (r#"{"payload":"\ud800"}"#, "not JSON: "),
            ("{}", "neither payload nor payload_base64"),
            (r#"{"payload":1}"#, "payload is not a string"),
            (r#"{"payload":-1}"#, "payload is not a string"),
            (r#"{"payload":1.5}"#, "payload is not a string"),
            (r#"{"payload":true}"#, "payload is not a string"),
            (r#"{"payload":null}"#, "payload is not a string"),
            (r#"{"payload_base64":["a"]}"#, "payload_base64 is not a string"),
            (r#"{"payload":{"payload":"a"}}"#, "payload is not a string"),
            (r#"{"payload":"a","payload":"a"}"#, "contains payload twice"),
            (r#"{"payload":"a","payload_base64":"YQ=="}"#, "both"),
            (r#"{"payload_base64":"!"}"#, "not Base64"),
            (r#"{"header":"5","payload":""}"#, "header is not hexadecimal"),
            (r#"{"header":"5x","payload":""}"#, "header is not hexadecimal"),
            (r#"{"header":51,"payload":""}"#, "header is not a string"),
            (r#"{"header":"","header":"","payload":""}"#, "contains header twice"),
            (r#"{"header":"51"}"#, "neither payload nor payload_base64"),
        ] {
            let error = message_of_json(line.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_header_is_hexadecimal_and_may_be_missing() {
        for (line, header) in [
            (r#"{"payload":"a"}"#, &b""[..]),
            (r#"{"header":"","payload":"a"}"#, b""),
            (r#"{"header":"51","payload":"a"}"#, b"Q"),
            (r#"{"payload":"a","header":"00ffFf"}"#, b"\0\xff\xff"),
            (r#"{"head\u0065r":"\u0035\u0031","payload_base64":"YQ=="}"#, b"Q"),
        ] {
            let (found, payload) = message_of_json(line.as_bytes()).unwrap();
            assert_eq!((&*found, &*payload), (header, &b"a"[..]), "{line}");
        }
    }

    #[test]
    fn a_payload_is_found_among_whatever_else_there_is() {
        for line in [
            r#"{"payload":"a"}"#,
            r#" { "other" : [1, {"payload": "no"}, null], "payload" : "a" , "x": 1e999 } "#,
            r#"{"pay\u006coad":"\u0061"}"#,
            r#"{"payload_base64":"YQ==","length":1}"#,
            r#"{"payload_base64":"Y\u0051=\u003d"}"#,
        ] {
            assert_eq!(&*message_of_json(line.as_bytes()).unwrap().1, b"a", "{line}");
        }
        let line = b"{\"payload\":\"\xc3\xa9 plain\"}";
        assert!(matches!(message_of_json(line).unwrap().1, Cow::Borrowed(_)), "it was copied");
        let nested =
            format!("{{\"deep\":{}{},\"payload\":\"\"}}", "[".repeat(9999), "]".repeat(9999));
        assert_eq!(&*message_of_json(nested.as_bytes()).unwrap().1, b"");
    }
}
