//! Whether the machine was started anew since a data directory was last used.
//!
//! A process that is killed loses nothing that it wrote: the kernel has it. A machine that loses
//! power may keep a file's length without its bytes.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::local::place::replace_file;

/// Name of the file that says under which start of the machine the directory was used.
const BOOT_ID: &str = "boot-id";
/// What the kernel calls this start of the machine.
const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether what was never synced may be lost. Also true where nobody can tell.
pub fn is_started_anew(data_dir: &Path) -> bool {
    let noted = fs::read(data_dir.join(BOOT_ID));
    let now = fs::read(KERNEL_BOOT_ID);
    !matches!((noted, now), (Ok(noted), Ok(now)) if noted == now)
}

/// Notes that what is in the directory can be relied on as long as the machine runs.
pub fn note_start(data_dir: &Path) -> io::Result<()> {
    match fs::read(KERNEL_BOOT_ID) {
        Ok(now) => replace_file(&data_dir.join(BOOT_ID), &now),
        // Then each start counts as the machine's.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_relied_on_under_one_start_of_the_machine() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(is_started_anew(dir.path()));
        note_start(dir.path()).expect("written");
        assert!(!is_started_anew(dir.path()));
        fs::write(dir.path().join(BOOT_ID), "another\n").expect("written");
        assert!(is_started_anew(dir.path()));
    }
}
