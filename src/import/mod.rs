//! `slotd import`: takes over the files of another upload server, so that their links live on.
//!
//! `layout` knows how the servers keep files, `listing` opens them one after the other: those of a
//! directory that `tree` walks through, or of Prosody's `archive`, which is written in Lua's
//! literals (`lua`). `source` reads a file as long as nobody changes it. What becomes of it decides
//! `service::import`. `show` has the bar, `tally` what came of it.
//!
//! The directory is believed in nothing: links are not followed, and what is odd stops nobody.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;

use futures_util::{StreamExt as _, stream};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::core::external::System;
use crate::core::session::FileFacts;
use crate::core::slot::Purpose;
use crate::service::import::{Bar, Foreign, Import, Standing, Taken};
use crate::store::StoreError;

mod archive;
mod args;
mod layout;
mod listing;
mod lua;
mod show;
mod source;
mod tally;
mod tree;

pub use args::ImportArgs;
pub use layout::Layout;
use listing::{Candidate, Listed};
use show::Show;
pub use tally::{Count, Tally};
use tree::Directory;

/// Files that are taken at a time: so many share a commit, and none is long in the way of others.
const AT_ONCE: usize = 32;
/// Files that are open and wait for their turn.
const WAITING_MAX: usize = 32;

/// Why an import ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The directory cannot be listed.
    #[error("{0} {1}")]
    Directory(String, String),
    /// A store broke.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread ended.
    #[error("listing the files ended: {0}")]
    Listing(#[from] tokio::task::JoinError),
}

/// What is to be imported.
pub struct Job {
    name: String,
    root: Directory,
    layout: Layout,
    /// In whose place we stand.
    system: System,
    is_quiet: bool,
}

/// For people.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, server, prefix) = (&self.name, self.layout.name(), &self.system.prefix);
        write!(f, "{name}: files of {server}, with links below {prefix}")
    }
}

/// What is done with each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Say how it stands.
    Look,
    /// Take it.
    Take,
}

/// What became of one thing that was listed.
enum Outcome {
    /// Taken, or to be taken: so many bytes.
    Taken(u64),
    /// Here already.
    Here(u64),
    /// Past its time.
    Over(u64),
    /// A slot that no file came to.
    Unused,
    /// Not to be taken: where it is, and why.
    Refused(String, String),
}

impl Job {
    /// The files in `dir`, of `layout` or of the one that it looks like.
    pub fn new(
        dir: &Path,
        layout: Option<Layout>,
        system: System,
        is_quiet: bool,
    ) -> Result<Self, ImportError> {
        let name = dir.display().to_string();
        let wrong = |words: String| ImportError::Directory(name.clone(), words);
        let opened = tree::open(dir).map_err(|e: Errno| format!("cannot be opened: {e}"));
        let root = opened.map_err(wrong)?;
        let layout = match layout {
            Some(layout) => layout,
            None => layout::recognize(&root).map_err(wrong)?,
        };
        Ok(Self {
            name,
            root,
            layout,
            system,
            is_quiet,
        })
    }

    /// Says what would be done. Changes nothing.
    pub async fn look(&self, import: &Import) -> Result<Tally, ImportError> {
        let mut tally = Tally {
            is_dry_run: true,
            ..Tally::default()
        };
        let show = Show::looking(self.is_quiet);
        let ended = self.pass(import, Pass::Look, &show, &mut tally).await;
        ended.map(|()| tally)
    }

    /// Takes what `look` found, `all`; what was done by then where it ends early.
    pub async fn take(&self, import: &Import, all: Count) -> (Tally, Result<(), ImportError>) {
        let mut tally = Tally::default();
        let show = Show::taking(all, self.is_quiet);
        let ended = self.pass(import, Pass::Take, &show, &mut tally).await;
        (tally, ended)
    }

    async fn pass(
        &self,
        import: &Import,
        pass: Pass,
        show: &Show,
        tally: &mut Tally,
    ) -> Result<(), ImportError> {
        let (listed, listing) = self.list();
        let each = |listed| self.settle(import, pass, show, listed);
        let mut settled = pin!(listed.map(each).buffer_unordered(AT_ONCE));
        while let Some(outcome) = settled.next().await {
            match outcome? {
                Outcome::Taken(n_bytes) => tally.taken.add(n_bytes),
                Outcome::Here(n_bytes) => tally.here.add(n_bytes),
                Outcome::Over(n_bytes) => tally.over.add(n_bytes),
                Outcome::Unused => tally.unused += 1,
                Outcome::Refused(name, why) => tally.refuse(name, why),
            }
            match pass {
                Pass::Look => show.seen(),
                Pass::Take => show.done(),
            }
        }
        let listed = listing.await?;
        listed.map_err(|words| ImportError::Directory(self.name.clone(), words))
    }

    /// Lists the files in a thread, a few ahead of who takes them.
    fn list(
        &self,
    ) -> (
        impl stream::Stream<Item = Listed> + use<>,
        JoinHandle<Result<(), String>>,
    ) {
        let (tell, told) = mpsc::channel(WAITING_MAX);
        let (root, layout) = (self.root.clone(), self.layout);
        let listing = tokio::task::spawn_blocking(move || {
            listing::list(&root, layout, |listed| match tell.blocking_send(listed) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let told = stream::unfold(told, |mut told| async {
            let listed = told.recv().await;
            listed.map(|listed| (listed, told))
        });
        (told, listing)
    }

    async fn settle(
        &self,
        import: &Import,
        pass: Pass,
        show: &Show,
        listed: Listed,
    ) -> Result<Outcome, StoreError> {
        let candidate = match listed {
            Listed::File(candidate) => candidate,
            Listed::Unused => return Ok(Outcome::Unused),
            Listed::Odd(name, why) => return Ok(Outcome::Refused(name, why)),
        };
        let (foreign, name) = (self.foreign(&candidate), candidate.name);
        let n_bytes = foreign.file.size_bytes;
        let refused = |why: &str| Outcome::Refused(name.clone(), why.to_owned());
        let standing = match pass {
            Pass::Look => import.standing(&foreign).await?,
            Pass::Take => {
                let (body, why) = candidate.source.into_body();
                let bar = show.bar();
                let body = body.inspect(move |piece| {
                    bar.inc(piece.as_ref().map_or(0, |piece| piece.len() as u64));
                });
                match import.take(&foreign, Box::pin(body)).await? {
                    Taken::Yes => Standing::New,
                    Taken::No(standing) => standing,
                    Taken::Short => {
                        let why = why.get().map_or("ended early", String::as_str);
                        return Ok(refused(why));
                    }
                }
            }
        };
        Ok(match standing {
            Standing::New => Outcome::Taken(n_bytes),
            Standing::Here => Outcome::Here(n_bytes),
            Standing::Over => Outcome::Over(n_bytes),
            Standing::Barred(bar) => refused(words(bar)),
        })
    }

    fn foreign(&self, candidate: &Candidate) -> Foreign {
        let owner = candidate.owner.clone();
        Foreign {
            id: self.system.id_of(&candidate.path),
            owner: owner.unwrap_or_else(|| self.system.owner_of(&candidate.path)),
            file: FileFacts {
                name: candidate.path.file_name(),
                size_bytes: candidate.source.size_bytes(),
                content_type: candidate.content_type.clone(),
                purpose: Purpose::Message,
            },
            uploaded_at: candidate.uploaded_at,
        }
    }
}

fn words(bar: Bar) -> &'static str {
    match bar {
        Bar::OtherFile => "another file is under its path",
        Bar::Upload => "an upload to its path is under way",
        Bar::Used => "its path was used before, and is never filled again",
    }
}

/// A size as people write it.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
