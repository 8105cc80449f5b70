//! One stream that is logged in: reads stanzas, writes answers, notices when the server is gone.
//!
//! One task does it all, without waiting in between: what is ready is read, up to a batch; what is
//! decided is written and flushed once; while the server does not take our answers we go on reading
//! until the outbox is full. Slot requests wait for the store side by side and are answered in the
//! order in which they finish.

use std::collections::hash_map::RandomState;
use std::future::{Future as _, poll_fn};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, Stream as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_xmpp::xmlstream::ReadError;
use tracing::debug;
use xmpp_parsers::stream_error::{self, DefinedCondition};

use super::limits::Broken;
use super::login::{self, Line, StreamError, Wire};
use super::outbox::Outbox;
use super::relay::{OnStream, Relay};
use super::route::{self, Answer, Desk, Reply};
use super::shared::Shared;
use super::speaker::Speaker;

mod ending;

/// Most stanzas read before what they asked for is written.
const BATCH_MAX: usize = 64;
/// Where so many stanzas came and went at once, the next wake-up would cost more than it brings.
const MANY: usize = 8;
/// How long then to let more come, and more be answered, before anything is looked at.
const GATHER_FOR: Duration = Duration::from_millis(1);
/// How long the server may take nothing of what we write.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How often a silent server is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long an account serves on, once its relay was told that it goes.
const LINGER_FOR: Duration = Duration::from_millis(500);
/// How long answers under way may take when we are stopped.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Why a stream ended.
#[derive(Debug)]
pub enum End {
    /// We were told to stop.
    Stopped,
    /// The server closed the stream or the connection, or the connection broke.
    Closed,
    /// Nothing came for `QUIET_FOR` and `ANSWER_WITHIN`.
    Silent,
    /// The server did not take our answers.
    Stuck,
    /// The server sent a stream error.
    Error(StreamError),
    /// The server sent what no stream can hold; it was told so.
    Broken(Broken),
}

impl End {
    /// Its kind, as meters name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
            Self::Error(_) => "error",
            Self::Broken(_) => "broken",
        }
    }
}

/// Serves a stream until it ends. When `stop` turns true, answers under way are still sent.
pub async fn serve(
    line: Line,
    desk: &Arc<Desk>,
    speaker: &Arc<Speaker>,
    stop: &mut watch::Receiver<bool>,
) -> End {
    let is_host = |relay: &&Arc<Relay>| speaker.is_component(relay.host());
    let relay = desk.relay.as_ref().filter(is_host);
    if relay.is_none() {
        // They overtake others; what is relayed keeps its order.
        line.wire.get_stream().take_plains();
    }
    let mut leaving = desk.service.stopping();
    let mut stream = Served {
        wire: line.wire,
        socket: line.socket,
        desk,
        speaker,
        relay: relay.cloned().map(OnStream::begin),
        outbox: Outbox::new(),
        running: FuturesUnordered::new(),
        is_stopping: false,
        n_moved: 0,
        gathering: None,
        write_by: None,
        ping_at: None,
    };
    for stanza in speaker.greeting() {
        stream.outbox.push(&stanza);
    }
    let mut end = tokio::select! {
        end = poll_fn(|cx| stream.poll(cx)) => end,
        () = stopped(&mut leaving) => End::Stopped,
        () = stopped(stop) => End::Stopped,
    };
    if let End::Stopped = end {
        end = stream.leave(stop).await;
    }
    if let End::Stopped = end {
        end = stream.drain_relay().await;
    }
    if let End::Stopped = end {
        stream.is_stopping = true;
        let rest = timeout(STOP_WITHIN, poll_fn(|cx| stream.poll(cx)));
        if rest.await.is_err() {
            debug!("stopped with answers still to come");
        }
    }
    stream.close(&end).await;
    end
}

/// Waits until `stop` is true, or nobody is left to say so.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        debug!("nobody is left to stop the stream; stopping");
    }
}

struct Served<'a> {
    /// What is read from; after the log-in only the good-bye is written by it.
    wire: Wire,
    /// What answers are written to, past the wire.
    socket: Shared,
    desk: &'a Arc<Desk>,
    speaker: &'a Arc<Speaker>,
    /// On the relay's own stream.
    relay: Option<OnStream>,
    /// Answers not yet taken by the server.
    outbox: Outbox,
    running: FuturesUnordered<BoxFuture<'static, Reply>>,
    /// Nothing more is read.
    is_stopping: bool,
    /// Stanzas that came and answers that went at the last look.
    n_moved: usize,
    /// Until when more is let come.
    gathering: Option<Pin<Box<Sleep>>>,
    /// When the server must have taken something; set while it takes nothing.
    write_by: Option<Pin<Box<Sleep>>>,
    /// When to ask for the next sign of life; set while the server is silent.
    ping_at: Option<Pin<Box<Sleep>>>,
}

impl Served<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.is_gathering(cx) {
            return Poll::Pending;
        }
        self.n_moved = 0;
        let polled = self.poll_all(cx);
        if polled.is_pending() && MANY <= self.n_moved {
            self.gathering = Some(Box::pin(sleep(GATHER_FOR)));
            if !self.is_gathering(cx) {
                cx.waker().wake_by_ref();
            }
        }
        polled
    }

    /// Whether to wait for more; whoever wakes us meanwhile is not asked.
    fn is_gathering(&mut self, cx: &mut Context<'_>) -> bool {
        let gathering = self.gathering.as_mut().filter(|_| !self.is_stopping);
        let is_gathering = gathering.is_some_and(|until| until.as_mut().poll(cx).is_pending());
        if !is_gathering {
            self.gathering = None;
        }
        is_gathering
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.poll_relay(cx);
        if let Poll::Ready(end) = self.poll_read(cx) {
            return Poll::Ready(end);
        }
        self.poll_ping(cx);
        while !self.outbox.is_full()
            && let Poll::Ready(Some(answer)) = self.running.poll_next_unpin(cx)
        {
            self.n_moved += 1;
            self.running.extend(self.outbox.push_reply(answer));
        }
        let was_full = self.outbox.is_full();
        let written = self.poll_write(cx);
        if was_full && !self.outbox.is_full() {
            // Nothing was read or decided meanwhile, so nothing else would wake us for it.
            cx.waker().wake_by_ref();
        }
        match written {
            Poll::Ready(Ok(())) if self.is_stopping && self.running.is_empty() => {
                Poll::Ready(End::Stopped)
            }
            Poll::Ready(Ok(())) => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(ended(&self.wire, &error)),
            Poll::Pending => self.poll_stuck(cx),
        }
    }

    /// Reads what is ready, up to a batch; pending in any case but the stream's end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..BATCH_MAX {
            if self.is_stopping || self.outbox.is_full() {
                return Poll::Pending;
            }
            if let Some(plain) = self.wire.get_stream().next_plain() {
                self.take(route::route_plain(self.desk, self.speaker, plain));
                continue;
            }
            let Poll::Ready(read) = Pin::new(&mut self.wire).poll_next(cx) else {
                match self.wire.get_stream().has_plains() {
                    true => continue,
                    false => return Poll::Pending,
                }
            };
            match read {
                Some(Ok(element)) => {
                    if let Some(error) = StreamError::read(&element) {
                        return Poll::Ready(End::Error(error));
                    }
                    self.take(route::route(self.desk, self.speaker, element));
                }
                Some(Err(ReadError::SoftTimeout)) => {
                    self.ping_at
                        .get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
                }
                Some(Err(ReadError::ParseError(error))) => {
                    debug!(%error, "element that cannot be read is ignored");
                }
                Some(Err(ReadError::HardError(error))) => {
                    return Poll::Ready(ended(&self.wire, &error));
                }
                Some(Err(ReadError::StreamFooterReceived)) | None => {
                    return Poll::Ready(End::Closed);
                }
            }
        }
        // There may be more: come back after the others.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Something came, and this becomes of it.
    fn take(&mut self, answer: Answer) {
        self.ping_at = None;
        self.n_moved += 1;
        match answer {
            Answer::None => {}
            Answer::Now(answer) => self.outbox.push(&answer),
            Answer::All(answers) => answers.iter().for_each(|it| self.outbox.push(it)),
            Answer::Later(answer) => self.running.push(answer),
        }
    }

    fn poll_ping(&mut self, cx: &mut Context<'_>) {
        while let Some(ping_at) = &mut self.ping_at {
            if ping_at.as_mut().poll(cx).is_pending() {
                break;
            }
            ping_at.as_mut().reset(Instant::now() + PING_EVERY);
            self.outbox.push(&self.speaker.keepalive());
        }
    }

    /// What the relay has to say without having been asked.
    fn poll_relay(&mut self, cx: &mut Context<'_>) {
        while let Some(relay) = &mut self.relay
            && !self.outbox.is_full()
            && let Poll::Ready(due) = relay.poll_due(cx)
        {
            due.iter().for_each(|stanza| self.outbox.push(stanza));
        }
    }

    /// Ready when all is written and flushed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut has_taken = false;
        let written = self.outbox.poll_write(&mut self.socket, &mut has_taken, cx);
        if has_taken || written.is_ready() {
            self.write_by = None;
        }
        written
    }

    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let write_by = || Box::pin(sleep(WRITE_WITHIN));
        let write_by = self.write_by.get_or_insert_with(write_by);
        write_by.as_mut().poll(cx).map(|()| End::Stuck)
    }

    /// Says good-bye, where the server may still listen.
    async fn close(mut self, end: &End) {
        let condition = match end {
            End::Broken(broken) => Some(broken.condition()),
            End::Silent => Some(DefinedCondition::ConnectionTimeout),
            _ => None,
        };
        let farewell = async {
            // The end of an answer that went out in part.
            poll_fn(|cx| self.poll_write(cx)).await?;
            if let Some(condition) = condition {
                let error = stream_error::StreamError::new(condition, "en", "");
                self.wire.send(&error).await?;
            }
            self.wire.shutdown().await
        };
        if let End::Stuck = end {
            return;
        }
        if let Ok(Err(error)) | Err(error) = timeout(STOP_WITHIN, farewell)
            .await
            .map_err(io::Error::from)
        {
            debug!(%error, "stream closed without its end tag");
        }
    }
}

/// What an I/O error means; the parser's errors come as such, too.
fn ended(wire: &Wire, error: &io::Error) -> End {
    if let Some(broken) = wire.get_stream().broken() {
        return End::Broken(broken);
    }
    match error.kind() {
        io::ErrorKind::InvalidData if !login::is_cut_off(error) => {
            End::Broken(Broken::NotWellFormed)
        }
        io::ErrorKind::TimedOut => End::Silent,
        _ => End::Closed,
    }
}

/// A number that need not be secret: jitter, names nobody has.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
