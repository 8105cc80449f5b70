//! The command line of `slotd send`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use jid::Jid;

const AFTER_HELP: &str = "\
The link of each file is printed on standard output, one a line. An upload that is interrupted, by
Ctrl-C, kill -9 or the machine's end, goes on where it was when the same command is run again: what
is needed for that is kept in $XDG_STATE_HOME/slotd (or ~/.local/state/slotd), without passwords.
A change of network is noticed within about a second, and costs what was on its way.
With services that know no upload sessions (XEP-0363 alone) a file is sent again from its beginning.

Examples:
  slotd send film.mp4 --account romeo@example.org --to juliet@example.org
  slotd send *.jpg --account romeo@example.org --to friends@rooms.example.org --nick Romeo
  SLOTD_PASSWORD=... slotd send backup.tar --account bot@example.org --no-message --json

Exit status: 0 all is sent; 1 a failure, or given up; 2 the command line is wrong, or a file cannot
be read; 3 the XMPP server refuses the log-in, or is not to be trusted; 4 the service or a
recipient's server refuses (too large, over the quota, nobody there); 130 interrupted, 143 ended:
run it again to go on.";

/// What is to be sent, how, and to whom.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct SendArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Who gets the links: a person or a room. May be given several times.
    #[arg(long, value_name = "JID", required_unless_present = "no_message")]
    pub to: Vec<Jid>,
    /// Uploads and prints the links, and tells nobody.
    #[arg(long, conflicts_with = "to")]
    pub no_message: bool,
    /// The account that sends.
    ///
    /// Its password is the value of SLOTD_PASSWORD, or the first line of --password-file, or is
    /// asked for at the terminal.
    #[arg(long, value_name = "JID", value_parser = account)]
    pub account: Jid,
    /// Reads the account's password from the first line of a file.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The XMPP server, where DNS does not say it (SRV records, then the domain at port 5222).
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    pub server: Option<(String, u16)>,
    /// The upload service; without it, the one that the account's server offers.
    #[arg(long, value_name = "JID")]
    pub service: Option<Jid>,
    /// The name in rooms; without it, the account's local part.
    #[arg(long, value_name = "NAME")]
    pub nick: Option<String>,
    /// Trusts the certificates in this PEM file, too: authorities, or a server's own.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Goes on without TLS where the other side offers none: everybody on the way can read it.
    #[arg(long)]
    pub insecure: bool,
    /// Sends no faster than this a second: 500KiB, 2MB.
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub rate_max: Option<ByteSize>,
    /// Gives a file up after this long: "90 minutes".
    #[arg(long, value_name = "TIME", default_value = "72 hours",
          value_parser = humantime::parse_duration)]
    pub give_up_after: Duration,
    /// Begins anew, whatever an earlier run left.
    #[arg(long)]
    pub fresh: bool,
    /// Prints one JSON object for each file.
    #[arg(long)]
    pub json: bool,
    /// Draws and says nothing but what is wrong.
    #[arg(long, short)]
    pub quiet: bool,
}

fn account(text: &str) -> Result<Jid, String> {
    let jid = Jid::new(text).map_err(|error| error.to_string())?;
    match jid.node() {
        Some(_) => Ok(jid),
        None => Err("an account has the form name@domain".to_owned()),
    }
}

fn server(text: &str) -> Result<(String, u16), String> {
    let wrong = || "the form is HOST:PORT, such as xmpp.example.org:5222".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    // Only in brackets has an IPv6 address an end.
    let is_named = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    is_named.then(|| (host.to_owned(), port)).ok_or_else(wrong)
}

fn rate(text: &str) -> Result<ByteSize, String> {
    let rate: ByteSize = text.parse()?;
    match rate.as_u64() {
        0 => Err("nothing is ever sent at 0".to_owned()),
        _ => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        assert_eq!(server("a.example:5222"), Ok(("a.example".to_owned(), 5222)));
        assert_eq!(server("[::1]:1"), Ok(("[::1]".to_owned(), 1)));
        for wrong in ["a", ":1", "a:", "a:65536", "::1:5222", "a:b"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_have_a_name() {
        assert!(account("romeo@example.org/phone").is_ok());
        assert!(account("example.org").is_err());
    }
}
