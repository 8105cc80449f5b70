//! What an error of the upload service over XMPP means for the upload: stanza in, event out.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::line::AskError;
use super::plan::Event;
use super::show::size;
use super::stanzas::Refusal;

/// A service that wants to be asked later than this is told to have refused.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Conditions that say that the service, or the way to it, is not there just now.
const AWAY: [&str; 6] = [
    "service-unavailable",
    "recipient-unavailable",
    "remote-server-timeout",
    "remote-server-not-found",
    "internal-server-error",
    "undefined-condition",
];

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A slot.
    Slot,
    /// How a session is, or new credentials for it.
    Session,
}

/// What the error means at `now`.
pub fn read(asked: Asked, error: AskError, now: DateTime<Utc>) -> Event {
    let refusal = match error {
        AskError::Lost(words) => return trouble(words, None),
        AskError::LoginRefused(words) => return Event::Refused(words),
        AskError::Refused(refusal) => refusal,
    };
    if let Some(max) = refusal.size_bytes_max {
        let words = format!(
            "the file is larger than the service takes ({} at most)",
            size(max)
        );
        return Event::Refused(words);
    }
    let words = refusal.words();
    let wait = refusal.retry_at.as_deref().map(|stamp| until(stamp, now));
    match wait {
        Some(Some(wait)) if wait <= WAIT_MAX => return trouble(words, Some(wait)),
        Some(_) if asked == Asked::Slot => {
            let stamp = refusal.retry_at.unwrap_or_default();
            let stamp = crate::xmpp::client::shown(&stamp);
            return Event::Refused(format!("{words}; try again after {stamp}"));
        }
        Some(_) => return trouble(words, Some(WAIT_MAX)),
        None => {}
    }
    match (asked, refusal.condition.as_str()) {
        (_, condition) if AWAY.contains(&condition) => trouble(words, None),
        (Asked::Session, "resource-constraint") => trouble(words, None),
        (Asked::Session, "item-not-found" | "not-allowed" | "not-acceptable" | "gone") => {
            Event::Gone(words)
        }
        (Asked::Session, "feature-not-implemented") => Event::Gone(words),
        _ => Event::Refused(words),
    }
}

fn trouble(words: String, retry_after: Option<Duration>) -> Event {
    Event::Trouble { words, retry_after }
}

/// How long it is until a stamp as XEP-0082 writes it.
fn until(stamp: &str, now: DateTime<Utc>) -> Option<Duration> {
    let stamp = DateTime::parse_from_rfc3339(stamp).ok()?;
    let wait = stamp.signed_duration_since(now);
    Some(wait.to_std().unwrap_or(Duration::ZERO))
}

/// A refusal's words where it is told, and nothing else is to be done.
pub fn words(error: &AskError) -> String {
    match error {
        AskError::Lost(words) | AskError::LoginRefused(words) => words.clone(),
        AskError::Refused(refusal) => Refusal::words(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-01-01T00:00:00Z".parse().expect("a stamp")
    }

    fn event(asked: Asked, condition: &str, retry_at: Option<&str>) -> Event {
        let refusal = Refusal {
            condition: condition.to_owned(),
            retry_at: retry_at.map(str::to_owned),
            ..Refusal::default()
        };
        read(asked, AskError::Refused(refusal), now())
    }

    #[test]
    fn a_service_that_is_away_is_asked_again() {
        for asked in [Asked::Slot, Asked::Session] {
            for condition in AWAY {
                let event = event(asked, condition, None);
                assert!(matches!(event, Event::Trouble { .. }), "{condition}");
            }
            let lost = read(asked, AskError::Lost("x".to_owned()), now());
            assert!(matches!(lost, Event::Trouble { .. }));
            let refused = read(asked, AskError::LoginRefused("x".to_owned()), now());
            assert_eq!(refused, Event::Refused("x".to_owned()));
        }
    }

    #[test]
    fn a_session_that_is_no_more_is_gone() {
        for condition in ["item-not-found", "not-allowed", "not-acceptable"] {
            let gone = event(Asked::Session, condition, None);
            assert!(matches!(gone, Event::Gone(_)), "{condition}");
            let refused = event(Asked::Slot, condition, None);
            assert!(matches!(refused, Event::Refused(_)), "{condition}");
        }
        let forbidden = event(Asked::Session, "forbidden", None);
        assert!(matches!(forbidden, Event::Refused(_)));
    }

    #[test]
    fn a_near_time_is_waited_for_and_a_far_one_told() {
        let near = event(
            Asked::Slot,
            "resource-constraint",
            Some("2026-01-01T00:00:30Z"),
        );
        let retry_after = Some(Duration::from_secs(30));
        assert!(matches!(near, Event::Trouble { retry_after: told, .. } if told == retry_after));
        let far = event(
            Asked::Slot,
            "resource-constraint",
            Some("2026-01-02T00:00:00Z"),
        );
        let Event::Refused(words) = far else {
            panic!("{far:?}");
        };
        assert!(
            words.ends_with("try again after 2026-01-02T00:00:00Z"),
            "{words}"
        );
        for stamp in ["2026-01-02T00:00:00Z", "soon"] {
            let far = event(Asked::Session, "resource-constraint", Some(stamp));
            assert!(matches!(far, Event::Trouble { .. }), "{stamp}: {far:?}");
        }
    }

    #[test]
    fn the_largest_file_is_told() {
        let refusal = Refusal {
            condition: "not-acceptable".to_owned(),
            size_bytes_max: Some(1 << 20),
            ..Refusal::default()
        };
        let Event::Refused(words) = read(Asked::Slot, AskError::Refused(refusal), now()) else {
            panic!("not refused");
        };
        assert!(words.contains("1.0 MiB"), "{words}");
    }
}
