//! A table that may be written once, or several times.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[name]` once, or `[[name]]` several times.
pub struct Tables<T> {
    /// Each table.
    pub list: Vec<T>,
    /// Whether it was written as an array, whose elements have an index.
    pub is_array: bool,
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            is_array: false,
        }
    }
}

impl<T: Serialize> Serialize for Tables<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.list.as_slice() {
            [one] if !self.is_array => one.serialize(serializer),
            list => list.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Tables<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrSeveral(PhantomData))
    }
}

/// Reads a table or an array of tables. Not an untagged enum: that would lose the lines.
struct OneOrSeveral<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrSeveral<T> {
    type Value = Tables<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tables<T>, A::Error> {
        let one = T::deserialize(value::MapAccessDeserializer::new(map))?;
        Ok(Tables {
            list: vec![one],
            is_array: false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tables<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(one) = seq.next_element()? {
            list.push(one);
        }
        Ok(Tables {
            list,
            is_array: true,
        })
    }
}
