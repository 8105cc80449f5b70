//! slotd: an upload service for XMPP (XEP-0363) as an external component (XEP-0114).
//!
//! This page is the map. Each room's `//!` says what it is for; here is how they fit.
//!
//! # The idea in six sentences
//!
//! 1. [`core`] decides and touches nothing: time, random numbers and facts arrive as arguments.
//! 2. [`service`] is the list of things we can do, one method each: it fetches facts, asks core
//!    and applies the effect, and is the only caller of the stores.
//! 3. The edges translate: [`xmpp`] stanzas, [`http`] requests, [`upkeep`] the passing of time.
//!    Edges never meet, but for the sockets, which the private listener opens as [`http`] does; and
//!    they see no store, but for the files of signing keys and of the status page's history.
//! 4. [`store`] holds rows (`SessionStore`) and bytes (`FileStore`), each with a reference in
//!    memory and one conformance suite for all.
//! 5. A decision that must be atomic is handed to the store as a function, and the store runs it
//!    inside its own transaction; it may, because core is pure.
//! 6. Every "no" is one row of [`core::refusal`], with its stanza error, its status and its words.
//!
//! What happens is told once, as a [`core::event`], by `Service::tell` to whoever listens:
//! [`audit_log`] writes it down for operators, [`meters`] counts it and what the parts do by
//! themselves, `service::recent` remembers a day of it.
//!
//! [`admin`] is the private listener beside them: how the service is, what was counted, and a page
//! of it that `Service::status` gathers and `admin::page` draws. [`warm`] is a room that either
//! listener lets in, where the configuration says so: it binds BOSH sessions for others.
//!
//! [`config`] says what was configured, [`daemon`] puts the rooms together, stops them, reads the
//! configuration anew and talks to the service manager, [`log`] keeps secrets out of the log.
//! [`import`] reads what other upload servers left, for [`service`] to keep: `slotd import`.
//! [`send`] is a client beside all this: `slotd send` uses the service from outside, and of these
//! rooms nothing but the log-in of clients, [`xmpp::client`].
//!
//! # The flows
//!
//! **Slot request to slot** (XEP-0363 #request)
//! * `xmpp::stream` reads a stanza that `xmpp::guard` let through, `xmpp::route` finds its handler.
//!   Who asks is in `from`; behind a relay it is in the resource of the relay's address, which
//!   `core::relayed` takes apart (`xmpp::speaker` is all that differs).
//! * `xmpp::elements` makes a `SlotRequest` of it, or refuses. Most need no parser: `xmpp::plain`
//!   reads them from their bytes.
//! * `Service::request_slot`: access and size, then the requester's rate, then
//!   `SessionStore::admit` with the quota's decision. The row is durable before the slot leaves.
//!
//! **PUT to file** (XEP-0363 #upload)
//! * `http::front` takes a plain PUT, and lends the connection to the body; the others go on to
//!   hyper, past `http::guard`. Either way `http::framing` checks the framing, `http::head` the
//!   rest, and `http::put` makes an `Upload` of the head.
//! * `Service::receive` opens the token and asks `UploadSession::begin`: nothing was disturbed so
//!   far, nothing of the body was read.
//! * The slot is taken over: an older request is cut, its durable bytes are noted.
//! * A small plain file that comes whole and soon (`service::whole`) goes to `FileStore::keep` at
//!   once, and one change of its row begins and completes it; then 201. All others:
//! * `FileStore::append` takes the body through `service::intake`, which counts, hashes and times
//!   it.
//! * Whole: commit the file, then complete the row, then 201. Broken: the bytes stay as the slot's
//!   prefix, the slot stays usable, the same PUT may come again.
//! * The slot is complete already: the body is compared, and a lost 201 is given again.
//!
//! **PUT of another system to file** (`[[external]]`)
//! * `http::head` finds the system by the path. `core::external` opens the token that it made, and
//!   names the row by the path.
//! * `Service::receive` has a row kept for it by the first PUT (`SessionStore::admit_path`), once
//!   for ever: the path stays marked when the row is gone. From there on it is a PUT as any other.
//!
//! **Append to file**
//! * `Service::receive` opens the resume URL and asks `UploadSession::append`, which takes the
//!   durable offset alone, told to who is elsewhere.
//! * The digest so far is remembered (`service::hashes`), or read again after a restart.
//! * From there on it is a PUT. Bytes with a checksum are held back: they count, and are told, once
//!   the checksum was found right.
//!
//! **Offset**
//! * `Service::find_offset` (HEAD) takes the slot over, so that the offset it tells is taken by the
//!   next append. `Service::query_session` (IQ) disturbs nobody and asks the writer.
//! * An attempt that was ended has all its bytes in its row. What a crash left is looked for once.
//!
//! **Refresh to new credentials**
//! * `Service::refresh_session` makes a new generation in the row, by which the old one is dead;
//!   then it cuts who writes, notes their last byte, and tells the offset with the new slot.
//! * Nobody presented the last one's credentials: its reply was lost, and they are issued again.
//!
//! **Cancel to tombstone**
//! * The row goes first, over IQ or by its resume URL; then the writer is cut and the bytes go,
//!   also when nobody waits for the answer any more.
//!
//! **GET to bytes**
//! * `Service::open_file`: what is served of the row, `core::download::answer`, then the bytes. 404
//!   before completion and from the very second at which the file's time is over, whether it was
//!   swept or not. What is asked for again finds its row and its file at hand (`store::hot`).
//! * `http::front` answers, and gives the kernel the file, or encrypts it for TLS; what is no
//!   plain request for a file goes on to hyper, with the rest of its connection.
//!
//! **Command to outcome** (XEP-0050)
//! * `xmpp::commands` and `xmpp::forms` read a stage. `Operations::step_command` asks at each one
//!   who may, and takes the command out of `core::command::running`, so that no stage runs twice.
//! * `core::command::flows` says what is next from the answers so far: a form, a page, or an
//!   `Operation`, which `service::operations` does to its end, also when the stream is gone.
//! * What holds across restarts (`core::orders`: quota exceptions, a note) is kept by the store,
//!   and at hand in memory.
//! * Cancel: the row first, then the writer is cut and the bytes go. Delete and purge: what is open
//!   is cancelled; then the file goes, and its row last.
//!
//! **SIGHUP to other rules**
//! * `daemon::reload` reads the whole file and the certificate; what is wrong changes nothing.
//! * `Service::set_settings` swaps all rules at once. Who needs them asks the service each time,
//!   and keeps them for as long as one decision takes.
//!
//! **SIGTERM to the end**
//! * The service gives out no slots and takes no uploads any more; `http::hall` answers who has
//!   connected, and leaves the others in the socket where the service manager keeps it.
//! * Uploads end, or are cut when `stop_within` is over: their bytes are durable. Then the streams.
//!
//! **Scrape to figures**
//! * `admin::listen` takes few connections and no bodies. `/readyz` and `/metrics` ask
//!   `admin::pulse`, which asks the stores once for all; `core::health` says what is wrong.
//! * Most figures are there already: `Service::tell` has each event counted (`meters::happenings`),
//!   and stores, streams and connections count their work (`meters::work`).
//!
//! **Form to BOSH session** (XEP-0124, XEP-0206)
//! * `warm::ask` refuses what nobody may ask; then `warm::job` has the operator's own server say
//!   whether the password is right, by a login that ends there.
//! * `core::bosh::form` reads the wish, `core::bosh::Login` writes one body and reads one answer at
//!   a time, `warm::line` carries them to the manager that the configuration names.
//! * A lost answer is asked for with the same bytes, once. What fails, or what nobody waits for any
//!   more, is ended.
//!
//! **Failure to ban**
//! * An edge asks `Service::check_address` or `check_account` before anything else: who is banned
//!   gets nothing.
//! * A refusal that no honest client earns goes to `Service::blame_address` or `blame_account`;
//!   `core::bans` counts it, and the one too many makes a ban. It holds at once and is written
//!   behind; the next start reads it again.
//!
//! **Another server's files to ours** (`slotd import`)
//! * `import::listing` opens each file without following a link, and knows its old path, owner and
//!   time; `import::source` reads it as long as nobody changes it.
//! * `service::import` admits a row for the path, as old as the upload; then the bytes come, as
//!   those of an upload do, and the row is complete. What is cut off goes on in the next run.
//!
//! **Upkeep**
//! * `Sweeper::sweep` asks for what is due and removes it, a file before its row; never
//!   when rows and files do not belong together or the clock has leapt.
//!
//! # Invariants
//!
//! 1. There is no file and no part without a row.
//! 2. The file of a complete row is whole and never changes; its size is its row's.
//! 3. A row that is complete has its file until it is due, or somebody removes both.
//! 4. The durable offset of a session never decreases, and the bytes below it are durable.
//! 5. At most one writer's progress counts; a dead generation changes nothing.
//! 6. Nothing is served before completion, nor at or after `keep_until`.
//! 7. The bytes admitted to a requester within a window never exceed the quota, but for what a
//!    purge forgets, and for what an import brings along.
//! 8. A refusal changes nothing.
//! 9. After a crash at any point 1, 2, 4, 5 and 6 hold at once, and 3 after one sweep.
//!
//! They rest on these assumptions: a rename within a file system is atomic; what was synced, with
//! its directory, survives; a commit of the database is durable.
//!
//! # Deliberately absent
//!
//! Plugins and hooks; thumbnails, compression and deduplication (most uploads are ciphertext);
//! accounts of our own (the XMPP server knows who is who); a session id in any header, cookie or
//! query; async in core; traits with one implementation, but for `World`.

pub mod admin;
pub mod audit_log;
pub mod config;
pub mod core;
pub mod daemon;
pub mod http;
pub mod import;
pub mod log;
pub mod meters;
pub mod send;
pub mod service;
pub mod store;
pub mod upkeep;
pub mod warm;
pub mod xmpp;
