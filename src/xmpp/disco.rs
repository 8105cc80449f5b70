//! What we are and what we offer: service discovery, software version, uptime, ping.
//!
//! The feature list is made from `route`'s own table, so nothing is offered that is not served.

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::ns;

use super::elements::PURPOSE;
use super::{commands, session};
use crate::core::command::Command;
use crate::core::refusal::Refusal;
use crate::core::slot::Purpose;
use crate::service::session::SessionTerms;

/// The namespace of XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// The namespace of XEP-0012.
pub const LAST: &str = "jabber:iq:last";
/// The FORM_TYPE of XEP-0157.
const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";

/// The FORM_TYPE of what an operator wants everybody to know.
const MAINTENANCE: &str = "urn:slotd:maintenance:0";

/// XEP-0157 addresses: a field's name (`abuse-addresses`) and its URIs.
pub type Contact = Vec<(&'static str, Vec<String>)>;

/// What we offer.
pub struct Offer {
    /// The namespaces that are served.
    pub features: Vec<&'static str>,
    /// Namespaces of before in which slots can be asked for, too.
    pub legacy: Vec<&'static str>,
    /// The largest file, in bytes.
    pub size_bytes_max: u64,
    /// What upload sessions are like.
    pub sessions: SessionTerms,
    /// What an operator wants everybody to know.
    pub note: Option<String>,
}

/// Answers disco#info about ourselves. XEP-0030 #info, XEP-0128, XEP-0363 #disco.
///
/// Refuses `UnknownNode` for any node. The upload form stands first: COMPAT(Siskin, 2024): reads
/// the first form only.
pub fn info(query: &Element, offer: Offer, contact: &Contact) -> Result<Element, Refusal> {
    refuse_node(query)?;
    // COMPAT(slixmpp, Movim, 2026): find the service by this identity.
    let identity = Element::builder("identity", ns::DISCO_INFO)
        .attr(xml_ncname!("category").to_owned(), "store")
        .attr(xml_ncname!("type").to_owned(), "file")
        .attr(xml_ncname!("name").to_owned(), "HTTP File Upload");
    let parts = session::PARTS.map(|name| format!("{}#{name}", session::NS));
    let purposes = Purpose::NAMES.map(|name| format!("{PURPOSE}#{name}"));
    let features = offer.features.iter().chain(&offer.legacy);
    let features = features.map(|name| (*name).to_owned());
    let features = features.chain(parts).chain(purposes);
    let size = || single("max-file-size", offer.size_bytes_max);
    let mut answer = Element::builder("query", ns::DISCO_INFO)
        .append(identity)
        .append_all(features.map(feature))
        .append(form(ns::HTTP_UPLOAD, [size()]))
        .append_all(
            offer
                .legacy
                .iter()
                .map(|namespace| form(namespace, [size()])),
        )
        .append(sessions_form(&offer.sessions));
    if let Some(note) = offer.note {
        answer = answer.append(form(MAINTENANCE, [field("note", None, &[note])]));
    }
    if !contact.is_empty() {
        // XEP-0157 has its fields as list-multi.
        let fields = contact.iter().map(|(name, uris)| list(name, uris));
        answer = answer.append(form(SERVER_INFO, fields));
    }
    Ok(answer.build())
}

/// What a client has to know before it asks for an upload session.
fn sessions_form(terms: &SessionTerms) -> Element {
    let fields = [
        single("slot-timeout", terms.slot_timeout.as_secs()),
        single("max-refreshes", u64::from(terms.refreshes_max)),
        single("max-session-age", terms.session_age.as_secs()),
        list("resume-protocols", &session::PROTOCOLS.map(str::to_owned)),
    ];
    form(session::NS, fields)
}

fn feature(name: String) -> Element {
    let feature = Element::builder("feature", ns::DISCO_INFO);
    feature.attr(xml_ncname!("var").to_owned(), name).build()
}

/// A form of type result.
fn form(form_type: &str, fields: impl IntoIterator<Item = Element>) -> Element {
    // COMPAT(Converse.js, 2026): looks for a hidden FORM_TYPE.
    let kind = field("FORM_TYPE", Some("hidden"), &[form_type.to_owned()]);
    Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").to_owned(), "result")
        .append(kind)
        .append_all(fields)
        .build()
}

fn single(name: &str, number: u64) -> Element {
    field(name, None, &[number.to_string()])
}

fn list(name: &str, values: &[String]) -> Element {
    field(name, Some("list-multi"), values)
}

fn field(name: &str, kind: Option<&str>, values: &[String]) -> Element {
    let value = |text: &String| Element::builder("value", ns::DATA_FORMS).append(text.as_str());
    Element::builder("field", ns::DATA_FORMS)
        .attr(xml_ncname!("var").to_owned(), name)
        .attr(xml_ncname!("type").to_owned(), kind)
        .append_all(values.iter().map(value))
        .build()
}

/// Answers disco#items: there are none. XEP-0030 #items.
pub fn items(query: &Element) -> Result<Element, Refusal> {
    refuse_node(query)?;
    Ok(Element::bare("query", ns::DISCO_ITEMS))
}

/// Answers disco#items about the node of commands: those that the requester may run. XEP-0050
/// #retrieve.
pub fn commands<'a>(host: &str, commands: impl Iterator<Item = &'a Command>) -> Element {
    let item = |command: &Command| {
        Element::builder("item", ns::DISCO_ITEMS)
            .attr(xml_ncname!("jid").to_owned(), host)
            .attr(xml_ncname!("node").to_owned(), command.node())
            .attr(xml_ncname!("name").to_owned(), command.label)
            .build()
    };
    Element::builder("query", ns::DISCO_ITEMS)
        .attr(xml_ncname!("node").to_owned(), commands::NS)
        .append_all(commands.map(item))
        .build()
}

/// Answers disco#info about the node of commands.
pub fn command_list() -> Element {
    automation(commands::NS, "command-list", "Commands")
}

/// Answers disco#info about a command.
pub fn command(command: &Command) -> Element {
    let mut info = automation(&command.node(), "command-node", command.label);
    for name in [commands::NS, ns::DATA_FORMS] {
        info.append_child(feature(name.to_owned()));
    }
    info
}

fn automation(node: &str, kind: &str, name: &str) -> Element {
    let identity = Element::builder("identity", ns::DISCO_INFO)
        .attr(xml_ncname!("category").to_owned(), "automation")
        .attr(xml_ncname!("type").to_owned(), kind)
        .attr(xml_ncname!("name").to_owned(), name);
    Element::builder("query", ns::DISCO_INFO)
        .attr(xml_ncname!("node").to_owned(), node)
        .append(identity)
        .build()
}

fn refuse_node(query: &Element) -> Result<(), Refusal> {
    match query.attr("node") {
        None | Some("") => Ok(()),
        Some(_) => Err(Refusal::UnknownNode),
    }
}

/// Answers XEP-0092: name and version; the operating system is nobody's business.
pub fn version() -> Element {
    let child = |name: &str, text: &str| Element::builder(name, VERSION).append(text);
    Element::builder("query", VERSION)
        .append(child("name", "slotd"))
        .append(child("version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Answers XEP-0012: how long we have been running.
pub fn last(uptime_s: u64) -> Element {
    let query = Element::builder("query", LAST);
    query
        .attr(xml_ncname!("seconds").to_owned(), uptime_s)
        .build()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn query(xml: &str) -> Element {
        xml.parse().expect("a row is well-formed")
    }

    fn offer(features: Vec<&'static str>) -> Offer {
        Offer {
            features,
            legacy: Vec::new(),
            size_bytes_max: 1000,
            sessions: SessionTerms {
                slot_timeout: Duration::from_secs(300),
                refreshes_max: 10,
                session_age: Duration::from_secs(259_200),
            },
            note: None,
        }
    }

    #[test]
    fn info_has_identity_features_and_forms_in_order() {
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#info'/>");
        let contact = vec![(
            "abuse-addresses",
            vec![
                "mailto:abuse@example.org".to_owned(),
                "xmpp:abuse@example.org".to_owned(),
            ],
        )];
        let offer = offer(vec![
            "http://jabber.org/protocol/disco#info",
            "urn:xmpp:ping",
        ]);
        let answer = info(&asked, offer, &contact).expect("no node");
        let expected = "<query xmlns='http://jabber.org/protocol/disco#info'>\
            <identity category='store' type='file' name='HTTP File Upload'/>\
            <feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='urn:xmpp:ping'/>\
            <feature var='urn:slotd:upload-session:0#list'/>\
            <feature var='urn:slotd:upload-session:0#rufh'/>\
            <feature var='urn:slotd:upload-session:0#tus'/>\
            <feature var='urn:slotd:upload-session:0#digest'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#message'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#profile'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#ephemeral'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#permanent'/>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:http:upload:0</value></field>\
            <field var='max-file-size'><value>1000</value></field></x>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'><value>urn:slotd:upload-session:0</value></field>\
            <field var='slot-timeout'><value>300</value></field>\
            <field var='max-refreshes'><value>10</value></field>\
            <field var='max-session-age'><value>259200</value></field>\
            <field var='resume-protocols' type='list-multi'><value>rufh-8</value>\
            <value>rufh-6</value><value>rufh-5</value><value>rufh-3</value>\
            <value>tus-1.0</value></field></x>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'>\
            <value>http://jabber.org/network/serverinfo</value></field>\
            <field var='abuse-addresses' type='list-multi'>\
            <value>mailto:abuse@example.org</value><value>xmpp:abuse@example.org</value>\
            </field></x></query>";
        assert_eq!(answer, query(expected));
    }

    #[test]
    fn without_contact_there_are_two_forms() {
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#info' node=''/>");
        let answer = info(&asked, offer(Vec::new()), &Vec::new()).expect("an empty node is none");
        assert_eq!(
            answer
                .children()
                .filter(|child| child.name() == "x")
                .count(),
            2
        );
    }

    #[test]
    fn nodes_are_unknown() {
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>");
        assert_eq!(
            info(&asked, offer(Vec::new()), &Vec::new()),
            Err(Refusal::UnknownNode)
        );
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#items' node='x'/>");
        assert_eq!(items(&asked), Err(Refusal::UnknownNode));
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#items'/>");
        assert_eq!(items(&asked), Ok(asked));
    }

    #[test]
    fn small_answers() {
        assert_eq!(
            last(7),
            query("<query xmlns='jabber:iq:last' seconds='7'/>")
        );
        let version = version();
        assert_eq!(
            version.children().map(Element::name).collect::<Vec<_>>(),
            ["name", "version"]
        );
    }
}
