//! What we are and what we offer: service discovery, software version, uptime, ping.
//!
//! The feature list is made from `route`'s own table, so nothing is offered that is not served.

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::ns;

use super::elements::PURPOSE;
use crate::core::refusal::Refusal;
use crate::core::slot::Purpose;

/// The namespace of XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// The namespace of XEP-0012.
pub const LAST: &str = "jabber:iq:last";
/// The FORM_TYPE of XEP-0157.
const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";

/// XEP-0157 addresses: a field's name (`abuse-addresses`) and its URIs.
pub type Contact = Vec<(&'static str, Vec<String>)>;

/// Answers disco#info about ourselves. XEP-0030 #info, XEP-0128, XEP-0363 #disco.
///
/// Refuses `UnknownNode` for any node. The upload form stands first: COMPAT(Siskin, 2024): reads
/// the first form only.
pub fn info(
    query: &Element,
    features: impl Iterator<Item = &'static str>,
    size_bytes_max: u64,
    contact: &Contact,
) -> Result<Element, Refusal> {
    refuse_node(query)?;
    // COMPAT(slixmpp, Movim, 2026): find the service by this identity.
    let identity = Element::builder("identity", ns::DISCO_INFO)
        .attr(xml_ncname!("category").to_owned(), "store")
        .attr(xml_ncname!("type").to_owned(), "file")
        .attr(xml_ncname!("name").to_owned(), "HTTP File Upload");
    let purposes = Purpose::NAMES.map(|name| format!("{PURPOSE}#{name}"));
    let features = features.map(str::to_owned).chain(purposes);
    let mut answer = Element::builder("query", ns::DISCO_INFO)
        .append(identity)
        .append_all(features.map(feature));
    let size = vec![size_bytes_max.to_string()];
    answer = answer.append(form(
        ns::HTTP_UPLOAD,
        [("max-file-size", &size)].into_iter(),
    ));
    if !contact.is_empty() {
        let fields = contact.iter().map(|(name, uris)| (*name, uris));
        answer = answer.append(form(SERVER_INFO, fields));
    }
    Ok(answer.build())
}

fn feature(name: String) -> Element {
    let feature = Element::builder("feature", ns::DISCO_INFO);
    feature.attr(xml_ncname!("var").to_owned(), name).build()
}

/// A form of type result; XEP-0157 has its fields as list-multi.
fn form<'a>(
    form_type: &str,
    fields: impl Iterator<Item = (&'static str, &'a Vec<String>)>,
) -> Element {
    let value = |text: &str| Element::builder("value", ns::DATA_FORMS).append(text);
    let field = |name: &str| {
        let field = Element::builder("field", ns::DATA_FORMS);
        field.attr(xml_ncname!("var").to_owned(), name)
    };
    // COMPAT(Converse.js, 2026): looks for a hidden FORM_TYPE.
    let kind = field("FORM_TYPE")
        .attr(xml_ncname!("type").to_owned(), "hidden")
        .append(value(form_type));
    let fields = fields.map(|(name, values)| {
        let field = match form_type {
            SERVER_INFO => field(name).attr(xml_ncname!("type").to_owned(), "list-multi"),
            _ => field(name),
        };
        field
            .append_all(values.iter().map(|text| value(text)))
            .build()
    });
    Element::builder("x", ns::DATA_FORMS)
        .attr(xml_ncname!("type").to_owned(), "result")
        .append(kind)
        .append_all(fields)
        .build()
}

/// Answers disco#items: there are none. XEP-0030 #items.
pub fn items(query: &Element) -> Result<Element, Refusal> {
    refuse_node(query)?;
    Ok(Element::bare("query", ns::DISCO_ITEMS))
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
    use super::*;

    fn query(xml: &str) -> Element {
        xml.parse().expect("a row is well-formed")
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
        let features = ["http://jabber.org/protocol/disco#info", "urn:xmpp:ping"];
        let answer = info(&asked, features.into_iter(), 1000, &contact).expect("no node");
        let expected = "<query xmlns='http://jabber.org/protocol/disco#info'>\
            <identity category='store' type='file' name='HTTP File Upload'/>\
            <feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='urn:xmpp:ping'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#message'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#profile'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#ephemeral'/>\
            <feature var='urn:xmpp:http:upload:purpose:0#permanent'/>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:http:upload:0</value></field>\
            <field var='max-file-size'><value>1000</value></field></x>\
            <x xmlns='jabber:x:data' type='result'>\
            <field var='FORM_TYPE' type='hidden'>\
            <value>http://jabber.org/network/serverinfo</value></field>\
            <field var='abuse-addresses' type='list-multi'>\
            <value>mailto:abuse@example.org</value><value>xmpp:abuse@example.org</value>\
            </field></x></query>";
        assert_eq!(answer, query(expected));
    }

    #[test]
    fn without_contact_there_is_one_form() {
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#info' node=''/>");
        let answer = info(&asked, [].into_iter(), 1, &Vec::new()).expect("an empty node is none");
        assert_eq!(
            answer
                .children()
                .filter(|child| child.name() == "x")
                .count(),
            1
        );
    }

    #[test]
    fn nodes_are_unknown() {
        let asked = query("<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>");
        assert_eq!(
            info(&asked, [].into_iter(), 1, &Vec::new()),
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
