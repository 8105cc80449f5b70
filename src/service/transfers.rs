//! Who is writing to which slot on this node, and how a newer request cuts an older one.
//!
//! The newest request of a slot wins at once: it cuts the one before it and waits until that one's
//! last byte is durable and noted. So at most one holder of a slot acts at any time, in the order
//! of arrival, and the sweep is a holder like any other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::core::refusal::Refusal;
use crate::core::slot::SlotId;
use crate::core::time::Timestamp;

/// The slots that are being written to.
#[derive(Default)]
pub(super) struct Transfers {
    // A std Mutex: it is held for map look-ups only, never across an await.
    live: Mutex<Live>,
    /// Turns true when nobody may begin any more.
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Live {
    by_slot: HashMap<SlotId, Holder>,
    n_begun: u64,
    is_stopping: bool,
}

/// What others know of a transfer.
struct Holder {
    serial: u64,
    cut: watch::Sender<bool>,
    /// Closes when the transfer has ended.
    ended: watch::Receiver<()>,
    seen: Arc<watch::Sender<Seen>>,
}

/// What came in so far; handed on from holder to holder, so that a take-over forgets nothing.
#[derive(Clone, Copy, Default)]
struct Seen {
    last_byte_at: Timestamp,
    /// The holder that takes bytes in.
    writer: Option<u64>,
    /// How many bytes the writer took in, durable or not.
    received: u64,
    /// How many bytes are durable, once a holder has looked.
    durable: Option<u64>,
}

/// The right to write to a slot, until dropped.
pub(super) struct Transfer {
    transfers: Arc<Transfers>,
    id: SlotId,
    serial: u64,
    cut: watch::Receiver<bool>,
    seen: Arc<watch::Sender<Seen>>,
    /// Dropped last: tells the next holder that this one has ended.
    _ended: watch::Sender<()>,
}

impl Transfers {
    /// Takes the slot over: cuts its holder, waits for it to end, and holds the slot.
    ///
    /// Refuses `TakenOver` where a newer request came meanwhile, `Stopping` after `stop`.
    pub(super) async fn begin(self: &Arc<Self>, id: SlotId) -> Result<Transfer, Refusal> {
        let transfer = self.take_turn(id).await?;
        match (transfer.is_cut(), self.is_stopping()) {
            (false, _) => Ok(transfer),
            (true, false) => Err(Refusal::TakenOver),
            (true, true) => Err(Refusal::Stopping),
        }
    }

    /// The same for what is short and has to be done, whoever waits behind it. Refuses `Stopping`.
    pub(super) async fn take_turn(self: &Arc<Self>, id: SlotId) -> Result<Transfer, Refusal> {
        let (transfer, older) = self.register(id)?;
        let Some(mut older) = older else {
            return Ok(transfer);
        };
        // A holder that has just ended has dropped its receiver.
        let _ = older.cut.send(true);
        // Waited for even when cut, and in a task of its own, since whoever asks may go away: the
        // next holder relies on all earlier ones having ended.
        let turn = tokio::spawn(async move {
            while older.ended.changed().await.is_ok() {}
            transfer
        });
        turn.await.map_err(|_| Refusal::Stopping)
    }

    /// Holds the slot if nobody does: for the sweep.
    pub(super) fn try_hold(self: &Arc<Self>, id: SlotId) -> Option<Transfer> {
        let mut live = self.lock();
        // Looked at and held under one lock: whoever began in between would be thrown out.
        if live.is_stopping || live.by_slot.contains_key(&id) {
            return None;
        }
        Some(self.hold(&mut live, id).0)
    }

    /// Holds the slot, and returns its holder so far, who has to be cut.
    fn register(self: &Arc<Self>, id: SlotId) -> Result<(Transfer, Option<Holder>), Refusal> {
        let mut live = self.lock();
        if live.is_stopping {
            return Err(Refusal::Stopping);
        }
        Ok(self.hold(&mut live, id))
    }

    fn hold(self: &Arc<Self>, live: &mut Live, id: SlotId) -> (Transfer, Option<Holder>) {
        live.n_begun += 1;
        let serial = live.n_begun;
        let (cut_sender, cut) = watch::channel(false);
        let (ended_sender, ended) = watch::channel(());
        let older = live.by_slot.get(&id).map(|older| older.seen.clone());
        let seen = older.unwrap_or_else(|| Arc::new(watch::Sender::default()));
        let holder = Holder {
            serial,
            cut: cut_sender,
            ended,
            seen: seen.clone(),
        };
        let older = live.by_slot.insert(id, holder);
        let transfer = Transfer {
            transfers: self.clone(),
            id,
            serial,
            cut,
            seen,
            _ended: ended_sender,
        };
        (transfer, older)
    }

    /// When the slot's holder got its last byte, if anybody holds it.
    pub(super) fn last_byte_at(&self, id: SlotId) -> Option<Timestamp> {
        self.seen(id).map(|seen| seen.last_byte_at)
    }

    /// Whether somebody takes bytes in.
    pub(super) fn is_active(&self, id: SlotId) -> bool {
        self.seen(id).is_some_and(|seen| seen.writer.is_some())
    }

    /// The slots whose bytes are coming in.
    pub(super) fn active(&self) -> Vec<SlotId> {
        let live = self.lock();
        let writing = |holder: &Holder| holder.seen.borrow().writer.is_some();
        let active = live.by_slot.iter().filter(|(_, holder)| writing(holder));
        active.map(|(id, _)| *id).collect()
    }

    /// How many bytes are durable, where a holder knows by now.
    pub(super) fn durable_now(&self, id: SlotId) -> Option<u64> {
        self.seen(id).and_then(|seen| seen.durable)
    }

    /// How many bytes came in the request that takes bytes in; none where there is none.
    pub(super) fn received_now(&self, id: SlotId) -> u64 {
        let seen = self.seen(id).filter(|seen| seen.writer.is_some());
        seen.map_or(0, |seen| seen.received)
    }

    fn seen(&self, id: SlotId) -> Option<Seen> {
        let live = self.lock();
        live.by_slot.get(&id).map(|holder| *holder.seen.borrow())
    }

    /// How many bytes are durable at least, as soon as a holder knows; `None` where nobody holds
    /// the slot, or those who did ended without a look.
    pub(super) async fn durable(&self, id: SlotId) -> Option<u64> {
        let mut seen = {
            let live = self.lock();
            live.by_slot.get(&id)?.seen.subscribe()
        };
        let known = seen.wait_for(|seen| seen.durable.is_some()).await;
        known.ok().and_then(|seen| seen.durable)
    }

    /// Lets nobody begin any more, and tells how many are writing.
    pub(super) fn stop(&self) -> usize {
        let mut live = self.lock();
        live.is_stopping = true;
        self.stopping.send_replace(true);
        live.by_slot.len()
    }

    /// Turns true when `stop` is called.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Whether `stop` was called.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Cuts everybody and waits until all have ended.
    pub(super) async fn cut_all(&self) {
        let all: Vec<_> = {
            let live = self.lock();
            let holders = live.by_slot.values();
            holders
                .map(|holder| (holder.cut.clone(), holder.ended.clone()))
                .collect()
        };
        for (cut, _) in &all {
            let _ = cut.send(true);
        }
        for (_, mut ended) in all {
            while ended.changed().await.is_ok() {}
        }
    }

    /// Locks whatever happened to other holders: the data is whole between statements.
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfer {
    /// Whether a newer request took over, or the service stops.
    pub(super) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Turns true when a newer request takes over, or the service stops.
    pub(super) fn cut(&self) -> watch::Receiver<bool> {
        self.cut.clone()
    }

    /// Notes that so many bytes came, or that some are about to: see `Transfers::last_byte_at`.
    pub(super) fn note_bytes(&self, n_bytes: u64, now: Timestamp) {
        self.seen.send_if_modified(|seen| {
            seen.last_byte_at = now;
            if seen.writer != Some(self.serial) {
                seen.received = 0;
            }
            seen.received += n_bytes;
            seen.writer = Some(self.serial);
            // Nobody waits for that.
            false
        });
    }

    /// Notes how many bytes are durable: see `Transfers::durable`. Less than before says nothing:
    /// an attempt that began anew does not undo what there is.
    pub(super) fn note_durable(&self, offset: u64) {
        self.seen
            .send_modify(|seen| seen.durable = seen.durable.max(Some(offset)));
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.seen.send_if_modified(|seen| {
            seen.writer = seen.writer.filter(|serial| *serial != self.serial);
            false
        });
        let mut live = self.transfers.lock();
        let is_own = |holder: &Holder| holder.serial == self.serial;
        if live.by_slot.get(&self.id).is_some_and(is_own) {
            live.by_slot.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ID: SlotId = SlotId(7);

    #[tokio::test]
    async fn a_newer_one_waits_for_the_older_to_end() {
        let transfers = Arc::new(Transfers::default());
        let first = transfers.begin(ID).await.expect("nobody holds it");
        let second = tokio::spawn({
            let transfers = transfers.clone();
            async move { transfers.begin(ID).await.map(|_| ()) }
        });
        let mut cut = first.cut();
        cut.changed().await.expect("the second cuts the first");
        assert!(first.is_cut() && !second.is_finished());
        drop(first);
        assert_eq!(second.await.expect("no panic"), Ok(()));
        assert!(transfers.try_hold(ID).is_some());
    }

    #[tokio::test]
    async fn each_writer_counts_its_own_bytes() {
        let transfers = Arc::new(Transfers::default());
        let first = transfers.begin(ID).await.expect("nobody holds it");
        assert_eq!(transfers.received_now(ID), 0);
        first.note_bytes(0, Timestamp(1));
        first.note_bytes(5, Timestamp(1));
        first.note_bytes(6, Timestamp(2));
        assert_eq!(transfers.received_now(ID), 11);
        let second = tokio::spawn({
            let transfers = transfers.clone();
            async move { transfers.begin(ID).await }
        });
        first
            .cut()
            .changed()
            .await
            .expect("the second cuts the first");
        drop(first);
        let second = second.await.expect("no panic").expect("its turn");
        assert_eq!(transfers.received_now(ID), 0);
        second.note_bytes(3, Timestamp(3));
        assert_eq!(transfers.received_now(ID), 3);
    }

    #[tokio::test]
    async fn one_that_goes_away_lets_nobody_in_before_the_older_has_ended() {
        let transfers = Arc::new(Transfers::default());
        let first = transfers.begin(ID).await.expect("nobody holds it");
        let mut gone = Box::pin(transfers.begin(ID));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert!(transfers.try_hold(ID).is_none());
        let mut third = Box::pin(transfers.begin(ID));
        assert!((&mut third).now_or_never().is_none());
        tokio::task::yield_now().await;
        assert!(
            (&mut third).now_or_never().is_none(),
            "the first still writes"
        );
        drop(first);
        third.await.expect("its turn");
    }

    #[tokio::test]
    async fn turns_come_in_order_whoever_waits_behind() {
        let transfers = Arc::new(Transfers::default());
        let first = transfers.begin(ID).await.expect("nobody holds it");
        let mut second = Box::pin(transfers.take_turn(ID));
        assert!((&mut second).now_or_never().is_none());
        let mut third = Box::pin(transfers.take_turn(ID));
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        let second = second.await.expect("its turn");
        tokio::task::yield_now().await;
        assert!((&mut third).now_or_never().is_none());
        drop(second);
        third.await.expect("its turn");
    }

    #[tokio::test]
    async fn of_many_at_once_the_last_wins() {
        let transfers = Arc::new(Transfers::default());
        let first = transfers.begin(ID).await.expect("nobody holds it");
        assert!(transfers.try_hold(ID).is_none());
        let waiting: Vec<_> = (0..5).map(|_| Box::pin(transfers.begin(ID))).collect();
        let mut outcomes = Vec::new();
        let all = futures_util::future::join_all(waiting);
        let end_first = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (results, ()) = tokio::join!(all, end_first);
        for result in results {
            outcomes.push(result.map(|_| ()).is_ok());
        }
        assert_eq!(outcomes, [false, false, false, false, true]);
    }

    #[tokio::test]
    async fn stopping_cuts_everybody() {
        let transfers = Arc::new(Transfers::default());
        let transfer = transfers.begin(ID).await.expect("nobody holds it");
        assert_eq!(transfers.stop(), 1);
        assert_eq!(
            transfers.begin(SlotId(8)).await.err(),
            Some(Refusal::Stopping)
        );
        let end = async {
            let mut cut = transfer.cut();
            cut.changed().await.expect("cut");
            drop(transfer);
        };
        tokio::join!(transfers.cut_all(), end);
        assert_eq!(transfers.stop(), 0);
    }

    #[test]
    fn the_sweep_never_takes_a_slot_from_a_writer() {
        let transfers = Arc::new(Transfers::default());
        let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let sweeping = std::thread::spawn({
            let (transfers, is_over) = (transfers.clone(), is_over.clone());
            move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(transfers.try_hold(ID));
                }
            }
        });
        for _ in 0..50_000 {
            let (transfer, older) = transfers.register(ID).expect("nobody stops");
            let is_held = transfers.last_byte_at(ID).is_some();
            let is_cut = transfer.cut().has_changed().is_err();
            drop((transfer, older));
            assert!(is_held && !is_cut);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeping.join().expect("no panic");
    }
}
