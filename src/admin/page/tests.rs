//! The page as text: pictures within their borders, and nothing alive that a stranger put there.

use minidom::Element;

use super::samples::{NOW, busy, history, idle, upload};
use super::*;
use crate::core::history::{Act, History, Tally};
use crate::core::status::{Upload, Uploads};

const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u{202e}";

/// All SVG images of a page.
fn pictures(page: &str) -> Vec<Element> {
    let starts = page.match_indices("<svg ").map(|(at, _)| at);
    let picture = |start: usize| {
        let end = page[start..].find("</svg>").expect("an end");
        let svg = page[start..start + end].replacen("<svg ", "<svg xmlns='svg' ", 1);
        let svg = format!("{svg}</svg>");
        svg.parse().unwrap_or_else(|e| panic!("{e}: {svg}"))
    };
    starts.map(picture).collect()
}

/// All elements of a name in a picture.
fn find<'a>(picture: &'a Element, name: &str) -> Vec<&'a Element> {
    let mut found = Vec::new();
    for child in picture.children() {
        if child.name() == name {
            found.push(child);
        }
        found.extend(find(child, name));
    }
    found
}

fn number(element: &Element, name: &str) -> f64 {
    let value = element.attr(name).unwrap_or("0");
    value.parse().unwrap_or_else(|_| panic!("{name}={value}"))
}

/// A page whose only event is `tally`, now.
fn page_of(tally: Tally) -> String {
    let mut history = History::default();
    history.note(tally, NOW);
    draw(&Status {
        hour: history.hour(NOW),
        day: history.day(NOW),
        ..busy()
    })
}

fn all(value: u64) -> Tally {
    Tally {
        uploads: value,
        bytes: value,
        resumes: value,
        refusals: value,
    }
}

#[test]
fn pictures_stay_within_their_borders() {
    let pages = [0, 1, 999, u64::MAX].map(|value| page_of(all(value)));
    for page in pages.into_iter().chain([draw(&busy()), draw(&idle())]) {
        let pictures = pictures(&page);
        assert!(8 <= pictures.len());
        for picture in &pictures {
            let view: Vec<f64> = picture.attr("viewBox").map_or(Vec::new(), |view| {
                view.split(' ')
                    .filter_map(|part| part.parse().ok())
                    .collect()
            });
            let [_, _, width, height] = view[..] else {
                panic!("{view:?}");
            };
            for rect in find(picture, "rect") {
                let [x, y] = ["x", "y"].map(|name| number(rect, name));
                assert!(0.0 <= x && x + number(rect, "width") <= width);
                assert!(0.0 <= y && y + number(rect, "height") <= height + 0.1);
            }
            for text in find(picture, "text") {
                let (x, y) = (number(text, "x"), number(text, "y"));
                assert!(0.0 < x && x < width && 0.0 < y && y < height);
            }
        }
    }
}

#[test]
fn a_bar_is_as_high_as_its_value() {
    let mut history = History::default();
    for (minutes_ago, uploads) in [(2, 50), (1, 100), (0, 1)] {
        let at = NOW.minus(std::time::Duration::from_secs(60 * minutes_ago));
        history.note(Tally { uploads, ..all(0) }, at);
    }
    let spans = history.hour(NOW);
    let drawn = chart::chart(&MEASURES[0], &HOUR, &spans).into_string();
    let picture = &pictures(&drawn)[0];
    let bars = find(picture, "rect");
    let heights: Vec<f64> = bars.iter().map(|bar| number(bar, "height")).collect();
    assert_eq!(heights, [49.0, 98.0, 1.5]);
    let said: Vec<_> = bars.iter().map(|bar| bar.children().next()).collect();
    let said: Vec<_> = said.into_iter().flatten().map(Element::text).collect();
    assert_eq!(said, ["14:33 UTC: 50", "14:34 UTC: 100", "14:35 UTC: 1"]);
    let desc = find(picture, "desc")[0].text();
    assert_eq!(desc, "151 in all; most at 14:34 UTC: 100");
    let labels = find(picture, "text");
    let labels: Vec<_> = labels.iter().map(|label| label.text()).collect();
    assert_eq!(
        labels,
        ["0", "50", "100", "13:45", "14:00", "14:15", "14:30"]
    );
}

#[test]
fn every_picture_has_words() {
    let page = draw(&busy());
    for picture in pictures(&page) {
        assert_eq!(picture.attr("role"), Some("img"));
        let Some(ids) = picture.attr("aria-labelledby") else {
            assert!(
                picture
                    .attr("aria-label")
                    .is_some_and(|label| !label.is_empty())
            );
            continue;
        };
        for id in ids.split(' ') {
            assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
        }
    }
    // And the numbers themselves, without those in which nothing happened.
    assert_eq!(page.matches("<th scope=\"row\">").count(), 60 + 96);
    assert!(!draw(&idle()).contains("<th scope=\"row\">"));
}

#[test]
fn strangers_write_text_and_nothing_else() {
    let mut status = busy();
    let name = HOSTILE.replace('/', "");
    status.uploads = Some(Uploads {
        shown: vec![upload(&name, 1, 2, 0, 0)],
        ..Uploads::default()
    });
    status.health[0].part = HOSTILE.to_owned();
    status.health[0].words = HOSTILE.to_owned();
    status.acts = vec![Act {
        at: NOW,
        by: HOSTILE.to_owned(),
        what: HOSTILE.to_owned(),
        is_done: true,
    }];
    let page = draw(&status);
    assert!(5 <= page.matches("&lt;script&gt;alert(1)").count());
    assert!(page.contains("&amp;amp;"));
    assert!(!page.contains("<img") && !page.contains("<script>alert"));
    assert_eq!(page.matches("<script").count(), 1);
    // What turns the direction of text around is shut in with it.
    assert!(page.contains("<bdi class=\"file\">&quot;"));
}

#[test]
fn no_link_and_no_whole_id_is_shown() {
    let status = busy();
    let page = draw(&status);
    for Upload { seen, .. } in &status.uploads.expect("some").shown {
        assert!(page.contains(&seen.row.id.short()));
        assert!(!page.contains(&seen.row.id.to_string()));
    }
    assert!(!page.contains("://") && !page.contains("<a "));
}

#[test]
fn the_policy_names_what_the_page_runs_and_nothing_else_runs() {
    let page = draw(&busy());
    for (open, close) in [("<style>", "</style>"), ("<script>", "</script>")] {
        let (_, rest) = page.split_once(open).expect("one");
        let (text, rest) = rest.split_once(close).expect("its end");
        assert!(!rest.contains(open));
        let digest = STANDARD.encode(Sha256::digest(text));
        assert!(policy().contains(&format!("'sha256-{digest}'")));
    }
    assert!(policy().starts_with("default-src 'none';"));
    assert!(policy().contains("frame-ancestors 'none'"));
    assert!(!page.contains(" style=") && !page.contains(" onclick="));
}

#[test]
fn uploads_show_how_they_go() {
    let page = draw(&busy());
    for words in [
        ">44 %<",
        "310.0 MiB of 700.0 MiB",
        "resumed at 50 %",
        "stuck for 42 s",
        "broken off 3 min 10 s ago",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let widths: Vec<_> = pictures(&page)[..4]
        .iter()
        .map(|bar| number(find(bar, "rect")[1], "width"))
        .collect();
    assert_eq!(widths, [44.0, 75.0, 50.0, 21.0]);
}

#[test]
fn what_is_not_well_stands_at_the_top() {
    let head = |status: &Status| {
        let page = draw(status);
        let (_, rest) = page.split_once("<p class=\"standing ").expect("a standing");
        rest.split_once("</p>").expect("its end").0.to_owned()
    };
    let mut status = busy();
    assert_eq!(head(&status), "good\">All is well");
    status.is_draining = true;
    assert_eq!(head(&status), "drained\">No slots are given out");
    status.health[1].is_well = false;
    assert_eq!(head(&status), "bad\">Something is not well");
}

#[test]
fn a_day_that_was_kept_is_the_same_day() {
    let restored = History::restore(history().kept());
    let status = Status {
        hour: restored.hour(NOW),
        day: restored.day(NOW),
        ..busy()
    };
    assert_eq!(draw(&status), draw(&busy()));
}
