//! Sockets that the service manager listens on for us, and hands over at each start: connections
//! that come while nobody serves wait there, and none is refused.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::config::Listen;

/// Those that nobody has claimed yet.
#[derive(Default)]
pub struct Inherited(Vec<Given>);

/// A socket that was handed over, listening.
pub enum Given {
    /// Of an address.
    Tcp(TcpListener),
    /// Of a file, which is not ours to remove.
    Unix(UnixListener),
}

impl Inherited {
    /// Takes them out of the environment (`LISTEN_FDS`). Call it once, before there are threads:
    /// it changes the environment. Fails where one is no stream socket.
    pub fn take() -> io::Result<Self> {
        let mut sockets = ListenFd::from_env();
        let mut given = Vec::new();
        for n in 0..sockets.len() {
            let socket = match sockets.take_unix_listener(n) {
                Ok(socket) => socket.map(Given::Unix),
                Err(_) => sockets.take_tcp_listener(n)?.map(Given::Tcp),
            };
            given.extend(socket);
        }
        Ok(Self(given))
    }

    /// The socket that listens where `listen` says, if one was handed over.
    pub fn claim(&mut self, listen: &Listen) -> Option<Given> {
        let at = self.0.iter().position(|given| given.is_at(listen))?;
        Some(self.0.swap_remove(at))
    }

    /// Where the others listen: nobody would ever answer there.
    pub fn unclaimed(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl Given {
    fn is_at(&self, listen: &Listen) -> bool {
        match (self, listen) {
            (Self::Tcp(listener), Listen::Tcp(wanted)) => {
                let is_wanted = |given: SocketAddr| {
                    // A bare port in a socket unit is `[::]`, every address of either kind.
                    let [any, any_v4] = [
                        IpAddr::from(Ipv6Addr::UNSPECIFIED),
                        Ipv4Addr::UNSPECIFIED.into(),
                    ];
                    let is_any = given.ip() == any && wanted.ip() == any_v4;
                    given == *wanted || is_any && given.port() == wanted.port()
                };
                listener.local_addr().is_ok_and(is_wanted)
            }
            (Self::Unix(listener), Listen::Unix(wanted)) => {
                let address = listener.local_addr();
                address.is_ok_and(|given| given.as_pathname() == Some(wanted))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("an unknown address"),
            },
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                match path {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("an unnamed socket"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_claimed_by_where_they_listen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let any = TcpListener::bind("[::]:0").expect("bound");
        let [tcp_at, any_at] = [&tcp, &any].map(|it| it.local_addr().expect("an address"));
        let unix = UnixListener::bind(&path).expect("bound");
        let mut all = Inherited(vec![Given::Tcp(tcp), Given::Unix(unix), Given::Tcp(any)]);
        let elsewhere = Listen::Tcp(([127, 0, 0, 2], tcp_at.port()).into());
        assert!(all.claim(&elsewhere).is_none());
        assert!(all.claim(&Listen::Unix("/elsewhere".into())).is_none());
        assert!(all.claim(&Listen::Tcp(tcp_at)).is_some());
        assert!(all.claim(&Listen::Tcp(tcp_at)).is_none());
        let any_v4 = Listen::Tcp(([0, 0, 0, 0], any_at.port()).into());
        assert!(all.claim(&any_v4).is_some());
        assert_eq!(all.unclaimed(), [format!("unix:{}", path.display())]);
        assert!(all.claim(&Listen::Unix(path)).is_some());
        assert!(all.unclaimed().is_empty());
    }
}
