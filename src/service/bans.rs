//! Bans: who is turned away, whose failures count, and what is kept of it over a restart.
//!
//! Every request asks, so the answer for everybody else is a look at one number. Failures are
//! counted in memory. A ban holds from the moment it is made, and is written behind it, many in one
//! commit: whoever is banned waits for nobody, and nobody for them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jid::{BareJid, Jid};
use tracing::{error, info, warn};

use super::Service;
use super::upload::Credential;
use crate::core::bans::failures::Failures;
use crate::core::bans::table::{BANS_MAX, Bans, Full};
use crate::core::bans::{Ban, BanWish, By, Subject, locks_everybody_out};
use crate::core::command::bans::{BanChange, BanPage, BansFound};
use crate::core::command::fault::CommandFault;
use crate::core::command::form::Wrong;
use crate::core::command::operation::Outcome;
use crate::core::event::Event;
use crate::core::policy::Access;
use crate::core::refusal::Refusal;
use crate::core::time::Timestamp;
use crate::core::token;
use crate::store::StoreError;

/// Changes that wait for a store that fails; of more of those that attackers make the next start
/// does not know.
const UNWRITTEN_MAX: usize = 2 * BANS_MAX;

/// The bans in force, and the failures that may come to one.
#[derive(Default)]
pub(super) struct Gatekeeper {
    bans: RwLock<Bans>,
    /// How many networks, and how many accounts and domains are banned.
    n_networks: AtomicUsize,
    n_accounts: AtomicUsize,
    failures: Mutex<Failures>,
    /// Whose bans the store does not have as they are.
    unwritten: Mutex<HashSet<Subject>>,
    /// Held by who writes: of two at once the older could come last.
    turn: tokio::sync::Mutex<()>,
}

/// Why a ban was not made.
enum NotPut {
    /// The list is full of operators' bans.
    Full,
    /// Nobody could upload.
    LocksOut,
}

impl Gatekeeper {
    /// Changes bans, and notes whose have to be written.
    fn change<T>(&self, change: impl FnOnce(&mut Bans, &mut HashSet<Subject>) -> T) -> T {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut bans, &mut self.unwritten());
        let (n_networks, n_accounts) = bans.n();
        self.n_networks.store(n_networks, Ordering::Release);
        self.n_accounts.store(n_accounts, Ordering::Release);
        changed
    }

    fn look<T>(&self, look: impl FnOnce(&Bans) -> T) -> T {
        look(&self.bans.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn unwritten(&self) -> MutexGuard<'_, HashSet<Subject>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a ban, unless nobody who `access` lets in could upload then.
    fn put(&self, ban: Ban, access: &Access, now: Timestamp) -> Result<(), NotPut> {
        self.change(|bans, unwritten| {
            let is_banned =
                |subject: &Subject| *subject == ban.subject || bans.get(subject, now).is_some();
            let is_network = matches!(ban.subject, Subject::Network(_));
            if !is_network && locks_everybody_out(access, is_banned) {
                return Err(NotPut::LocksOut);
            }
            let (subject, by) = (ban.subject.clone(), ban.by.clone());
            let gone = bans.put(ban, now).map_err(|Full| NotPut::Full)?;
            if unwritten.len() < UNWRITTEN_MAX || by != By::Failures {
                unwritten.extend(gone);
                unwritten.insert(subject);
            }
            Ok(())
        })
    }

    fn remove(&self, subject: &Subject) -> Option<Ban> {
        self.change(|bans, unwritten| {
            let ban = bans.remove(subject)?;
            unwritten.insert(subject.clone());
            Some(ban)
        })
    }
}

impl Service {
    /// Refuses `Banned` for a banned address. Others cost a look at a number, as long as no address
    /// is banned.
    pub fn check_address(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        match address {
            Some(address) if self.bans.n_networks.load(Ordering::Acquire) != 0 => {
                let now = self.world.now();
                let until = |bans: &Bans| bans.of_address(address, now).map(|ban| ban.until);
                refuse(self.bans.look(until))
            }
            _ => Ok(()),
        }
    }

    /// Refuses `Banned` for an account that is banned, or whose domain is.
    pub fn check_account(&self, requester: &Jid) -> Result<(), Refusal> {
        if self.bans.n_accounts.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let now = self.world.now();
        let account = requester.to_bare();
        let until = |bans: &Bans| bans.of_account(&account, now).map(|ban| ban.until);
        refuse(self.bans.look(until))
    }

    /// Counts a refused request that wanted to write against its client, if its credential is a
    /// forgery.
    pub fn blame_address(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        credential: &Credential,
        refusal: &Refusal,
    ) {
        let keys = || self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_forged = match (credential, refusal) {
            (Credential::Put { token, .. }, Refusal::TokenInvalid) => {
                token::is_forged(&keys(), token)
            }
            (Credential::Resume(sealed), Refusal::UnknownFile) => {
                token::is_forged_resume(&keys(), sealed)
            }
            (Credential::External(it), Refusal::TokenRefused) => it.system.is_forged(&it.put),
            // It is good for ever, or was never good.
            (Credential::Deletion, Refusal::TokenRefused) => true,
            _ => false,
        };
        if let Some(client) = client.filter(|_| is_forged) {
            self.count_failure(Subject::of_address(client));
        }
    }

    /// Counts a refused request against the account that sent it, if no honest client sends such
    /// requests again and again.
    pub fn blame_account(self: &Arc<Self>, account: BareJid, refusal: &Refusal) {
        let counts = matches!(
            refusal,
            Refusal::SlotRateReached { .. } | Refusal::Command(CommandFault::NotOperator)
        );
        // Who may not upload gets nothing anyway, and can make up any number of names.
        if counts && self.settings().policy.access.check(&account).is_ok() {
            self.count_failure(Subject::Account(account));
        }
    }

    pub(super) fn count_failure(self: &Arc<Self>, subject: Subject) {
        let settings = self.settings();
        let policy = &settings.bans;
        let Some(limit) = &policy.failures else {
            return;
        };
        if policy.check(&subject).is_err() {
            return;
        }
        let uptime = Timestamp(self.uptime().as_secs());
        let failures = self.bans.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        if !failures.count(&subject, limit, uptime) {
            return;
        }
        drop(failures);
        let now = self.world.now();
        let ban = Ban::of_failures(subject, limit, now);
        let (who, ban_for) = (ban.subject.logged(settings.addresses), limit.ban_for);
        match self.bans.put(ban.clone(), &settings.policy.access, now) {
            Ok(()) => {
                info!(who, ?ban_for, failures = limit.after, "banned");
                self.tell_of(&ban);
            }
            Err(NotPut::LocksOut) => warn!(who, "not banned: nobody could upload then"),
            Err(NotPut::Full) => warn!(
                who,
                "not banned: the list of bans is full of operators' bans"
            ),
        }
        // Whoever asks has an answer already; what is written with another's finds nothing to do.
        let service = Arc::clone(self);
        tokio::spawn(async move { service.write_bans().await });
    }

    /// Bans somebody because an operator says so.
    pub(super) async fn ban(&self, wish: BanWish) -> Outcome {
        let (settings, now) = (self.settings(), self.world.now());
        let policy = &settings.bans;
        if let Err(wrong) = policy.check(&wish.subject) {
            return Outcome::Ban(Box::new(BanChange::Refused(wrong)), now);
        }
        let ban = Ban::of_operator(wish, now);
        let who = ban.subject.logged(settings.addresses);
        let wrong = match self.bans.put(ban.clone(), &settings.policy.access, now) {
            Ok(()) => None,
            Err(NotPut::LocksOut) => Some(format!(
                "{} cannot be banned: nobody could upload then",
                ban.subject
            )),
            Err(NotPut::Full) => {
                Some("The list of bans is full: end others first, or ban a network".to_owned())
            }
        };
        if let Some(words) = wrong {
            return Outcome::Ban(Box::new(BanChange::Refused(Wrong(words))), now);
        }
        let until = ban.until.map(Timestamp::to_xep0082);
        info!(who, by = %ban.by, until, reason = ban.reason, "banned");
        self.tell_of(&ban);
        let is_kept = self.write_bans().await;
        Outcome::Ban(Box::new(BanChange::Banned(ban, is_kept)), now)
    }

    /// Ends a ban.
    pub(super) async fn unban(&self, subject: &Subject, by: &BareJid) -> Outcome {
        let now = self.world.now();
        let ended = self.bans.remove(subject).filter(|ban| ban.is_in_force(now));
        let Some(ban) = ended else {
            return Outcome::Ban(Box::new(BanChange::NoBan(subject.clone())), now);
        };
        let who = subject.logged(self.settings().addresses);
        info!(who, %by, "unbanned");
        self.tell_of_end(&ban, Some(by));
        let is_kept = self.write_bans().await;
        Outcome::Ban(Box::new(BanChange::Unbanned(ban, is_kept)), now)
    }

    /// A page of the bans that are in force.
    pub(super) fn list_bans(&self, page: BanPage) -> Outcome {
        let now = self.world.now();
        let mut bans = self.bans.look(|bans| bans.list(now));
        bans.drain(..page.skip.min(bans.len()));
        let has_more = page.n_max < bans.len();
        bans.truncate(page.n_max);
        Outcome::Bans(BansFound { bans, has_more }, now)
    }

    /// Puts the bans of before the start in force again; but for those that the configuration does
    /// not allow any more.
    pub async fn load_bans(&self) -> Result<(), StoreError> {
        let now = self.world.now();
        let settings = self.settings.load_full();
        let policy = &settings.bans;
        for ban in self.stores.sessions.bans().await? {
            let who = ban.subject.logged(settings.addresses);
            let subject = ban.subject.clone();
            match policy.check(&subject) {
                Err(_) => {
                    warn!(
                        who,
                        "a ban is lifted: the configuration does not allow it any more"
                    );
                    self.bans.unwritten().insert(subject);
                }
                Ok(()) if self.bans.put(ban, &settings.policy.access, now).is_err() => {
                    warn!(
                        who,
                        "a ban is lifted: there are too many, or nobody could upload"
                    );
                    self.bans.unwritten().insert(subject);
                }
                // It is in the store as it is.
                Ok(()) => drop(self.bans.unwritten().remove(&subject)),
            }
        }
        let n_bans = self.bans.look(|bans| bans.list(now).len());
        if 0 < n_bans {
            info!(n_bans, "bans are in force");
        }
        Ok(())
    }

    /// Lifts the bans that other rules do not allow any more: of somebody who became an operator.
    pub fn lift_bans(&self) {
        let (settings, now) = (self.settings(), self.world.now());
        let policy = &settings.bans;
        let lifted = self.bans.change(|bans, unwritten| {
            let all = bans.list(now).into_iter();
            let wrong = all.filter(|ban| policy.check(&ban.subject).is_err());
            let lifted: Vec<_> = wrong.filter_map(|ban| bans.remove(&ban.subject)).collect();
            unwritten.extend(lifted.iter().map(|ban| ban.subject.clone()));
            lifted
        });
        for ban in lifted {
            let who = ban.subject.logged(settings.addresses);
            warn!(
                who,
                "a ban is lifted: the configuration does not allow it any more"
            );
            self.tell_of_end(&ban, None);
        }
    }

    /// Forgets the bans whose time is over, and writes what could not be written before.
    pub async fn end_bans(&self) {
        let now = self.world.now();
        let n_over = self.bans.look(|bans| bans.n_over(now));
        if 0 < n_over {
            let ended = self.bans.change(|bans, unwritten| {
                let ended = bans.end(now);
                let room = UNWRITTEN_MAX.saturating_sub(unwritten.len());
                let subjects = ended.iter().map(|ban| ban.subject.clone());
                unwritten.extend(subjects.take(room));
                ended
            });
            for ban in ended {
                let who = ban.subject.logged(self.settings().addresses);
                info!(who, "a ban is over");
                self.tell_of_end(&ban, None);
            }
        }
        self.write_bans().await;
    }

    fn tell_of(&self, ban: &Ban) {
        self.tell(Event::Banned {
            whom: &ban.subject.to_string(),
            by: match &ban.by {
                By::Failures => None,
                By::Operator(account) => Some(account),
            },
            reason: &ban.reason,
            until: ban.until,
        });
    }

    fn tell_of_end(&self, ban: &Ban, by: Option<&BareJid>) {
        let whom = &ban.subject.to_string();
        self.tell(Event::Unbanned { whom, by });
    }

    /// Writes what is not written yet; whether all is.
    async fn write_bans(&self) -> bool {
        let _turn = self.bans.turn.lock().await;
        let subjects = std::mem::take(&mut *self.bans.unwritten());
        if subjects.is_empty() {
            return true;
        }
        let now = self.world.now();
        let changes = self.bans.look(|bans| {
            let change = |subject: &Subject| (subject.clone(), bans.get(subject, now).cloned());
            subjects.iter().map(change).collect()
        });
        match self.stores.sessions.keep_bans(changes).await {
            Ok(()) => true,
            Err(e) => {
                error!(error = %e, "could not write bans down; they hold, and it is tried again");
                self.bans.unwritten().extend(subjects);
                false
            }
        }
    }
}

fn refuse(until: Option<Option<Timestamp>>) -> Result<(), Refusal> {
    match until {
        Some(until) => Err(Refusal::Banned { until }),
        None => Ok(()),
    }
}
