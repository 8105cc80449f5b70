//! Files that are kept open for the next download.
//!
//! A file never changes, so an open one is as good as its name, as long as it has that name. Who
//! takes a name away forgets the file. What somebody else removed has no name left, which
//! `Inner::open` sees within a second.

use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use crate::store::Handle;
use crate::store::hot::Hot;

/// Most files kept open: more than are asked for at a time, and next to nothing in memory.
const HANDLES_MAX: u64 = 4096;
/// Which part of the descriptors that we may have they are at most.
const DESCRIPTORS_SHARE: u64 = 8;

/// How many files are kept open at most.
pub fn kept_max() -> u64 {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    HANDLES_MAX.min(descriptors / DESCRIPTORS_SHARE)
}

/// Files kept open.
pub(super) type Handles = Hot<Arc<Handle>>;
