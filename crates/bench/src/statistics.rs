//! What several measurements say: the middle, the spread, and whether one build is dearer than another. Pure.

use serde::Serialize;

/// A limit that moved further than this part of its median (see [`moved`]) has nothing held against it.
pub(crate) const LIMIT_MOVED_MAX: f64 = 0.15;
/// Of so many measurements, one at either end may be a slip.
const MEASUREMENTS_A_SLIP: usize = 7;
/// What a build may be dearer by without being called so.
pub(crate) const DEARER_MIN: f64 = 1.03;
/// A build is called the same only when it can be excluded that it is dearer by this.
const DEARER_EXCLUDED: f64 = 1.05;
/// The part of the pairs that must agree.
const AGREEING_MIN: f64 = 0.75;
/// With fewer pairs nothing is decided: three of four agree by chance too often.
pub(crate) const PAIRS_MIN: usize = 5;

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

/// How far measurements of the same thing moved, as a part of their median: from the least to the greatest, but of every seven one
/// at either end does not count. A machine that stalls once must not cost a row. What drifts is seen all the same: at least two
/// of seven lie at or beyond the median of the earlier half, and two at or beyond that of the later, so that what counts covers
/// whatever lies between the two.
pub(crate) fn moved(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let slips = values.len() / MEASUREMENTS_A_SLIP;
    let kept = Spread::of(&values[slips..values.len() - slips])?;
    Some((kept.max - kept.min) / kept.median.abs().max(f64::MIN_POSITIVE))
}

/// What one build costs beside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// More, beyond the noise.
    Dearer,
    /// Less, beyond the noise.
    Cheaper,
    /// As much: neither 5 % more nor 5 % less.
    Same,
    /// It cannot be told: the pairs lie too far apart, or there are fewer than [`PAIRS_MIN`].
    Undecided,
}

impl Change {
    /// Out of what the new build cost beside the old one in each pair.
    ///
    /// Of a build that is dearer by 5 %, every second pair lies above 1.05, whatever the noise. So six of seven pairs lie below with
    /// a chance of 6.3 % at most, and where they do not, eleven of fourteen with one of 1.2 %: with both looks it is called the
    /// same in 7.5 % of all comparisons at most; of those that ask for five pairs, in 20 %. Noise that is wide makes more rows
    /// undecided, and hides no more than that.
    pub(crate) fn of(ratios: &[f64]) -> Self {
        let Some(spread) = Spread::of(ratios).filter(|_| ratios.len() >= PAIRS_MIN) else { return Self::Undecided };
        let agree =
            |is: fn(&f64) -> bool| ratios.iter().filter(|ratio| is(ratio)).count() as f64 >= AGREEING_MIN * ratios.len() as f64;
        let is_in_the_middle = (1.0 / DEARER_MIN..=DEARER_MIN).contains(&spread.median);
        if spread.median > DEARER_MIN && agree(|ratio| *ratio > 1.0) {
            Self::Dearer
        } else if spread.median < 1.0 / DEARER_MIN && agree(|ratio| *ratio < 1.0) {
            Self::Cheaper
        } else if is_in_the_middle && agree(|ratio| *ratio < DEARER_EXCLUDED) && agree(|ratio| *ratio > 1.0 / DEARER_EXCLUDED) {
            Self::Same
        } else {
            Self::Undecided
        }
    }
}

/// Whether enough pairs were measured, when `pairs` were asked for: what does not look the same then is measured as often again,
/// and all pairs together decide.
pub(crate) fn is_settled(ratios: &[f64], pairs: usize) -> bool {
    let looks_same = ratios.len() == pairs && Change::of(ratios) == Change::Same;
    let is_second_look = ratios.len() >= 2 * pairs || pairs == 1;
    looks_same || (ratios.len() >= pairs && is_second_look)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn noise_of_two_per_cent_is_no_change(noise in vec(-0.02..0.02, PAIRS_MIN..16)) {
            let ratios: Vec<f64> = noise.iter().map(|noise| 1.0 + noise).collect();
            prop_assert_eq!(Change::of(&ratios), Change::Same);
        }

        #[test]
        fn five_per_cent_are_found_in_noise_of_two(noise in vec(-0.0199..0.02, PAIRS_MIN..16)) {
            let dearer: Vec<f64> = noise.iter().map(|noise| 1.05 + noise).collect();
            let cheaper: Vec<f64> = dearer.iter().map(|ratio| 1.0 / ratio).collect();
            prop_assert_eq!(Change::of(&dearer), Change::Dearer);
            prop_assert_eq!(Change::of(&cheaper), Change::Cheaper);
        }

        #[test]
        fn fewer_than_five_pairs_decide_nothing(ratios in vec(0.5..2.0, 0..PAIRS_MIN)) {
            prop_assert_eq!(Change::of(&ratios), Change::Undecided);
        }

        #[test]
        fn builds_that_change_places_change_the_verdict(ratios in vec(0.5..2.0, PAIRS_MIN..16)) {
            let turned: Vec<f64> = ratios.iter().map(|ratio| 1.0 / ratio).collect();
            let expected = match Change::of(&ratios) {
                Change::Dearer => Change::Cheaper,
                Change::Cheaper => Change::Dearer,
                same_or_undecided => same_or_undecided,
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

        #[test]
        fn what_counts_as_moved_covers_the_medians_of_both_halves(values in vec(50.0..150.0, 2..30)) {
            let (earlier, later) = values.split_at(values.len() / 2);
            let [earlier, later, all] = [earlier, later, &values[..]].map(|part| Spread::of(part).unwrap().median);
            prop_assert!(moved(&values).unwrap() >= (earlier - later).abs() / all - 1e-9);
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
    fn what_does_not_look_the_same_is_measured_again() {
        let (same, dearer, apart) = ([1.0; 7], [1.1; 7], [0.9, 1.1, 0.9, 1.1, 0.9, 1.1, 1.0]);
        assert!(is_settled(&same, 7) && !is_settled(&dearer, 7) && !is_settled(&same[..6], 7));
        assert_eq!(Change::of(&apart), Change::Undecided);
        assert!(!is_settled(&apart, 7) && is_settled(&[apart, apart].concat(), 7));
        assert!(!is_settled(&[1.1; 8], 14) && is_settled(&[1.1; 14], 7) && is_settled(&[1.1], 1));
    }

    #[test]
    fn noise_invents_little_however_wide_it_is() {
        for (noise, most) in [(0.02, 3), (0.03, 5), (0.05, 15), (0.07, 25), (0.1, 35), (0.2, 40)] {
            for change in [Change::Dearer, Change::Cheaper] {
                let invented = said(change, 1.0, noise);
                assert!(invented <= most, "{change:?} {invented} times with noise of {noise}");
            }
        }
    }

    #[test]
    fn noise_hides_little_however_wide_it_is() {
        for noise in [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2] {
            for ratio in [1.05, 1.0 / 1.05] {
                let hidden = said(Change::Same, ratio, noise);
                assert!(hidden <= 80, "a true {ratio} is the same {hidden} times with noise of {noise}");
            }
        }
    }

    /// How many comparisons call a build the same of whose pairs every second one lies above 1.05: of all ways in which the pairs may
    /// fall, which are equally likely.
    fn hidden(pairs: usize) -> usize {
        let is_same = |way: &u32| {
            let all: Vec<f64> = (0..2 * pairs).map(|pair| if way >> pair & 1 == 0 { 1.0 } else { 1.2 }).collect();
            let looked_at = if is_settled(&all[..pairs], pairs) { &all[..pairs] } else { &all[..] };
            Change::of(looked_at) == Change::Same
        };
        (0..1_u32 << (2 * pairs)).filter(is_same).count()
    }

    #[test]
    fn both_looks_together_hide_what_is_written_at_the_rule() {
        assert_eq!(hidden(7), 1_227, "7.5 % of 16,384");
        assert_eq!(hidden(5), 202, "20 % of 1,024");
    }

    #[test]
    fn what_noise_of_seven_per_cent_covers_is_found_or_undecided() {
        let [found, undecided] = [Change::Dearer, Change::Undecided].map(|change| said(change, 1.05, 0.07));
        assert!(found >= 450 && found + undecided >= 930, "{found} found, {undecided} undecided");
        assert!(said(Change::Dearer, 1.15, 0.07) >= 990, "{}", said(Change::Dearer, 1.15, 0.07));
    }

    #[test]
    fn noise_of_two_per_cent_leaves_next_to_nothing_undecided() {
        assert!(said(Change::Dearer, 1.05, 0.02) >= 980, "{}", said(Change::Dearer, 1.05, 0.02));
        assert!(said(Change::Same, 1.0, 0.02) >= 995, "{}", said(Change::Same, 1.0, 0.02));
    }

    #[test]
    fn a_limit_that_drifts_has_moved_and_one_that_slips_once_has_not() {
        let has_moved = |limits: &[f64]| moved(limits).unwrap() > LIMIT_MOVED_MAX;
        assert!(has_moved(&[100.0, 98.0, 94.0, 90.0, 86.0, 83.0, 81.0]), "its middle half spreads by 13 %");
        assert!(has_moved(&[100.0, 100.0, 100.0, 84.0, 84.0, 84.0, 84.0]), "it changed once and stayed");
        assert!(!has_moved(&[100.0, 101.0, 60.0, 99.0, 100.0, 102.0, 98.0]), "one slip");
        assert!(has_moved(&[100.0, 101.0, 60.0, 99.0, 70.0, 102.0, 98.0]), "two slips");
        assert!(has_moved(&[100.0, 101.0, 60.0]), "of three none can be told to be a slip");
        assert_eq!((moved(&[100.0]), moved(&[])), (Some(0.0), None));
    }
}
