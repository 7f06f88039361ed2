//! Behaviour of the reconnect policy.

use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn ending(class: EndingClass) -> Ending {
    Ending::new(class, "test", "")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn delay(next: Next) -> Duration {
    match next {
        Next::After(delay) => delay,
        Next::Stop => panic!("stopped"),
    }
}

#[test]
fn the_first_loss_and_every_steady_one_are_answered_at_once() {
    let mut policy = Reconnect::new(ReconnectSettings::default());
    policy.connected(NOW);
    assert_eq!(policy.ended(&ending(EndingClass::Lost), true, NOW, 7), Next::After(Duration::ZERO));
    policy.connected(NOW);
    let second = delay(policy.ended(&ending(EndingClass::Lost), true, NOW, 7));
    assert!((secs(1)..=secs(2)).contains(&second));
    policy.connected(NOW);
    assert_eq!(policy.ended(&ending(EndingClass::Lost), false, NOW.plus(secs(10)), 7), Next::After(Duration::ZERO));
}

#[test]
fn failures_double_the_ceiling_and_events_reset_it() {
    let mut policy = Reconnect::new(ReconnectSettings::default());
    let mut highest = Duration::ZERO;
    for round in 0..2000u64 {
        let random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let delay = delay(policy.ended(&ending(EndingClass::Failed), false, NOW, random));
        assert!((secs(1)..=secs(300)).contains(&delay), "{delay:?}");
        highest = highest.max(delay);
    }
    assert!(highest > secs(250));
    policy.connected(NOW);
    assert!(delay(policy.ended(&ending(EndingClass::Failed), true, NOW, u64::MAX)) <= secs(2));
}

#[test]
fn refusals_wait_a_minute_and_retry_after_is_a_floor() {
    let mut policy = Reconnect::new(ReconnectSettings::default());
    assert!(delay(policy.ended(&ending(EndingClass::Denied), false, NOW, 0)) >= secs(60));
    let asked = ending(EndingClass::Failed).with_retry_after(Some(secs(120)));
    assert!((secs(120)..=secs(132)).contains(&delay(policy.ended(&asked, false, NOW, 3))));
    let forever = ending(EndingClass::Failed).with_retry_after(Some(Duration::MAX));
    assert!(delay(policy.ended(&forever, false, NOW, 0)) <= RETRY_AFTER_MAX * 11 / 10);
}

#[test]
fn the_upstreams_retry_is_a_floor_within_bounds() {
    for (retry, low, high) in [(Duration::ZERO, 1, 2), (secs(999_999_999), 300, 300), (secs(30), 30, 36)] {
        let mut policy = Reconnect::new(ReconnectSettings::default());
        policy.set_retry(retry);
        policy.connected(NOW);
        let first = delay(policy.ended(&ending(EndingClass::Lost), true, NOW, 12_345));
        assert!((secs(low)..=secs(high)).contains(&first), "{first:?}");
        let second = delay(policy.ended(&ending(EndingClass::Failed), false, NOW, 12_345));
        assert!((secs(low)..=secs(high)).contains(&second), "{second:?}");
    }
}

#[test]
fn stop_means_stop() {
    let mut policy = Reconnect::new(ReconnectSettings::default());
    assert_eq!(policy.ended(&ending(EndingClass::Stop), true, NOW, 0), Next::Stop);
    assert_eq!(policy.ended(&ending(EndingClass::Cancelled), true, NOW, 0), Next::Stop);
}

proptest! {
    #[test]
    fn no_delay_leaves_the_bounds(
        rounds in prop::collection::vec((0u8..3, any::<bool>(), 0i64..20_000, any::<u64>(), any::<bool>()), 1..40),
        retry in prop::option::of(0u64..1_000_000_000),
    ) {
        let mut policy = Reconnect::new(ReconnectSettings::default());
        if let Some(retry) = retry {
            policy.set_retry(Duration::from_millis(retry));
        }
        let mut now = NOW;
        let mut at_once = 0;
        for (class, productive, held_ms, random, connects) in rounds {
            if connects {
                policy.connected(now);
            }
            now = Timestamp(now.0 + held_ms);
            let class = [EndingClass::Lost, EndingClass::Failed, EndingClass::Denied][usize::from(class)];
            let delay = delay(policy.ended(&ending(class), productive, now, random));
            prop_assert!(delay <= secs(300));
            if delay.is_zero() {
                prop_assert_eq!(class, EndingClass::Lost);
                at_once += i32::from(!(connects && held_ms >= 10_000));
            } else {
                prop_assert!(delay >= secs(1));
            }
        }
        prop_assert!(at_once <= 1);
    }
}
