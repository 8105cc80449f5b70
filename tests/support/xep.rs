//! The proposal as a document: its examples, the content they send, its schema.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use minidom::Element;

use crate::xmpp::{Verdict, compare_tags};

/// The namespace that the document defines.
pub const NS: &str = "urn:slotd:upload-session:0";
/// The namespace that the document's own elements get when it is read: they have none.
const XEP: &str = "xep";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";
const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// What the service chooses at random is at least as long.
const RANDOM_CHARS_MIN: usize = 20;

/// What elements of the XSF's format may hold, as far as the document uses it.
#[rustfmt::skip]
pub const FORMAT: &[(&str, &[&str])] = &[
    ("xep",          &["header", "section1"]),
    ("header",       &["title", "abstract", "legal", "number", "status", "type", "sig", "approver",
                       "dependencies", "supersedes", "supersededby", "shortname", "author",
                       "revision"]),
    ("legal",        &["copyright", "permissions", "warranty", "liability", "conformance"]),
    ("copyright",    &["link"]),
    ("conformance",  &["link"]),
    ("dependencies", &["spec"]),
    ("author",       &["firstname", "surname", "email", "jid"]),
    ("revision",     &["version", "date", "initials", "remark"]),
    ("remark",       &["p", "ul"]),
    ("section1",     &["p", "ul", "ol", "dl", "table", "example", "code", "section2"]),
    ("section2",     &["p", "ul", "ol", "dl", "table", "example", "code", "section3"]),
    ("section3",     &["p", "ul", "ol", "dl", "table", "example", "code", "section4"]),
    ("p",            &["em", "strong", "dfn", "tt", "link", "note"]),
    ("li",           &["em", "strong", "tt", "link", "note"]),
    ("note",         &["em", "tt", "link"]),
    ("ul",           &["li"]),
    ("ol",           &["li"]),
    ("dl",           &["di"]),
    ("di",           &["dt", "dd"]),
    ("dd",           &["em", "strong", "tt", "link", "note"]),
    ("table",        &["tr"]),
    ("tr",           &["th", "td"]),
];

/// Where the document is.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/protoxep/upload-session.xml")
}

/// The document's text.
pub fn text() -> String {
    std::fs::read_to_string(path()).expect("the proposal is readable")
}

/// One example.
pub struct Example {
    /// Counted from 1, as readers see it.
    pub number: usize,
    pub caption: String,
    /// The anchor of the innermost section around it.
    pub section: String,
    pub text: String,
    /// How many seconds have passed since the example before.
    pub later: Option<u64>,
}

pub struct Document {
    pub root: Element,
    examples: Vec<Example>,
}

impl Document {
    pub fn read() -> Self {
        Self::parse(&text()).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn parse(text: &str) -> Verdict<Self> {
        // A document type and a stylesheet stand before it, which are for other readers.
        let (_, body) = text.split_once("<xep>").ok_or("no <xep>")?;
        let root: Element = format!("<xep xmlns='{XEP}'>{body}")
            .parse()
            .map_err(|e| format!("not well-formed: {e}"))?;
        let mut examples = Vec::new();
        gather(&root, "", &mut examples);
        Ok(Self { root, examples })
    }

    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The text of the schema.
    pub fn xsd(&self) -> String {
        let section = below(&self.root)
            .into_iter()
            .find(|e| e.attr("anchor") == Some("schema"));
        let code = section.and_then(|section| section.get_child("code", XEP));
        code.expect("a schema").text().trim().to_owned()
    }

    pub fn schema(&self) -> Schema {
        let text = self.xsd();
        let (_, text) = text.split_once("?>").expect("an XML declaration");
        Schema::parse(text)
    }
}

/// An element and all below it.
pub fn below(element: &Element) -> Vec<&Element> {
    let mut all = vec![element];
    all.extend(element.children().flat_map(below));
    all
}

/// The elements of the document's namespace that do not stand in another of it.
pub fn outermost(element: &Element) -> Vec<&Element> {
    match element.ns() == NS {
        true => vec![element],
        false => element.children().flat_map(outermost).collect(),
    }
}

fn gather(element: &Element, section: &str, examples: &mut Vec<Example>) {
    for child in element.children() {
        if child.name() != "example" {
            gather(child, child.attr("anchor").unwrap_or(section), examples);
            continue;
        }
        let caption = child.attr("caption").unwrap_or_default().to_owned();
        examples.push(Example {
            number: examples.len() + 1,
            later: later(&caption),
            caption,
            section: section.to_owned(),
            text: child.text().trim_start().to_owned(),
        });
    }
}

/// The number before `seconds` in a caption.
fn later(caption: &str) -> Option<u64> {
    let (before, _) = caption.split_once(" seconds ")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// How a request's content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Whole,
    /// The connection ends with it, and more was announced.
    Breaks,
    /// More is on its way.
    Open,
}

/// The content of a request.
pub struct Content {
    name: String,
    begin: u64,
    pub end: u64,
    pub ending: Ending,
}

impl Content {
    /// Reads `[bytes 0 to 99 of a.txt, then the connection breaks]`, or nothing.
    pub fn parse(line: &str) -> Verdict<Self> {
        let wrong = || format!("not understood: {line}");
        let Some(inside) = line
            .strip_prefix("[bytes ")
            .and_then(|line| line.strip_suffix(']'))
        else {
            let (name, begin, end, ending) = (String::new(), 0, 0, Ending::Whole);
            return match line.is_empty() {
                true => Ok(Self {
                    name,
                    begin,
                    end,
                    ending,
                }),
                false => Err(wrong()),
            };
        };
        let (inside, ending) = match inside.split_once(", ") {
            None => (inside, Ending::Whole),
            Some((inside, "then the connection breaks")) => (inside, Ending::Breaks),
            Some((inside, "more being on their way")) => (inside, Ending::Open),
            Some(_) => return Err(wrong()),
        };
        let (range, name) = inside.split_once(" of ").ok_or_else(wrong)?;
        let (first, last) = range.split_once(" to ").ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        Ok(Self {
            name: name.to_owned(),
            begin: number(first)?,
            end: number(last)? + 1,
            ending,
        })
    }

    /// Bytes that differ by place and by file.
    pub fn bytes(&self) -> Vec<u8> {
        let seed: u64 = self.name.bytes().map(u64::from).sum();
        let byte = |at: u64| ((at * 31 + (at >> 8) * 7 + seed) % 251) as u8;
        (self.begin..self.end).map(byte).collect()
    }
}

/// What stands in the document for what the service chose at random.
#[derive(Default)]
pub struct Known(HashMap<String, String>);

impl Known {
    /// The document's text with what came in its place.
    pub fn fill(&self, text: &str) -> String {
        let replace = |text: String, (shown, came): (&String, &String)| text.replace(shown, came);
        self.0.iter().fold(text.to_owned(), replace)
    }

    /// Whether `came` is what the document shows; where both look random it is from now on.
    pub fn matches(&mut self, shown: &str, came: &str) -> bool {
        let cut = |text: &str| {
            let pieces = text.split(['/', '?', '=', ' ']);
            pieces.map(str::to_owned).collect::<Vec<_>>()
        };
        let (shown, came) = (cut(shown), cut(came));
        let mut pairs = shown.iter().zip(&came);
        shown.len() == came.len() && pairs.all(|(shown, came)| self.is_same(shown, came))
    }

    fn is_same(&mut self, shown: &str, came: &str) -> bool {
        if let Some(known) = self.0.get(shown) {
            return known == came;
        }
        let is_taken = self.0.values().any(|known| known == came);
        if !is_taken && is_random(shown) && is_random(came) {
            self.0.insert(shown.to_owned(), came.to_owned());
            return true;
        }
        shown == came
    }

    /// Compares an answer with an example: names, attributes, children in order.
    pub fn compare(&mut self, shown: &Element, came: &Element) -> Verdict {
        compare_tags(shown, came, |key, wanted, got| match is_free(shown, key) {
            true => self.matches(wanted, got),
            false => wanted == got,
        })?;
        self.compare_content(shown, came)
    }

    fn compare_content(&mut self, shown: &Element, came: &Element) -> Verdict {
        let name = shown.name();
        let text = |element: &Element| element.text().trim().to_owned();
        let is_same = match name {
            "header" => self.matches(&text(shown), &text(came)),
            _ => text(shown) == text(came),
        };
        if !is_same {
            return Err(format!(
                "<{name}> holds {}, not {}",
                text(came),
                text(shown)
            ));
        }
        let mut rest = came.children();
        for child in shown.children() {
            match came.ns() == DISCO_INFO {
                // What else is offered is left out in the document.
                true => rest
                    .find(|other| self.compare(child, other).is_ok())
                    .map(|_| ())
                    .ok_or_else(|| format!("no {}", String::from(child)))?,
                false => {
                    let other = rest.next();
                    let other =
                        other.ok_or_else(|| format!("<{name}> lacks <{}>", child.name()))?;
                    self.compare(child, other)?;
                }
            }
        }
        match rest.next().filter(|_| came.ns() != DISCO_INFO) {
            None => Ok(()),
            Some(extra) => Err(format!("<{name}> has <{}>", extra.name())),
        }
    }
}

/// Whether the service chooses an attribute's value, or a part of it, at random.
fn is_free(element: &Element, key: &str) -> bool {
    match (element.name(), key) {
        ("put" | "get", "url") => true,
        (_, "id" | "resume-url") => element.ns() == NS,
        _ => false,
    }
}

fn is_random(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    RANDOM_CHARS_MIN <= text.len()
        && text.chars().all(is_part)
        && text.contains(|c: char| c.is_ascii_uppercase())
}

/// What the schema says of one element.
struct Rule {
    /// Attributes, whether they are needed, and their values where these are listed.
    attributes: HashMap<String, (bool, Vec<String>)>,
    /// Names of child elements of the same namespace, and namespaces of others.
    children: Vec<String>,
}

/// The schema, as far as elements, attributes and listed values go.
pub struct Schema(HashMap<String, Rule>);

impl Schema {
    fn parse(text: &str) -> Self {
        let without_comments: String = text
            .split("<!--")
            .map(|part| part.split_once("-->").map_or(part, |(_, rest)| rest))
            .collect();
        let root: Element = without_comments.trim().parse().expect("well-formed");
        let named = |name: &str| {
            let found = root
                .children()
                .find(|child| child.attr("name") == Some(name));
            found.map(below).unwrap_or_default()
        };
        let elements = root.children().filter(|child| child.is("element", XSD));
        let rules = elements.map(|element| {
            let mut parts = below(element);
            if let Some(name) = element.attr("type") {
                parts.extend(named(name));
            }
            let of = |kind: &'static str| parts.iter().filter(move |part| part.is(kind, XSD));
            let attributes = of("attribute").map(|attribute| {
                let name = attribute.attr("name").expect("a name").to_owned();
                let types = named(attribute.attr("type").unwrap_or_default());
                let values = types
                    .iter()
                    .filter_map(|part| part.attr("value").filter(|_| part.is("enumeration", XSD)));
                let is_needed = attribute.attr("use") == Some("required");
                (name, (is_needed, values.map(str::to_owned).collect()))
            });
            let elements = of("element").filter_map(|child| child.attr("ref"));
            let others = of("any").filter_map(|child| child.attr("namespace"));
            let rule = Rule {
                attributes: attributes.collect(),
                children: elements.chain(others).map(str::to_owned).collect(),
            };
            (element.attr("name").expect("a name").to_owned(), rule)
        });
        Self(rules.collect())
    }

    /// Checks all elements of the namespace in a stanza, and counts them.
    pub fn check_below(&self, stanza: &Element) -> Verdict<usize> {
        let ours = below(stanza)
            .into_iter()
            .filter(|element| element.ns() == NS);
        let mut n_checked = 0;
        for element in ours {
            self.check(element)?;
            n_checked += 1;
        }
        Ok(n_checked)
    }

    fn check(&self, element: &Element) -> Verdict {
        let name = element.name();
        let rule = self
            .0
            .get(name)
            .ok_or_else(|| format!("no <{name}> in the schema"))?;
        for ((_, key), value) in element.attrs() {
            let known = rule.attributes.get(key.as_str());
            let (_, values) = known.ok_or_else(|| format!("<{name}> must not have {key}"))?;
            if !values.is_empty() && !values.contains(&value.to_string()) {
                return Err(format!("<{name} {key}='{value}'> is not listed"));
            }
        }
        let lacks = |(key, (is_needed, _)): &(&String, &(bool, Vec<String>))| {
            *is_needed && element.attr(key.as_str()).is_none()
        };
        if let Some((key, _)) = rule.attributes.iter().find(lacks) {
            return Err(format!("<{name}> lacks {key}"));
        }
        let is_wrong = |child: &&Element| {
            let known = match child.ns() == NS {
                true => child.name().to_owned(),
                false => child.ns(),
            };
            !rule.children.contains(&known)
        };
        match element.children().find(is_wrong) {
            Some(child) => Err(format!("<{name}> must not hold <{}>", child.name())),
            None if !element.text().trim().is_empty() => Err(format!("<{name}> holds text")),
            None => Ok(()),
        }
    }
}
