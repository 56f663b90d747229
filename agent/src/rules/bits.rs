//! Sets of rules as bits: what is allowed by every condition is found by a few words of `and`.

/// A bit for each rule, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(pub(super) Vec<u64>);

impl Bits {
    /// None of `count` rules.
    pub(super) fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// The rules for which this holds.
    pub(super) fn of<T>(rules: &[T], holds: impl Fn(&T) -> bool) -> Self {
        let mut bits = Self::none(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            if holds(rule) {
                bits.set(index);
            }
        }
        bits
    }

    pub(super) fn set(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }

    pub(super) fn copy(&mut self, from: &Self) {
        self.0.copy_from_slice(&from.0);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    pub(super) fn intersect(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    /// Keeps what allows anything, and what was found.
    pub(super) fn narrow(&mut self, any: &Self, found: Option<&Self>) {
        match found {
            Some(found) => {
                for ((word, any), found) in self.0.iter_mut().zip(&any.0).zip(&found.0) {
                    *word &= any | found;
                }
            }
            None => self.intersect(any),
        }
    }

    /// Whether a rule of these is not among `any`.
    pub(super) fn exceeds(&self, any: &Self) -> bool {
        self.0.iter().zip(&any.0).any(|(word, any)| word & !any != 0)
    }

    /// Whether a rule is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(word, other)| word & other != 0)
    }

    /// The first rule that is in all three.
    pub(super) fn first_common(&self, second: &Self, third: &Self) -> Option<usize> {
        let words = self.0.iter().zip(&second.0).zip(&third.0);
        words.enumerate().find_map(|(index, ((first, second), third))| {
            let common = first & second & third;
            (common != 0).then(|| index * 64 + common.trailing_zeros() as usize)
        })
    }

    pub(super) fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// The rules, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_told_in_order() {
        let mut bits = Bits::none(130);
        for index in [129, 0, 63, 64] {
            bits.set(index);
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert!(bits.has(129) && !bits.has(1));
        assert_eq!(bits.first(), Some(0));
    }
}
