//! Checks `[bans]`.

use super::{Checker, DAY, EVER, SECOND};
use crate::config::raw::RawBans;
use crate::core::bans::failures::FailureLimit;

/// Fewer failures may be those of several people behind one address.
const AFTER_FAILURES_USUAL_MIN: u64 = 10;

impl Checker {
    /// How many failures bring a ban; `None` is no number of them.
    pub(super) fn bans(&mut self, raw: &RawBans) -> Option<Option<FailureLimit>> {
        let key = "bans.after_failures";
        let after = self.number(key, raw.after_failures, 0..=1_000_000);
        let within = self.duration("bans.within", &raw.within, SECOND..=DAY);
        let ban_for = self.duration("bans.ban_for", &raw.ban_for, SECOND..=EVER);
        let after = after?;
        if (1..AFTER_FAILURES_USUAL_MIN).contains(&after) {
            let words = "a few failures ban everybody behind one address";
            self.warn(key, words);
        }
        let limit = FailureLimit {
            after: u32::try_from(after).ok()?,
            within: within?,
            ban_for: ban_for?,
        };
        Some((0 < after).then_some(limit))
    }
}
