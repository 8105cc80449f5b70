//! The file that uploads send.

use std::fs::File;
use std::io;
use std::path::Path;

/// What a PUT sends: by descriptor where the kernel copies, from memory where TLS does.
pub struct Body {
    pub file: File,
    pub size: u64,
    /// Empty where no connection has TLS.
    pub bytes: Vec<u8>,
}

impl Body {
    /// Opens it.
    pub fn open(path: &Path, is_tls: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let bytes = match is_tls {
            true => std::fs::read(path)?,
            false => Vec::new(),
        };
        Ok(Self { file, size, bytes })
    }
}
