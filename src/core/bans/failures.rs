//! How often somebody failed lately: a count each, in a table of bounded size.
//!
//! In memory alone: whoever fails must not cause a write, and a restart that forgives some failures
//! harms nobody.

use std::collections::HashMap;
use std::time::Duration;

use super::Subject;
use crate::core::time::Timestamp;

/// Counts kept; when there are as many, the oldest quarter goes.
pub const FAILURES_MAX: usize = 20_000;

/// How many failures bring a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureLimit {
    /// So many; at least 1.
    pub after: u32,
    /// Within this time of the first.
    pub within: Duration,
    /// How long the ban holds.
    pub ban_for: Duration,
}

/// The failures of everybody.
#[derive(Debug, Default)]
pub struct Failures {
    counts: HashMap<Subject, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    n: u32,
    first_at: Timestamp,
    last_at: Timestamp,
}

impl Failures {
    /// Counts a failure; tells whether it was one too many, and then begins anew. `now` goes by a
    /// clock that nobody sets.
    pub fn count(&mut self, subject: &Subject, limit: &FailureLimit, now: Timestamp) -> bool {
        let begun = Count {
            n: 1,
            first_at: now,
            last_at: now,
        };
        let counted = match self.counts.get_mut(subject) {
            Some(count) if now < count.first_at.plus(limit.within) => {
                let is_account = matches!(subject, Subject::Account(_));
                if !is_account || count.last_at != now {
                    count.n += 1;
                    count.last_at = now;
                }
                *count
            }
            Some(count) => {
                *count = begun;
                begun
            }
            None => {
                self.make_room(limit, now);
                self.counts.insert(subject.clone(), begun);
                begun
            }
        };
        let is_too_many = limit.after <= counted.n;
        if is_too_many {
            self.counts.remove(subject);
        }
        is_too_many
    }

    /// Forgets the oldest counts where there are too many.
    fn make_room(&mut self, limit: &FailureLimit, now: Timestamp) {
        if self.counts.len() < FAILURES_MAX {
            return;
        }
        let mut begun: Vec<_> = self.counts.values().map(|count| count.first_at).collect();
        begun.sort_unstable();
        // All that began with the last of the quarter go too: they are one second's.
        let quarter = begun.get(FAILURES_MAX / 4).copied().unwrap_or(now);
        self.counts
            .retain(|_, count| quarter < count.first_at && now < count.first_at.plus(limit.within));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: FailureLimit = FailureLimit {
        after: 3,
        within: Duration::from_secs(60),
        ban_for: Duration::from_secs(600),
    };

    fn subject(text: &str) -> Subject {
        Subject::parse(text).expect("somebody")
    }

    /// Which of the failures at these times bring a ban.
    fn bans(who: &str, times: &[u64]) -> Vec<bool> {
        let mut failures = Failures::default();
        let count = |at: &u64| failures.count(&subject(who), &LIMIT, Timestamp(*at));
        times.iter().map(count).collect()
    }

    #[test]
    fn the_third_within_a_minute() {
        assert_eq!(
            bans("192.0.2.7", &[5, 5, 5, 5]),
            [false, false, true, false]
        );
        assert_eq!(bans("192.0.2.7", &[5, 30, 64]), [false, false, true]);
        assert_eq!(bans("192.0.2.7", &[5, 30, 65, 66]), [false; 4]);
    }

    #[test]
    fn an_accounts_burst_is_one_failure() {
        let at = [5, 5, 5, 5, 5, 6, 6, 7];
        let expected = [false, false, false, false, false, false, false, true];
        assert_eq!(bans("romeo@example.org", &at), expected);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_go_first() {
        let mut failures = Failures::default();
        let who = |n: u32| Subject::of_address(std::net::Ipv4Addr::from_bits(n).into());
        let n_max = FAILURES_MAX as u32;
        for n in 0..n_max {
            // A thousand in each second.
            failures.count(&who(n), &LIMIT, Timestamp(u64::from(n / 1000)));
        }
        assert_eq!(failures.counts.len(), FAILURES_MAX);
        failures.count(&who(n_max), &LIMIT, Timestamp(20));
        assert!(failures.counts.len() < FAILURES_MAX);
        assert!(!failures.counts.contains_key(&who(0)));
        assert!(failures.counts.contains_key(&who(n_max - 1)));
        assert!(failures.counts.contains_key(&who(n_max)));
    }

    proptest::proptest! {
        /// A ban comes with as many failures within the time as it takes, and none comes without.
        #[test]
        fn no_ban_without_as_many_failures(
            steps in proptest::collection::vec((0u64..40, 0u8..3), 0..60),
        ) {
            let mut failures = Failures::default();
            let who = ["192.0.2.7", "192.0.2.8", "2001:db8::1"].map(subject);
            let mut seen: [Vec<u64>; 3] = Default::default();
            let mut now = 0;
            for (pause, n) in steps {
                now += pause;
                let n = usize::from(n);
                seen[n].push(now);
                let is_banned = failures.count(&who[n], &LIMIT, Timestamp(now));
                let lately = seen[n].iter().filter(|at| now - **at < 60).count();
                proptest::prop_assert!(!is_banned || LIMIT.after as usize <= lately);
                if is_banned {
                    seen[n].clear();
                }
            }
        }
    }
}
