//! Any sequence of calls: what may never happen to an upload session, never does.

#[cfg(test)]
use proptest::prelude::*;

use crate::core::refusal::Refusal;
use crate::core::session::samples::{
    SIZE, START, announced, juliet, lifetimes, part, pending, plain, romeo,
};
use crate::core::session::{FailReason, State, UploadSession};
use crate::core::slot::{Purpose, Sha256};
use crate::core::time::Timestamp;
use crate::core::token::{Claims, ResumeClaims};

/// One call; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Call {
    Begin {
        generation: u8,
    },
    Append {
        generation: u8,
        offset: u64,
    },
    HoldBack,
    Resumable,
    Progress {
        generation: u8,
        attempt: u16,
        offset: u64,
    },
    Vouch {
        generation: u8,
        attempt: u16,
        offset: u64,
    },
    Settle {
        attempt: u16,
        offset: u64,
    },
    End {
        attempt: u16,
        offset: u64,
    },
    Complete {
        generation: u8,
        attempt: u16,
    },
    Reject {
        generation: u8,
        attempt: u16,
        offset: u64,
    },
    Refresh {
        is_owner: bool,
    },
    Cancel {
        is_owner: bool,
    },
    CancelByUrl {
        generation: u8,
    },
    Sweep,
    Pass {
        seconds: u64,
    },
}

fn calls() -> impl Strategy<Value = Call> {
    let generation = 0..4u8;
    let attempt = 0..5u16;
    let offset = prop_oneof![0..=SIZE, Just(SIZE), Just(0)];
    let writer = (generation.clone(), attempt.clone(), offset.clone());
    prop_oneof![
        4 => generation.clone().prop_map(|generation| Call::Begin { generation }),
        4 => (generation.clone(), offset.clone())
            .prop_map(|(generation, offset)| Call::Append { generation, offset }),
        1 => Just(Call::HoldBack),
        1 => Just(Call::Resumable),
        4 => writer.clone().prop_map(|(generation, attempt, offset)| Call::Progress {
            generation, attempt, offset
        }),
        1 => writer.clone().prop_map(|(generation, attempt, offset)| Call::Vouch {
            generation, attempt, offset
        }),
        2 => (attempt.clone(), offset.clone())
            .prop_map(|(attempt, offset)| Call::Settle { attempt, offset }),
        2 => (attempt.clone(), offset).prop_map(|(attempt, offset)| Call::End { attempt, offset }),
        1 => (generation.clone(), attempt)
            .prop_map(|(generation, attempt)| Call::Complete { generation, attempt }),
        1 => writer.prop_map(|(generation, attempt, offset)| Call::Reject {
            generation, attempt, offset
        }),
        2 => any::<bool>().prop_map(|is_owner| Call::Refresh { is_owner }),
        1 => any::<bool>().prop_map(|is_owner| Call::Cancel { is_owner }),
        1 => generation.prop_map(|generation| Call::CancelByUrl { generation }),
        1 => Just(Call::Sweep),
        2 => prop_oneof![0..10u64, 200..400u64, 259_000..260_000u64]
            .prop_map(|seconds| Call::Pass { seconds }),
    ]
}

fn who(is_owner: bool) -> jid::BareJid {
    if is_owner { romeo() } else { juliet() }
}

fn settled(mut row: UploadSession, attempt: u16, offset: u64, now: Timestamp) -> UploadSession {
    row.settle(part(attempt), offset, now);
    row
}

fn ended(mut row: UploadSession, attempt: u16, offset: u64, now: Timestamp) -> UploadSession {
    row.end_attempt(part(attempt), offset, now);
    row
}

/// The row after a call, or why not.
fn make(row: UploadSession, call: &Call, now: Timestamp) -> Result<UploadSession, Refusal> {
    let put = |generation| Claims {
        generation,
        issued_at: START,
        ..row.put_claims()
    };
    let resume = |generation| ResumeClaims {
        generation,
        ..row.resume_claims()
    };
    match *call {
        Call::Begin { generation } => {
            let claims = put(generation);
            row.begin(&claims, now)
        }
        Call::Append { generation, offset } => {
            // Half of them where they belong.
            let offset = if offset % 2 == 0 {
                row.offset()
            } else {
                offset
            };
            let claims = resume(generation);
            row.append(claims, offset, now)
        }
        Call::HoldBack => Ok(row.hold_back()),
        Call::Resumable => Ok(row.resumable(&lifetimes())),
        Call::Progress {
            generation,
            attempt,
            offset,
        } => row.progress(generation, part(attempt), offset, now),
        Call::Vouch {
            generation,
            attempt,
            offset,
        } => row.vouch(generation, part(attempt), offset, now),
        Call::Settle { attempt, offset } => Ok(settled(row, attempt, offset, now)),
        Call::End { attempt, offset } => Ok(ended(row, attempt, offset, now)),
        Call::Complete {
            generation,
            attempt,
        } => row.complete(
            generation,
            part(attempt),
            Sha256([9; 32]),
            &lifetimes(),
            now,
        ),
        Call::Reject {
            generation,
            attempt,
            offset,
        } => {
            let reason = FailReason::DigestMismatch;
            row.reject(generation, (part(attempt), offset), reason, now)
        }
        Call::Refresh { is_owner } => row.refresh(&who(is_owner), &lifetimes(), now),
        Call::Cancel { is_owner } => row.cancel(&who(is_owner), now),
        Call::CancelByUrl { generation } => {
            let claims = resume(generation);
            row.cancel_by_url(claims, now)
        }
        Call::Sweep => Ok(match row.sweep(now) {
            super::end::Sweep::Expire => row.expire(),
            _ => row,
        }),
        Call::Pass { .. } => Ok(row),
    }
}

fn check(before: &UploadSession, call: &Call, after: &UploadSession) -> Result<(), TestCaseError> {
    let is_reset = matches!(call, Call::Reject { .. }) && before.session_id().is_none();
    if after.is_open() && !is_reset {
        prop_assert!(before.offset() <= after.offset(), "the offset went back");
    }
    prop_assert!(after.offset() <= SIZE);
    prop_assert!(before.generation <= after.generation);
    prop_assert!(before.n_attempts <= after.n_attempts);
    prop_assert!(
        before.is_open() || after.state == before.state,
        "it came back"
    );
    if let State::Complete { .. } = before.state {
        let same = UploadSession {
            replays: before.replays,
            is_presented: before.is_presented,
            ..after.clone()
        };
        prop_assert_eq!(&same, before);
    }
    let writer = match *call {
        Call::Progress {
            generation,
            attempt,
            ..
        }
        | Call::Vouch {
            generation,
            attempt,
            ..
        }
        | Call::Complete {
            generation,
            attempt,
        }
        | Call::Reject {
            generation,
            attempt,
            ..
        } => Some((generation, attempt)),
        _ => None,
    };
    if let Some((generation, attempt)) = writer {
        // It was not refused: so it was the newest of the current generation.
        prop_assert_eq!(generation, before.generation);
        prop_assert_eq!(before.newest.map(|(newest, _)| newest), Some(part(attempt)));
    }
    let is_new = after.newest != before.newest && after.newest.is_some();
    if let (true, Some((newest, 0))) = (is_new, after.newest) {
        prop_assert_eq!(newest.attempt, before.n_attempts, "a number was used again");
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_calls_break_the_invariants(
        calls in prop::collection::vec(calls(), 1..60),
        kind in 0..3u8,
    ) {
        let mut row = match kind {
            0 => plain(),
            1 => announced(),
            _ => pending(Purpose::Ephemeral { expire_before: Timestamp(START.0 + 1000) }),
        };
        let mut now = START;
        for call in &calls {
            if let Call::Pass { seconds } = call {
                now = Timestamp(now.0 + seconds);
            }
            if let Ok(after) = make(row.clone(), call, now) {
                check(&row, call, &after)?;
                row = after;
            }
        }
    }
}
