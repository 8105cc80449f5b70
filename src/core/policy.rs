//! May this requester have this slot? Access, size, quota and room, in this order.
//!
//! Pure: what the store counted and what the disk has arrive as facts. Run inside the store's
//! transaction, so that two requests at once cannot both take the last bytes of a quota.

use std::collections::HashMap;
use std::time::Duration;

use jid::BareJid;

use crate::core::external::{Grant, stands_for};
use crate::core::orders::Said;
use crate::core::refusal::Refusal;
use crate::core::session::{FileFacts, Lifetimes, UploadSession};
use crate::core::slot::{ContentType, Purpose, SessionId, SlotId, SlotRequest};
use crate::core::time::Timestamp;

/// The quota's unit of time: uses are counted in whole hours.
pub const BUCKET: Duration = Duration::from_secs(3600);
/// When to ask again for a slot that the disk had no room for.
pub const STORAGE_RETRY_IN: Duration = Duration::from_secs(60);

/// The rules of slot requests. Part of the configuration, as core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who may ask.
    pub access: Access,
    /// The largest file, in bytes.
    pub size_bytes_max: u64,
    /// How many bytes may be asked for.
    pub quota: Quota,
    /// How many upload sessions of one account may be open.
    pub open_sessions_max: u32,
    /// Room that stays free on the disk.
    pub reserve: Room,
    /// How long things last.
    pub lifetimes: Lifetimes,
}

/// Who may ask for slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Domains whose accounts may.
    pub domains: Vec<String>,
    /// Accounts that may, whatever their domain.
    pub jids: Vec<BareJid>,
    /// Accounts and domains that may not, whatever else is said.
    pub deny: Vec<BareJid>,
}

impl Access {
    /// Refuses `NotAllowed` for who may not ask.
    ///
    /// A domain's own JID is nobody's account: it needs an entry in `jids`.
    pub fn check(&self, requester: &BareJid) -> Result<(), Refusal> {
        self.check_denied(requester)?;
        let domain = requester.domain().as_str();
        let named = self.jids.contains(requester);
        let of_domain = requester.node().is_some() && self.domains.iter().any(|d| d == domain);
        match named || of_domain {
            true => Ok(()),
            false => Err(Refusal::NotAllowed),
        }
    }

    /// Refuses `NotAllowed` for who is denied: whom another system lets in has to ask no more.
    pub fn check_denied(&self, owner: &BareJid) -> Result<(), Refusal> {
        let is_domain =
            |entry: &BareJid| entry.node().is_none() && entry.domain() == owner.domain();
        let is_owner = |entry: &BareJid| entry == owner || stands_for(owner, entry);
        match self.deny.iter().any(|jid| is_owner(jid) || is_domain(jid)) {
            true => Err(Refusal::NotAllowed),
            false => Ok(()),
        }
    }

    /// Refuses `NotAllowed` where whoever began an upload may upload no more.
    pub fn check_upload(&self, row: &UploadSession) -> Result<(), Refusal> {
        match row.agreement.is_external() {
            true => self.check_denied(&row.owner),
            false => self.check(&row.owner),
        }
    }
}

/// How many bytes may be asked for within `window`; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// By one account.
    pub per_requester: Option<u64>,
    /// By all accounts of one domain.
    pub per_domain: Option<u64>,
    /// By everybody.
    pub total: Option<u64>,
    /// How long an admitted byte counts.
    pub window: Duration,
    /// Other limits for single accounts (in place of `per_requester`) and domains (`per_domain`).
    pub exceptions: HashMap<BareJid, u64>,
}

impl Quota {
    /// How many bytes an account may ask for.
    pub fn of_requester(&self, requester: &BareJid, said: Said) -> Option<u64> {
        let exception = || self.exceptions.get(requester).copied();
        said.requester.or_else(exception).or(self.per_requester)
    }

    fn of_domain(&self, requester: &BareJid, said: Said) -> Option<u64> {
        let domain = BareJid::from_parts(None, requester.domain());
        let exception = || self.exceptions.get(&domain).copied();
        said.domain.or_else(exception).or(self.per_domain)
    }

    /// The first hour that still counts at `now`.
    pub fn since(&self, now: Timestamp) -> Bucket {
        Bucket::of(now.minus(self.window))
    }
}

/// An hour, counted from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u64);

impl Bucket {
    /// The hour that holds `at`.
    pub fn of(at: Timestamp) -> Self {
        Self(at.0 / BUCKET.as_secs())
    }

    /// The first instant after the hour.
    fn end(self) -> Timestamp {
        Timestamp((self.0 + 1) * BUCKET.as_secs())
    }
}

/// Admitted bytes of the hours that count, oldest first.
pub type Uses = Vec<(Bucket, u64)>;

/// What the store holds when a slot is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The requester's uses.
    pub requester: Uses,
    /// Their domain's.
    pub domain: Uses,
    /// Everybody's.
    pub total: Uses,
    /// The requester's open upload sessions, counted up to a hundred.
    pub n_open_sessions: usize,
}

/// No more open upload sessions are counted: the largest limit there can be.
pub const OPEN_SESSIONS_MAX: usize = 100;
/// When to ask again for a slot that there are too many open upload sessions for.
const SESSIONS_RETRY_IN: Duration = Duration::from_secs(60);

/// Free bytes and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Room {
    /// Whether a file of `size_bytes` fits, and `reserve` stays free.
    pub fn holds(self, size_bytes: u64, reserve: Self) -> bool {
        reserve.bytes.saturating_add(size_bytes) <= self.bytes && reserve.inodes < self.inodes
    }
}

/// What is known when a slot is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What was used since `policy.quota.since(now)`.
    pub usage: &'a Usage,
    /// What the disk has.
    pub free: Room,
    /// What operators said of the requester's quota.
    pub said: Said,
}

/// The names of what is admitted, made outside: `SlotId::new`, `SessionId::new`.
#[derive(Clone, Copy, Debug)]
pub struct NewIds {
    /// Of the slot.
    pub slot: SlotId,
    /// Of the upload session, where one is asked for.
    pub session: SessionId,
}

/// Refuses what needs no count: `NotAllowed`, `FileTooLarge`, `BadPurpose`.
pub fn screen(
    policy: &Policy,
    requester: &BareJid,
    request: &SlotRequest,
    now: Timestamp,
) -> Result<(), Refusal> {
    policy.access.check(requester)?;
    check_size(policy, request.size_bytes)?;
    match request.purpose {
        Purpose::Ephemeral { expire_before } if expire_before <= now => Err(Refusal::BadPurpose),
        _ => Ok(()),
    }
}

fn check_size(policy: &Policy, size_bytes: u64) -> Result<(), Refusal> {
    let size_bytes_max = policy.size_bytes_max;
    match size_bytes <= size_bytes_max {
        true => Ok(()),
        false => Err(Refusal::FileTooLarge { size_bytes_max }),
    }
}

/// Decides whether a screened request gets its slot.
///
/// Returns the row to keep: pending, generation 0. Refuses `QuotaReached` with the time at which
/// enough of the window has passed, `TooManySessions` and `StorageFull`. XEP-0363 #errors.
pub fn admit(
    policy: &Policy,
    requester: &BareJid,
    request: &SlotRequest,
    facts: Facts<'_>,
    ids: NewIds,
    now: Timestamp,
) -> Result<UploadSession, Refusal> {
    let size_bytes = request.size_bytes;
    let of_requester = policy.quota.of_requester(requester, facts.said);
    check_quotas(policy, (requester, of_requester), size_bytes, facts, now)?;
    let limit = policy.open_sessions_max;
    if request.session.is_some() && limit as usize <= facts.usage.n_open_sessions {
        let retry_at = now.plus(SESSIONS_RETRY_IN);
        return Err(Refusal::TooManySessions { limit, retry_at });
    }
    check_room(policy, size_bytes, facts.free, now)?;
    let file = FileFacts {
        name: request.filename.clone(),
        size_bytes,
        content_type: request
            .content_type
            .clone()
            .unwrap_or_else(ContentType::octet_stream),
        purpose: request.purpose,
    };
    let row = UploadSession::new(ids.slot, requester.clone(), file, &policy.lifetimes, now);
    Ok(match request.session {
        Some(wish) => row.announced(ids.session, wish.sha256),
        None => row,
    })
}

/// Refuses what another system let in and needs no count: `NotAllowed`, `FileTooLarge`.
pub fn screen_external(policy: &Policy, grant: &Grant) -> Result<(), Refusal> {
    policy.access.check_denied(&grant.owner)?;
    check_size(policy, grant.size_bytes)
}

/// Decides whether a screened upload that another system let in gets its row.
///
/// Quotas are those of slots; but where it is not known whose it is, accounts' own do not count.
/// Refuses `QuotaReached` and `StorageFull` as `admit` does.
pub fn admit_external(
    policy: &Policy,
    grant: &Grant,
    facts: Facts<'_>,
    now: Timestamp,
) -> Result<UploadSession, Refusal> {
    let (owner, size_bytes) = (&grant.owner, grant.size_bytes);
    let of_requester = policy.quota.of_requester(owner, facts.said);
    let of_requester = of_requester.filter(|_| owner.node().is_some());
    check_quotas(policy, (owner, of_requester), size_bytes, facts, now)?;
    check_room(policy, size_bytes, facts.free, now)?;
    let file = FileFacts {
        name: grant.name.clone(),
        size_bytes,
        content_type: grant.content_type.clone(),
        purpose: Purpose::Message,
    };
    let row = UploadSession::new(grant.id, owner.clone(), file, &policy.lifetimes, now);
    Ok(row.external())
}

fn check_room(policy: &Policy, size_bytes: u64, free: Room, now: Timestamp) -> Result<(), Refusal> {
    let retry_at = now.plus(STORAGE_RETRY_IN);
    match free.holds(size_bytes, policy.reserve) {
        true => Ok(()),
        false => Err(Refusal::StorageFull { retry_at }),
    }
}

/// Refuses `QuotaReached` where `requester`, whose own limit is given, their domain or all would
/// use too much.
fn check_quotas(
    policy: &Policy,
    (requester, limit): (&BareJid, Option<u64>),
    size_bytes: u64,
    Facts { usage, said, .. }: Facts<'_>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let quota = &policy.quota;
    for (limit, uses) in [
        (limit, &usage.requester),
        (quota.of_domain(requester, said), &usage.domain),
        (quota.total, &usage.total),
    ] {
        check_quota(limit, uses, size_bytes, quota.window, now)?;
    }
    Ok(())
}

/// Refuses `QuotaReached` where `size_bytes` more would pass `limit`.
fn check_quota(
    limit: Option<u64>,
    uses: &Uses,
    size_bytes: u64,
    window: Duration,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(limit) = limit else { return Ok(()) };
    let mut used_bytes = uses.iter().fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
    let fits = |used_bytes: u64| used_bytes.saturating_add(size_bytes) <= limit;
    if fits(used_bytes) {
        return Ok(());
    }
    // A file larger than the whole quota never fits: ask again when the window has passed.
    let mut retry_at = now.plus(window);
    for (bucket, n_bytes) in uses {
        used_bytes = used_bytes.saturating_sub(*n_bytes);
        if fits(used_bytes) {
            retry_at = bucket.end().plus(window);
            break;
        }
    }
    Err(Refusal::QuotaReached { retry_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::{Retention, State};
    use crate::core::slot::FileName;

    const NOW: Timestamp = Timestamp(3600 * 1000 + 1800);
    const DAY: Duration = Duration::from_secs(86_400);
    const FREE: Room = Room {
        bytes: 1 << 40,
        inodes: 1 << 20,
    };

    fn jid(text: &str) -> BareJid {
        BareJid::new(text).expect("a valid JID")
    }

    fn policy() -> Policy {
        Policy {
            access: Access {
                domains: vec!["example.org".to_owned()],
                jids: vec![jid("guest@example.com"), jid("bot.example.com")],
                deny: vec![jid("mallory@example.org"), jid("evil.example")],
            },
            size_bytes_max: 1000,
            quota: Quota {
                per_requester: Some(5000),
                per_domain: Some(8000),
                total: Some(20_000),
                window: DAY,
                exceptions: HashMap::from([(jid("vip@example.org"), 7000)]),
            },
            open_sessions_max: 20,
            reserve: Room {
                bytes: 100,
                inodes: 10,
            },
            lifetimes: Lifetimes {
                idle_for: Duration::from_secs(300),
                session_age: 3 * DAY,
                rufh_idle_for: Duration::from_secs(3600),
                refreshes_max: 10,
                retention: Retention::default(),
            },
        }
    }

    fn request(size_bytes: u64, purpose: Purpose) -> SlotRequest {
        SlotRequest {
            filename: FileName::parse("a.bin").expect("a valid name"),
            size_bytes,
            content_type: None,
            purpose,
            session: None,
        }
    }

    #[track_caller]
    fn check_access(requester: &str, allowed: bool) {
        let got = policy().access.check(&jid(requester)).is_ok();
        assert_eq!(got, allowed, "{requester}");
    }

    #[test]
    fn access_goes_by_account_and_domain() {
        check_access("romeo@example.org", true);
        check_access("guest@example.com", true);
        check_access("bot.example.com", true);
        check_access("other@example.com", false);
        check_access("mallory@example.org", false);
        check_access("romeo@evil.example", false);
        check_access("example.org", false);
        check_access("romeo@sub.example.org", false);
        check_access("romeo@example.org.evil", false);
    }

    #[test]
    fn screening() {
        let romeo = jid("romeo@example.org");
        let screen = |size_bytes, purpose| {
            screen(&policy(), &romeo, &request(size_bytes, purpose), NOW).err()
        };
        assert_eq!(screen(1000, Purpose::Message), None);
        let too_large = Refusal::FileTooLarge {
            size_bytes_max: 1000,
        };
        assert_eq!(screen(1001, Purpose::Message), Some(too_large));
        let over = Purpose::Ephemeral { expire_before: NOW };
        assert_eq!(screen(1, over), Some(Refusal::BadPurpose));
    }

    fn ask(requester: &str, usage: &Usage, free: Room) -> Result<UploadSession, Refusal> {
        ask_as(requester, usage, free, Said::default())
    }

    fn ask_as(
        requester: &str,
        usage: &Usage,
        free: Room,
        said: Said,
    ) -> Result<UploadSession, Refusal> {
        let request = request(1000, Purpose::Message);
        admit(
            &policy(),
            &jid(requester),
            &request,
            Facts { usage, free, said },
            NewIds {
                slot: SlotId(1),
                session: SessionId(2),
            },
            NOW,
        )
    }

    #[test]
    fn what_operators_said_comes_before_the_configuration() {
        let (hour, full) = (Bucket::of(NOW), u64::MAX / 2);
        let usage = Usage {
            requester: vec![(hour, full)],
            domain: vec![(hour, full)],
            ..Usage::default()
        };
        let ask = |requester, domain| {
            let said = Said { requester, domain };
            ask_as("romeo@example.org", &usage, FREE, said).is_ok()
        };
        assert!(ask(Some(u64::MAX), Some(u64::MAX)));
        assert!(!ask(Some(u64::MAX), Some(full)) && !ask(Some(full), Some(u64::MAX)));
        assert!(!ask(Some(0), Some(u64::MAX)));
    }

    #[test]
    fn a_slot_is_pending() {
        let row = ask("romeo@example.org", &Usage::default(), FREE).expect("admitted");
        assert_eq!((row.state, row.generation), (State::Pending, 0));
        assert_eq!(row.file.content_type, ContentType::octet_stream());
        assert_eq!(row.expires_at, NOW.plus(3 * DAY));
    }

    #[test]
    fn quotas_are_exact_and_tell_when() {
        let hour = Bucket::of(NOW);
        let uses = |n_bytes| vec![(Bucket(hour.0 - 2), 100), (hour, n_bytes)];
        let of_requester = |n_bytes| Usage {
            requester: uses(n_bytes),
            ..Usage::default()
        };
        assert!(ask("romeo@example.org", &of_requester(3900), FREE).is_ok());
        let refused = ask("romeo@example.org", &of_requester(3901), FREE);
        let retry_at = Bucket(hour.0 - 2).end().plus(DAY);
        assert_eq!(refused, Err(Refusal::QuotaReached { retry_at }));
        let refused = ask("romeo@example.org", &of_requester(4001), FREE);
        let retry_at = hour.end().plus(DAY);
        assert_eq!(refused, Err(Refusal::QuotaReached { retry_at }));
        assert!(ask("vip@example.org", &of_requester(5900), FREE).is_ok());
        let of_domain = Usage {
            domain: uses(6901),
            ..Usage::default()
        };
        assert!(ask("romeo@example.org", &of_domain, FREE).is_err());
        let total = Usage {
            total: uses(18_901),
            ..Usage::default()
        };
        assert!(ask("romeo@example.org", &total, FREE).is_err());
    }

    #[test]
    fn the_reserve_stays_free() {
        let full = Err(Refusal::StorageFull {
            retry_at: NOW.plus(STORAGE_RETRY_IN),
        });
        let with = |bytes, inodes| {
            ask(
                "romeo@example.org",
                &Usage::default(),
                Room { bytes, inodes },
            )
        };
        assert!(with(1100, 11).is_ok());
        assert_eq!(with(1099, 11), full);
        assert_eq!(with(1100, 10), full);
    }
}
