//! The stores of a data directory.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::config::Durability;
use crate::core::time::Timestamp;
use crate::store::{OpenError, Stores, local, redb};

/// Name of the database file in the data directory.
const DATABASE: &str = "slotd.redb";

/// When the rows of `data_dir` were last written, if there are any: what a clock can be held
/// against.
///
/// Ask before `open`, which writes.
pub fn written_at(data_dir: &Path) -> Option<Timestamp> {
    let metadata = std::fs::metadata(data_dir.join(DATABASE)).ok()?;
    let since_epoch = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(since_epoch.as_secs()))
}

/// Opens both stores of `data_dir`, making what is missing.
///
/// The only function that knows what stores there are. Must be called inside a runtime. An error
/// names the file or directory, and says what to do.
pub fn open(data_dir: &Path, durability: Durability) -> Result<Stores, OpenError> {
    let files = local::LocalFiles::open(data_dir, durability)?;
    let path = data_dir.join(DATABASE);
    let new_store_id = id_for_new_rows(&path, &files)?;
    let sessions = redb::RedbSessions::open(&path, durability, new_store_id)?;
    Ok(Stores {
        sessions: Arc::new(sessions),
        files: Arc::new(files),
    })
}

/// Refuses where root would make the database of a directory that is somebody else's: the service
/// could not open it.
///
/// What root adds to a store that is there belongs to whom the directory belongs to.
pub fn check_heir(data_dir: &Path) -> Result<(), OpenError> {
    let path = data_dir.join(DATABASE);
    if local::place::heir_of(data_dir).is_none() || path.exists() {
        return Ok(());
    }
    let problem = "does not exist: start slotd once, so that its own user makes it";
    Err(OpenError::new(&path, problem))
}

/// The store id of a database that is yet to be made.
///
/// Where there are files already, their rows were lost: a new database is not theirs.
fn id_for_new_rows(path: &Path, files: &local::LocalFiles) -> Result<u128, OpenError> {
    let is_new = match std::fs::symlink_metadata(path) {
        Ok(seen) => seen.len() == 0,
        Err(_) => true,
    };
    let unreadable = |e: std::io::Error| OpenError::new(path, format!("has no id: {e}"));
    if !is_new || files.is_empty().map_err(unreadable)? {
        return Ok(files.id());
    }
    if path.exists() {
        let problem = "is empty, but there are files; restore it from a backup, or remove it to \
             start without it";
        return Err(OpenError::new(path, problem));
    }
    let path = path.display();
    tracing::error!(%path, "the database is gone: files that it knew are no longer served");
    local::place::random_u128().map_err(unreadable)
}

/// Opens both stores of `data_dir` for reading, also beside a running service.
pub fn open_read_only(data_dir: &Path) -> Result<Stores, OpenError> {
    let files = local::LocalFiles::open_read_only(data_dir)?;
    let sessions = redb::RedbSessions::open_read_only(&data_dir.join(DATABASE))?;
    Ok(Stores {
        sessions: Arc::new(sessions),
        files: Arc::new(files),
    })
}
