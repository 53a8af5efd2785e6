use proptest::prelude::*;

use super::*;
use crate::ids::Fence;
use crate::traffic::Hold;
use crate::units::Millis;

const NOW: Instant = Instant(1_000_000);

fn id(counter: u64) -> ReplicaId {
    ReplicaId { fence: Fence { incarnation: 1, term: 1 }, counter }
}

fn at(ms: u64) -> Instant {
    NOW + Millis(ms)
}

fn terms(limit: u32, target: u32) -> Terms {
    Terms { limit: Some(limit), target: Some(target), ..Terms::default() }
}

fn elsewhere(counter: u64) -> ToldCopy {
    ToldCopy { replica: id(counter), owner: Owner::At("other:1".to_owned()), ready: true, parked: false }
}

fn ready(counter: u64) -> HereCopy {
    HereCopy { replica: id(counter), attempt: 1, address: "10.0.0.1".to_owned(), ready: true, parked: false }
}

/// An app with copies here, ready for long.
fn app(terms: Terms, copies: u64) -> AppTraffic {
    let mut app = AppTraffic::default();
    app.update(Instant(0), Update { version: 1, whole: true, terms, ..Update::default() });
    (1..=copies).for_each(|n| assert_eq!(app.here(Instant(0), ready(n)), []));
    app
}

fn arrive(app: &mut AppTraffic, ms: u64) -> (Request, Verdict) {
    app.arrive(at(ms), Bytes(100))
}

fn sent_to(app: &mut AppTraffic, ms: u64) -> Option<u64> {
    match arrive(app, ms).1 {
        Verdict::Go(replica) => Some(replica.counter),
        _ => None,
    }
}

#[test]
fn the_oldest_below_its_target_is_filled_first_then_all_evenly_then_they_wait() {
    let mut app = app(terms(3, 2), 2);
    let sent: Vec<_> = (0..7).map(|n| sent_to(&mut app, n)).collect();
    assert_eq!(sent, [Some(1), Some(1), Some(2), Some(2), Some(1), Some(2), None]);
    assert_eq!(app.demand().held, 1);
    assert_eq!(app.demand().oldest_held, Some(at(6)));
}

#[test]
fn without_a_target_the_fewest_in_flight_is_taken() {
    let mut app = app(Terms::default(), 3);
    assert_eq!([0, 1, 2, 3].map(|n| sent_to(&mut app, n)), [Some(1), Some(2), Some(3), Some(1)]);
    app.done(NOW, id(2), Outcome::Answered);
    assert_eq!(sent_to(&mut app, 5), Some(2));
}

#[test]
fn room_goes_to_whoever_has_waited_the_longest() {
    let mut app = app(terms(1, 1), 1);
    assert_eq!(sent_to(&mut app, 0), Some(1));
    let (first, held) = arrive(&mut app, 1);
    let (second, _) = arrive(&mut app, 2);
    assert_eq!(held, Verdict::Hold);
    let moved = app.done(at(3), id(1), Outcome::Answered);
    assert_eq!(moved, [Moved { ticket: first.ticket, verdict: Verdict::Go(id(1)) }]);
    let moved = app.here(at(4), ready(2));
    assert_eq!(moved, [Moved { ticket: second.ticket, verdict: Verdict::Go(id(2)) }]);
}

#[test]
fn from_zero_it_waits_until_a_copy_listens() {
    let mut app = app(Terms::default(), 0);
    let (request, verdict) = arrive(&mut app, 0);
    assert_eq!(verdict, Verdict::Hold);
    assert_eq!(app.here(at(1), HereCopy { ready: false, ..ready(1) }), []);
    assert_eq!(app.wake_at(at(1)), Some(at(10_000)));
    let moved = app.here(at(4), ready(1));
    assert_eq!(moved, [Moved { ticket: request.ticket, verdict: Verdict::Go(id(1)) }]);
    assert_eq!(app.wake_at(at(4)), None);
}

#[test]
fn the_queue_is_bounded_in_number_bytes_and_time() {
    let hold = Hold { requests: 2, bytes: Bytes(250), time: Millis(50) };
    let mut app = app(Terms { hold, ..Terms::default() }, 0);
    assert_eq!(app.arrive(at(0), Bytes(200)).1, Verdict::Hold);
    assert_eq!(app.arrive(at(1), Bytes(51)).1, Verdict::Refuse(Refusal::TooMuch(Bytes(250))));
    assert_eq!(app.arrive(at(2), Bytes(50)).1, Verdict::Hold);
    assert_eq!(app.arrive(at(3), Bytes(0)).1, Verdict::Refuse(Refusal::TooMany(2)));
    assert_eq!(app.tick(at(49)), []);
    let [over] = &app.tick(at(50))[..] else { panic!("one is overdue") };
    let Verdict::Refuse(why) = &over.verdict else { panic!("it is refused") };
    assert_eq!(why.to_string(), "no copy could take it within 50ms: no copy is there");
    let Demand { held, refused, .. } = app.demand();
    assert_eq!((held, refused), (1, Refused { count: 3, why: why.to_string(), at: at(50) }));
    assert_eq!(app.removed().len(), 1);
    assert_eq!(app.demand().held, 0);
}

#[test]
fn a_parked_copy_admits_nobody_and_keeps_what_it_has() {
    let mut app = app(terms(5, 5), 2);
    assert_eq!(sent_to(&mut app, 0), Some(1));
    app.here(at(1), HereCopy { parked: true, ..ready(1) });
    assert_eq!(sent_to(&mut app, 2), Some(2));
    assert_eq!(app.admit(at(3), id(1)), Admission::Bounced(Bounce::Parked));
    assert_eq!(app.in_flight(id(1)), 1);
    app.here(at(4), ready(1));
    assert_eq!(app.admit(at(5), id(1)), Admission::Admitted);
}

#[test]
fn a_copy_that_is_gone_is_forgotten_with_its_last_request() {
    let mut app = app(terms(5, 5), 1);
    assert_eq!(sent_to(&mut app, 0), Some(1));
    app.here_no_more(id(1));
    assert_eq!(app.in_flight(id(1)), 1);
    assert_eq!(sent_to(&mut app, 1), None);
    app.done(at(2), id(1), Outcome::Failed);
    assert_eq!(app.copy(id(1)), None);
}

#[test]
fn the_owner_admits_up_to_the_limit_and_tells_its_count() {
    let mut app = app(terms(2, 1), 1);
    assert_eq!(app.admit(NOW, id(1)), Admission::Admitted);
    assert_eq!(app.admit(NOW, id(1)), Admission::Admitted);
    assert_eq!(app.admit(NOW, id(1)), Admission::Bounced(Bounce::Full(2)));
    assert_eq!(app.admit(NOW, id(9)), Admission::Bounced(Bounce::Parked));
    assert_eq!(app.demand().arrivals, 0, "it came in elsewhere");
}

#[test]
fn after_three_bounces_it_waits_in_its_place_and_full_owners_are_asked_again() {
    let mut app = AppTraffic::default();
    let copies = (1..=4).map(elsewhere).collect();
    app.update(NOW, Update { version: 1, whole: true, terms: terms(9, 9), copies, ..Update::default() });
    let (mut request, verdict) = arrive(&mut app, 0);
    assert_eq!(verdict, Verdict::Go(id(1)));
    for n in 1..=2 {
        assert_eq!(app.bounced(at(n), &mut request, id(n), Bounce::Full(9)), (Verdict::Go(id(n + 1)), vec![]));
    }
    let (verdict, moved) = app.bounced(at(3), &mut request, id(3), Bounce::Full(9));
    // It waits at the head of the queue, and there is still the fourth copy.
    assert_eq!(verdict, Verdict::Hold);
    assert_eq!(moved, [Moved { ticket: request.ticket, verdict: Verdict::Go(id(4)) }]);
    assert_eq!(app.bounced(at(3), &mut request, id(4), Bounce::Parked), (Verdict::Hold, vec![]));
    assert_eq!(app.wake_at(at(3)), Some(at(1_001)), "in case its word is lost");
    assert_eq!(app.opened(at(6), id(2)), [Moved { ticket: request.ticket, verdict: Verdict::Go(id(2)) }]);
    let (second, verdict) = arrive(&mut app, 7);
    assert_eq!(verdict, Verdict::Go(id(2)), "as far as is known");
    assert_eq!(app.bounced(at(7), &mut second.clone(), id(2), Bounce::Full(9)), (Verdict::Hold, vec![]));
    assert_eq!(app.tick(at(1_001)), [Moved { ticket: second.ticket, verdict: Verdict::Go(id(1)) }]);
}

#[test]
fn what_owners_say_of_their_counts_is_weighed() {
    let mut app = AppTraffic::default();
    let copies = (1..=2).map(elsewhere).collect();
    app.update(NOW, Update { version: 1, whole: true, terms: terms(9, 2), copies, ..Update::default() });
    app.heard(id(1), 2);
    assert_eq!(sent_to(&mut app, 0), Some(2));
}

#[test]
fn old_pushes_change_nothing_and_whole_ones_replace_all_but_what_is_here() {
    let mut app = app(terms(1, 1), 1);
    let push = |version, whole, n| Update { version, whole, copies: vec![elsewhere(n)], ..Update::default() };
    app.update(NOW, push(5, true, 2));
    app.update(NOW, push(4, false, 3));
    assert_eq!((app.copy(id(1)).is_some(), app.copy(id(2)).is_some(), app.copy(id(3)).is_some()), (true, true, false));
    app.update(NOW, push(1, true, 3));
    assert_eq!((app.copy(id(1)).is_some(), app.copy(id(2)).is_some(), app.copy(id(3)).is_some()), (true, false, true));
}

#[test]
fn failures_in_a_row_put_a_copy_aside_for_longer_each_time() {
    let mut app = app(terms(9, 9), 2);
    let fail = |app: &mut AppTraffic, ms| {
        for _ in 0..3 {
            assert_eq!(sent_to(app, ms), Some(1));
            app.done(at(ms), id(1), Outcome::Failed);
        }
    };
    fail(&mut app, 0);
    assert_eq!(sent_to(&mut app, 999), Some(2));
    fail(&mut app, 1_000);
    assert_eq!(sent_to(&mut app, 2_999), Some(2));
    assert_eq!(sent_to(&mut app, 3_000), Some(1));
}

#[test]
fn with_all_aside_they_are_tried_all_the_same() {
    let mut app = app(terms(9, 9), 1);
    for _ in 0..3 {
        assert_eq!(sent_to(&mut app, 0), Some(1));
        app.done(NOW, id(1), Outcome::Failed);
    }
    assert_eq!(sent_to(&mut app, 1), Some(1));
}

#[test]
fn a_new_copy_gets_its_share_slowly() {
    let mut app = app(Terms { slow_start: Millis(1_000), ..Terms::default() }, 1);
    app.here(NOW, ready(2));
    let sent: Vec<_> = (0..11).filter(|_| sent_to(&mut app, 100) == Some(2)).collect();
    assert_eq!(sent.len(), 1, "a tenth of its share in the first tenth");
    assert_eq!(sent_to(&mut app, 1_000), Some(2), "then it catches up");
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Done(usize),
    Bounce(usize),
    Park(u64, bool),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Arrive),
        3 => (0..64_usize).prop_map(Step::Done),
        1 => (0..64_usize).prop_map(Step::Bounce),
        1 => (1..4_u64, any::<bool>()).prop_map(|(n, parked)| Step::Park(n, parked)),
        1 => (1..200_u64).prop_map(Step::Tick),
    ]
}

/// What the shell knows: who is where, counted by hand.
#[derive(Default)]
struct Shell {
    now: u64,
    flying: Vec<(Request, ReplicaId)>,
    waiting: BTreeMap<Ticket, Request>,
    parked: Vec<u64>,
}

impl Shell {
    fn placed(&mut self, request: Request, verdict: Verdict) {
        match verdict {
            Verdict::Go(replica) => {
                assert!(!self.parked.contains(&replica.counter), "nobody goes to a parked copy");
                self.flying.push((request, replica));
            }
            Verdict::Hold => {
                self.waiting.insert(request.ticket, request);
            }
            Verdict::Refuse(_) => {}
        }
    }

    fn moved(&mut self, moved: Vec<Moved>) {
        for one in moved {
            let request = self.waiting.remove(&one.ticket).expect("only who waits is moved");
            let went = matches!(one.verdict, Verdict::Go(_));
            assert!(!went || self.waiting.keys().all(|ticket| *ticket > one.ticket), "first in, first out");
            self.placed(request, one.verdict);
        }
    }

    fn take(&mut self, app: &mut AppTraffic, step: Step) {
        let now = at(self.now);
        match step {
            Step::Arrive => {
                let (request, verdict) = app.arrive(now, Bytes(10));
                self.placed(request, verdict);
            }
            Step::Done(n) if !self.flying.is_empty() => {
                let (_, replica) = self.flying.remove(n % self.flying.len());
                self.moved(app.done(now, replica, Outcome::Answered));
            }
            Step::Bounce(n) if !self.flying.is_empty() => {
                let (mut request, replica) = self.flying.remove(n % self.flying.len());
                let (verdict, moved) = app.bounced(now, &mut request, replica, Bounce::NotReached);
                self.placed(request, verdict);
                self.moved(moved);
            }
            Step::Park(n, parked) => {
                self.parked.retain(|id| *id != n);
                self.parked.extend(parked.then_some(n));
                let moved = app.here(now, HereCopy { parked, ..ready(n) });
                self.moved(moved);
            }
            Step::Tick(ms) => {
                self.now += ms;
                let moved = app.tick(at(self.now));
                self.moved(moved);
            }
            Step::Done(_) | Step::Bounce(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn counts_are_exact_limits_hold_and_nobody_is_lost(steps in prop::collection::vec(step(), 1..200)) {
        let hold = Hold { requests: 5, bytes: Bytes(40), time: Millis(300) };
        let mut app = app(Terms { limit: Some(3), target: Some(2), hold, slow_start: Millis(0) }, 3);
        let mut shell = Shell::default();
        for step in steps {
            shell.take(&mut app, step);
            let demand = app.demand();
            for (replica, count) in demand.in_flight {
                prop_assert_eq!(count as usize, shell.flying.iter().filter(|(_, to)| *to == replica).count());
                prop_assert!(count <= 3);
            }
            prop_assert_eq!(demand.held as usize, shell.waiting.len());
            prop_assert!(demand.held <= 4);
        }
    }
}
