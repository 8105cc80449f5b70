//! `slotd check`.

use std::process::ExitCode;

use slotd::config::Loaded;
use slotd::config::summary::Summary;
use slotd::xmpp;

use super::{ConfigArgs, End, failed, load_to_serve, runtime, say, say_aside};

/// Tells what a configuration means, and tries it where that is wanted.
pub fn check(args: ConfigArgs, connect: bool) -> Result<ExitCode, End> {
    let file = args.config.display().to_string();
    let Loaded {
        config, warnings, ..
    } = load_to_serve(args)?;
    for warning in &warnings {
        say_aside(&format!("warning: {warning}"));
    }
    say(&format!("{file} is good:\n{}", Summary(&config)))?;
    if connect {
        let runtime = runtime(Some(1))?;
        for identity in xmpp::identities(&config.components, config.account.as_ref()) {
            let name = identity.name();
            if let Err(error) = runtime.block_on(xmpp::try_login(&identity)) {
                return Err(failed(format!("{name}: {error}")));
            }
            say(&format!("{name}: logged in"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
