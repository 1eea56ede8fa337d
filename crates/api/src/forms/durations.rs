//! Durations as Istio writes them: `1.5s`, `100ms`, `1m30s`, and with a sign.

use super::Verdict;

const NS_IN_MS: i128 = 1_000_000;
/// The longest that a protobuf duration can be, in nanoseconds (10000 years).
const MOST: i128 = 315_576_000_000 * 1_000_000_000;

/// The duration in nanoseconds; `None` where it is none. What is finer than a nanosecond is cut off.
pub(crate) fn nanoseconds(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        total = total.checked_add(scaled(number, unit_of(unit)?)?)?;
        if total > MOST {
            return None;
        }
        rest = tail;
    }
    Some(sign * total)
}

/// The duration in milliseconds, rounded to the nearest; `None` where it is none or negative.
pub fn duration_ms(text: &str) -> Option<u64> {
    let ns = nanoseconds(text)?;
    u64::try_from((ns + NS_IN_MS / 2).div_euclid(NS_IN_MS))
        .ok()
        .filter(|_| ns >= 0)
}

/// At least a millisecond, and whole milliseconds.
pub(crate) fn whole_ms(text: &str) -> Verdict {
    let ns = any(text)?;
    if ns < NS_IN_MS {
        return Err(format!("`{text}` is shorter than a millisecond"));
    }
    if ns % NS_IN_MS != 0 {
        return Err(format!("`{text}` is finer than milliseconds"));
    }
    Ok(())
}

/// A duration that is not negative.
pub(crate) fn not_negative(text: &str) -> Verdict {
    if any(text)? < 0 {
        return Err(format!("`{text}` is negative"));
    }
    Ok(())
}

/// The duration in nanoseconds, or why it is none.
pub(crate) fn any(text: &str) -> Result<i128, String> {
    nanoseconds(text).ok_or_else(|| format!("`{text}` is not a duration"))
}

fn unit_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => NS_IN_MS,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// `12.5` times a unit.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (mut fraction, mut scale): (i128, i128) = (0, 1);
    for digit in part.chars().take(18) {
        fraction = fraction * 10 + i128::from(digit.to_digit(10)?);
        scale *= 10;
    }
    if part.contains('.') {
        return None;
    }
    whole
        .checked_mul(unit)?
        .checked_add(fraction.checked_mul(unit)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        let read = [
            ("0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("0.000000999s", Some(999)),
            (".5s", Some(500_000_000)),
            ("", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1 s", None),
            ("apple", None),
            ("99999999999999999999999999999999999999999h", None),
        ];
        for (text, wanted) in read {
            assert_eq!(nanoseconds(text), wanted, "{text}");
        }
    }

    #[test]
    fn milliseconds_are_whole_and_at_least_one() {
        assert_eq!(whole_ms("1ms"), Ok(()));
        for text in ["0s", "-1s", "0.999999999s", "1.000000001s", "1us", "x"] {
            assert!(whole_ms(text).is_err(), "{text}");
        }
        assert_eq!(duration_ms("1.5s"), Some(1_500));
        assert_eq!(duration_ms("1.6ms"), Some(2));
        assert_eq!(duration_ms("-1s"), None);
    }
}
