//! A BOSH session logged in turn by turn, for somebody else to go on with: XEP-0124, XEP-0206.
//!
//! `Login` writes the body of each request and reads the answer to it; who carries them is not its
//! affair. `form` reads what is wished for, `body` writes and reads XML, `scram` proves that both
//! sides know the password, `failure` says why there is no session, `manager` is what was
//! configured.
//!
//! # What whoever carries the bodies promises
//!
//! * The way is TLS or does not leave this machine: so PLAIN may go, where SCRAM is not offered.
//! * A body whose answer was lost is sent once more byte by byte, or not at all: the connection
//!   manager answers a number that it knows with the answer that it gave (XEP-0124 #rids).
//! * Whatever fails after the first answer, `Login::end` has the body that ends the session.

use std::fmt;
use std::time::Duration;

use jid::{FullJid, Jid};
use minidom::Element;

use self::body::Answer;
use self::failure::Failure;
use self::password::Password;
use self::scram::Scram;

pub mod body;
pub mod failure;
pub mod form;
pub mod manager;
pub mod password;
mod scram;

#[cfg(test)]
mod tests;

pub use self::body::Body;

/// How often in a row we ask for what is not there yet.
const EMPTY_MAX: u8 = 5;
/// The longest pause between two empty requests that a connection manager can make us take.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The number of a request: one more than that of the request before.
///
/// It is half of what opens the session, so `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rid(u64);

impl Rid {
    /// Where a session begins: nobody guesses it, and as many numbers are left for whoever goes
    /// on. XEP-0124 #rids-syntax: none is above 2^53 - 1.
    pub fn first(random: u128) -> Self {
        Self(1 + (random as u64 >> 12))
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rid(...)")
    }
}

/// What a session is asked to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `xml:lang`.
    pub lang: String,
    /// The longest time that the connection manager may keep a request, in seconds.
    pub wait_s: u16,
    /// How many requests it may keep.
    pub hold: u8,
    /// The version of BOSH.
    pub ver: String,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lang: "en".to_owned(),
            wait_s: 60,
            hold: 1,
            ver: "1.6".to_owned(),
        }
    }
}

/// Who shall be logged in, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The account; its resource, where it has one, is asked for.
    pub jid: Jid,
    /// Its password.
    pub password: Password,
    /// What its session shall be like.
    pub terms: Terms,
}

/// How far a login goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Until the server says that the password is right.
    Proof,
    /// Until there is a session with an address.
    Session,
}

/// A session that is logged in, for whoever has this. `Debug` shows no more than whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The address that the server gave.
    pub jid: FullJid,
    /// The session's name.
    pub sid: String,
    /// The number of the next request.
    pub rid: Rid,
    /// How long the session lives without a request, in seconds, where the manager says so.
    pub inactivity_s: Option<u32>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("jid", &self.jid).finish()
    }
}

/// What is next.
#[derive(Debug)]
pub enum Step {
    /// This body, after a pause.
    Send(Body, Duration),
    /// The last body once more, unless it was sent twice already.
    Repeat,
    /// Nothing: the password is right.
    Proven,
    /// Nothing: the session is there.
    Bound(Binding),
    /// Nothing: there will be no session.
    Failed(Failure),
}

/// A login under way.
pub struct Login {
    wish: Wish,
    aim: Aim,
    /// What nobody foresees, for SCRAM.
    nonce: String,
    /// The number of the last body that was made.
    rid: Rid,
    /// The session's name; none before it is there, and after it was ended.
    sid: Option<String>,
    state: State,
    /// Empty requests in a row.
    n_empty: u8,
    /// The pause before an empty request: none where the manager keeps requests.
    pause: Duration,
    inactivity_s: Option<u32>,
}

/// What we wait for.
enum State {
    /// The session.
    Creation,
    /// The features, which tell the mechanisms.
    Mechanisms,
    /// The server's part of SCRAM.
    Scram(Scram),
    /// The server's opinion of the password.
    Plain,
    /// The features of who is logged in.
    Features,
    /// A resource; whether a session is needed after it.
    Resource(Session),
    /// The session of RFC 3921, by whose address.
    Session(FullJid),
    /// Nothing.
    End,
}

/// Whether the server wants RFC 3921's session.
#[derive(Clone, Copy)]
enum Session {
    Required,
    Obsolete,
}

type Turn = Result<Step, Failure>;

impl Login {
    /// Begins: the login, and the first body to send. `nonce` is of printable ASCII without commas,
    /// and as unforeseen as `first`.
    pub fn begin(wish: Wish, aim: Aim, first: Rid, nonce: String) -> (Self, Body) {
        let body = body::create(&wish, first);
        let login = Self {
            wish,
            aim,
            nonce,
            rid: first,
            sid: None,
            state: State::Creation,
            n_empty: 0,
            pause: Duration::ZERO,
            inactivity_s: None,
        };
        (login, body)
    }

    /// Reads the answer to the last body. After `Proven`, `Bound` and `Failed` nothing is
    /// left to ask.
    pub fn answer(&mut self, xml: &[u8]) -> Step {
        let turn = Answer::read(xml).and_then(|answer| self.turn(&answer));
        turn.unwrap_or_else(Step::Failed)
    }

    /// The body that ends the session; none where there is none.
    ///
    /// Its number follows `sent`, the last that left us, for a connection manager waits for every
    /// number before it listens to a higher one: a body that was made and not sent has none.
    pub fn end(&mut self, sent: Option<Rid>) -> Option<Body> {
        let sid = self.sid.take()?;
        self.state = State::End;
        Some(body::terminate(&sid, sent?.next()))
    }

    fn turn(&mut self, answer: &Answer) -> Turn {
        if let Some(failure) = answer.terminated() {
            self.sid = None;
            return Err(failure);
        }
        if answer.is_recoverable() {
            return Ok(Step::Repeat);
        }
        if matches!(self.state, State::Creation) {
            self.created(answer)?;
        }
        match std::mem::replace(&mut self.state, State::End) {
            State::Creation | State::Mechanisms => match answer.features() {
                Some(features) => self.authenticate(features),
                None => self.wait(State::Mechanisms),
            },
            State::Scram(scram) => match answer.sasl() {
                Some(reply) => self.prove(scram, reply),
                None => self.wait(State::Scram(scram)),
            },
            State::Plain => match answer.sasl() {
                Some(reply) => self.believe(reply),
                None => self.wait(State::Plain),
            },
            State::Features => match answer.features() {
                Some(features) => self.bind(features),
                None => self.wait(State::Features),
            },
            State::Resource(session) => match answer.iq(body::BIND_ID) {
                Some(iq) => self.bound(iq, session),
                None => self.wait(State::Resource(session)),
            },
            State::Session(jid) => match answer.iq(body::SESSION_ID) {
                Some(iq) if iq.attr("type") == Some("result") => self.done(jid),
                Some(iq) => Err(Failure::of_stanza(iq)),
                None => self.wait(State::Session(jid)),
            },
            State::End => Err(Failure::Garbled),
        }
    }

    /// Takes down what the session is like.
    fn created(&mut self, answer: &Answer) -> Result<(), Failure> {
        self.sid = Some(answer.sid().ok_or(Failure::Garbled)?.to_owned());
        self.state = State::Mechanisms;
        self.inactivity_s = answer.number("inactivity");
        let keeps = |name| answer.number(name) != Some(0);
        if !(keeps("hold") && keeps("wait")) {
            // XEP-0124 #overactive: sooner would end the session.
            let polling = answer.number("polling").unwrap_or(0);
            self.pause = Duration::from_secs(polling.into()).min(PAUSE_MAX);
        }
        Ok(())
    }

    fn authenticate(&mut self, features: &Element) -> Turn {
        let offered = body::mechanisms(features);
        let name = self.wish.jid.node().map_or("", |node| node.as_str());
        if let Some(scram) = Scram::best_of(&offered, name, &self.nonce) {
            let auth = body::auth(scram.mechanism(), scram.first().as_bytes());
            return self.send(State::Scram(scram), &[auth]);
        }
        if offered.iter().any(|offered| offered == "PLAIN") {
            let auth = body::auth("PLAIN", &self.wish.password.plain(name));
            return self.send(State::Plain, &[auth]);
        }
        Err(Failure::NoMechanism)
    }

    fn prove(&mut self, mut scram: Scram, reply: &Element) -> Turn {
        match reply.name() {
            "challenge" => {
                let data = body::data(reply)?;
                let response = scram.respond(&data, &self.wish.password)?;
                self.send(State::Scram(scram), &[body::response(&response)])
            }
            "success" => {
                scram.verify_at_end(&body::data(reply)?)?;
                self.accepted()
            }
            _ => Err(Failure::of_sasl(reply)),
        }
    }

    fn believe(&mut self, reply: &Element) -> Turn {
        match reply.name() {
            "success" => self.accepted(),
            "challenge" => Err(Failure::Garbled),
            _ => Err(Failure::of_sasl(reply)),
        }
    }

    fn accepted(&mut self) -> Turn {
        self.wish.password.forget();
        match self.aim {
            Aim::Proof => Ok(Step::Proven),
            Aim::Session => self.restart(),
        }
    }

    fn restart(&mut self) -> Turn {
        self.rid = self.rid.next();
        self.n_empty = 0;
        self.state = State::Features;
        let body = body::restart(self.sid()?, self.rid, &self.wish);
        Ok(Step::Send(body, Duration::ZERO))
    }

    fn bind(&mut self, features: &Element) -> Turn {
        if !body::offers_bind(features) {
            return Err(Failure::Garbled);
        }
        let session = match body::requires_session(features) {
            true => Session::Required,
            false => Session::Obsolete,
        };
        let resource = self.wish.jid.resource().map(|it| it.as_str().to_owned());
        let bind = body::bind(resource.as_deref());
        self.send(State::Resource(session), &[bind])
    }

    fn bound(&mut self, iq: &Element, session: Session) -> Turn {
        if iq.attr("type") != Some("result") {
            return Err(Failure::of_stanza(iq));
        }
        let jid = body::bound_jid(iq).ok_or(Failure::Garbled)?;
        match session {
            Session::Required => self.send(State::Session(jid), &[body::session()]),
            Session::Obsolete => self.done(jid),
        }
    }

    fn done(&mut self, jid: FullJid) -> Turn {
        Ok(Step::Bound(Binding {
            jid,
            sid: self.sid()?.to_owned(),
            rid: self.rid.next(),
            inactivity_s: self.inactivity_s,
        }))
    }

    /// Asks for what is not there yet, as often as that makes sense.
    fn wait(&mut self, state: State) -> Turn {
        if self.n_empty == EMPTY_MAX {
            return Err(Failure::Silent);
        }
        self.n_empty += 1;
        let (n_empty, pause) = (self.n_empty, self.pause);
        let step = self.send(state, &[])?;
        self.n_empty = n_empty;
        match step {
            Step::Send(body, _) => Ok(Step::Send(body, pause)),
            other => Ok(other),
        }
    }

    fn send(&mut self, state: State, content: &[Element]) -> Turn {
        self.state = state;
        self.n_empty = 0;
        self.rid = self.rid.next();
        let body = body::with(self.sid()?, self.rid, content);
        Ok(Step::Send(body, Duration::ZERO))
    }

    fn sid(&self) -> Result<&str, Failure> {
        self.sid.as_deref().ok_or(Failure::Garbled)
    }
}
