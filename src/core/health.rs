//! Whether the service can do its work, from what was seen of its parts.

use std::fmt;

/// How many streams of a component, or of the account, are up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCount {
    /// The component's host, or the account's JID.
    pub host: String,
    /// How many are logged in.
    pub n_up: usize,
    /// How many there shall be.
    pub n_wanted: usize,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether rows can be read; `None` where they do not answer.
    pub rows: Option<bool>,
    /// Whether files can be written, synced and read; `None` where they do not answer.
    pub files: Option<bool>,
    /// The streams of all components, or of the account.
    pub streams: Vec<StreamCount>,
    /// An operator said that no slots are given out.
    pub is_draining: bool,
    /// The service is being stopped.
    pub is_stopping: bool,
}

/// Why the service is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is being stopped.
    Stopping,
    /// It gives out no slots.
    Draining,
    /// The database.
    Rows {
        /// Whether it said so itself.
        answers: bool,
    },
    /// The files.
    Files {
        /// Whether they said so themselves.
        answers: bool,
    },
    /// A component or an account without any stream.
    Offline {
        /// Its name.
        host: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the service is stopping"),
            Self::Draining => f.write_str("an operator said: give out no more slots"),
            Self::Rows { answers: true } => f.write_str("the database fails, see the log"),
            Self::Rows { answers: false } => f.write_str("the database does not answer"),
            Self::Files { answers: true } => f.write_str("the files' disk fails, see the log"),
            Self::Files { answers: false } => f.write_str("the files' disk does not answer"),
            Self::Offline { host } => write!(f, "{host} has no stream to the XMPP server"),
        }
    }
}

/// All that keeps the service from taking uploads; nothing where it is ready.
pub fn troubles(seen: &Seen) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if seen.is_stopping {
        troubles.push(Trouble::Stopping);
    }
    if seen.is_draining {
        troubles.push(Trouble::Draining);
    }
    if seen.rows != Some(true) {
        let answers = seen.rows.is_some();
        troubles.push(Trouble::Rows { answers });
    }
    if seen.files != Some(true) {
        let answers = seen.files.is_some();
        troubles.push(Trouble::Files { answers });
    }
    let offline = seen.streams.iter().filter(|stream| stream.n_up == 0);
    troubles.extend(offline.map(|stream| Trouble::Offline {
        host: stream.host.clone(),
    }));
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Seen {
        Seen {
            rows: Some(true),
            files: Some(true),
            streams: vec![stream(1), stream(2)],
            is_draining: false,
            is_stopping: false,
        }
    }

    fn stream(n_up: usize) -> StreamCount {
        StreamCount {
            host: format!("upload{n_up}.example.org"),
            n_up,
            n_wanted: 2,
        }
    }

    #[test]
    fn one_stream_of_each_component_is_enough() {
        assert_eq!(troubles(&well()), []);
        // Files alone are served without XMPP.
        let streams = Vec::new();
        assert_eq!(troubles(&Seen { streams, ..well() }), []);
    }

    #[test]
    fn every_trouble_is_named() {
        let seen = Seen {
            rows: None,
            files: Some(false),
            streams: vec![stream(1), stream(0)],
            is_draining: true,
            is_stopping: true,
        };
        let words: Vec<String> = troubles(&seen).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "the service is stopping",
                "an operator said: give out no more slots",
                "the database does not answer",
                "the files' disk fails, see the log",
                "upload0.example.org has no stream to the XMPP server",
            ]
        );
    }
}
