//! A small file that comes whole and soon: kept in one go, and noted in one row.
//!
//! Most uploads are such. The usual way writes a row, a part, a name and a row, each durable before
//! the next; here the body is gathered in memory, the file made at once, and one change of the row
//! begins and completes the upload. Whatever is out of the ordinary, a slow sender, a broken
//! connection, wrong bytes, too little memory, goes the usual way, with what came so far in front.
//!
//! A crash leaves a file beside a row that says that nothing came: see
//! `UploadSession::may_come_whole`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use sha2::Digest as _;
use tokio::sync::watch;

use crate::core::event::Event;
use crate::core::refusal::Refusal;
use crate::core::resume::Extent;
use crate::core::session::network::Visitor;
use crate::core::session::{State, UploadSession, WHOLE_BYTES_MAX};
use crate::core::slot::{Sha256, SlotId};
use crate::core::time::Timestamp;
use crate::core::token::Claims;
use crate::service::transfers::Transfer;
use crate::service::upload::{Received, Upload};
use crate::service::{Service, broken};
use crate::store::{Body, BodyError, Change, Failure};

/// How long a body may take to come whole. Until then no row tells of it, and it holds memory.
const GATHER_WITHIN: Duration = Duration::from_secs(1);
/// Memory for all bodies that are gathered at a time, 160 usual pictures; more go the usual way.
const GATHERED_BYTES_MAX: u64 = 16 * WHOLE_BYTES_MAX;

/// What became of an attempt to take a file whole.
pub(super) enum Taken {
    /// The file is there.
    Whole(Received),
    /// The body has to go the usual way; nothing was done.
    Not(Body),
}

/// The bytes that are gathered for all uploads.
#[derive(Default)]
pub(super) struct Gathering {
    n_bytes: AtomicU64,
}

/// Room in memory, until dropped.
struct Place {
    gathering: Arc<Gathering>,
    n_bytes: u64,
}

impl Gathering {
    fn reserve(self: &Arc<Self>, n_bytes: u64) -> Option<Place> {
        let before = self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        let place = Place {
            gathering: self.clone(),
            n_bytes,
        };
        (before + n_bytes <= GATHERED_BYTES_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gathering
            .n_bytes
            .fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

/// Whether a request can be tried: a PUT that nobody was told of, and nobody is told of before its
/// end.
pub(super) fn may_be_whole(row: &UploadSession, upload: &Upload) -> bool {
    let is_plain = !upload.is_resumable && upload.checksum.is_none();
    row.may_come_whole() && is_plain && upload.extent == Extent::Rest
}

impl Service {
    /// Takes a PUT's body if it comes whole and soon.
    ///
    /// Refuses as `UploadSession::begin` does, before the body is asked for.
    pub(super) async fn take_whole(
        &self,
        before: &UploadSession,
        claims: Claims,
        upload: &Upload,
        body: Body,
        transfer: &Transfer,
    ) -> Result<Taken, Refusal> {
        let size_bytes = before.file.size_bytes;
        let Some(place) = self.gathering.reserve(size_bytes) else {
            return Ok(Taken::Not(body));
        };
        let (begun_at, started_at) = (self.world.now(), self.world.monotonic());
        transfer.note_bytes(0, begun_at);
        before.clone().begin(&claims, begun_at)?;
        let gathered = gather(body, size_bytes, transfer.cut(), place).await;
        let (bytes, sha256, place) = match gathered {
            Gathered::Whole(bytes, sha256, place) => (bytes, sha256, place),
            Gathered::Not(body) => return Ok(Taken::Not(body)),
        };
        let announced = [upload.sha256, before.expected];
        let is_other = announced.iter().flatten().any(|it| *it != sha256);
        if is_other || self.settings().policy.access.check_upload(before).is_err() {
            return Ok(Taken::Not(again([Ok(bytes)], place, stream::empty())));
        }
        let kept = self.stores.files.keep(before.id, bytes).await;
        drop(place);
        if let Err(e) = kept {
            let refusal = broken("keep an upload", &e);
            // It may be there, only not for good.
            self.remove_kept(before.id).await;
            return Err(refusal);
        }
        let visitor = upload.visitor.clone();
        let row = self.note_whole(before, (claims, begun_at), sha256, visitor);
        let row = row.await?;
        self.recent.note_bytes(size_bytes, self.world.now());
        self.tell(Event::UploadBegun { row: &row });
        self.tell_complete(&row, started_at);
        Ok(Taken::Whole(self.received(&row)))
    }

    /// File before row: the file is there, now the row says so.
    async fn note_whole(
        &self,
        before: &UploadSession,
        (claims, begun_at): (Claims, Timestamp),
        sha256: Sha256,
        visitor: Visitor,
    ) -> Result<UploadSession, Refusal> {
        let (settings, now) = (self.settings.load_full(), self.world.now());
        let change: Change = Box::new(move |mut row| {
            if visitor != Visitor::default() {
                row.note_visitor(&visitor, begun_at);
            }
            let lifetimes = &settings.policy.lifetimes;
            row.take_whole(&claims, begun_at, sha256, lifetimes, now)
        });
        match self.stores.sessions.update(before.id, change).await {
            Ok(row) => Ok(row),
            Err(Failure::Refused(refusal)) => {
                // A row that is complete has its file, whoever brought it.
                let row = self.stores.sessions.get(before.id).await;
                let is_complete = |row: &UploadSession| matches!(row.state, State::Complete { .. });
                if row.is_ok_and(|row| !row.as_ref().is_some_and(is_complete)) {
                    self.remove_kept(before.id).await;
                }
                Err(refusal)
            }
            // The row may be complete all the same, and then needs its file. Where it is not, the
            // next attempt or the sweep finds the file, as after a crash.
            Err(Failure::Broken(e)) => Err(broken("complete an upload", &e)),
        }
    }

    /// Removes a file whose row is not complete: it must not look committed.
    async fn remove_kept(&self, id: SlotId) {
        if let Err(e) = self.stores.files.remove(id).await {
            broken("take an upload back", &e);
        }
    }
}

type Piece = Result<Bytes, BodyError>;

/// What came of a body.
enum Gathered {
    /// All of it, and its digest.
    Whole(Bytes, Sha256, Place),
    /// The same body again.
    Not(Body),
}

/// Gathers a body of `size_bytes`, unless it is another, too slow, or not wanted any more.
async fn gather(
    mut body: Body,
    size_bytes: u64,
    mut cut: watch::Receiver<bool>,
    place: Place,
) -> Gathered {
    let mut pile = Pile::new(size_bytes as usize);
    let mut hasher = sha2::Sha256::new();
    let late = tokio::time::sleep(GATHER_WITHIN);
    tokio::pin!(late);
    let last = loop {
        let piece = tokio::select! {
            biased;
            _ = cut.wait_for(|is_cut| *is_cut) => break None,
            piece = body.next() => piece,
            () = &mut late => break None,
        };
        match piece {
            Some(Ok(piece)) if piece.len() <= pile.left() => {
                hasher.update(&piece);
                pile.push(piece);
            }
            None if pile.left() == 0 => {
                let sha256 = Sha256(hasher.finalize().into());
                return Gathered::Whole(pile.bytes(), sha256, place);
            }
            // Too long, too short or broken: as it would have come.
            Some(piece) => break Some(piece),
            None => {
                body = stream::empty().boxed();
                break None;
            }
        }
    };
    let bytes = pile.bytes();
    let first = (!bytes.is_empty()).then(|| Ok(bytes));
    Gathered::Not(again(first.into_iter().chain(last), place, body))
}

/// The pieces of a body, put together; one that is the whole body is not copied.
struct Pile {
    size_bytes: usize,
    whole: Bytes,
    pieces: Vec<u8>,
}

impl Pile {
    fn new(size_bytes: usize) -> Self {
        Self {
            size_bytes,
            whole: Bytes::new(),
            pieces: Vec::new(),
        }
    }

    /// How many bytes are missing.
    fn left(&self) -> usize {
        self.size_bytes - self.whole.len() - self.pieces.len()
    }

    fn push(&mut self, piece: Bytes) {
        if piece.len() == self.size_bytes {
            self.whole = piece;
            return;
        }
        if self.pieces.capacity() == 0 {
            self.pieces.reserve_exact(self.size_bytes);
        }
        self.pieces.extend_from_slice(&piece);
    }

    fn bytes(self) -> Bytes {
        match self.whole.is_empty() {
            true => self.pieces.into(),
            false => self.whole,
        }
    }
}

/// A body of the pieces that were gathered, and of the rest; the place in memory is given back
/// when the pieces were taken.
fn again<P>(pieces: P, place: Place, rest: impl Stream<Item = Piece> + Send + 'static) -> Body
where
    P: IntoIterator<Item = Piece, IntoIter: Send + 'static>,
{
    let pieces = stream::iter(pieces).map(move |piece| {
        let _held = &place;
        piece
    });
    pieces.chain(rest).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&'static [u8]]) -> Vec<Result<Bytes, BodyError>> {
        let piece = |bytes: &&'static [u8]| Ok(Bytes::from_static(bytes));
        pieces.iter().map(piece).collect()
    }

    fn place() -> Place {
        Arc::new(Gathering::default()).reserve(6).expect("room")
    }

    /// The bytes of a body of 6, and whether it ended in order; `Err` where they are not the file.
    async fn run(body: Body) -> Result<Vec<u8>, (Vec<u8>, bool)> {
        let (_cut, cut) = watch::channel(false);
        match gather(body, 6, cut, place()).await {
            Gathered::Whole(bytes, sha256, _) => {
                let expected: [u8; 32] = sha2::Sha256::digest(&bytes).into();
                assert_eq!(sha256.0, expected);
                Ok(bytes.to_vec())
            }
            Gathered::Not(body) => {
                let pieces: Vec<_> = body.collect().await;
                let is_whole = pieces.iter().all(Result::is_ok);
                let bytes: Vec<_> = pieces.into_iter().flatten().collect();
                Err((bytes.concat(), is_whole))
            }
        }
    }

    async fn run_pieces(all: Vec<Result<Bytes, BodyError>>) -> Result<Vec<u8>, (Vec<u8>, bool)> {
        run(stream::iter(all).boxed()).await
    }

    #[tokio::test]
    async fn only_a_body_of_the_right_length_is_whole() {
        let whole = run_pieces(pieces(&[b"abc", b"", b"def"])).await;
        assert_eq!(whole, Ok(b"abcdef".to_vec()));
        let short = run_pieces(pieces(&[b"abc", b"de"])).await;
        assert_eq!(short, Err((b"abcde".to_vec(), true)));
        let long = run_pieces(pieces(&[b"abc", b"defg", b"h"])).await;
        assert_eq!(long, Err((b"abcdefgh".to_vec(), true)));
        for n_bytes in [3, 6] {
            let mut broken = pieces(&[&b"abcdef"[..n_bytes]]);
            broken.push(Err(BodyError));
            let broken = run_pieces(broken).await;
            assert_eq!(broken, Err((b"abcdef"[..n_bytes].to_vec(), false)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_comes_with_all_its_bytes_in_order() {
        let slow =
            stream::iter(pieces(&[b"a", b"b", b"c", b"d", b"e", b"f"])).then(|piece| async {
                tokio::time::sleep(GATHER_WITHIN / 3).await;
                piece
            });
        assert_eq!(run(slow.boxed()).await, Err((b"abcdef".to_vec(), true)));
    }

    #[tokio::test]
    async fn a_cut_ends_the_gathering() {
        let (cut, receiver) = watch::channel(false);
        let silent = stream::iter(pieces(&[b"abc"])).chain(stream::pending());
        let cutting = async { cut.send(true) };
        let (gathered, _) = tokio::join!(gather(silent.boxed(), 6, receiver, place()), cutting);
        let Gathered::Not(mut body) = gathered else {
            panic!("half of it is not whole");
        };
        let first = body.next().await.expect("a piece").expect("whole");
        assert_eq!(first, &b"abc"[..]);
    }

    #[tokio::test]
    async fn what_goes_the_usual_way_holds_its_place_until_it_is_taken() {
        let gathering = Arc::new(Gathering::default());
        let is_held = || gathering.n_bytes.load(Ordering::Relaxed) != 0;
        let (_cut, receiver) = watch::channel(false);
        let short = stream::iter(pieces(&[b"abc"])).boxed();
        let place = gathering.reserve(6).expect("room");
        let Gathered::Not(mut body) = gather(short, 6, receiver, place).await else {
            panic!("half of it is not whole");
        };
        assert!(is_held());
        assert!(body.next().await.is_some_and(|piece| piece.is_ok()));
        assert!(body.next().await.is_none());
        assert!(!is_held());
    }

    #[test]
    fn memory_for_bodies_is_bounded_and_given_back() {
        let gathering = Arc::new(Gathering::default());
        let all = gathering.reserve(GATHERED_BYTES_MAX).expect("room");
        assert!(gathering.reserve(1).is_none());
        drop(all);
        assert!(gathering.reserve(GATHERED_BYTES_MAX).is_some());
    }
}
