//! What several measurements say: the middle, the spread, and whether one build is dearer than another. Pure.

use serde::Serialize;

/// A limit whose middle half spreads further than this part of its median has moved: nothing can be held against it.
pub(crate) const LIMIT_MOVED_MAX: f64 = 0.15;
/// What a build may be dearer by without being called so.
pub(crate) const DEARER_MIN: f64 = 1.03;
/// The part of the pairs that must agree.
const AGREEING_MIN: f64 = 0.75;

/// The smallest, the greatest and what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// Smallest.
    pub(crate) min: f64,
    /// A quarter lies below.
    pub(crate) lower: f64,
    /// Half lies below.
    pub(crate) median: f64,
    /// A quarter lies above.
    pub(crate) upper: f64,
    /// Greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of some measurements; nothing of none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { min, lower: quantile(&values, 0.25), median: quantile(&values, 0.5), upper: quantile(&values, 0.75), max })
    }

    /// How far the middle half spreads, as a part of the median.
    pub(crate) fn middle_half(&self) -> f64 {
        (self.upper - self.lower) / self.median.abs().max(f64::MIN_POSITIVE)
    }
}

/// The value below which this part of the sorted ones lies; between two, in proportion.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a slice that was measured")]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * part;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// What one build costs beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// More, beyond the noise.
    Dearer,
    /// Less, beyond the noise.
    Cheaper,
    /// As much, as far as can be told.
    Same,
}

impl Change {
    /// Out of what the new build cost beside the old one in each pair.
    pub(crate) fn of(ratios: &[f64]) -> Self {
        let Some(spread) = Spread::of(ratios) else { return Self::Same };
        let agree =
            |is: fn(&f64) -> bool| ratios.iter().filter(|ratio| is(ratio)).count() as f64 >= AGREEING_MIN * ratios.len() as f64;
        if spread.median > DEARER_MIN && agree(|ratio| *ratio > 1.0) {
            Self::Dearer
        } else if spread.median < 1.0 / DEARER_MIN && agree(|ratio| *ratio < 1.0) {
            Self::Cheaper
        } else {
            Self::Same
        }
    }
}

/// Whether enough pairs were measured, when `pairs` were asked for: what looks like a change is measured as often again, and all
/// pairs together decide.
pub(crate) fn is_settled(ratios: &[f64], pairs: usize) -> bool {
    let is_first_look = ratios.len() < 2 * pairs && pairs > 1;
    let looks_same = ratios.len() == pairs && Change::of(ratios) == Change::Same;
    looks_same || (ratios.len() >= pairs && !is_first_look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_of_two_per_cent_is_no_change(noise in vec(-0.02..0.02, 1..16)) {
            let ratios: Vec<f64> = noise.iter().map(|noise| 1.0 + noise).collect();
            prop_assert_eq!(Change::of(&ratios), Change::Same);
        }

        #[test]
        fn five_per_cent_are_found_in_noise_of_two(noise in vec(-0.0199..0.02, 1..16)) {
            let dearer: Vec<f64> = noise.iter().map(|noise| 1.05 + noise).collect();
            let cheaper: Vec<f64> = dearer.iter().map(|ratio| 1.0 / ratio).collect();
            prop_assert_eq!(Change::of(&dearer), Change::Dearer);
            prop_assert_eq!(Change::of(&cheaper), Change::Cheaper);
        }

        #[test]
        fn builds_that_change_places_change_the_verdict(ratios in vec(0.5..2.0, 1..16)) {
            let turned: Vec<f64> = ratios.iter().map(|ratio| 1.0 / ratio).collect();
            let expected = match Change::of(&ratios) {
                Change::Dearer => Change::Cheaper,
                Change::Cheaper => Change::Dearer,
                Change::Same => Change::Same,
            };
            // Between two in the middle the mean is no mirror image; with an odd number there is one in the middle.
            if ratios.len() % 2 == 1 {
                prop_assert_eq!(Change::of(&turned), expected);
            }
        }

        #[test]
        fn one_pair_in_four_may_be_anything(wild in 0.1..10.0, noise in vec(-0.0199..0.02, 7)) {
            let mut ratios: Vec<f64> = noise.iter().map(|noise| 1.05 + noise).collect();
            ratios[3] = wild;
            prop_assert_eq!(Change::of(&ratios), Change::Dearer);
            let mut ratios: Vec<f64> = noise.iter().map(|noise| 1.0 + noise).collect();
            ratios[3] = wild;
            prop_assert_eq!(Change::of(&ratios), Change::Same);
        }

        #[test]
        fn a_spread_is_in_order_and_scales(values in vec(0.1..100.0, 1..20), factor in 0.1..10.0) {
            let spread = Spread::of(&values).unwrap();
            prop_assert!(spread.min <= spread.lower && spread.lower <= spread.median);
            prop_assert!(spread.median <= spread.upper && spread.upper <= spread.max);
            let scaled = Spread::of(&values.iter().map(|value| value * factor).collect::<Vec<_>>()).unwrap();
            prop_assert!((scaled.middle_half() - spread.middle_half()).abs() < 1e-6);
        }
    }

    /// Normal noise out of a fixed sequence: the sum of twelve even numbers.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f64 {
            let even = |state: &mut u64| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (*state >> 40) as f64 / (1u64 << 24) as f64
            };
            (0..12).map(|_| even(&mut self.0)).sum::<f64>() - 6.0
        }
    }

    /// How many of a thousand comparisons of seven pairs say `change`, when the true ratio is `ratio` and a pair's noise this.
    fn said(change: Change, ratio: f64, noise: f64) -> usize {
        let mut source = Noise(12);
        let mut comparison = || {
            let mut ratios = Vec::new();
            while !is_settled(&ratios, 7) {
                ratios.push(ratio * (1.0 + noise * source.next()));
            }
            Change::of(&ratios)
        };
        (0..1000).filter(|_| comparison() == change).count()
    }

    #[test]
    fn what_looks_like_a_change_is_measured_again() {
        let (same, dearer) = ([1.0; 7], [1.1; 7]);
        assert!(is_settled(&same, 7) && !is_settled(&dearer, 7) && !is_settled(&same[..6], 7));
        assert!(!is_settled(&[1.1; 8], 14) && is_settled(&[1.1; 14], 7) && is_settled(&[1.1], 1));
    }

    #[test]
    fn normal_noise_of_ten_per_cent_invents_little() {
        assert!(said(Change::Dearer, 1.0, 0.1) <= 20, "{}", said(Change::Dearer, 1.0, 0.1));
        assert!(said(Change::Cheaper, 1.0, 0.1) <= 20, "{}", said(Change::Cheaper, 1.0, 0.1));
    }

    #[test]
    fn normal_noise_of_two_per_cent_hides_little_and_invents_next_to_nothing() {
        assert!(said(Change::Dearer, 1.05, 0.02) >= 950, "{}", said(Change::Dearer, 1.05, 0.02));
        assert!(said(Change::Dearer, 1.0, 0.02) <= 3, "{}", said(Change::Dearer, 1.0, 0.02));
        assert!(said(Change::Cheaper, 1.0, 0.02) <= 3, "{}", said(Change::Cheaper, 1.0, 0.02));
    }

    #[test]
    fn a_limit_that_drifts_has_moved_and_one_that_slips_once_has_not() {
        let drifting = Spread::of(&[100.0, 95.0, 90.0, 85.0, 80.0, 75.0, 70.0]).unwrap();
        let slipping = Spread::of(&[100.0, 101.0, 60.0, 99.0, 100.0, 102.0, 98.0]).unwrap();
        assert!(drifting.middle_half() > LIMIT_MOVED_MAX && slipping.middle_half() < LIMIT_MOVED_MAX);
    }
}
