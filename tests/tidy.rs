//! Walls between the rooms, and sizes: what the compiler does not hold, held with file and line.
//!
//! Reads the source as text with comments and strings masked. Whatever stands behind a file's
//! `#[cfg(test)]` at the left margin is its tests, which may do more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_CHARS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;

/// Which rooms a room may name; a path of more than one step allows that item alone.
///
/// `command` and `daemon` wire everything and may name all.
#[rustfmt::skip]
const WALLS: &[(&str, &[&str])] = &[
    ("core",    &["core"]),
    ("config",  &["config", "core", "log::check_level"]),
    ("log",     &["log", "config"]),
    ("meters",  &["meters", "core", "service::events"]),
    ("audit_log", &["audit_log", "core", "log::file", "service::events"]),
    ("store",   &["store", "core", "config::Durability", "config::data_dir", "meters"]),
    ("service", &["service", "core", "store", "meters"]),
    ("xmpp",    &["xmpp", "core", "service", "config", "meters"]),
    // A body is what `receive` takes, content what `open_file` gives: the words of stores at an edge.
    ("http",    &["http", "core", "service", "config", "store::Body", "store::BodyError",
                  "store::Content", "store::Handle", "store::Opened",
                  "store::files_kept_max", "meters", "warm"]),
    // Of the other edge it has the sockets alone.
    ("admin",   &["admin", "core", "service", "config", "meters", "http::inherited", "http::listen",
                  "warm"]),
    // A room that both listeners let in.
    ("warm",    &["warm", "core", "service"]),
    ("upkeep",  &["upkeep", "core", "service", "store::history", "store::keys"]),
    // A body is what `take` gets.
    ("import",  &["import", "core", "service", "store::Body", "store::BodyError", "store::StoreError"]),
    // A client beside the service: of the edges it has the log-in of clients alone.
    ("send",    &["send", "xmpp::client", "xmpp::Socket", "xmpp::Wire"]),
    ("daemon",  &["admin", "audit_log", "core", "config", "log", "meters", "store", "service", "xmpp",
                  "http", "upkeep"]),
    ("command", &["config", "core", "daemon", "import", "log", "send", "service", "store", "xmpp", "http", "upkeep"]),
    ("main",    &["command"]),
    ("lib",     &[]),
];

/// Crates that belong to some rooms alone.
#[rustfmt::skip]
const CRATES: &[(&str, &[&str])] = &[
    ("axum",         &["http", "admin", "warm"]),
    ("hyper",        &["http", "admin", "send", "warm"]),
    ("hyper_util",   &["http", "admin", "send", "warm"]),
    ("maud",         &["admin", "warm"]),
    ("prometheus",   &["meters"]),
    ("tokio_rustls", &["http", "xmpp", "warm"]),
    ("tower",        &["http", "admin"]),
    ("tokio_xmpp",   &["xmpp", "send"]),
    ("redb",         &["store"]),
    ("postcard",     &["store"]),
    ("rustix",       &["store", "config", "http", "xmpp", "send", "daemon", "log", "import"]),
    ("toml",         &["config", "store"]),
    ("clap",         &["main", "command", "send", "import"]),
    ("getrandom",    &["command", "daemon", "store", "send"]),
    ("sasl",         &["xmpp"]),
    ("indicatif",    &["send", "import"]),
    ("hickory_resolver", &["xmpp"]),
    ("listenfd",     &["http"]),
    ("sd_notify",    &["daemon"]),
    ("arc_swap",     &["service"]),
];

/// The crates that core is written in: vocabulary and arithmetic.
const CORE_CRATES: &[&str] = &[
    "std",
    "core",
    "crate",
    "super",
    "self",
    "base64",
    "bytesize",
    "chrono",
    "hmac",
    "http",
    "httpdate",
    "humantime",
    "ipnet",
    "jid",
    "minidom",
    "percent_encoding",
    "serde_json",
    "sha1",
    "sha2",
    "strum",
    "xmpp_parsers",
    "zeroize",
];

/// What core must not name: it touches nothing, and time and chance come as arguments.
const CORE_FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::env",
    "std::io",
    "std::process",
    "std::thread",
    "std::sync",
    "std::time::Instant",
    "Instant::now",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "tokio",
    "axum",
    "async fn",
    ".await",
];

/// Anchors of specifications by their number; numbers that are not here have sections alone.
#[rustfmt::skip]
const ANCHORS: &[(&str, &[&str])] = &[
    ("0363", &["disco", "request", "purpose", "purpose-message", "purpose-profile",
               "purpose-ephemeral", "purpose-permanent", "errors", "upload", "impl", "server",
               "uploader", "general", "security"]),
    ("0114", &["concepts", "proto"]),
    ("0030", &["info", "items"]),
    ("0199", &["protocol", "s2c"]),
];

/// A file of ours.
struct Source {
    path: String,
    lines: Vec<String>,
    /// The same lines with comments and the insides of strings blanked.
    code: Vec<String>,
    /// Lines before this one are not tests.
    n_lines: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let masked = mask(text);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let is_tests = |line: &String| line == "#[cfg(test)]";
        let n_lines = lines.iter().position(is_tests).unwrap_or(lines.len());
        Self {
            path: path.to_owned(),
            code: masked.lines().map(str::to_owned).collect(),
            n_lines,
            lines,
        }
    }

    /// The first step of the path below `src`: `core`, `daemon`.
    fn room(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs")
    }

    /// The code that is no test, each line with its number.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().take(self.n_lines).enumerate();
        lines.map(|(index, line)| (index + 1, line.as_str()))
    }

    fn at(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Complains where a line of code is `wrong`.
    fn find(&self, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let code = self.code();
        code.filter_map(|(line, text)| Some(self.at(line, wrong(text)?)))
            .collect()
    }
}

/// Blanks comments, strings and characters, and keeps every line where it is.
fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n_bytes = masked_bytes(rest, out.chars().next_back());
        if n_bytes == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            out.extend(rest[..n_bytes].chars().map(blank));
            rest = &rest[n_bytes..];
        }
    }
    out
}

/// How many bytes at the start of `rest` are a comment or a literal; 0 where it is code.
fn masked_bytes(rest: &str, before: Option<char>) -> usize {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return to(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return to(rest.find("*/").map(|at| at + 2));
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return to(string_end(inside, '"').map(|at| at + 2));
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !in_word {
        let n_hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
        let open = 2 + n_hashes;
        if rest[1 + n_hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(n_hashes));
            return to(rest[open..].find(&close).map(|at| open + at + close.len()));
        }
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        let first = inside.chars().next().map_or(0, char::len_utf8);
        if inside.starts_with('\\') {
            return to(string_end(inside, '\'').map(|at| at + 2));
        }
        if inside[first..].starts_with('\'') {
            return first + 2;
        }
    }
    0
}

/// Where the unescaped `quote` stands.
fn string_end(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == quote && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All files of a directory, at least one.
fn sources(directory: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join(directory), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no source in {directory}");
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root");
        let text = fs::read_to_string(path).expect("readable");
        Source::new(name.to_str().expect("an ASCII name"), &text)
    };
    paths.iter().map(read).collect()
}

/// Fails with all complaints, one a line.
#[track_caller]
fn assert_tidy(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Paths that begin with `start` in a line: `crate::store::Body` gives `["store", "Body"]`.
fn paths(code: &str, start: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest: String = code[at + start.len()..]
            .chars()
            .take_while(|c| is_word(*c) || *c == ':')
            .collect();
        let steps = rest.split("::").filter(|step| !step.is_empty());
        found.push(steps.map(str::to_owned).collect());
    }
    found
}

/// A declaration over several lines as one line, at its first line's number.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut whole: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (line, code) in source.code() {
        let code = code.trim();
        match whole.last_mut() {
            Some((_, text)) if is_open => text.push_str(code),
            _ => whole.push((line, code.to_owned())),
        }
        let is_use = |text: &str| text.starts_with("use ") || text.starts_with("pub use ");
        is_open = whole
            .last()
            .is_some_and(|(_, text)| is_use(text) && !text.ends_with(';'));
    }
    whole
}

/// Every `crate::...` that a line names, with the groups in braces spelled out.
fn named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths(code, "crate::") {
        let path = path.join("::");
        let group = format!("crate::{path}::{{");
        match code.split_once(&group) {
            Some((_, inside)) => {
                let inside = inside.split('}').next().unwrap_or_default();
                let items = inside
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                found.extend(items.map(|item| format!("{path}::{item}")));
            }
            None if path.is_empty() => {}
            None => found.push(path),
        }
    }
    found
}

fn is_allowed(path: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|wall| {
        let inside = path.strip_prefix(wall);
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

fn walls_of(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some((_, allowed)) = WALLS.iter().find(|(name, _)| *name == room) else {
        return vec![source.at(1, format!("room `{room}` has no row in WALLS"))];
    };
    let mut complaints = Vec::new();
    for (line, text) in statements(source) {
        for path in named(&text) {
            if !is_allowed(&path, allowed) {
                complaints.push(source.at(line, format!("{room} must not name crate::{path}")));
            }
        }
        if text.contains("crate::{") {
            complaints.push(source.at(line, "one `use` a room: no `crate::{`"));
        }
        let climbs = WALLS.iter().any(|(name, _)| {
            let up = paths(&text, "super::").into_iter().flatten();
            *name != room && up.take(2).any(|step| step == *name)
        });
        if climbs {
            complaints.push(source.at(line, "rooms are named by `crate::`, not by `super::`"));
        }
        if text.starts_with("pub use crate::") {
            complaints.push(source.at(line, "no `pub use` across rooms"));
        }
    }
    complaints
}

#[test]
fn rooms_name_only_their_neighbors() {
    assert_tidy(sources("src").iter().flat_map(walls_of).collect());
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        let room = source.room();
        for (name, rooms) in CRATES {
            if rooms.contains(&room) {
                continue;
            }
            let named = format!("{name}::");
            let own = format!("crate::{named}");
            complaints.extend(source.find(|code| {
                let foreign = code.replace(&own, "");
                let is_named = !paths(&foreign, &named).is_empty();
                is_named.then(|| format!("{room} must not use the crate {name}"))
            }));
        }
    }
    assert_tidy(complaints);
}

#[test]
fn core_touches_nothing() {
    let mut complaints = Vec::new();
    for source in sources("src/core") {
        for forbidden in CORE_FORBIDDEN {
            complaints.extend(source.find(|code| {
                let has = code.contains(forbidden);
                has.then(|| format!("core must not name {forbidden}"))
            }));
        }
        complaints.extend(source.find(|code| {
            let used = code
                .trim()
                .trim_start_matches("pub ")
                .strip_prefix("use ")?;
            let first = used.trim_start_matches(':').split([':', ';', ' ']).next()?;
            let is_local = first.starts_with(char::is_uppercase);
            let is_known = CORE_CRATES.contains(&first) || is_local;
            (!is_known).then(|| format!("core must not use the crate {first}"))
        }));
    }
    assert_tidy(complaints);
}

#[test]
fn files_say_what_they_are_for() {
    let mut complaints = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let first = source.lines.first().map_or("", String::as_str);
        let words = first.strip_prefix("//! ").unwrap_or_default();
        if words.len() < 10 {
            complaints.push(source.at(1, "line 1 is `//!` and what the file is for"));
        }
    }
    assert_tidy(complaints);
}

#[test]
fn lines_and_files_have_their_size() {
    let mut complaints = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        let mut is_table = false;
        for (index, line) in source.lines.iter().enumerate() {
            let n_chars = line.chars().count();
            // A table that is laid out by hand has one line a row.
            if line.trim() == "#[rustfmt::skip]" {
                is_table = true;
            }
            if is_table && matches!(line.trim_end(), "];" | "}" | "    }") {
                is_table = false;
            }
            if LINE_CHARS_MAX < n_chars && !is_table {
                complaints.push(source.at(index + 1, format!("{n_chars} columns")));
            }
        }
        if source.path.starts_with("src/") && FILE_LINES_MAX < source.n_lines {
            let words = format!("{} lines without tests", source.n_lines);
            complaints.push(source.at(source.n_lines, words));
        }
    }
    assert_tidy(complaints);
}

/// Every function of a file: its first line, its name and how many lines it has.
fn functions(source: &Source) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (index, code) in source.code.iter().enumerate() {
        let Some(name) = paths(code, "fn ").into_iter().flatten().next() else {
            continue;
        };
        let mut depth = 0usize;
        let ends = source.code[index..].iter().position(|code| {
            let mut is_end = false;
            for c in code.chars() {
                match c {
                    '{' | '(' | '[' => depth += 1,
                    '}' | ')' | ']' => {
                        depth = depth.saturating_sub(1);
                        is_end |= c == '}' && depth == 0;
                    }
                    ';' if depth == 0 => is_end = true,
                    _ => {}
                }
            }
            is_end
        });
        let n_lines = ends.map_or(usize::MAX, |ends| ends + 1);
        found.push((index + 1, name, n_lines));
    }
    found
}

#[test]
fn functions_have_their_size() {
    let mut complaints = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (line, name, n_lines) in functions(&source) {
            if FUNCTION_LINES_MAX < n_lines {
                complaints.push(source.at(line, format!("fn {name} has {n_lines} lines")));
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled apart, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let mut complaints = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (index, line) in source.lines.iter().enumerate() {
            let mut parts = line.split(|c: char| !c.is_alphanumeric());
            if parts.any(|part| words.iter().any(|later| later == part)) {
                complaints.push(source.at(index + 1, "file an issue instead"));
            }
        }
        for (index, code) in source.code.iter().enumerate() {
            if macros.iter().any(|name| code.contains(name)) || code.contains("#[ignore") {
                complaints.push(source.at(index + 1, "not finished"));
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn nothing_panics_for_want_of_a_word() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        complaints.extend(source.find(|code| {
            let bare = code.contains(".unwrap()") || code.contains(".unwrap_err()");
            bare.then(|| "say with `expect` why it cannot fail".to_owned())
        }));
    }
    assert_tidy(complaints);
}

#[test]
fn prints_and_tasks_are_where_they_belong() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        let room = source.room().to_owned();
        complaints.extend(source.find(|code| {
            let prints = code.contains("println!") || code.contains("print!");
            (prints && room != "command").then(|| "only commands print".to_owned())
        }));
        complaints.extend(source.find(|code| {
            let spawns = code.contains("spawn(");
            (spawns && room == "core").then(|| "core spawns nothing".to_owned())
        }));
    }
    assert_tidy(complaints);
}

/// What is wrong with the specifications that a comment cites.
fn citations(comment: &str) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let words: Vec<&str> = comment.split_whitespace().collect();
    for (index, word) in words.iter().enumerate() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '#' && c != '-');
        let next = words.get(index + 1).copied().unwrap_or_default();
        let anchor = next
            .strip_prefix('#')
            .map(|anchor| anchor.trim_end_matches(|c: char| !c.is_alphanumeric()));
        if let Some(number) = bare.strip_prefix("XEP-") {
            let number = number.split('\'').next().unwrap_or(number);
            if number.len() != 4 || !is_number(number) {
                return Some(format!("{bare} is no XEP"));
            }
            let known = ANCHORS.iter().find(|(spec, _)| *spec == number);
            if let (Some(anchor), Some((_, anchors))) = (anchor, known)
                && !anchors.contains(&anchor)
            {
                return Some(format!("XEP-{number} has no anchor #{anchor} in ANCHORS"));
            }
        }
        if bare == "RFC" {
            let number = next.trim_end_matches(|c: char| !c.is_ascii_digit());
            if next.starts_with(|c: char| c.is_ascii_digit()) && !is_number(number) {
                return Some(format!("RFC {next} is no RFC"));
            }
            let section = words.get(index + 2).and_then(|word| word.strip_prefix('#'));
            let is_section = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
            if section.is_some_and(|section| !is_section(section)) {
                return Some(format!("RFC {number} is cited by section: #9.1"));
            }
        }
    }
    comment
        .contains('\u{a7}')
        .then(|| "sections are written #9.1".to_owned())
}

#[test]
fn specifications_are_cited_by_anchor() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        for (index, line) in source.lines.iter().enumerate() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            if let Some(wrong) = citations(comment) {
                complaints.push(source.at(index + 1, wrong));
            }
        }
    }
    assert_tidy(complaints);
}

#[test]
fn comments_and_code_are_ascii() {
    let mut complaints = Vec::new();
    for source in sources("src") {
        for (index, line) in source.lines.iter().take(source.n_lines).enumerate() {
            if !line.is_ascii() {
                complaints.push(source.at(index + 1, "not ASCII"));
            }
        }
    }
    assert_tidy(complaints);
}

/// The rules find what they are for: rows of source, and how many complaints it gets.
#[test]
fn the_walls_stand() {
    let rows: BTreeMap<&str, (&str, usize)> = [
        ("src/core/a.rs", ("use crate::store::Body;", 1)),
        (
            "src/core/b.rs",
            ("// crate::store\nlet a = \"crate::store::Body\";", 0),
        ),
        (
            "src/core/c.rs",
            ("fn a() { crate::service::Service::new() }", 1),
        ),
        ("src/http/a.rs", ("use crate::store::{Body, BodyError};", 0)),
        (
            "src/http/b.rs",
            ("use crate::store::{\n    Body,\n    SessionStore,\n};", 1),
        ),
        (
            "src/http/c.rs",
            ("use crate::xmpp;\nuse crate::http::put;", 1),
        ),
        ("src/store/a.rs", ("use crate::{core, service};", 1)),
        ("src/store/b.rs", ("use super::super::service::Service;", 1)),
        ("src/xmpp/a.rs", ("pub use crate::core::slot::Slot;", 1)),
        ("src/upkeep.rs", ("use crate::store::memory;", 1)),
        ("src/attic/a.rs", ("", 1)),
        (
            "src/service/a.rs",
            ("#[cfg(test)]\nmod tests { use crate::http; }", 0),
        ),
    ]
    .into();
    for (path, (text, n_complaints)) in rows {
        let complaints = walls_of(&Source::new(path, text));
        assert_eq!(complaints.len(), n_complaints, "{path}: {complaints:?}");
    }
}

#[test]
fn the_masks_hide_what_is_no_code() {
    for (text, code) in [
        ("a // b", "a     "),
        ("a \"b // c\" d", "a          d"),
        ("'\"' a", "    a"),
        ("'\\'' a", "     a"),
        ("&'a str", "&'a str"),
        ("r#\"a\"b\"# c", "         c"),
        ("\"a\\\"b\" c", "       c"),
        ("a /* b */ c", "a         c"),
    ] {
        assert_eq!(mask(text), code, "{text}");
    }
}
