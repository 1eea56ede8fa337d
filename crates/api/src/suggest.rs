//! "Did you mean": the nearest known word.

/// The candidate nearest to a word, in any case, if it is near enough to be meant.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=9 => 2,
        10..=64 => 3,
        _ => return None,
    };
    let lower = word.to_lowercase();
    candidates
        .filter_map(|candidate| {
            let other = candidate.to_lowercase();
            // `matchLabel` for `matchLabels`, `ipBlock` for `ipBlocks`, `namespace` for `namespaces`.
            let distance = if other == lower {
                0
            } else {
                distance(&lower, &other)
            };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be changed, added, removed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: Option<&Vec<usize>>, column: usize| {
                row.and_then(|row| row.get(column))
                    .copied()
                    .unwrap_or(usize::MAX / 2)
            };
            let previous = rows.get(i);
            let mut best = at(previous, j) + usize::from(from != to);
            best = best.min(at(previous, j + 1) + 1).min(at(Some(&row), j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(rows.get(i - 1), j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last()
        .and_then(|row| row.last())
        .copied()
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["principals", "namespaces", "ipBlocks", "paths"];
        let find = |word| nearest(word, words.iter().copied());
        assert_eq!(find("principal"), Some("principals"));
        assert_eq!(find("ipblocks"), Some("ipBlocks"));
        assert_eq!(find("pahts"), Some("paths"));
        assert_eq!(find("methods"), None);
    }
}
