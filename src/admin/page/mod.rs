//! The status page: one page that a person reads at a glance, drawn here from a `Status`.
//!
//! It asks nobody else for anything and works without scripts; with them it is fetched again every
//! few seconds and its inside is put in place, so that nothing jumps. What it shows comes from
//! strangers too: every text is escaped by the template, and the policy of its content lets nothing
//! run or load but what is named by its digest.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::core::history::Span;
use crate::core::status::Status;

mod axis;
mod chart;
mod parts;
mod uploads;
mod words;

use chart::{DAY, HOUR, MEASURES, Period};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// How often a browser without scripts loads the page anew, in seconds.
const REFRESH_EVERY: u32 = 10;

/// The Content-Security-Policy of the page: its own style and script, and itself once more.
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            digest(STYLE),
            digest(SCRIPT)
        )
    });
    &POLICY
}

/// The page.
pub fn draw(status: &Status) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                noscript { meta http-equiv="refresh" content=(REFRESH_EVERY); }
                title { "slotd" }
                // Else the browser asks for one.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (inside(status)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn inside(status: &Status) -> Markup {
    html! {
        (header(status))
        (figures(status))
        (uploads::section(status.uploads.as_ref(), status.now))
        div.pair {
            (period(&HOUR, &status.hour))
            (period(&DAY, &status.day))
        }
        div.pair {
            (parts::storage(status.storage.as_ref()))
            (parts::health(&status.health))
        }
        (parts::acts(&status.acts))
    }
}

fn header(status: &Status) -> Markup {
    let is_well = status.health.iter().all(|part| part.is_well);
    let (class, words) = match (is_well, status.is_draining) {
        (false, _) => ("bad", "Something is not well"),
        (true, true) => ("drained", "No slots are given out"),
        (true, false) => ("good", "All is well"),
    };
    html! {
        header {
            h1 { "slotd" span.quiet { (env!("CARGO_PKG_VERSION")) } }
            p.standing.(class) { (words) }
            p.asof {
                "up " (words::span(status.uptime)) " \u{b7} as of "
                time datetime=(status.now.to_xep0082()) {
                    (words::date(status.now)) " " (words::second(status.now)) " UTC"
                }
                span #stale hidden { " \u{b7} no answer since" }
            }
        }
    }
}

/// What a glance shall tell.
fn figures(status: &Status) -> Markup {
    let free = match &status.storage {
        Some(storage) => words::bytes(storage.free.bytes),
        None => "?".to_owned(),
    };
    let n_active = match &status.uploads {
        Some(uploads) => words::count(uploads.n_active as u64),
        None => "?".to_owned(),
    };
    let figure = |name: &str, value: &str| {
        html! { div { dt { (name) } dd { (value) } } }
    };
    html! {
        dl.figures {
            (figure("Coming in now", &n_active))
            @for measure in &MEASURES[..2] {
                @let total = chart::total(measure, &status.hour);
                (figure(&format!("{}, last hour", measure.title), &measure.unit.words(total)))
            }
            (figure("Free on the disk", &free))
        }
    }
}

fn period(period: &Period, spans: &[Span]) -> Markup {
    let title = format!("{}-title", period.id);
    html! {
        section id=(period.id) aria-labelledby=(title) {
            h2 id=(title) { (period.title) span.quiet { "a bar is " (period.width) ", UTC" } }
            @for measure in &MEASURES { (chart::chart(measure, period, spans)) }
            (chart::table(period, spans))
        }
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
