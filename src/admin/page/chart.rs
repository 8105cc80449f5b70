//! A picture of what happened, span by span: bars over a time axis, as SVG.
//!
//! Whoever cannot see it hears its title and its sums; each bar says its own value when pointed at.

use maud::{Markup, PreEscaped, html};

use crate::admin::page::axis::{Axis, Unit};
use crate::admin::page::words;
use crate::core::history::{Span, Tally};
use crate::core::time::Timestamp;

/// One of the four things that are counted.
pub(super) struct Measure {
    /// What it is called.
    pub(super) title: &'static str,
    /// The class by which it has its color.
    pub(super) class: &'static str,
    /// What it counts.
    pub(super) unit: Unit,
    /// Its value.
    pub(super) value: fn(&Tally) -> u64,
}

/// All that is counted.
pub(super) const MEASURES: [Measure; 4] = [
    Measure {
        title: "Uploads completed",
        class: "uploads",
        unit: Unit::Count,
        value: |tally| tally.uploads,
    },
    Measure {
        title: "Bytes received",
        class: "bytes",
        unit: Unit::Bytes,
        value: |tally| tally.bytes,
    },
    Measure {
        title: "Uploads resumed",
        class: "resumes",
        unit: Unit::Count,
        value: |tally| tally.resumes,
    },
    Measure {
        title: "Requests refused",
        class: "refusals",
        unit: Unit::Count,
        value: |tally| tally.refusals,
    },
];

/// The time axis of a picture.
pub(super) struct Period {
    /// What the names of its pictures begin with.
    pub(super) id: &'static str,
    /// What it is called.
    pub(super) title: &'static str,
    /// The width of a bar, in words.
    pub(super) width: &'static str,
    /// Seconds between marks on the axis.
    pub(super) mark_every: u64,
}

/// The last hour.
pub(super) const HOUR: Period = Period {
    id: "hour",
    title: "Last hour",
    width: "a minute",
    mark_every: 900,
};
/// The last day.
pub(super) const DAY: Period = Period {
    id: "day",
    title: "Last day",
    width: "a quarter of an hour",
    mark_every: 6 * 3600,
};

// The picture's own units; the page scales it to the room there is.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 136.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - BOTTOM;
/// What is not nothing shall be seen.
const BAR_MIN: f64 = 1.5;
/// A mark's words need so much room up to the right border.
const MARK_ROOM: f64 = 26.0;

/// The sum of a measure.
pub(super) fn total(measure: &Measure, spans: &[Span]) -> u64 {
    let values = spans.iter().map(|span| (measure.value)(&span.tally));
    values.fold(0, u64::saturating_add)
}

/// A measure over a period.
pub(super) fn chart(measure: &Measure, period: &Period, spans: &[Span]) -> Markup {
    let id = format!("{}-{}", period.id, measure.class);
    let total = measure.unit.words(total(measure, spans));
    html! {
        figure class=(measure.class) {
            figcaption {
                span.name { (measure.title) }
                span.sum { (total) }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                aria-labelledby=(format!("{id}-title {id}-desc")) {
                title id=(format!("{id}-title")) {
                    (measure.title) ", " (period.title) ", by " (period.width)
                }
                desc id=(format!("{id}-desc")) { (in_words(measure, spans, &total)) }
                (plot(measure, period, spans))
            }
        }
    }
}

/// What the picture shows, for who does not see it.
fn in_words(measure: &Measure, spans: &[Span], total: &str) -> String {
    let value = |span: &Span| (measure.value)(&span.tally);
    match spans.iter().max_by_key(|span| value(span)) {
        Some(peak) if value(peak) != 0 => format!(
            "{total} in all; most at {} UTC: {}",
            words::minute(peak.from),
            measure.unit.words(value(peak))
        ),
        _ => "Nothing".to_owned(),
    }
}

fn plot(measure: &Measure, period: &Period, spans: &[Span]) -> Markup {
    let value = |span: &Span| (measure.value)(&span.tally);
    let highest = spans.iter().map(value).max().unwrap_or(0);
    let axis = Axis::to(measure.unit, highest);
    let x = |index: usize| LEFT + PLOT_WIDTH * index as f64 / spans.len() as f64;
    let width = PLOT_WIDTH / spans.len().max(1) as f64;
    html! {
        g.grid aria-hidden="true" {
            @if highest != 0 {
                @for (share, label) in axis.lines() { (line(share, &label)) }
            } @else {
                (line(0.0, "0"))
                text.none x=(at(LEFT + PLOT_WIDTH / 2.0)) y=(at(TOP + PLOT_HEIGHT * 0.6)) { "none" }
            }
            @for (index, span) in spans.iter().enumerate() {
                @if is_mark(period, span.from) && x(index) < WIDTH - MARK_ROOM {
                    (mark(x(index), span.from))
                }
            }
        }
        g.bars {
            @for (index, span) in spans.iter().enumerate().filter(|(_, span)| value(span) != 0) {
                @let height = (axis.share(value(span)) * PLOT_HEIGHT).max(BAR_MIN);
                rect x=(at(x(index) + width * 0.1)) y=(at(TOP + PLOT_HEIGHT - height))
                    width=(at(width * 0.8)) height=(at(height)) {
                    title { (words::minute(span.from)) " UTC: " (measure.unit.words(value(span))) }
                }
            }
        }
    }
}

fn is_mark(period: &Period, from: Timestamp) -> bool {
    from.0.is_multiple_of(period.mark_every)
}

/// A line across, and its label.
fn line(share: f64, label: &str) -> Markup {
    let y = TOP + PLOT_HEIGHT * (1.0 - share);
    html! {
        line x1=(at(LEFT)) x2=(at(WIDTH - RIGHT)) y1=(at(y)) y2=(at(y)) {}
        text.y x=(at(LEFT - 8.0)) y=(at(y + 4.0)) { (label) }
    }
}

/// A mark on the time axis, and its time.
fn mark(x: f64, from: Timestamp) -> Markup {
    let bottom = TOP + PLOT_HEIGHT;
    html! {
        line x1=(at(x)) x2=(at(x)) y1=(at(bottom)) y2=(at(bottom + 4.0)) {}
        text.x x=(at(x)) y=(at(HEIGHT - 4.0)) { (words::minute(from)) }
    }
}

/// A coordinate: digits, a point and perhaps a sign, nothing to escape.
fn at(coordinate: f64) -> PreEscaped<String> {
    PreEscaped(format!("{coordinate:.1}"))
}

/// The same as numbers, for who cannot use pictures; spans in which nothing happened are left out.
pub(super) fn table(period: &Period, spans: &[Span]) -> Markup {
    let busy = spans.iter().rev();
    let busy: Vec<_> = busy.filter(|span| span.tally != Tally::default()).collect();
    html! {
        details id=(format!("{}-numbers", period.id)) {
            summary { "As numbers" }
            @if busy.is_empty() {
                p.quiet { "Nothing happened." }
            } @else {
                div.scroll {
                    table {
                        caption { (period.title) ", by " (period.width) ", times in UTC" }
                        thead {
                            tr {
                                th scope="col" { "From" }
                                @for measure in &MEASURES { th scope="col" { (measure.title) } }
                            }
                        }
                        tbody {
                            @for span in busy {
                                tr {
                                    th scope="row" { (words::minute(span.from)) }
                                    @for measure in &MEASURES {
                                        td { (measure.unit.words((measure.value)(&span.tally))) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
