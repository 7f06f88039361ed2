//! Dead letters that die again, are delivered, or both, before storage was asked about them.

use super::*;

/// A floor whose only desk was offered so many events and makes so many attempts of each.
fn offered(events: u64, max_attempts: u32) -> (Floor, Place) {
    let mut floor = Floor::new(Seq::ZERO, 64);
    let mut of_few_attempts = SubscriptionRecord::clone(&record(1));
    of_few_attempts.spec.retry.max_attempts = max_attempts;
    let place = floor.add(Arc::new(of_few_attempts), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.scan(&page(1, events));
    (floor, place)
}

fn succeed(floor: &mut Floor, flight: &Assignment) {
    floor.settle(flight, None, &outcome(None), (NOW, NOW), 0.5);
}

/// More deliveries than there is room for may have been dead letters.
#[test]
fn deliveries_that_there_is_no_room_to_look_up_are_counted() {
    const ROOM: u64 = 65_536;
    let (mut floor, _) = offered(1, 1);
    floor.change(Ordinal(1), |desk| (desk.totals.dead, desk.dead_to) = (1, Seq(u64::MAX)));
    for first in (2..=ROOM + 100).step_by(100) {
        floor.scan(&page(first, 100));
        while let Some(flight) = floor.next(NOW) {
            succeed(&mut floor, &flight);
        }
    }
    let delivered = floor.desk(Ordinal(1)).unwrap().totals.delivered;
    assert_eq!((floor.recovered().len() as u64, floor.left_listed), (ROOM, delivered - ROOM));
}
