//! Ranges of positions that no event ever had: a log whose copy was put back goes on far behind everything it may have given
//! out before. Pure; who makes a jump and where it is stored is not known here.

use super::Seq;

/// The jumps of one log, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jumps(Vec<(Seq, Seq)>);

impl Jumps {
    /// A log that never jumped.
    pub const NONE: Self = Self(Vec::new());

    /// Jumps from their ranges, both ends inclusive; empty ranges are left out, those that meet are one.
    #[must_use]
    pub fn new(mut ranges: Vec<(Seq, Seq)>) -> Self {
        ranges.retain(|(from, to)| from <= to);
        ranges.sort_unstable();
        let mut jumps: Vec<(Seq, Seq)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match jumps.last_mut() {
                Some(last) if from <= last.1.next() => last.1 = last.1.max(to),
                _ => jumps.push((from, to)),
            }
        }
        Self(jumps)
    }

    /// Whether no event ever had this position, although later ones are in use.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        self.around(seq).is_some()
    }

    /// This position, or the first behind the jump that it lies in.
    #[must_use]
    pub fn past(&self, seq: Seq) -> Seq {
        self.around(seq).map_or(seq, |(_, to)| to.next())
    }

    /// What is left of a range, both ends inclusive, without the jumps in it.
    #[must_use]
    pub fn without(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq)> {
        let mut left = Vec::new();
        let mut next = from;
        for &(jump_from, jump_to) in self.behind(from).iter().take_while(|(jump_from, _)| *jump_from <= to) {
            if next < jump_from {
                left.push((next, jump_from.prev()));
            }
            next = jump_to.next();
        }
        if next <= to {
            left.push((next, to));
        }
        left
    }

    /// Positions behind `after` up to `to`, where a jump counts as one.
    #[must_use]
    pub fn distance(&self, after: Seq, to: Seq) -> u64 {
        if to <= after {
            return 0;
        }
        let inside = self.behind(after.next()).iter().take_while(|(from, _)| *from <= to);
        let wide: u64 = inside.map(|(from, end)| (*end).min(to).0 - (*from).max(after.next()).0).sum();
        to.0 - after.0 - wide
    }

    /// The ranges, both ends inclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        self.0.iter().copied()
    }

    /// Jumps that end at `seq` or behind it.
    fn behind(&self, seq: Seq) -> &[(Seq, Seq)] {
        &self.0[self.0.partition_point(|(_, to)| *to < seq)..]
    }

    fn around(&self, seq: Seq) -> Option<(Seq, Seq)> {
        self.behind(seq).first().copied().filter(|(from, _)| *from <= seq)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jumps(ranges: &[(u64, u64)]) -> Jumps {
        Jumps::new(ranges.iter().map(|(from, to)| (Seq(*from), Seq(*to))).collect())
    }

    #[test]
    fn a_jump_of_any_width_counts_as_one() {
        let wide = jumps(&[(11, 1 << 48), ((1 << 48) + 5, 1 << 49)]);
        assert_eq!(wide.distance(Seq(10), Seq((1 << 48) + 4)), 5);
        assert_eq!(wide.distance(Seq(0), Seq((1 << 49) + 1)), 10 + 1 + 4 + 1 + 1);
        assert_eq!(wide.distance(Seq(9), Seq(10)), 1);
        assert_eq!(wide.distance(Seq(10), Seq(10)), 0);
        assert_eq!(wide.without(Seq(5), Seq((1 << 48) + 2)), [(Seq(5), Seq(10)), (Seq((1 << 48) + 1), Seq((1 << 48) + 2))]);
        assert_eq!(wide.without(Seq(11), Seq(1 << 48)), []);
        assert_eq!(wide.past(Seq(11)), Seq((1 << 48) + 1));
        assert_eq!(wide.past(Seq(10)), Seq(10));
    }

    proptest! {
        /// Against the plain rule, position by position.
        #[test]
        fn ranges_are_what_their_positions_are(
            ranges in prop::collection::vec((1..60_u64, 1..60_u64), 0..6), after in 0..60_u64, to in 0..60_u64
        ) {
            let jumped = |seq: u64| ranges.iter().any(|(from, end)| (*from..=*end).contains(&seq));
            let all = jumps(&ranges);
            for seq in 0..70 {
                prop_assert_eq!(all.contains(Seq(seq)), jumped(seq));
                prop_assert_eq!(all.past(Seq(seq)), Seq((seq..100).find(|seq| !jumped(*seq)).unwrap()));
            }
            let left: Vec<u64> = (after + 1..=to).filter(|seq| !jumped(*seq)).collect();
            let without: Vec<u64> = all.without(Seq(after + 1), Seq(to)).iter().flat_map(|(from, to)| from.0..=to.0).collect();
            prop_assert_eq!(&without, &left);
            let begun = (after + 1..=to).filter(|seq| jumped(*seq) && (*seq == after + 1 || !jumped(*seq - 1))).count();
            prop_assert_eq!(all.distance(Seq(after), Seq(to)), (left.len() + begun) as u64);
        }
    }
}
