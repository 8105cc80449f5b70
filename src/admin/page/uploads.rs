//! What goes on now: uploads with how far they are.

use maud::{Markup, html};

use crate::admin::page::words;
use crate::core::status::{Going, Upload, Uploads};
use crate::core::time::Timestamp;

/// The longest file name shown, in characters; the rest is left out.
const NAME_CHARS_MAX: usize = 60;

/// The section.
pub(super) fn section(uploads: Option<&Uploads>, now: Timestamp) -> Markup {
    html! {
        section #now aria-labelledby="now-title" {
            h2 #now-title { "Uploads now" }
            @match uploads {
                Some(uploads) => (list(uploads, now)),
                None => p.bad { "The store does not say; the log says why." },
            }
        }
    }
}

fn list(uploads: &Uploads, now: Timestamp) -> Markup {
    html! {
        @if uploads.shown.is_empty() {
            p.quiet { "No upload is coming in, none was broken off." }
        } @else {
            ul.uploads {
                @for one in &uploads.shown { (upload(one, now)) }
            }
        }
        @if uploads.has_more {
            p.quiet.more { "There may be others; the command \"Uploads\" shows all of them." }
        }
    }
}

fn upload(upload: &Upload, now: Timestamp) -> Markup {
    let Upload { seen, here_bytes } = upload;
    let row = &seen.row;
    let size_bytes = row.file.size_bytes;
    let percent = words::percent(*here_bytes, size_bytes);
    let going = Going::of(seen, now);
    let (class, state) = state(going, size_bytes);
    html! {
        li class=(class) {
            div.who {
                bdi.file { (short_name(row.file.name.as_str())) }
                span.by { bdi { (row.owner) } " \u{b7} " code { (row.id.short()) } }
            }
            span.state { (state) }
            (bar(percent, &format!("{percent} % here")))
            div.how {
                span { (percent) " %" }
                span { (words::bytes(*here_bytes)) " of " (words::bytes(size_bytes)) }
                span { (words::span(now.since(row.created_at))) " old" }
            }
        }
    }
}

/// How an upload goes: its class, and in words.
fn state(going: Going, size_bytes: u64) -> (&'static str, String) {
    match going {
        Going::First => ("coming", "coming in".to_owned()),
        Going::Resumed(from) => {
            let percent = words::percent(from, size_bytes);
            ("resumed", format!("resumed at {percent} %"))
        }
        Going::Still(span) => ("stuck", format!("stuck for {}", words::span(span))),
        Going::BrokenOff(span) => ("broken", format!("broken off {} ago", words::span(span))),
    }
}

fn short_name(name: &str) -> String {
    let mut short: String = name.chars().take(NAME_CHARS_MAX).collect();
    if short.len() < name.len() {
        short.push('\u{2026}');
    }
    short
}

/// A bar that is full to `percent`.
pub(super) fn bar(percent: u64, label: &str) -> Markup {
    html! {
        svg.bar viewBox="0 0 100 1" preserveAspectRatio="none" role="img" aria-label=(label) {
            rect.room width="100" height="1" {}
            rect.full width=(percent.min(100)) height="1" {}
        }
    }
}
