//! Reads what Prosody writes into its files: Lua's literals, as its `util.serialization` spells
//! them. Nothing is run, whatever stands there.

/// Tables within tables that are read; what Prosody writes of an upload has three.
const DEPTH_MAX: usize = 16;

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string; Prosody's are UTF-8.
    Text(String),
    /// An integer or a float.
    Number(f64),
    /// A table.
    Table(Table),
    /// `true`, `false`, `nil`, or a number that is none.
    Other,
}

/// A table's fields whose keys are strings; the others are read and left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(Vec<(String, Value)>);

impl Table {
    /// The field's text, if it is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.field(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The field's number, if it is one.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.field(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The field's table, if it is one.
    pub fn table(&self, key: &str) -> Option<&Table> {
        match self.field(key)? {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// As in Lua the last one counts.
    fn field(&self, key: &str) -> Option<&Value> {
        let mut fields = self.0.iter().rev();
        fields.find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Reads one `item({...});` of a list; `None` for anything else.
pub fn item(text: &[u8]) -> Option<Table> {
    let mut reader = Reader {
        rest: text,
        depth: 0,
    };
    reader.expect(b"item(")?;
    let table = reader.table()?;
    reader.expect(b")")?;
    reader.expect(b";")?;
    reader.skip_space();
    reader.rest.is_empty().then_some(table)
}

struct Reader<'t> {
    rest: &'t [u8],
    depth: usize,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Takes `token`, if it comes next.
    fn expect(&mut self, token: &[u8]) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn table(&mut self) -> Option<Table> {
        self.expect(b"{")?;
        self.depth += 1;
        if DEPTH_MAX < self.depth {
            return None;
        }
        let mut table = Table::default();
        while self.expect(b"}").is_none() {
            if self.expect(b"[").is_some() {
                let key = self.value()?;
                self.expect(b"]")?;
                self.expect(b"=")?;
                let value = self.value()?;
                if let Value::Text(key) = key {
                    table.0.push((key, value));
                }
            } else {
                self.value()?;
            }
            // Behind the last field there may be none.
            self.skip_space();
            if !self.rest.starts_with(b"}") {
                self.expect(b";").or_else(|| self.expect(b","))?;
            }
        }
        self.depth -= 1;
        Some(table)
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        match self.rest.first()? {
            b'"' => self.text().map(Value::Text),
            b'{' => self.table().map(Value::Table),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                // Infinities and what is no number are spelled as divisions by zero.
                let others: [&[u8]; 6] = [b"true", b"false", b"nil", b"(1/0)", b"(-1/0)", b"(0/0)"];
                others.iter().find_map(|other| self.expect(other))?;
                Some(Value::Other)
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let is_part = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
        let n_bytes = self.rest.iter().take_while(|b| is_part(b)).count();
        let (digits, rest) = self.rest.split_at(n_bytes);
        self.rest = rest;
        let number = str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Value::Number(number))
    }

    fn text(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix(b"\"")?;
        let mut bytes = Vec::new();
        loop {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            match first {
                b'"' => return String::from_utf8(bytes).ok(),
                b'\\' => bytes.push(self.escaped()?),
                b'\n' => return None,
                byte => bytes.push(*byte),
            }
        }
    }

    /// What stands behind a backslash: a letter, or three digits.
    fn escaped(&mut self) -> Option<u8> {
        if let Some((digits, rest)) = self.rest.split_first_chunk::<3>()
            && digits.iter().all(u8::is_ascii_digit)
        {
            self.rest = rest;
            return str::from_utf8(digits).ok()?.parse().ok();
        }
        let (letter, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match letter {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'"' | b'\'' => *letter,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Prosody 0.12 wrote it.
    const ITEM: &str = "item({\n\t[\"key\"] = \"oB2-_dyzNfBCW1ux\";\n\t[\"__array\"] = {};\n\
        \t[\"with\"] = \"romeo@example.org\";\n\t[\"when\"] = 1767323045;\n\
        \t[\"attr\"] = {\n\t\t[\"filename\"] = \"tr\\195\\168s \\\"cool\\\".jpg\";\n\
        \t\t[\"size\"] = \"1234\";\n\t};\n\t{\n\t\t[\"name\"] = \"child\";\n\t};\n});\n";

    #[test]
    fn an_item_as_prosody_writes_it() {
        let table = item(ITEM.as_bytes()).expect("an item");
        assert_eq!(table.text("key"), Some("oB2-_dyzNfBCW1ux"));
        assert_eq!(table.number("when"), Some(1_767_323_045.0));
        assert_eq!(table.text("when"), None);
        let attributes = table.table("attr").expect("a table");
        assert_eq!(attributes.text("filename"), Some("tr\u{e8}s \"cool\".jpg"));
        assert_eq!(attributes.text("name"), None);
    }

    #[test]
    fn literals() {
        for (text, value) in [
            ("1.5", Value::Number(1.5)),
            ("-3", Value::Number(-3.0)),
            ("1.7000000000000001e+09", Value::Number(1.7e9)),
            ("true", Value::Other),
            ("(1/0)", Value::Other),
            ("\"\\n\\065\\'\"", Value::Text("\nA'".to_owned())),
        ] {
            let read = item(format!("item({{[\"a\"]={text}}});").as_bytes());
            assert_eq!(read, Some(Table(vec![("a".to_owned(), value)])), "{text}");
        }
    }

    #[test]
    fn what_is_no_item_is_none() {
        let deep = format!("item({}{});", "{".repeat(17), "}".repeat(17));
        for text in [
            "",
            "item(",
            "item({}",
            "item({})",
            "item({}) os.exit();",
            "item({}); item({});",
            "item({[\"a\"]=\"b});",
            "item({[\"a\"]=\"\\xff\"});",
            "item({[\"a\"]=\"\\255\"});",
            "item({[\"a\"]=\"\\256\"});",
            "item({[\"a\"]=os.getenv(\"HOME\")});",
            "item({[\"a\"]=1 [\"b\"]=2});",
            "item({[\"a\"]=1e});",
            "item({[\"a\"]=\"\\9\"});",
            &deep,
        ] {
            assert_eq!(item(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_no_panic(text in r#"item\(\{[\[\]="\\{};, a0-9(/)-]{0,60}\}\);"#) {
            drop(item(text.as_bytes()));
        }

        #[test]
        fn a_cut_item_is_none(at in 0..ITEM.len() - 1) {
            proptest::prop_assert_eq!(item(&ITEM.as_bytes()[..at]), None);
        }
    }
}
