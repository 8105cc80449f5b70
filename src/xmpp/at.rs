//! Where `filter` stands in the XML, and what bytes are for it.

/// Where in the XML the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// Between tags.
    #[default]
    Text,
    /// After `<`.
    Open,
    /// In the name of a start tag.
    StartName,
    /// In a start tag, after a space or a value.
    Tag,
    /// In an attribute's name.
    AttributeName,
    /// After an attribute's name and a space.
    Equals,
    /// After `=`.
    Quote,
    /// In an attribute's value, which ends with this quote.
    Value(u8),
    /// After the `/` of an empty element.
    EmptyTag,
    /// In the name of an end tag.
    EndName,
    /// After the name of an end tag.
    EndTag,
    /// In `<![CDATA[`, after so many of its bytes.
    Bang(usize),
    /// In a CDATA section, after so many of the bytes of `]]>`.
    Cdata(usize),
    /// In the XML declaration; the value is the last byte.
    Declaration(u8),
}

/// Whether an attribute of a first tag is needed to answer: `name` is the tag's name, a space, and
/// the attribute's name.
pub fn is_kept(name: &[u8]) -> bool {
    let mut words = name.split(|byte| *byte == b' ');
    let (Some(tag), Some(attribute)) = (words.next(), words.next()) else {
        return false;
    };
    if let Some(prefix) = attribute.strip_prefix(b"xmlns:") {
        let mut parts = tag.split(|byte| *byte == b':');
        return parts.next() == Some(prefix) && parts.next().is_some();
    }
    [&b"id"[..], b"from", b"to", b"type", b"xmlns"].contains(&attribute)
}

pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a byte can stand in a name; the parser knows better.
pub fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-' | b'.') || !byte.is_ascii()
}
