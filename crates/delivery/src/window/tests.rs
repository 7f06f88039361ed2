//! Whatever happens to a window, nothing is skipped.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Event(bool),
    Take,
    Settle(usize),
    Rewind,
    SetAside,
    TakeAside(usize),
    PutBack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(Step::Event),
        3 => Just(Step::Take),
        3 => (0usize..8).prop_map(Step::Settle),
        1 => Just(Step::Rewind),
        2 => Just(Step::SetAside),
        2 => (0usize..8).prop_map(Step::TakeAside),
        1 => (0usize..8).prop_map(Step::PutBack),
    ]
}

proptest! {
    /// Whatever happens, a restart from the saved progress delivers every matched event that was not settled.
    #[test]
    fn a_checkpoint_never_skips_an_unsettled_event(steps in prop::collection::vec(step(), 1..200)) {
        let mut window = Window::at(Position::Riding { not_before: Seq(0) });
        let mut head = Seq(0);
        let mut unsettled = BTreeSet::new();
        let mut matched = BTreeSet::new();
        for step in steps {
            match step {
                Step::Event(matches) => {
                    head = head.next();
                    if matches {
                        matched.insert(head);
                        unsettled.insert(head);
                    }
                    if let Position::Riding { .. } = window.position() && matches {
                        window.offer(head, (), 1);
                    }
                }
                Step::Take => { window.take(Ticket(7)); }
                Step::Settle(index) => {
                    if let Some((seq, ticket)) = window.open.get(index).copied() {
                        prop_assert!(!window.settle(seq, Ticket(8)), "of an attempt that was called off");
                        prop_assert!(window.settle(seq, ticket));
                        unsettled.remove(&seq);
                    }
                }
                Step::SetAside => window.set_aside(),
                Step::TakeAside(index) => {
                    let seq = window.aside().nth(index);
                        if let Some(seq) = seq { window.take_aside(seq, Ticket(7)); }
                }
                Step::PutBack(index) => {
                    if let Some((seq, ticket)) = window.open.get(index).copied() { window.put_back(seq, ticket); }
                }
                Step::Rewind => {
                    window.rewind(head);
                    // Catching up again: everything behind the position that matches is offered anew.
                    let Position::Lagging(from) = window.position() else { unreachable!() };
                    for seq in matched.range(from.next()..) { window.offer(*seq, (), 1); }
                    window.set_position(Position::Riding { not_before: Seq(0) });
                }
            }
            let covered: BTreeSet<Seq> = match window.progress(head) {
                None => BTreeSet::new(),
                Some(Progress { base, holes }) => {
                    prop_assert!(holes.iter().all(|hole| *hole <= base));
                    holes.into_iter().chain(matched.range(base.next()..).copied()).collect()
                }
            };
            prop_assert!(unsettled.is_subset(&covered), "unsettled {unsettled:?} not in {covered:?}");
            prop_assert!(unsettled.iter().all(|seq| *seq > window.cursor(head)));
        }
    }
}

#[test]
fn one_hanging_attempt_leaves_one_hole() {
    let mut window = Window::at(Position::Riding { not_before: Seq(0) });
    for seq in 1..=1000 {
        window.offer(Seq(seq), (), 1);
        window.take(Ticket(7));
        if seq != 3 {
            window.settle(Seq(seq), Ticket(7));
        }
    }
    assert_eq!(window.progress(Seq(1000)), Some(Progress { base: Seq(1000), holes: vec![Seq(3)] }));
    assert_eq!(window.cursor(Seq(1000)), Seq(2));
    window.settle(Seq(3), Ticket(7));
    assert_eq!(window.progress(Seq(1000)), None);
}

#[test]
fn what_is_reopened_stays_a_hole_and_does_not_pull_the_base_back() {
    let mut window = Window::at(Position::Riding { not_before: Seq(100) });
    window.offer_again(Seq(5), ());
    window.offer_again(Seq(8), ());
    window.offer(Seq(101), (), 1);
    let holes = vec![Seq(5), Seq(8)];
    assert_eq!(window.progress(Seq(101)), Some(Progress { base: Seq(100), holes: holes.clone() }));
    assert_eq!(window.cursor(Seq(101)), Seq(4));
    window.rewind(Seq(101));
    assert_eq!(window.position(), Position::Lagging(Seq(100)));
    assert_eq!(window.progress(Seq(101)), Some(Progress { base: Seq(100), holes }));
    assert_eq!(window.take(Ticket(7)).unwrap().0, Seq(5));
    assert!(window.settle(Seq(5), Ticket(7)) && window.holds(Seq(8)));
}

#[test]
fn a_burst_is_given_back_only_when_nothing_is_left_of_it() {
    let mut window = Window::at(Position::Riding { not_before: Seq(0) });
    for seq in 1..=100 {
        window.offer(Seq(seq), (), 1);
    }
    while let Some((seq, ())) = window.take(Ticket(7)) {
        window.rest();
        assert!(window.holds(seq), "what is in flight stays");
        window.settle(seq, Ticket(7));
    }
    window.rest();
    assert_eq!((window.queue.capacity(), window.open.capacity()), (0, 0));
    assert_eq!(window.progress(Seq(100)), None);
}
