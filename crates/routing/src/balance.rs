//! Load balancing: least request among two that chance names (semantics 6.5, `LEAST_REQUEST`).

/// Picks one of `candidates`: of two different ones that `random` names, the one with the smaller load.
///
/// `random` holds 64 uniformly drawn bits. Chance between two bounds the load nearly as well as asking all,
/// at a cost that does not grow with their number. `None` only where there is no candidate.
pub fn pick<T>(candidates: &[T], random: u64, load: impl Fn(&T) -> usize) -> Option<&T> {
    let (first, second) = two_of(candidates.len(), random)?;
    let first = candidates.get(first)?;
    let second = candidates.get(second)?;
    Some(if load(second) < load(first) { second } else { first })
}

/// Two indices below `len`, different where `len` allows it.
fn two_of(len: usize, random: u64) -> Option<(usize, usize)> {
    let first = below(len, random >> 32)?;
    let Some(step) = below(len - 1, random & 0xffff_ffff) else {
        return Some((first, first));
    };
    Some((first, (first + 1 + step) % len))
}

/// Maps 32 random bits onto `0..len` without the bias of a remainder that small lengths would show.
fn below(len: usize, random: u64) -> Option<usize> {
    let len = u64::try_from(len).ok().filter(|len| *len > 0)?;
    usize::try_from((random * len.min(u64::from(u32::MAX))) >> 32).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn none_of_none_and_one_of_one() {
        assert_eq!(pick::<u8>(&[], 7, |_| 0), None);
        assert_eq!(pick(&['a'], u64::MAX, |_| 0), Some(&'a'));
    }

    #[test]
    fn of_two_the_idle_one_always_wins() {
        for random in [0, 1, u64::MAX, 0x8000_0000_8000_0000] {
            assert_eq!(pick(&[5, 0], random, |load| *load), Some(&0));
            assert_eq!(pick(&[0, 5], random, |load| *load), Some(&0));
        }
    }

    #[test]
    fn equal_load_is_spread_over_all() {
        let mut hits = [0_u32; 5];
        let mut state = 1_u64;
        for _ in 0..5_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            hits[*pick(&[0, 1, 2, 3, 4], state, |_| 0).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (800..1200).contains(h)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn the_two_differ_and_are_in_range(len in 2_usize..10_000, random: u64) {
            let (a, b) = two_of(len, random).unwrap();
            prop_assert!(a < len && b < len && a != b);
        }
    }
}
