//! Slot requests of before `urn:xmpp:http:upload:0`, where they are switched on.
//!
//! Children where XEP-0363 has attributes, and no headers: what allows the PUT stands in its URL.
//! XEP-0363 up to 0.2; Conversations had the same in a namespace of its own.

use minidom::Element;

use super::elements;
use crate::core::refusal::Refusal;
use crate::core::slot::{Slot, SlotRequest};

/// Reads `<request/>` with children; refuses as `elements::plain_request` does.
pub fn slot_request(request: &Element) -> Result<SlotRequest, Refusal> {
    let text = |name: &str| Some(request.get_child(name, request.ns().as_str())?.text());
    let (name, size, kind) = (text("filename"), text("size"), text("content-type"));
    elements::plain_request(name.as_deref(), size.as_deref(), kind.as_deref())
}

/// `<slot/>` with the URLs as text.
pub fn slot(slot: &Slot, namespace: &str) -> Element {
    let url = |name: &str, url: String| Element::builder(name, namespace).append(url);
    Element::builder("slot", namespace)
        .append(url("put", slot.put_url_alone()))
        .append(url("get", slot.get_url.clone()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(children: &str) -> Result<(String, u64, Option<String>), Refusal> {
        let xml = format!("<request xmlns='urn:xmpp:http:upload'>{children}</request>");
        let request = slot_request(&xml.parse().expect("well-formed"))?;
        let kind = request.content_type.map(|kind| kind.as_str().to_owned());
        Ok((
            request.filename.as_str().to_owned(),
            request.size_bytes,
            kind,
        ))
    }

    #[test]
    fn requests_have_children() {
        let (name, size) = ("<filename>a b.jpg</filename>", "<size>10</size>");
        let kind = "<content-type>image/jpeg</content-type>";
        assert_eq!(
            read(&format!("{name}{size}{kind}")),
            Ok(("a b.jpg".to_owned(), 10, Some("image/jpeg".to_owned())))
        );
        assert_eq!(read(&format!("{size}{name}")).map(|it| it.2), Ok(None));
        assert_eq!(read(size), Err(Refusal::BadFileName));
        assert_eq!(read(name), Err(Refusal::BadSize));
        assert_eq!(
            read(&format!("{name}<size>+1</size>")),
            Err(Refusal::BadSize)
        );
        let other = "<size xmlns='urn:xmpp:http:upload:0'>10</size>";
        assert_eq!(read(&format!("{name}{other}")), Err(Refusal::BadSize));
    }
}
