//! A runtime in a process of its own whose calls are refused, and what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::driven::{Answer, Victim};
use crate::support::Place;
use crate::tracer::{Actor, Fault, Seen, Tracer};

pub struct Tried {
    pub place: Place,
    pub victim: Victim,
    pub tracer: Tracer,
    /// What was refused and told to nobody: actor, call.
    pub swallowed: BTreeSet<(Actor, u64)>,
    /// What was told: actor, call, in which words.
    pub told: BTreeSet<(Actor, u64, String)>,
}

impl Tried {
    /// Given `orders` before anybody looks; ended when it takes longer than `patience`.
    pub fn begin(place: Place, orders: &[&str], patience: Duration) -> Self {
        let mut victim = Victim::start(&place);
        for order in orders {
            victim.ask(order);
        }
        let mut tracer = Tracer::default();
        tracer.seize(victim.pid(), Actor::Runtime);
        victim.end_later(patience);
        Self { place, victim, tracer, swallowed: BTreeSet::new(), told: BTreeSet::new() }
    }

    pub fn order(&mut self, order: &str, fault: Option<Fault>) -> (Seen, Answer) {
        let victim = &mut self.victim;
        let seen = self.tracer.watch(fault, || victim.tell(order));
        (seen, self.victim.answer())
    }

    pub fn must(&mut self, order: &str) -> String {
        match self.order(order, None).1 {
            Answer::Ok(said) => said,
            failed => panic!("{order}: {failed:?}"),
        }
    }

    /// Nothing was refused and told to nobody, but for those that are `known`; each of `steps` was told.
    pub fn check(&self, known: &[(Actor, i64, &str)], steps: &[&str]) {
        for (actor, nr, text) in &self.told {
            println!("{actor:?}, call {nr}: {text}");
        }
        for step in steps {
            assert!(self.told.iter().any(|(_, _, text)| text.contains(step)), "never told: {step}");
        }
        let known = |actor: Actor, nr: u64| known.iter().any(|(a, n, _)| *a == actor && n.cast_unsigned() == nr);
        let unknown: Vec<_> = self.swallowed.iter().filter(|(actor, nr)| !known(*actor, *nr)).collect();
        assert!(unknown.is_empty(), "refused and told to nobody: {unknown:?}");
    }

    /// Shut down in order; nothing is left.
    pub fn end(mut self) {
        self.must("shutdown");
        self.victim.end();
        self.place.assert_clean();
    }
}

impl Drop for Tried {
    /// A failed test leaves nothing to those after it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.victim.end();
            self.place.end_processes();
        }
    }
}
