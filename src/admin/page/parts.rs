//! The other sections: disk and quota, the health of streams and stores, operators' acts.

use maud::{Markup, html};

use crate::admin::page::uploads::bar;
use crate::admin::page::words;
use crate::core::history::Act;
use crate::core::status::{Health, Storage};

/// Disk and quota.
pub(super) fn storage(storage: Option<&Storage>) -> Markup {
    html! {
        section #storage aria-labelledby="storage-title" {
            h2 #storage-title { "Disk and quota" }
            @match storage {
                Some(storage) => (gauges(storage)),
                None => p.bad { "The store does not say what it holds; the log says why." },
            }
        }
    }
}

fn gauges(storage: &Storage) -> Markup {
    let bytes = words::bytes;
    let Storage {
        stored_bytes, free, ..
    } = *storage;
    let files = words::counted(storage.n_files, "file", "files");
    let on_disk = stored_bytes.saturating_add(free.bytes);
    let window = words::span(storage.window);
    html! {
        (gauge("Disk", &bytes(stored_bytes), Some((stored_bytes, on_disk)), html! {
            (files) "; " (bytes(free.bytes)) " and " (words::count(free.inodes))
            " inodes are free; " (bytes(storage.reserve.bytes)) " of it stay free"
        }))
        @let limit = storage.stored_bytes_max;
        (gauge("Files kept", &bytes(stored_bytes), limit.map(|it| (stored_bytes, it)), html! {
            @match limit {
                Some(limit) => { "of " (bytes(limit)) "; above it the oldest go" }
                None => "no limit but their time",
            }
        }))
        @let (used, quota) = (storage.used_bytes, storage.quota_bytes);
        (gauge("Quota of everybody", &bytes(used), quota.map(|it| (used, it)), html! {
            @match quota {
                Some(quota) => { "asked for within " (window) ", of " (bytes(quota)) }
                None => { "asked for within " (window) "; no limit for all together" }
            }
        }))
    }
}

/// A value, and how much of a whole it is where there is one.
fn gauge(name: &str, value: &str, share: Option<(u64, u64)>, words: Markup) -> Markup {
    html! {
        div.gauge {
            div.line { span.name { (name) } span.sum { (value) } }
            @if let Some((part, whole)) = share {
                @let percent = words::percent(part, whole);
                (bar(percent, &format!("{name}: {percent} %")))
            }
            p.quiet { (words) }
        }
    }
}

/// Streams and stores.
pub(super) fn health(health: &[Health]) -> Markup {
    html! {
        section #health aria-labelledby="health-title" {
            h2 #health-title { "Health" }
            ul.health {
                @for part in health {
                    li class=(if part.is_well { "good" } else { "bad" }) {
                        span.mark { (if part.is_well { "well" } else { "not well" }) }
                        div { bdi.name { (part.part) } p.quiet { (part.words) } }
                    }
                }
            }
        }
    }
}

/// Operators' acts.
pub(super) fn acts(acts: &[Act]) -> Markup {
    html! {
        section #acts aria-labelledby="acts-title" {
            h2 #acts-title { "Last acts of operators" }
            @if acts.is_empty() {
                p.quiet { "None is remembered." }
            } @else {
                ol.acts {
                    @for act in acts {
                        li {
                            time datetime=(act.at.to_xep0082()) {
                                (words::date(act.at)) " " (words::second(act.at))
                            }
                            div {
                                bdi.what { (act.what) }
                                @if !act.is_done { " " span.failed { "not done" } }
                                p.quiet { bdi { (act.by) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
