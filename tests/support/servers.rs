//! An XMPP server and an upload service by hand, for `slotd send`: what real ones seldom do.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server answers to a stanza: the payload of an IQ's result, or its error.
pub type Answers = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

const HEADER: &str = "<?xml version='1.0'?><stream:stream id='1' from='localhost' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const MECHANISMS: &str = "<stream:features><mechanisms \
    xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>\
    </stream:features>";
const BIND: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
    </stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const BOUND: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <jid>romeo@localhost/1</jid></bind>";
/// Base64 of NUL `romeo` NUL `secret`.
const RIGHT: &str = "AHJvbWVvAHNlY3JldA==";

/// A list that threads append to.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// What was appended so far.
pub fn all(seen: &Seen) -> Vec<String> {
    seen.lock().expect("not poisoned").clone()
}

struct Reader {
    socket: TcpStream,
    held: Vec<u8>,
}

impl Reader {
    fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            held: Vec::new(),
        }
    }

    /// What comes up to the end that comes first, with it.
    fn until(&mut self, ends: &[&str]) -> io::Result<String> {
        loop {
            let text = String::from_utf8_lossy(&self.held).into_owned();
            let found = ends
                .iter()
                .filter_map(|end| Some(text.find(end)? + end.len()));
            if let Some(at) = found.min() {
                let rest = self.held.split_off(at);
                let part = std::mem::replace(&mut self.held, rest);
                return Ok(String::from_utf8_lossy(&part).into_owned());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, n_bytes: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < n_bytes {
            self.more()?;
        }
        let rest = self.held.split_off(n_bytes);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 64 * 1024];
        match self.socket.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n_bytes => {
                self.held.extend(&piece[..n_bytes]);
                Ok(())
            }
        }
    }
}

fn attribute(stanza: &str, name: &str) -> String {
    let before = format!(" {name}=");
    let value = stanza.split_once(&before).map_or("", |(_, rest)| rest);
    let quote = value.chars().next().unwrap_or('"');
    value.split(quote).nth(1).unwrap_or_default().to_owned()
}

/// Starts an XMPP server: its port, and the stanzas that it saw.
pub fn xmpp(answers: Answers) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let seen = Seen::default();
    let into = seen.clone();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // The stream ends when the client goes.
            let _ = stream(Reader::new(socket), &answers, &into);
        }
    });
    (port, seen)
}

fn stream(mut reader: Reader, answers: &Answers, seen: &Seen) -> io::Result<()> {
    reader.until(&["?>"])?;
    reader.until(&[">"])?;
    reader
        .socket
        .write_all(format!("{HEADER}{MECHANISMS}").as_bytes())?;
    let auth = reader.until(&["</auth>"])?;
    if !auth.contains(RIGHT) {
        let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>\
                       </failure></stream:stream>";
        return reader.socket.write_all(failure.as_bytes());
    }
    reader.socket.write_all(SUCCESS.as_bytes())?;
    reader.until(&["?>"])?;
    reader.until(&[">"])?;
    reader
        .socket
        .write_all(format!("{HEADER}{BIND}").as_bytes())?;
    loop {
        let stanza = reader.until(&["</iq>", "</message>", "</stream:stream>"])?;
        seen.lock().expect("not poisoned").push(stanza.clone());
        if !stanza.contains("<iq") {
            continue;
        }
        let (id, from) = (attribute(&stanza, "id"), attribute(&stanza, "to"));
        let answer = match stanza.contains("xmpp-bind") {
            true => Ok(BOUND.to_owned()),
            false => answers(&stanza),
        };
        let from = match from.as_str() {
            "" => String::new(),
            from => format!(" from='{from}'"),
        };
        let answer = match answer {
            Ok(payload) => format!("<iq type='result' id='{id}'{from}>{payload}</iq>"),
            Err(error) => format!("<iq type='error' id='{id}'{from}>{error}</iq>"),
        };
        reader.socket.write_all(answer.as_bytes())?;
    }
}

/// What the upload service does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reads the body and answers.
    Answer(&'static str),
    /// Reads so much of the body and ends the connection.
    Cut(usize),
    /// Reads the body and ends the connection.
    Deaf,
}

/// An upload service that does its acts in their order, and then nobody listens any more.
pub struct Uploads {
    pub port: u16,
    /// The head of every request.
    pub heads: Seen,
    /// The body of every request, as far as it was read.
    pub bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Uploads {
    pub fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let uploads = Self {
            port,
            heads: Seen::default(),
            bodies: Arc::default(),
        };
        let (heads, bodies) = (uploads.heads.clone(), uploads.bodies.clone());
        thread::spawn(move || {
            let mut acts = acts.into_iter().peekable();
            while acts.peek().is_some() {
                let Ok((socket, _)) = listener.accept() else {
                    return;
                };
                let mut reader = Reader::new(socket);
                while acts.peek().is_some() {
                    let Ok(head) = reader.until(&["\r\n\r\n"]) else {
                        break;
                    };
                    let act = acts.next().expect("peeked");
                    heads.lock().expect("not poisoned").push(head.clone());
                    let (body, goes_on) = perform(&mut reader, &head, &act);
                    bodies.lock().expect("not poisoned").push(body);
                    if !goes_on {
                        break;
                    }
                }
            }
        });
        uploads
    }

    /// The first line of every request.
    pub fn lines(&self) -> Vec<String> {
        let first = |head: String| head.lines().next().unwrap_or_default().to_owned();
        all(&self.heads).into_iter().map(first).collect()
    }
}

/// The body, and whether another request may follow.
fn perform(reader: &mut Reader, head: &str, act: &Act) -> (Vec<u8>, bool) {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    let wanted = match act {
        Act::Cut(n_bytes) => *n_bytes,
        Act::Answer(_) | Act::Deaf => length.unwrap_or(0),
    };
    let body = reader.exactly(wanted).unwrap_or_default();
    match act {
        Act::Answer(answer) => {
            let sent = reader.socket.write_all(answer.as_bytes());
            (body, sent.is_ok())
        }
        Act::Cut(_) | Act::Deaf => (body, false),
    }
}
