//! Keys that are stuck, dead letters and failed batches, one example each.

use super::*;

#[test]
fn a_stuck_key_stops_only_itself_far_beyond_what_waits_in_memory() {
    let keys: Vec<Option<u8>> = (0..2000).map(|n| Some(if n % 2 == 0 { 0 } else { 1 + (n % 5) as u8 })).collect();
    let mut world = World::new(record(by_key(), OnDead::Skip, None, 1_000), keys);
    for _ in 0..2000 {
        world.offer();
        while world.take().is_some() {}
        while let Some(job) = world.flying.first() {
            let status = if world.keys[job.seq.0 as usize - 1] == Some(0) { 500 } else { 200 };
            world.settle(0, status, 0);
            while world.take().is_some() {}
        }
    }
    assert_eq!(world.delivered.len(), 1000, "every event of the other keys");
    assert_eq!((world.rows.len(), world.desk.window.standing_aside()), (1, 999));
    assert_eq!(world.desk.window.cursor(Seq(2000)), Seq(2), "the cursor stands before what waits");
    assert!(world.desk.window.waiting_bytes() <= 256 * 600, "most are only positions");
    world.restart();
    world.run_down();
    assert_eq!(world.delivered.len(), 2000);
    assert!(world.order[&Some(0)].is_sorted());
}

/// Three events of one key: 1 is a retry, 2 and 3 stand aside, and 2 is a stored retry, too, because a job posted it in vain.
fn with_one_posted_in_vain() -> World {
    let mut world = World::new(record(by_key(), OnDead::Skip, None, 1_000), vec![Some(0); 3]);
    (0..3).for_each(|_| world.offer());
    world.take();
    world.settle(0, 500, 0);
    assert!(world.take().is_none(), "1 is a retry, 2 and 3 stand aside");
    let in_vain = Exception { seq: Seq(2), ..world.rows[&Seq(1)].clone() };
    world.rows.insert(Seq(2), in_vain);
    world
}

#[test]
fn what_stands_aside_is_found_again_although_a_job_posted_it_in_vain() {
    let mut world = with_one_posted_in_vain();
    let in_vain = world.rows[&Seq(2)].clone();
    world.desk.resume_retry(&in_vain);
    world.record = record(by_key(), OnDead::Block, None, 1_000);
    world.desk.redefine(Arc::clone(&world.record));
    world.run_down();
    assert_eq!((world.desk.window.standing_aside(), world.desk.retrying()), (0, 0));
    assert_eq!(world.desk.window.cursor(Seq(3)), Seq(3), "nothing is left behind");
    assert_eq!(world.order[&Some(0)], [1, 2, 3]);
}

#[test]
fn a_retry_keeps_its_place_after_a_restart_although_its_event_stands_aside_too() {
    let mut world = with_one_posted_in_vain();
    world.restart();
    world.later();
    assert_eq!(world.take().map(World::seqs), Some(vec![1]));
    assert!(world.take().is_none(), "2 waits for 1");
    world.settle(0, 200, 0);
    world.run_down();
    assert_eq!((world.desk.window.standing_aside(), world.desk.retrying()), (0, 0));
    assert_eq!(world.order[&Some(0)], [1, 2, 3]);
}

/// A dead letter is posted again after a seek back, and ends meanwhile: retention takes it, or it was delivered before.
#[test]
fn a_letter_that_ends_while_it_is_posted_again_holds_nothing_up() {
    let mut world = World::new(record(by_key(), OnDead::Block, None, 1), vec![Some(0); 2]);
    (0..2).for_each(|_| world.offer());
    world.take();
    world.settle(0, 500, 0);
    assert!(world.take().is_none(), "1 is dead");
    world.desk.window.jump(Seq(0));
    world.desk.forget_retries_after(Seq(0));
    world.offered = 0;
    (0..2).for_each(|_| world.offer());
    assert_eq!(world.take().map(World::seqs), Some(vec![1]));
    world.desk.exhume(&[Seq(1)]);
    assert!(world.take().is_none(), "1 is in flight");
    world.settle(0, 200, 0);
    assert_eq!(world.take().map(World::seqs), Some(vec![2]));
}

#[test]
fn letters_are_looked_up_again_when_the_order_changed_meanwhile() {
    let definition = record(by_key(), OnDead::Block, None, 1);
    let mut world = World::new(Arc::clone(&definition), vec![Some(0)]);
    let doubt = |world: &World| world.desk.order_in_force().unwrap().unread(0).1;
    let first = doubt(&world).unwrap();
    let strict = SubscriptionSpec { ordering: Ordering::Strict, ..definition.spec.clone() };
    world.desk.redefine(Arc::new(SubscriptionRecord { spec: strict, ..(*definition).clone() }));
    let order = world.desk.order().unwrap();
    assert!(!order.letters.still_doubts(&first));
    order.letters.looked_up(&first, true);
    let second = doubt(&world).expect("another order knows nothing of them");
    world.desk.order().unwrap().letters.looked_up(&second, true);
    assert!(!world.desk.order_in_force().unwrap().is_unsorted());
}

#[test]
fn more_letters_than_may_hold_lines_up_are_looked_up_once_there_is_room() {
    use crate::order::letters::BLOCKING_DEAD_MAX;
    let most = BLOCKING_DEAD_MAX as u64;
    let mut world = World::new(record(by_key(), OnDead::Block, None, 1), vec![Some(0), Some(1)]);
    let order = world.desk.order().unwrap();
    let doubt = order.unread(0).1.unwrap();
    (1..=most).for_each(|seq| order.blocks(Seq(seq), Some(seq)));
    assert!(order.is_choked());
    order.letters.looked_up(&doubt, false);
    assert!(!order.is_unsorted());
    let ended: Vec<Seq> = (1..=most / 2).map(Seq).collect();
    let (last, some) = ended.split_last().unwrap();
    world.desk.exhume(some);
    let order = world.desk.order_in_force().unwrap();
    assert!(order.is_choked() && !order.is_unsorted(), "others hold lines up that are not known");
    world.desk.exhume(&[*last]);
    assert!(world.desk.order_in_force().unwrap().is_unsorted(), "those are looked up now");
}

#[test]
fn a_letter_that_was_not_posted_again_after_all_ends_like_any_other() {
    use crate::order::letters::BLOCKING_DEAD_MAX;
    use crate::order::{Fate, Order};
    let mut order = Order::of(&record(by_key(), OnDead::Block, None, 1).spec).unwrap();
    order.blocks(Seq(1), Some(1));
    order.start(Seq(1), Some(1), false);
    order.settle(Seq(1), Fate::Back);
    order.forget(Seq(1));
    (2..=BLOCKING_DEAD_MAX as u64).for_each(|seq| order.blocks(Seq(seq), Some(seq)));
    assert!(!order.is_choked(), "one less than may be");
}

#[test]
fn the_cursor_stands_still_when_too_many_stand_aside() {
    use crate::window::OPEN_MAX;
    let mut world = World::new(record(Ordering::Strict, OnDead::Skip, None, 1_000), vec![Some(0); OPEN_MAX + 500]);
    for _ in 0..OPEN_MAX + 400 {
        world.offer();
        world.take();
    }
    assert_eq!((world.flying.len(), world.desk.window.open_room()), (1, 0));
    assert_eq!(world.desk.window.waiting(), 400, "the rest waits in the queue, and then in the log");
}

#[test]
fn a_dead_letter_blocks_its_key_until_it_was_redriven_or_released() {
    let mut world = World::new(record(by_key(), OnDead::Block, None, 1), vec![Some(0), Some(0), Some(1), Some(0)]);
    (0..4).for_each(|_| world.offer());
    assert_eq!(world.take().unwrap().seq, Seq(1));
    world.settle(0, 500, 0);
    assert_eq!(world.rows[&Seq(1)].state, ExceptionState::Dead);
    assert_eq!(world.take().unwrap().seq, Seq(3), "another key goes on");
    world.settle(0, 200, 0);
    assert!(world.take().is_none());
    world.restart();
    assert!(world.take().is_none(), "it blocks after a restart as well");
    let again = Exception { state: ExceptionState::Retry, attempts: 0, due_at: world.now, ..world.rows[&Seq(1)].clone() };
    world.rows.insert(Seq(1), again.clone());
    world.desk.resume_retry(&again);
    assert_eq!(world.take().unwrap().seq, Seq(1));
    world.settle(0, 200, 0);
    assert_eq!(world.take().unwrap().seq, Seq(2), "delivered, so the next goes on");
    world.settle(0, 500, 0);
    assert!(world.take().is_none());
    assert_eq!(world.desk.release(Seq(2)), [Seq(2)]);
    assert_eq!(world.take().unwrap().seq, Seq(4));
}

#[test]
fn a_dead_letter_that_is_skipped_lets_the_next_go_on() {
    let mut world = World::new(record(Ordering::Strict, OnDead::Skip, None, 1), vec![Some(0); 2]);
    (0..2).for_each(|_| world.offer());
    world.take();
    world.settle(0, 500, 0);
    assert_eq!(world.take().unwrap().seq, Seq(2));
}

#[test]
fn a_failed_batch_is_the_same_batch_again_and_after_a_restart_too() {
    let mut world = World::new(record(Ordering::None, OnDead::Skip, Some(batch(3)), 9), vec![Some(0); 6]);
    (0..6).for_each(|_| world.offer());
    assert_eq!(World::seqs(world.take().unwrap()), [1, 2, 3]);
    assert_eq!(World::seqs(world.take().unwrap()), [4, 5, 6]);
    assert!(world.take().is_none());
    assert_eq!(world.desk.in_flight(), 2, "a batch is one request");
    world.settle(0, 500, 0);
    world.settle(0, 500, 0);
    assert_eq!((world.rows.len(), world.desk.retrying()), (6, 6), "each event has its exception");
    world.later();
    assert_eq!(World::seqs(world.take().unwrap()), [1, 2, 3], "though both failed in one moment");
    world.settle(0, 500, 0);
    world.restart();
    world.later();
    let mut again = [World::seqs(world.take().unwrap()), World::seqs(world.take().unwrap())];
    again.sort();
    assert_eq!(again, [vec![1, 2, 3], vec![4, 5, 6]]);
    assert_eq!(world.flying.iter().map(|job| job.attempt).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3]));
}

#[test]
fn a_batch_waits_for_company_and_not_longer_than_it_may() {
    let mut world = World::new(record(Ordering::None, OnDead::Skip, Some(batch(3)), 9), vec![Some(0); 5]);
    world.offer();
    assert!(matches!(world.desk.next(NOW), Next::WaitUntil(at) if at == NOW.plus(Duration::from_millis(200))));
    world.offer();
    assert!(world.take().is_none());
    world.offer();
    assert_eq!(World::seqs(world.take().unwrap()), [1, 2, 3], "full");
    world.offer();
    world.now = NOW.plus(Duration::from_millis(200));
    assert_eq!(World::seqs(world.take().unwrap()), [4], "it has waited");
}
