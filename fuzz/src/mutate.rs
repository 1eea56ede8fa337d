//! Mutations, deterministic by a seed.

/// The longest input that is made, in bytes.
pub const MAX_INPUT: usize = 64 * 1024;

/// Numbers at which lengths and offsets go wrong.
const EDGES: [u8; 10] = [0, 1, 2, 4, 7, 0x20, 0x7f, 0x80, 0xfe, 0xff];

/// A sequence of numbers that is the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}

/// An input of the corpus with one to eight changes.
pub fn mutated(corpus: &[Vec<u8>], words: &[&[u8]], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = numbers.pick(corpus).cloned().unwrap_or_default();
    for _ in 0..=numbers.below(8) {
        change(&mut input, corpus, words, numbers);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    match numbers.below(10) {
        0 => {
            let bit = 1 << numbers.below(8);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= bit;
            }
        }
        1 => {
            let value = numbers.byte();
            if let Some(byte) = input.get_mut(at) {
                *byte = value;
            }
        }
        2 => {
            let value = numbers.pick(&EDGES).copied().unwrap_or(0);
            if let Some(byte) = input.get_mut(at) {
                *byte = value;
            }
        }
        3 => {
            let bytes: Vec<u8> = (0..=numbers.below(8)).map(|_| numbers.byte()).collect();
            input.splice(at..at, bytes);
        }
        4 => {
            let end = (at + 1 + numbers.below(16)).min(input.len());
            input.drain(at..end);
        }
        5 => input.truncate(at),
        6 => repeat(input, at, numbers),
        7 => {
            // The end of another input.
            let other = numbers.pick(corpus).map(Vec::as_slice).unwrap_or_default();
            let from = numbers.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        8 => {
            let word = numbers.pick(words).copied().unwrap_or_default();
            let end = if numbers.below(2) == 0 {
                at
            } else {
                (at + word.len()).min(input.len())
            };
            input.splice(at..end, word.iter().copied());
        }
        _ => {
            // A length or a count, in two bytes.
            let value = numbers.number().to_le_bytes();
            for (place, byte) in input.iter_mut().skip(at).take(2).zip(value) {
                *place = byte & 0x03;
            }
        }
    }
}

fn repeat(input: &mut Vec<u8>, at: usize, numbers: &mut Numbers) {
    let end = (at + 1 + numbers.below(64)).min(input.len());
    let piece = input.get(at..end).unwrap_or_default().to_vec();
    let times = if numbers.below(20) == 0 {
        2000
    } else {
        1 + numbers.below(4)
    };
    let room = MAX_INPUT.saturating_sub(input.len());
    let bytes = piece
        .iter()
        .copied()
        .cycle()
        .take((piece.len() * times).min(room));
    let bytes: Vec<u8> = bytes.collect();
    input.splice(at..at, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again() {
        let corpus = [b"hello".to_vec(), b"there".to_vec()];
        let run = |seed| {
            let mut numbers = Numbers::new(seed);
            (0..500)
                .map(|_| mutated(&corpus, &[b"word"], &mut numbers))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().all(|input| input.len() <= MAX_INPUT));
    }

    #[test]
    fn nothing_to_start_from_is_fine() {
        let mut numbers = Numbers::new(1);
        for _ in 0..1000 {
            mutated(&[], &[], &mut numbers);
        }
    }
}
