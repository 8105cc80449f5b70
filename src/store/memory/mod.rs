//! Both stores in maps: the reference, and the tests' stand-in.
//!
//! Short and plainly right rather than fast.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};

pub use files::MemoryFiles;
pub use sessions::MemorySessions;

mod files;
mod sessions;

/// What binds default stores to each other.
const STORE_ID: u128 = 1;

/// A panic elsewhere leaves the maps whole: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A future that is ready: maps never wait.
fn done<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(ready(value))
}
