//! A talk in ad-hoc commands (XEP-0050) with a service over a stream in memory.

use minidom::Element;
use slotd::config::ServerAddress;
use slotd::service::Settings;

use super::support::world::{Bench, bench, settings};
use super::xmpp::{Fake, Peer, component};

pub const ADMIN: &str = "admin@example.org/desk";
pub const ROMEO: &str = "romeo@example.org/garden";
pub const NS: &str = "http://jabber.org/protocol/commands";
pub const DATA: &str = "jabber:x:data";

/// A service and a stream to it.
pub struct Talk {
    pub bench: Bench,
    pub peer: Peer,
    pub _fake: Fake,
}

/// A stage's answer.
#[derive(Debug)]
pub struct Stage {
    pub name: String,
    pub status: String,
    /// The usual way on, and all ways.
    pub usual: String,
    pub ways: Vec<String>,
    pub notes: Vec<(String, String)>,
    pub form: Option<Element>,
}

impl Talk {
    pub async fn begin() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let bench = bench(settings);
        let server = ServerAddress::Tcp("127.0.0.1:5347".to_owned());
        let mut fake = Fake::start(bench.service.clone(), vec![component(server)], 64 * 1024);
        let peer = fake.log_in().await;
        Self {
            bench,
            peer,
            _fake: fake,
        }
    }

    pub async fn ask(&mut self, kind: &str, from: &str, payload: &str) -> Element {
        let iq = format!(
            "<iq type='{kind}' id='i' from='{from}' to='upload.example.org'>{payload}</iq>"
        );
        // What waits for a removal comes after the next answers.
        self.peer.send(iq).await.expect("the stream lives");
        let seen = self.peer.read_until("</iq>").await.expect("an answer");
        let xml = format!("<all xmlns='jabber:component:accept'>{seen}</all>");
        let all: Element = xml.parse().expect("well-formed");
        all.children().next().expect("an answer").clone()
    }

    /// Runs a stage; `fields` are what its form is filled in with.
    pub async fn stage(
        &mut self,
        from: &str,
        command: &str,
        attributes: &str,
        fields: &[(&str, &str)],
    ) -> Result<Stage, String> {
        let field = |(name, value): &(&str, &str)| {
            format!("<field var='{name}'><value>{value}</value></field>")
        };
        let form = match fields.is_empty() {
            true => String::new(),
            false => {
                let fields: String = fields.iter().map(field).collect();
                format!("<x xmlns='{DATA}' type='submit'>{fields}</x>")
            }
        };
        let node = format!("urn:slotd:command:0#{command}");
        let payload = format!("<command xmlns='{NS}' node='{node}' {attributes}>{form}</command>");
        let answer = self.ask("set", from, &payload).await;
        read(&answer)
    }

    pub async fn start(&mut self, from: &str, command: &str) -> Stage {
        let begun = self.stage(from, command, "action='execute'", &[]).await;
        begun.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub async fn go_on(
        &mut self,
        from: &str,
        command: &str,
        stage: &Stage,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Result<Stage, String> {
        let attributes = format!("sessionid='{}' action='{action}'", stage.name);
        self.stage(from, command, &attributes, fields).await
    }
}

/// An answer to a command, or its error in short.
pub fn read(answer: &Element) -> Result<Stage, String> {
    if let Some(error) = answer.children().find(|child| child.name() == "error") {
        let names = error.children().filter(|child| child.name() != "text");
        let names: Vec<_> = names.map(Element::name).collect();
        return Err(format!(
            "{} {}",
            error.attr("type").unwrap_or(""),
            names.join(" ")
        ));
    }
    let command = answer.get_child("command", NS).expect("a command");
    let attribute = |name| command.attr(name).unwrap_or_default().to_owned();
    let actions = command.get_child("actions", NS);
    let notes = command.children().filter(|child| child.name() == "note");
    Ok(Stage {
        name: attribute("sessionid"),
        status: attribute("status"),
        usual: actions
            .and_then(|it| it.attr("execute"))
            .unwrap_or_default()
            .to_owned(),
        ways: actions.map_or_else(Vec::new, |it| {
            it.children().map(|way| way.name().to_owned()).collect()
        }),
        notes: notes
            .map(|note| {
                (
                    note.attr("type").unwrap_or_default().to_owned(),
                    note.text(),
                )
            })
            .collect(),
        form: command.get_child("x", DATA).cloned(),
    })
}

impl Stage {
    pub fn form(&self) -> &Element {
        self.form.as_ref().expect("a form")
    }

    /// The values of a field.
    pub fn values(&self, name: &str) -> Vec<String> {
        let mut fields = self
            .form()
            .children()
            .filter(|it| it.attr("var") == Some(name));
        let field = fields.next().unwrap_or_else(|| panic!("no field {name}"));
        let values = field.children().filter(|child| child.name() == "value");
        values.map(Element::text).collect()
    }

    pub fn value(&self, name: &str) -> String {
        self.values(name).join("\n")
    }

    /// What can be chosen in a field.
    pub fn choices(&self, name: &str) -> Vec<String> {
        let mut fields = self
            .form()
            .children()
            .filter(|it| it.attr("var") == Some(name));
        let options = fields.next().expect("the field").children();
        let options = options.filter(|child| child.name() == "option");
        options
            .map(|option| option.children().next().expect("a value").text())
            .collect()
    }

    /// The rows of a table, as one column has them.
    pub fn column(&self, name: &str) -> Vec<String> {
        let Some(form) = &self.form else {
            return Vec::new();
        };
        let items = form.children().filter(|child| child.name() == "item");
        let items: Vec<_> = items.collect();
        if items.is_empty() {
            return self.column_of_text(name);
        }
        let cell = |item: &Element| {
            let mut fields = item.children().filter(|it| it.attr("var") == Some(name));
            fields
                .next()
                .expect("the column")
                .children()
                .map(Element::text)
                .collect()
        };
        items.into_iter().map(cell).collect()
    }

    /// The same of a page, whose rows are fields.
    fn column_of_text(&self, name: &str) -> Vec<String> {
        let form = self.form();
        let words = form.children().find(|child| child.name() == "instructions");
        let Some(heads) = words.map(Element::text) else {
            return Vec::new();
        };
        let head = match name {
            "progress" => "here",
            "who" => "banned",
            name => name,
        };
        let at = heads.split(" | ").position(|it| it.to_lowercase() == head);
        let at = at.unwrap_or_else(|| panic!("no column {name} in {heads:?}"));
        let is_row = |field: &&Element| field.attr("var").is_some_and(|it| it.starts_with("row-"));
        let cell = |field: &Element| {
            let line = format!("{} | {}", field.attr("label").unwrap_or(""), field.text());
            line.split(" | ").nth(at).expect("the column").to_owned()
        };
        form.children().filter(is_row).map(cell).collect()
    }

    #[track_caller]
    pub fn is_over_with(&self, tone: &str, words: &str) {
        assert_eq!(self.status, "completed", "{self:?}");
        let said = |(kind, text): &(String, String)| kind == tone && text.contains(words);
        assert!(self.notes.iter().any(said), "{:?}", self.notes);
    }
}
