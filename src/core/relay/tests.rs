//! Each rule of the relay, and who is asked when.

use super::pending::KEPT_BYTES_MAX;
use super::*;

mod elsewhere;

pub const HOST: &str = "relay.example.org";
const ROMEO: &str = "romeo@example.net/phone";
pub const TARGET: &str = "service@example.org";
pub const TERMS: Terms = Terms {
    answer_within: Duration::from_secs(60),
    pending_max: 3,
    pending_total_max: 5,
};

/// A relay and its clock; a stanza is a number.
pub struct Bench {
    pub relay: Relay<usize>,
    moment: Moment,
}

impl Bench {
    /// Connected, with these resources.
    pub fn new(resources: &[&str]) -> Self {
        let target = BareJid::new(TARGET).expect("a JID");
        let mut bench = Self {
            relay: Relay::new(HOST, target, TERMS, [7; 32]),
            moment: Moment {
                now: Duration::from_secs(1000),
                random: 0,
            },
        };
        bench.handle(Event::Connected);
        resources.iter().for_each(|it| bench.appear(it));
        bench
    }

    pub fn handle(&mut self, event: Event<usize>) -> Vec<Effect<usize>> {
        self.moment.random = shuffled(self.moment.random);
        self.relay.handle(event, self.moment)
    }

    pub fn hear(&mut self, what: What, from: &str, to: &str, id: &str) -> Vec<Effect<usize>> {
        self.hear_stanza(what, [from, to, id], 0)
    }

    pub fn hear_stanza(
        &mut self,
        what: What,
        [from, to, id]: [&str; 3],
        stanza: usize,
    ) -> Vec<Effect<usize>> {
        self.handle(Event::Stanza(Incoming {
            what,
            from: from.to_owned(),
            to: to.to_owned(),
            id: id.to_owned(),
            stanza,
            n_bytes: 100,
        }))
    }

    fn appear(&mut self, resource: &str) {
        let presence = What::Presence(Presence::Available);
        self.hear(presence, &format!("{TARGET}/{resource}"), HOST, "");
    }

    pub fn leave(&mut self, resource: &str) -> Vec<Effect<usize>> {
        let presence = What::Presence(Presence::Unavailable);
        self.hear(presence, &format!("{TARGET}/{resource}"), HOST, "")
    }

    fn ask(&mut self, kind: Kind, from: &str, id: &str) -> Effect<usize> {
        let mut effects = self.hear(What::Ask(kind), from, HOST, id);
        effects.pop().expect("something is done")
    }

    pub fn wait(&mut self, seconds: u64) -> Vec<Effect<usize>> {
        self.moment.now += Duration::from_secs(seconds);
        self.handle(Event::Tick)
    }
}

/// From where to where, and with which id.
#[track_caller]
fn forwarded(effect: &Effect<usize>) -> [&str; 3] {
    match effect {
        Effect::Forward { from, to, id, .. } => [from, to, id],
        other => panic!("not forwarded: {other:?}"),
    }
}

fn faults(effects: &[Effect<usize>]) -> Vec<&'static str> {
    let fault = |effect: &Effect<usize>| match effect {
        Effect::Refuse { refusal, .. } => refusal.name(),
        Effect::Forward { way, .. } => way.into(),
        Effect::Send(_) => "presence",
        Effect::Drop => "drop",
        Effect::Tell(_) => "news",
    };
    effects.iter().map(fault).collect()
}

#[test]
fn a_request_and_its_reply_go_through() {
    let mut bench = Bench::new(&["b"]);
    let asked = bench.ask(Kind::Get, ROMEO, "q7");
    let from = format!("{HOST}/{ROMEO}");
    let to = format!("{TARGET}/b");
    assert_eq!(forwarded(&asked), [from.as_str(), &to, "q7"]);
    let said = What::Reply(Answer::Said);
    let answered = bench.hear(said, &to, &from, "q7");
    assert_eq!(forwarded(&answered[0]), [HOST, ROMEO, "q7"]);
    assert_eq!(bench.hear(said, &to, &from, "q7"), [Effect::Drop]);
    assert_eq!(bench.relay.n_pending(), 0);
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    let mut bench = Bench::new(&["b"]);
    let asked = "room@relay.example.org/x";
    bench.hear(What::Ask(Kind::Set), ROMEO, asked, "1");
    let address = format!("{HOST}/{ROMEO}");
    let said = What::Reply(Answer::Said);
    let answered = bench.hear(said, &format!("{TARGET}/b"), &address, "1");
    assert_eq!(forwarded(&answered[0]), [asked, ROMEO, "1"]);
}

#[test]
fn no_reply_passes_that_nobody_waits_for() {
    let mut bench = Bench::new(&["a", "b"]);
    let asked = bench.ask(Kind::Get, ROMEO, "1");
    let [address, resource, _] = forwarded(&asked).map(str::to_owned);
    let other = [format!("{TARGET}/a"), format!("{TARGET}/b")];
    let other = other.iter().find(|it| **it != resource).expect("two");
    let host = HOST.to_owned();
    for (from, to, id) in [
        (&resource, &address, "2"),
        (other, &address, "1"),
        (&resource, &format!("{HOST}/juliet@example.net/x"), "1"),
        (&resource, &host, "1"),
        (&resource, &format!("x@{address}"), "1"),
        (&TARGET.to_owned(), &address, "1"),
    ] {
        let dropped = bench.hear(What::Reply(Answer::Said), from, to, id);
        assert_eq!(dropped, [Effect::Drop], "{from} {to} {id}");
    }
    assert_eq!(bench.relay.n_pending(), 1);
}

#[test]
fn the_same_id_twice_is_told_apart() {
    let mut bench = Bench::new(&["b"]);
    let first = bench.ask(Kind::Get, ROMEO, "1");
    let second = bench.ask(Kind::Get, ROMEO, "1");
    let [[address, resource, id], [_, _, other]] = [forwarded(&first), forwarded(&second)];
    assert_eq!(id, "1");
    assert_ne!(other, "1");
    for id in [other, id] {
        let answered = bench.hear(What::Reply(Answer::Said), resource, address, id);
        assert_eq!(forwarded(&answered[0]), [HOST, ROMEO, "1"]);
    }
}

#[test]
fn a_resource_that_goes_leaves_its_requests_to_another() {
    let mut bench = Bench::new(&["a", "b"]);
    let got = bench.ask(Kind::Get, ROMEO, "1");
    let set = bench.ask(Kind::Set, ROMEO, "2");
    let resources = [&got, &set].map(|asked| {
        let [_, to, _] = forwarded(asked);
        to.rsplit('/').next().expect("a resource").to_owned()
    });
    assert_ne!(resources[0], resources[1], "the load is shared");
    let again = bench.leave(&resources[0]);
    assert_eq!(faults(&again), ["retry"]);
    assert!(forwarded(&again[0])[1].ends_with(&resources[1]));
    bench.appear(&resources[0]);
    // Once is enough, and what may have been done is not done twice.
    assert_eq!(
        faults(&bench.leave(&resources[1])),
        ["target-gone", "target-gone"]
    );
    assert_eq!(bench.relay.n_pending(), 0);
}

#[test]
fn what_a_server_sends_back_is_asked_again() {
    let mut bench = Bench::new(&["a", "b"]);
    for (answer, fates) in [
        (Answer::Unreachable, vec!["retry", "presence"]),
        (Answer::Unavailable, vec!["reply"]),
        (Answer::TooLong, vec!["answer-too-long"]),
    ] {
        let asked = bench.ask(Kind::Get, ROMEO, "1");
        let [address, resource, id] = forwarded(&asked);
        let heard = bench.hear(What::Reply(answer), resource, address, id);
        assert_eq!(faults(&heard), fates);
    }
}

#[test]
fn who_waits_too_long_is_told() {
    let mut bench = Bench::new(&["b"]);
    let asked = bench.ask(Kind::Get, ROMEO, "1");
    let [address, resource, _] = forwarded(&asked);
    assert_eq!(bench.wait(59), []);
    assert_eq!(faults(&bench.wait(1)), ["timed-out"]);
    let late = bench.hear(What::Reply(Answer::Said), resource, address, "1");
    assert_eq!(late, [Effect::Drop]);
}

#[test]
fn so_many_wait_and_no_more() {
    let mut bench = Bench::new(&["b"]);
    let mut fates = Vec::new();
    for n in 0..4 {
        // Of one user, whatever the resource.
        let from = format!("romeo@example.net/{n}");
        fates.extend(faults(&[bench.ask(Kind::Get, &from, "1")]));
    }
    for n in 0..3 {
        let from = format!("user{n}@example.net/x");
        fates.extend(faults(&[bench.ask(Kind::Get, &from, "1")]));
    }
    let passed = ["request"; 3];
    let [refused] = ["too-many-pending"];
    assert_eq!(fates[..3], passed);
    assert_eq!(fates[3..], [refused, "request", "request", refused]);
    assert_eq!(bench.wait(60).len(), 5);
    assert_eq!(faults(&[bench.ask(Kind::Get, ROMEO, "1")]), ["request"]);
}

/// Only so much is kept to be asked again; the rest is told when its resource goes.
#[test]
fn what_is_kept_to_be_asked_again_is_bounded() {
    let mut bench = Bench::new(&["a"]);
    let large = |id: &str| {
        Event::Stanza(Incoming {
            what: What::Ask(Kind::Get),
            from: ROMEO.to_owned(),
            to: HOST.to_owned(),
            id: id.to_owned(),
            stanza: 0,
            n_bytes: KEPT_BYTES_MAX / 2 + 1,
        })
    };
    for _ in 0..2 {
        for id in ["1", "2"] {
            assert_eq!(faults(&bench.handle(large(id))), ["request"]);
        }
        bench.appear("b");
        assert_eq!(faults(&bench.leave("a")), ["retry", "target-gone"]);
        bench.appear("a");
        assert_eq!(faults(&bench.leave("b")), ["target-gone"]);
    }
}

#[test]
fn addresses_that_are_none_are_not_answered() {
    let mut bench = Bench::new(&[]);
    let available = What::Presence(Presence::Available);
    for from in ["service@example.org/", "@example.org/x", ""] {
        assert_eq!(bench.hear(available, from, HOST, ""), [Effect::Drop]);
    }
    assert_eq!(bench.relay.n_targets(), 0);
}

#[test]
fn answers_come_over_the_next_stream_too() {
    let mut bench = Bench::new(&["b"]);
    let asked = bench.ask(Kind::Set, ROMEO, "1");
    let [address, resource, _] = forwarded(&asked);
    bench.handle(Event::Disconnected);
    assert_eq!(bench.relay.n_targets(), 0);
    assert_eq!(
        faults(&[bench.ask(Kind::Get, ROMEO, "2")]),
        ["nobody-there"]
    );
    bench.handle(Event::Connected);
    let answered = bench.hear(What::Reply(Answer::Said), resource, address, "1");
    assert_eq!(faults(&answered), ["reply"]);
}

#[test]
fn the_end_is_told_to_all() {
    let mut bench = Bench::new(&["b"]);
    bench.ask(Kind::Get, ROMEO, "1");
    assert_eq!(bench.handle(Event::Draining), []);
    assert_eq!(faults(&[bench.ask(Kind::Get, ROMEO, "2")]), ["stopping"]);
    assert_eq!(faults(&bench.handle(Event::Stopped)), ["stopping"]);
    assert_eq!(bench.relay.n_pending(), 0);
}

/// What is sent to the target's account without having been asked.
fn sent(effects: &[Effect<usize>]) -> Vec<Presence> {
    let presence = |effect: &Effect<usize>| match effect {
        Effect::Send(presence) => Some(*presence),
        _ => None,
    };
    effects.iter().filter_map(presence).collect()
}

const ASKED: [Presence; 1] = [Presence::Subscribe];
const ASKED_AGAIN: [Presence; 2] = [Presence::Subscribe, Presence::Probe];

#[test]
fn the_target_is_asked_hourly_while_nobody_is_there() {
    let mut bench = Bench::new(&[]);
    assert_eq!(faults(&bench.wait(5)), [""; 0]);
    assert_eq!(faults(&bench.wait(5)), ["news"]);
    assert_eq!(sent(&bench.wait(3589)), []);
    assert_eq!(sent(&bench.wait(1)), ASKED);
    bench.appear("b");
    assert_eq!(sent(&bench.wait(7200)), []);
    bench.handle(Event::Disconnected);
    assert_eq!(sent(&bench.handle(Event::Connected)), ASKED_AGAIN);
}

#[test]
fn a_refusal_holds_for_an_hour_and_an_error_for_less() {
    let mut bench = Bench::new(&["b"]);
    bench.ask(Kind::Get, ROMEO, "1");
    let unsubscribed = What::Presence(Presence::Unsubscribed);
    let heard = bench.hear(unsubscribed, TARGET, HOST, "");
    assert_eq!(faults(&heard), ["news", "target-gone"]);
    assert_eq!(bench.hear(unsubscribed, TARGET, HOST, ""), []);
    bench.handle(Event::Disconnected);
    assert_eq!(sent(&bench.handle(Event::Connected)), []);
    assert_eq!(sent(&bench.wait(3599)), []);
    assert_eq!(sent(&bench.wait(1)), ASKED);
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        // One for each presence that was sent.
        for _ in ASKED_AGAIN {
            let error = What::Presence(Presence::Error);
            bench.hear(error, TARGET, HOST, "");
        }
        assert_eq!(sent(&bench.wait(minutes * 60 - 1)), [], "{minutes}");
        assert_eq!(sent(&bench.wait(1)), ASKED, "{minutes}");
    }
}

#[test]
fn the_target_may_add_the_relay_to_its_roster() {
    let mut bench = Bench::new(&[]);
    for (presence, answers) in [
        (
            Presence::Subscribe,
            vec![Presence::Subscribed, Presence::Available],
        ),
        (Presence::Subscribed, vec![Presence::Probe]),
        (Presence::Probe, vec![Presence::Available]),
        (Presence::Other, vec![]),
    ] {
        let heard = bench.hear(What::Presence(presence), TARGET, HOST, "");
        assert_eq!(sent(&heard), answers, "{presence:?}");
    }
    assert_eq!(bench.relay.n_targets(), 0);
}
