//! The command line of `slotd import`.

use std::path::PathBuf;

use clap::Args;

use super::Layout;

const AFTER_HELP: &str = "\
The configuration's [[external]] says where the old links lead: a file that is X/Y below DIR is
served as X/Y below its path. Without a secret there it serves them and takes nothing.

  prosody-filer        its storeDir
  hmac-file-server     its storagepath
  mod_http_file_share  the upload host's directory in Prosody's data_path, which has uploads.list,
                       such as /var/lib/prosody/upload%2eexample%2eorg
  ejabberd             the docroot of mod_http_upload

Files are copied, and durable before the next ones are taken; DIR is not changed. Each is as old as
its upload was (its mtime, or what Prosody's archive says): it goes when retention says so, and what
would have gone already is left out. Its bytes count in the quota of the day of its upload. Owners
are those of Prosody's archive; ejabberd's links have a name for theirs, and other files stand under
the domain of [[external]].

Stop slotd first, and the old server, too, or import again after it was stopped. What was cut off
goes on when the same command is run again, and nothing is taken twice. slotd audit --deep compares
all that is there. As root, files belong to whom data_dir belongs to.

Examples:
  slotd import /var/lib/prosody/upload%2eexample%2eorg --config /etc/slotd/slotd.toml --dry-run
  slotd import /var/www/upload --from ejabberd --config /etc/slotd/slotd.toml

Exit status: 0 all is here; 1 something was refused, and is told, or it went wrong; 2 the command
line or the configuration is wrong; 130 interrupted, 143 ended: run it again to go on.";

/// What is taken over, and how it is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct ImportArgs {
    /// Where the other server keeps its files.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The configuration file; its secrets are not read.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Whose directory it is; without it, it is recognized by what is in it.
    #[arg(long, value_name = "SERVER")]
    pub from: Option<Layout>,
    /// The path of the external section that the links are below, where there are several.
    #[arg(long, value_name = "PATH")]
    pub under: Option<String>,
    /// Says what would be taken, also beside a running slotd, and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON object, and no progress.
    #[arg(long)]
    pub json: bool,
}
