//! What happens to the relay, and what it does: events in, effects out.

use std::time::Duration;

use super::courtship::News;
use crate::core::refusal::Refusal;

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time since some fixed moment, which nobody can set.
    pub now: Duration,
    /// A random number: it need not be secret.
    pub random: u64,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event<S> {
    /// The relay's stream is up: nothing is known of the target.
    Connected,
    /// The relay's stream is gone. Asks wait on: their answers may come over the next one.
    Disconnected,
    /// A stanza came for one of the relay's addresses.
    Stanza(Incoming<S>),
    /// Time went by; comes about once a second while the stream is up.
    Tick,
    /// Nothing new is taken any more.
    Draining,
    /// Whoever still waits is told not to.
    Stopped,
}

/// A stanza, as far as its way depends on it.
#[derive(Clone, Debug)]
pub struct Incoming<S> {
    /// What kind of stanza it is.
    pub what: What,
    /// Who sent it, as the server wrote it.
    pub from: String,
    /// To which address of the relay.
    pub to: String,
    /// Its id; never empty in an IQ.
    pub id: String,
    /// The stanza itself: it is passed on and never looked into.
    pub stanza: S,
    /// About how much memory that takes up.
    pub n_bytes: usize,
}

/// Kinds of stanzas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request.
    Ask(Kind),
    /// A reply.
    Reply(Answer),
    /// An IQ of another type, or a request without exactly one payload.
    MalformedIq,
    /// A message.
    Message,
    /// A message of type error.
    MessageError,
    /// A presence.
    Presence(Presence),
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing, so it can be asked again.
    Get,
    /// It may have been done, answered or not.
    Set,
}

/// Kinds of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Whatever the target says: a result, or an error.
    Said,
    /// `service-unavailable`: of a target that does not know the payload, or of its server where
    /// the resource is gone.
    Unavailable,
    /// `item-not-found`, or XEP-0050's `bad-sessionid`: this resource has nothing of what the
    /// request is about, and did nothing. Another one may have it.
    Unknown,
    /// An error that servers alone give: the request did not arrive.
    Unreachable,
    /// A reply beyond our limits, of which nothing was kept.
    TooLong,
}

/// Types of presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "RFC 6121 #4.7.1 has them")]
pub enum Presence {
    Available,
    Unavailable,
    Subscribe,
    Subscribed,
    Unsubscribed,
    Probe,
    Error,
    /// `unsubscribe`, and whatever is none.
    Other,
}

/// Kinds of stanzas that are answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "RFC 6120 #8.2 has them")]
pub enum Stanza {
    Iq,
    Message,
    Presence,
}

/// Why a stanza is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Way {
    /// A request on its way to the target.
    Request,
    /// The same request on its way to another resource.
    Retry,
    /// A reply on its way back.
    Reply,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<S> {
    /// Send the stanza on, with these in place of its own attributes.
    Forward {
        /// Why.
        way: Way,
        /// The stanza as it came.
        stanza: S,
        /// `from`
        from: String,
        /// `to`
        to: String,
        /// `id`
        id: String,
    },
    /// Answer with an error.
    Refuse {
        /// What is answered.
        stanza: Stanza,
        /// `from`: the address that was asked.
        from: String,
        /// `to`: who asked.
        to: String,
        /// `id`
        id: String,
        /// Why.
        refusal: Refusal,
    },
    /// Send a presence from the relay's host to the target's account.
    Send(Presence),
    /// Nothing: a reply that nobody waits for, or a stanza that is not relayed.
    Drop,
    /// Tell an admin.
    Tell(News),
}

impl<S> Incoming<S> {
    /// Answers with an error.
    pub fn refuse(self, refusal: Refusal) -> Effect<S> {
        Effect::Refuse {
            stanza: match self.what {
                What::Ask(_) | What::Reply(_) | What::MalformedIq => Stanza::Iq,
                What::Message | What::MessageError => Stanza::Message,
                What::Presence(_) => Stanza::Presence,
            },
            from: self.to,
            to: self.from,
            id: self.id,
            refusal,
        }
    }
}
