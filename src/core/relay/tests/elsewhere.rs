//! What one resource knows nothing of, another one may have.

use super::*;

#[test]
fn what_one_knows_nothing_of_is_asked_of_each() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    let mut sent = bench.ask(Kind::Set, ROMEO, "q");
    let mut asked = Vec::new();
    loop {
        let [from, to, id] = forwarded(&sent).map(str::to_owned);
        if to == ROMEO {
            break;
        }
        asked.push(to.clone());
        let unknown = What::Reply(Answer::Unknown);
        let mut effects = bench.hear(unknown, &to, &from, &id);
        assert_eq!(effects.len(), 1);
        sent = effects.remove(0);
    }
    asked.sort();
    assert_eq!(asked, ["a", "b", "c"].map(|it| format!("{TARGET}/{it}")));
    assert_eq!(bench.relay.n_pending(), 0);
}

#[test]
fn who_knows_it_answers_and_nobody_else_is_asked() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    let first = bench.ask(Kind::Set, ROMEO, "q");
    let [from, to, id] = forwarded(&first);
    let second = bench.hear(What::Reply(Answer::Unknown), to, from, id);
    assert_eq!(faults(&second), ["retry"]);
    let [from, to, id] = forwarded(&second[0]);
    let answered = bench.hear(What::Reply(Answer::Said), to, from, id);
    assert_eq!(forwarded(&answered[0])[1], ROMEO);
}

/// What changes something may have been done by who is gone, whoever else was asked before.
#[test]
fn a_set_that_may_have_been_heard_is_asked_of_nobody_else() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    let first = bench.ask(Kind::Set, ROMEO, "q");
    let [from, to, id] = forwarded(&first);
    let second = bench.hear(What::Reply(Answer::Unknown), to, from, id);
    let [_, to, _] = forwarded(&second[0]);
    let resource = to.rsplit('/').next().expect("a resource");
    assert_eq!(faults(&bench.leave(resource)), ["target-gone"]);
}

#[test]
fn only_so_many_are_asked() {
    let resources: Vec<String> = (0..2 * ASKED_MAX).map(|n| n.to_string()).collect();
    let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
    let mut bench = Bench::new(&resources);
    let mut sent = bench.ask(Kind::Get, ROMEO, "q");
    let mut n_asked = 0;
    while forwarded(&sent)[1] != ROMEO {
        n_asked += 1;
        let [from, to, id] = forwarded(&sent).map(str::to_owned);
        let unknown = What::Reply(Answer::Unknown);
        sent = bench.hear(unknown, &to, &from, &id).remove(0);
    }
    assert_eq!(n_asked, ASKED_MAX);
}

/// Otherwise the others would have all the work until somebody is doubted again.
#[test]
fn who_is_doubted_too_early_for_a_probe_is_probed_later() {
    let mut bench = Bench::new(&["a", "b"]);
    let mut n_probes = 0;
    for id in ["first", "second"] {
        let asked = bench.ask(Kind::Get, ROMEO, id);
        let [from, to, id] = forwarded(&asked);
        let effects = bench.hear(What::Reply(Answer::Unavailable), to, from, id);
        let probe = Effect::Send(Presence::Probe);
        n_probes += effects.iter().filter(|effect| **effect == probe).count();
    }
    assert_eq!(n_probes, 1);
    assert_eq!(bench.wait(9), []);
    assert_eq!(bench.wait(1), [Effect::Send(Presence::Probe)]);
    assert_eq!(bench.wait(10), []);
}
