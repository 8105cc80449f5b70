//! The body of a PUT as it comes from the socket, in pieces as large as what is there.
//!
//! It has the connection for itself, and gives it back when it is dropped. While it waits for the
//! client it holds no buffer, so that thousands of uploads may stand still; while the client is as
//! fast as we are, one buffer is filled again and again, and stays in the processor's cache. The
//! pieces of a few fast ones are larger, wait a moment for what they lack, and end at multiples of
//! their size, as the page cache likes them: what it takes in one piece it later gives away at less
//! cost. It reads nothing behind its last byte: what follows is the next request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;

use super::ask::Ask;
use super::line::Line;
use super::wire::Wire;
use crate::http::meter::Reading;
use crate::store::BodyError;

/// What a client gets that waits for it before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Largest piece of most bodies: halves the cost of small ones, and fits the processor's cache
/// together with what it is copied to. A body that is no longer comes in one, if it can.
const PIECE_BYTES_MAX: usize = 256 << 10;
/// Largest piece of the bodies that may have large ones.
const LARGE_BYTES_MAX: usize = 1 << 20;
/// So many may at a time: their buffers are held while the disk is slow, or a row is written.
const LARGE_MAX: usize = 64;
/// Smallest buffer for a piece, where more is left.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// The first buffer of a body that is longer than a usual piece.
const PIECE_BYTES_FIRST: usize = 64 << 10;
/// How long what is there waits for the rest of a large piece, or of a short body.
const HELD_FOR: Duration = Duration::from_millis(5);
/// Bytes after which others get their turn, from a client as fast as we are.
const TURN_BYTES: usize = 512 << 10;

static PLACES: Semaphore = Semaphore::const_new(LARGE_MAX);

/// A connection that comes back from a body.
pub struct Back<S> {
    /// The connection.
    pub wire: Wire<S>,
    /// The rest of an interim response that was begun.
    pub unsent: &'static [u8],
}

/// The stream; see the module.
pub struct Arriving<S> {
    /// None once it was given back.
    wire: Option<Wire<S>>,
    back: Option<oneshot::Sender<Back<S>>>,
    reading: Reading,
    length: u64,
    /// How many of these bytes were not handed on yet.
    left: u64,
    /// What came with the head.
    first: Bytes,
    /// What is left to be said before the body is read.
    unsaid: &'static [u8],
    /// What is being filled.
    buffer: BytesMut,
    /// How large the next piece may become: a power of two.
    piece_bytes: usize,
    /// It fits one piece.
    is_short: bool,
    /// Of those whose pieces may be large.
    places: &'static Semaphore,
    /// While its pieces are.
    large: Option<SemaphorePermit<'static>>,
    /// Until when what is in the buffer waits for more.
    held_until: Option<Instant>,
    /// Bytes since others had their turn.
    n_bytes_now: usize,
}

impl<S> Arriving<S> {
    /// The body of `ask`, of which `first` came with the head; and whence the connection comes
    /// back.
    pub fn new(
        wire: Wire<S>,
        ask: &Ask,
        first: Bytes,
        reading: Reading,
    ) -> (Self, oneshot::Receiver<Back<S>>) {
        let (sender, receiver) = oneshot::channel();
        if ask.length == 0 {
            reading.end();
        }
        let is_short = ask.length <= PIECE_BYTES_MAX as u64;
        let body = Self {
            wire: Some(wire),
            back: Some(sender),
            reading,
            length: ask.length,
            left: ask.length,
            first,
            unsaid: match ask.expects_continue() {
                true => CONTINUE,
                false => b"",
            },
            buffer: BytesMut::new(),
            piece_bytes: match is_short {
                true => PIECE_BYTES_MAX,
                false => PIECE_BYTES_FIRST,
            },
            is_short,
            places: &PLACES,
            large: None,
            held_until: None,
            n_bytes_now: 0,
        };
        (body, receiver)
    }
}

impl<S: Line> Arriving<S> {
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(Err(BodyError));
        };
        while !self.unsaid.is_empty() {
            match ready!(wire.poll_write(cx, self.unsaid)) {
                Ok(n_bytes) if 0 < n_bytes => self.unsaid = &self.unsaid[n_bytes..],
                _ => return Poll::Ready(Err(BodyError)),
            }
        }
        wire.poll_flush(cx).map_err(|_| BodyError)
    }

    /// How long the next piece may become.
    fn full(&self) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let behind = match self.large {
            Some(_) => (self.length - self.left) % self.piece_bytes as u64,
            None => 0,
        };
        // Smaller than a piece.
        let full = self.piece_bytes - behind as usize;
        full.max(self.first.len()).min(left)
    }

    /// After a piece that was full.
    fn grow(&mut self) {
        if self.piece_bytes == PIECE_BYTES_MAX && !self.is_short {
            self.large = self.places.try_acquire().ok();
        }
        let max = match self.large {
            Some(_) => LARGE_BYTES_MAX,
            None => PIECE_BYTES_MAX,
        };
        self.piece_bytes = (self.piece_bytes * 2).min(max);
    }

    /// After one that was far from it, or waited in vain.
    fn shrink(&mut self) {
        self.piece_bytes = match self.large.take() {
            Some(_) => PIECE_BYTES_MAX,
            None => (self.piece_bytes / 2).max(PIECE_BYTES_MIN),
        };
    }

    /// Reads until a piece is full, or the rest does not come soon.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let (full, is_held) = (self.full(), self.is_short || self.large.is_some());
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(Err(BodyError));
        };
        let buffer = &mut self.buffer;
        if !self.first.is_empty() {
            make_room(buffer, full);
            buffer.extend_from_slice(&std::mem::take(&mut self.first));
        }
        let mut is_in_vain = false;
        while buffer.len() < full {
            let room = full - buffer.len();
            let read = match wire.poll_readable(cx) {
                Poll::Ready(Ok(())) => {
                    make_room(buffer, room);
                    wire.poll_fill(cx, &mut (&mut *buffer).limit(room))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
            match read {
                Poll::Ready(Ok(n_bytes)) if 0 < n_bytes => {}
                Poll::Pending if buffer.is_empty() => {
                    *buffer = BytesMut::new();
                    return Poll::Pending;
                }
                Poll::Pending if !is_held => break,
                Poll::Pending => {
                    let soon = || Instant::now() + HELD_FOR;
                    let until = *self.held_until.get_or_insert_with(soon);
                    ready!(wire.poll_alarm(cx, until));
                    is_in_vain = true;
                    break;
                }
                // What came before the end comes first.
                Poll::Ready(_) if !buffer.is_empty() => break,
                Poll::Ready(_) => return Poll::Ready(Err(BodyError)),
            }
        }
        self.held_until = None;
        let n_bytes = buffer.len();
        if n_bytes == full {
            self.grow();
        } else if is_in_vain || n_bytes < full / 4 {
            self.shrink();
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }

    /// Whether nobody waits for the connection any more: it ends with the request.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        let back = self.back.as_mut();
        back.is_none_or(|back| back.poll_closed(cx).is_ready())
    }
}

impl<S: Line> Stream for Arriving<S> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if TURN_BYTES <= this.n_bytes_now {
            this.n_bytes_now = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.is_given_up(cx) || ready!(this.poll_say(cx)).is_err() {
            return Poll::Ready(Some(Err(BodyError)));
        }
        let piece = match this.poll_piece(cx) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                this.n_bytes_now = 0;
                return Poll::Pending;
            }
        };
        if let Ok(bytes) = &piece {
            this.n_bytes_now += bytes.len();
            this.left -= bytes.len() as u64;
            this.reading.count(bytes.len());
            if this.left == 0 {
                this.reading.end();
                this.buffer = BytesMut::new();
            }
        }
        Poll::Ready(Some(piece))
    }
}

impl<S> Drop for Arriving<S> {
    fn drop(&mut self) {
        let (Some(wire), Some(back)) = (self.wire.take(), self.back.take()) else {
            return;
        };
        let unsent = match self.unsaid.len() < CONTINUE.len() {
            true => self.unsaid,
            false => b"",
        };
        // Where nobody waits for it, it ends here.
        let _ = back.send(Back { wire, unsent });
    }
}

/// Makes room for `n_bytes` more. An empty buffer that is too small is made anew: one that grows
/// keeps what it had, and never becomes smaller.
fn make_room(buffer: &mut BytesMut, n_bytes: usize) {
    if buffer.try_reclaim(n_bytes) {
        return;
    }
    match buffer.is_empty() {
        true => *buffer = BytesMut::with_capacity(n_bytes),
        false => buffer.reserve(n_bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt as _, StreamExt as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::*;
    use crate::http::head::Site;
    use crate::http::pace::Pace;

    type Arrived = Arriving<UnixStream>;

    /// A body of `length` bytes of which `first` came, and its client.
    fn arriving(
        length: usize,
        first: &'static [u8],
        fields: &str,
    ) -> (Arrived, oneshot::Receiver<Back<UnixStream>>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let pace = Pace::new(Duration::from_secs(60), 1);
        let wire = Wire::new(near, pace, true, Instant::now() + Duration::from_secs(60));
        let head = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n{fields}\r\n");
        let ask = Ask::read(head.as_bytes(), |path| {
            Site::of("https://localhost/").place(path, &[])
        })
        .expect("a PUT");
        let first = Bytes::from_static(first);
        let (body, back) = Arriving::new(wire, &ask, first, Reading::default());
        (body, back, far)
    }

    /// Sends bytes, and waits until they are there.
    async fn send(body: &mut Arrived, far: &mut UnixStream, bytes: &[u8]) {
        far.write_all(bytes).await.expect("taken");
        let wire = body.wire.as_mut().expect("lent");
        let readable = std::future::poll_fn(|cx| wire.poll_readable(cx));
        readable.await.expect("readable");
    }

    async fn next(body: &mut Arrived) -> Bytes {
        body.next().await.expect("more").expect("no error")
    }

    /// Gathers what comes while the client sends `bytes`.
    async fn take(body: &mut Arrived, far: &mut UnixStream, bytes: &[u8]) -> Vec<u8> {
        let sending = async { far.write_all(bytes).await.expect("taken") };
        let taking = async {
            let mut taken = Vec::new();
            while body.left != 0 {
                taken.extend(next(body).await);
            }
            taken
        };
        tokio::join!(sending, taking).1
    }

    #[tokio::test]
    async fn a_body_takes_its_own_bytes_and_no_others() {
        for length in [6, 100_000, PIECE_BYTES_MAX, 3_000_000] {
            let (mut body, back, mut far) = arriving(length, b"abc", "");
            let all: Vec<u8> = (0..length + 3).map(|n| n as u8).collect();
            let taken = take(&mut body, &mut far, &all[3..]).await;
            assert!(taken[..3] == *b"abc" && taken[3..] == all[3..length]);
            assert!(body.next().await.is_none() && body.reading.is_at_end());
            drop(body);
            let mut wire = back.await.expect("given back").wire;
            let mut rest = BytesMut::new();
            std::future::poll_fn(|cx| wire.poll_read(cx, &mut rest))
                .await
                .expect("read");
            assert_eq!(rest, &all[length..]);
        }
    }

    #[tokio::test]
    async fn what_is_there_comes_in_one_piece() {
        let (mut body, _back, mut far) = arriving(100_000, b"abc", "");
        send(&mut body, &mut far, &[7; 99_997]).await;
        assert_eq!(next(&mut body).await.len(), 100_000);
    }

    #[tokio::test]
    async fn while_it_waits_it_holds_no_buffer() {
        for length in [9, 1 << 20] {
            let (mut body, _back, mut far) = arriving(length, b"abc", "");
            assert_eq!(next(&mut body).await, b"abc"[..]);
            for _ in 0..2 {
                assert!(body.next().now_or_never().is_none());
                assert_eq!((body.buffer.capacity(), body.first.len()), (0, 0));
                far.write_all(b"de").await.expect("taken");
                assert_eq!(next(&mut body).await, b"de"[..]);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_that_comes_in_two_is_one_piece() {
        let (mut body, _back, mut far) = arriving(100_000, b"abc", "");
        let sending = async {
            far.write_all(&[7; 50_000]).await.expect("taken");
            tokio::task::yield_now().await;
            far.write_all(&[7; 49_997]).await.expect("taken");
        };
        let (_, piece) = tokio::join!(sending, next(&mut body));
        assert_eq!(piece.len(), 100_000);
    }

    /// A body of which the last piece was as large as a usual one may be.
    fn become_large(body: &mut Arrived) {
        body.piece_bytes = PIECE_BYTES_MAX;
        body.grow();
        assert!(body.large.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_client_fills_one_buffer_again_and_again() {
        let (mut body, _back, mut far) = arriving(4 << 20, b"", "");
        become_large(&mut body);
        let sending = async { far.write_all(&vec![7; 4 << 20]).await.expect("taken") };
        let taking = async {
            let (mut places, mut ends) = (std::collections::HashSet::new(), Vec::new());
            while body.left != 0 {
                let piece = next(&mut body).await;
                places.insert(piece.as_ptr());
                ends.push(body.length - body.left);
            }
            (places.len(), ends)
        };
        let (_, (n_places, ends)) = tokio::join!(sending, taking);
        // They end where the page cache likes it.
        assert_eq!(ends, [512 << 10, 1 << 20, 2 << 20, 3 << 20, 4 << 20]);
        assert!(n_places <= 2, "{n_places}");
    }

    #[tokio::test]
    async fn a_fast_client_lets_others_have_their_turn() {
        let (mut body, _back, mut far) = arriving(1 << 20, b"", "");
        send(&mut body, &mut far, &[7; 1000]).await;
        body.n_bytes_now = TURN_BYTES;
        assert!(body.next().now_or_never().is_none());
        assert_eq!(next(&mut body).await.len(), 1000);
    }

    #[tokio::test]
    async fn only_some_have_large_pieces_and_give_them_back() {
        let (mut body, _back, mut far) = arriving(4 << 20, b"", "");
        become_large(&mut body);
        body.shrink();
        assert_eq!(
            (body.large.is_none(), body.piece_bytes),
            (true, PIECE_BYTES_MAX)
        );
        body.places = Box::leak(Box::new(Semaphore::new(0)));
        body.piece_bytes = PIECE_BYTES_MAX;
        body.grow();
        assert_eq!(
            (body.large.is_none(), body.piece_bytes),
            (true, PIECE_BYTES_MAX)
        );
        // Nobody waits for the rest of a usual piece.
        send(&mut body, &mut far, b"abc").await;
        let piece = body.next().now_or_never().expect("at once").expect("more");
        assert_eq!(piece.expect("no error"), b"abc"[..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_piece_waits_a_moment_and_no_longer() {
        let (mut body, _back, mut far) = arriving(4 << 20, b"", "");
        become_large(&mut body);
        send(&mut body, &mut far, b"abc").await;
        let begun = Instant::now();
        assert_eq!(next(&mut body).await, b"abc"[..]);
        assert!(HELD_FOR <= begun.elapsed() && begun.elapsed() < 10 * HELD_FOR);
        assert!(
            body.large.is_none(),
            "who let others wait has no more large pieces"
        );
        assert!(body.next().now_or_never().is_none());
        assert_eq!(body.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn a_word_is_said_once_and_only_when_the_body_is_wanted() {
        let expect = "Expect: 100-continue\r\n";
        let (body, back, mut far) = arriving(6, b"", expect);
        drop(body);
        let back = back.await.expect("given back");
        assert_eq!(back.unsent, b"");
        drop(back);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.expect("read");
        assert_eq!(said, b"");

        let (mut body, back, mut far) = arriving(6, b"", expect);
        assert!(body.next().now_or_never().is_none());
        far.write_all(b"abcdef").await.expect("taken");
        assert_eq!(next(&mut body).await, b"abcdef"[..]);
        body.unsaid = &CONTINUE[20..];
        drop(body);
        let back = back.await.expect("given back");
        // What was begun is ended before the answer.
        assert_eq!(back.unsent, &CONTINUE[20..]);
        drop(back);
        far.read_to_end(&mut said).await.expect("read");
        assert_eq!(said, CONTINUE);
    }

    #[tokio::test]
    async fn a_body_that_ends_early_or_is_given_up_is_broken() {
        let (mut body, _back, mut far) = arriving(6, b"abc", "");
        send(&mut body, &mut far, b"de").await;
        drop(far);
        assert_eq!(next(&mut body).await, b"abcde"[..]);
        assert!(body.next().await.is_some_and(|piece| piece.is_err()));
        assert!(!body.reading.is_at_end());

        let (mut body, back, _far) = arriving(6, b"", "");
        let giving_up = async { drop(back) };
        let (piece, ()) = tokio::join!(body.next(), giving_up);
        assert!(piece.is_some_and(|piece| piece.is_err()));
    }
}
