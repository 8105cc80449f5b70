//! Opens the database file, or says in a sentence why not and what to do.
//!
//! # What an open reads
//! redb keeps the list of free pages in memory. A commit leaves it in the file only where asked to
//! ("quick repair"), a clean close always does, and any later commit without it makes it void. An
//! open that finds the list takes it. One that finds none walks through the whole file, verifies
//! every page and makes the list anew: 0.1 s and more for 100,000 rows.
//!
//! The list in every commit would cost each writer time, and in every tenth would help one kill of
//! ten. So the committer writes it when nobody has written for a moment: a kill in a quiet time,
//! the common one, is followed by a quick start, and one amidst writers by the walk.
//!
//! # What an end may tear, and who notices
//! * The end of the process tears nothing that was written, only what was being written. A commit
//!   in this mode has two phases: its pages are on the disk before the header names them, so the
//!   header names a whole commit at any time. Nothing of it has to be verified.
//! * The end of the machine tears no more than that where syncs are made. Where they are not, it
//!   may leave any mixture of pages: then every open verifies every page.
//! * A disk that changes what was written is noticed as in a file that was closed cleanly: at the
//!   open in a small one, and where it is read in a large one; see `VERIFY_BYTES_MAX`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::catch_unwind;
use std::path::Path;

use ::redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase as _,
    StorageError,
};
use rustix::fs::{Advice, OFlags};

use crate::store::OpenError;
use crate::store::redb::disk::{Disk, Syncs};
use crate::store::redb::migration::{self, Age};
use crate::store::redb::schema::{
    FACTS, Fault, OWNED_BEFORE, SCHEMA, SCHEMA_VERSION, STORE_ID, Tables,
};

/// Memory for pages of the database; the kernel's page cache holds the rest.
const CACHE_BYTES: usize = 32 << 20;

/// Larger files are not verified at each start, for it takes a second for a few 100 MiB.
///
/// They are where the list of free pages is missing, which redb sees to itself. Damage done to
/// others shows where it is read: by the structure of the file, or by a row's own digest.
const VERIFY_BYTES_MAX: u64 = 8 << 20;

/// Whether to verify every page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// All of it: reads the whole file.
    Everything,
    /// Only what redb itself wants to.
    Nothing,
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // Lets an audit read beside the daemon; both sides have to say so.
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens an existing file, or makes an empty one a database.
pub(super) fn open_writer(
    path: &Path,
    syncs: Syncs,
    check: Check,
) -> Result<Database, DatabaseError> {
    let file = open_file(OpenOptions::new().read(true).write(true), path)?;
    let disk = Disk::new(file, syncs)?;
    builder()
        .set_check_integrity_on_open(check == Check::Everything)
        .create_with_backend(disk)
}

fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    options.custom_flags(flags.bits() as i32).open(path)
}

/// Opens the file for a service, creating it with `new_store_id` where there is none.
pub(super) fn open_or_create(
    path: &Path,
    syncs: Syncs,
    new_store_id: u128,
) -> Result<Database, OpenError> {
    let say = |problem: String| OpenError::new(path, problem);
    let new = open_file(
        OpenOptions::new().write(true).create_new(true).mode(0o600),
        path,
    );
    match new {
        Ok(_) => sync_parent(path).map_err(|e| say(format!("cannot be created: {e}")))?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(say(format!("cannot be created: {e}"))),
    }
    let length = path.metadata().map_or(0, |seen| seen.len());
    // Without syncs a power cut damages also what was closed cleanly.
    let check = match length <= VERIFY_BYTES_MAX || syncs == Syncs::No {
        true => Check::Everything,
        false => Check::Nothing,
    };
    // redb promises errors for damaged files, not that it keeps the promise in every corner.
    let owned = path.to_owned();
    let opened = catch_unwind(move || {
        let database = open_writer(&owned, syncs, check)?;
        let problem = prepare(&database, new_store_id);
        Ok((database, problem))
    });
    match opened {
        Ok(Ok((database, Ok(None)))) => Ok(database),
        Ok(Ok((_, Ok(Some(problem))))) => Err(say(problem)),
        Ok(Ok((_, Err(fault)))) => Err(say(explain_fault(&fault))),
        Ok(Err(e)) => Err(say(explain(&e))),
        Err(_) => Err(say(damaged("it cannot be read"))),
    }
}

/// Makes the kernel forget what it holds of the file.
///
/// After a write to the disk failed, that may be what never got there; who reads it builds on it.
pub(super) fn forget_cached(path: &Path) {
    let opened = open_file(OpenOptions::new().read(true), path);
    if let Ok(file) = opened
        && let Err(e) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)
    {
        tracing::warn!(path = %path.display(), error = %e, "cannot be read afresh");
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes the tables of a new database, and brings an old one to today's; says what is wrong with
/// one that cannot be.
fn prepare(database: &Database, new_store_id: u128) -> Result<Option<String>, Fault> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    let mut tables = Tables::open(&transaction)?;
    if is_new {
        tables.set_fact(SCHEMA, SCHEMA_VERSION)?;
        tables.set_fact(STORE_ID, new_store_id)?;
    }
    let age = Age::of(tables.fact(SCHEMA)?);
    if age == Age::Before {
        tracing::info!("the database is brought to schema {SCHEMA_VERSION}");
        migration::bring_to_today(&mut tables)?;
        transaction.delete_table(OWNED_BEFORE)?;
    }
    match tables.finish()? {
        true => transaction.commit()?,
        false => transaction.abort()?,
    }
    Ok(age.problem())
}

/// Opens an existing file for reading, beside a service or without one.
///
/// What a killed service has left is mended first, as its next start would. A file of the schema
/// before is read as it is.
pub(super) fn open_reader(path: &Path) -> Result<ReadOnlyDatabase, OpenError> {
    let say = |problem: String| OpenError::new(path, problem);
    let database = match read_only(path)? {
        Err(DatabaseError::RepairAborted) => {
            mend(path)?;
            read_only(path)?
        }
        opened => opened,
    };
    let database = database.map_err(|e| say(explain(&e)))?;
    let schema = || -> Result<Option<u128>, Fault> {
        let facts = database.begin_read()?.open_table(FACTS)?;
        Ok(facts.get(SCHEMA)?.map(|fact| fact.value()))
    };
    match schema().map(|schema| Age::of(schema).problem()) {
        Ok(None) => Ok(database),
        Ok(Some(problem)) => Err(say(problem)),
        Err(fault) => Err(say(explain_fault(&fault))),
    }
}

fn read_only(path: &Path) -> Result<Result<ReadOnlyDatabase, DatabaseError>, OpenError> {
    let owned = path.to_owned();
    catch_unwind(move || builder().open_read_only(owned))
        .map_err(|_| OpenError::new(path, damaged("it cannot be read")))
}

/// Opens and closes the file: the lock is held no longer than that.
fn mend(path: &Path) -> Result<(), OpenError> {
    let owned = path.to_owned();
    match catch_unwind(move || open_writer(&owned, Syncs::Yes, Check::Everything)) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(OpenError::new(path, explain(&e))),
        Err(_) => Err(OpenError::new(path, damaged("it cannot be read"))),
    }
}

fn damaged(how: &str) -> String {
    format!(
        "is damaged ({how}); restore it from a backup, or move it away and start without it: \
         files it knew stay on the disk but are no longer served"
    )
}

fn explain(e: &DatabaseError) -> String {
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            "is in use by another process; one data_dir belongs to one slotd".to_owned()
        }
        DatabaseError::RepairAborted => {
            "was not closed cleanly; start slotd once to mend it".to_owned()
        }
        DatabaseError::Storage(StorageError::Corrupted(how)) => damaged(how),
        DatabaseError::Storage(StorageError::Io(e)) => explain_io(e),
        other => format!("cannot be opened: {other}"),
    }
}

fn explain_io(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(&e.to_string()),
        _ => format!("cannot be opened: {e}"),
    }
}

fn explain_fault(fault: &Fault) -> String {
    match fault {
        Fault::TableTypeMismatch { .. }
        | Fault::TableIsMultimap(_)
        | Fault::TypeDefinitionChanged { .. }
        | Fault::TableDoesNotExist(_) => Age::Foreign.problem().unwrap_or_default(),
        Fault::Corrupted(how) => damaged(how),
        Fault::Io(e) => explain_io(e),
        other => format!("cannot be opened: {other}"),
    }
}
