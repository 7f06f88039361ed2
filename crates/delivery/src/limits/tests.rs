//! Desks on several lanes that share rates and places: nobody over, nobody starved, nothing left taken.

use super::*;
use proptest::prelude::*;

const MS: Tick = 1_000_000;

fn shared(rate: Option<(f64, u32)>, in_flight: Option<u32>) -> Arc<SharedLimit> {
    let rate = rate.map(|(per_second, burst)| RateLimit { per_second, burst });
    Arc::new(SharedLimit::new(SharedTerms { rate, in_flight }))
}

fn desk(ordinal: u64, group: Option<&Arc<SharedLimit>>, host: Option<&Arc<SharedLimit>>, bell: &Arc<Bell>) -> Allowance {
    Allowance {
        own: None,
        group: group.map(Arc::clone),
        host: host.map(Arc::clone),
        ordinal: Ordinal(ordinal),
        bell: Arc::clone(bell),
        since: tokio::time::Instant::now(),
        step: 0,
        token_at: None,
        place: Place::None,
        asks: false,
    }
}

fn taken(limit: &SharedLimit) -> u32 {
    limit.places.as_ref().map_or(0, |places| lock(&places.line).taken)
}

fn rung(bell: &Bell) -> Vec<u64> {
    lock(&bell.handed).iter().map(|(who, _)| who.0).collect()
}

#[test]
fn a_place_goes_to_whoever_waits_longest_and_comes_back_at_the_end() {
    let (group, bell) = (shared(None, Some(1)), Arc::default());
    let mut desks: Vec<Allowance> = (0..3).map(|who| desk(who, Some(&group), None, &bell)).collect();
    let Leave::Go(Some(pass)) = desks[0].ask_at(0) else { panic!("a free place") };
    assert!(matches!(desks[1].ask_at(0), Leave::WhenCalled));
    assert!(matches!(desks[2].ask_at(0), Leave::WhenCalled));
    assert!(matches!(desks[0].ask_at(0), Leave::WhenCalled), "behind those who wait");
    drop(pass);
    assert_eq!(rung(&bell), [1]);
    assert!(!desks[2].take_handed(&shared(None, Some(1))), "a place of something else");
    assert!(desks[1].take_handed(&group));
    let Leave::Go(Some(pass)) = desks[1].ask_at(0) else { panic!("its own place") };
    drop(pass);
    assert_eq!(rung(&bell), [1, 2]);
}

#[test]
fn a_desk_that_wants_nothing_any_more_holds_nobody_up() {
    let (group, host, bell) = (shared(None, Some(1)), shared(None, Some(2)), Arc::default());
    let mut first = desk(1, Some(&group), Some(&host), &bell);
    let mut second = desk(2, Some(&group), Some(&host), &bell);
    let mut third = desk(3, Some(&group), None, &bell);
    let Leave::Go(pass) = first.ask_at(0) else { panic!("free places") };
    assert!(matches!(second.ask_at(0), Leave::WhenCalled));
    assert_eq!((taken(&group), taken(&host)), (1, 1), "who waits in the group takes no place at the host");
    assert!(matches!(third.ask_at(0), Leave::WhenCalled));
    second.step_aside();
    second.step_aside();
    drop(pass);
    assert_eq!(rung(&bell), [3], "the other was looked at and did not ask");
    assert!(third.take_handed(&group));
    drop((first, second, third));
    assert_eq!((taken(&group), taken(&host)), (0, 0));
}

#[test]
fn a_place_on_its_way_to_a_desk_that_went_is_returned() {
    let (group, bell) = (shared(None, Some(1)), Arc::default());
    let (mut first, mut second) = (desk(1, Some(&group), None, &bell), desk(2, Some(&group), None, &bell));
    let Leave::Go(pass) = first.ask_at(0) else { panic!("a free place") };
    assert!(matches!(second.ask_at(0), Leave::WhenCalled));
    drop(pass);
    second.step_aside();
    second.step_aside();
    assert!(!second.take_handed(&group), "too late");
    group.return_place();
    assert_eq!(taken(&group), 0);
}

#[test]
fn two_desks_with_a_backlog_share_a_groups_rate_evenly() {
    let group = shared(Some((100.0, 5)), None);
    let bells: [Arc<Bell>; 2] = [Arc::default(), Arc::default()];
    let mut desks: Vec<Allowance> =
        (0..2).map(|who| desk(who, Some(&group), None, &bells[usize::try_from(who).unwrap()])).collect();
    let (mut sent, mut wakes_at) = ([0u32; 2], [1_000 * MS; 2]);
    for now in (1_000..11_000).map(|ms| ms * MS) {
        for who in 0..2 {
            while wakes_at[who] <= now {
                match desks[who].ask_at(now) {
                    Leave::Go(pass) => {
                        assert!(pass.is_none());
                        sent[who] += 1;
                    }
                    Leave::In(wait) => wakes_at[who] = now + u64::try_from(wait.as_nanos()).unwrap(),
                    Leave::WhenCalled => panic!("there are no places"),
                }
            }
        }
    }
    assert!((985..=1005).contains(&(sent[0] + sent[1])), "{sent:?}");
    assert!(sent[0].abs_diff(sent[1]) <= 8, "{sent:?}");
}

#[test]
fn a_limit_that_stays_goes_on_where_it_was() {
    let bell = Arc::default();
    let own = || Some(Bucket::new(RateLimit { per_second: 1.0, burst: 1 }));
    let mut old = desk(1, None, None, &bell);
    old.own = own();
    assert!(matches!(old.ask_at(1_000 * MS), Leave::Go(None)));
    assert!(matches!(old.ask_at(1_000 * MS), Leave::In(_)));
    let mut fresh = desk(1, None, None, &bell);
    fresh.own = own();
    fresh.inherit(&mut old);
    drop(old);
    assert!(matches!(fresh.ask_at(1_000 * MS), Leave::In(_)));
}

#[test]
fn subscriptions_of_one_host_share_and_those_of_another_do_not() {
    let terms = SharedTerms { rate: None, in_flight: Some(3) };
    let book = LimitBook::new(&LimitSettings { per_host: terms, groups: BTreeMap::new() });
    let at = |url: &str| book.host_of(url).unwrap();
    let (one, other) = (at("https://example.com/a"), at("https://example.com:8443/b"));
    assert!(Arc::ptr_eq(&one, &other), "a host is a host on every port");
    assert!(!Arc::ptr_eq(&one, &at("https://example.org/a")));
    assert!(LimitBook::default().host_of("https://example.com/a").is_none());
}

#[test]
fn hosts_that_nobody_posts_to_are_forgotten() {
    let terms = SharedTerms { rate: None, in_flight: Some(3) };
    let book = LimitBook::new(&LimitSettings { per_host: terms, groups: BTreeMap::new() });
    for host in 0..2_000 {
        book.host_of(&format!("https://h{host}.example.com/")).unwrap();
    }
    assert!(lock(&book.hosts).len() < 600);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize),
    Idle(usize),
    End(usize),
    Hear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..5).prop_map(Step::Ask),
        1 => (0usize..5).prop_map(Step::Idle),
        3 => (0usize..8).prop_map(Step::End),
        3 => Just(Step::Hear),
    ]
}

proptest! {
    /// Whatever desks do, never more are in flight than there are places, and in the end every place is free.
    #[test]
    fn places_are_never_exceeded_nor_lost(steps in prop::collection::vec(step(), 1..200), places in 1u32..4) {
        let (group, host, bell) = (shared(None, Some(places)), shared(None, Some(places + 1)), Arc::<Bell>::default());
        let mut desks: Vec<Allowance> = (0..5).map(|who| desk(who, Some(&group), Some(&host), &bell)).collect();
        let mut in_flight = Vec::new();
        let hear = |desks: &mut Vec<Allowance>| {
            let handed = std::mem::take(&mut *lock(&bell.handed));
            for (who, limit) in handed {
                let desk = desks.get_mut(usize::try_from(who.0).unwrap());
                if !desk.is_some_and(|desk| desk.take_handed(&limit)) {
                    limit.return_place();
                }
            }
        };
        for step in steps {
            match step {
                Step::Ask(who) => {
                    if let Leave::Go(pass) = desks[who].ask_at(0) { in_flight.push(pass); }
                    desks[who].step_aside();
                }
                Step::Idle(who) => desks[who].step_aside(),
                Step::End(index) => if index < in_flight.len() { drop(in_flight.swap_remove(index)) },
                Step::Hear => hear(&mut desks),
            }
            prop_assert!(in_flight.len() <= places as usize);
        }
        drop(in_flight);
        drop(std::mem::take(&mut desks));
        for _ in 0..10 {
            hear(&mut desks);
        }
        prop_assert_eq!((taken(&group), taken(&host)), (0, 0));
    }
}
