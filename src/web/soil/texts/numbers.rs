//! Numbers as languages write them.

/// A size in bytes that is scaled to a unit: the number with one decimal, and which unit it is (0: kilo, 1: mega, up to
/// peta). `None`: the size is below a thousand bytes.
pub(super) fn scaled(bytes: u64) -> Option<(String, usize)> {
    const UNITS: usize = 5;
    if bytes < 1_000 {
        return None;
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS {
        value /= 1_000.0;
        unit += 1;
    }
    Some((format!("{value:.1}"), unit))
}

/// A number with a separator between groups of three digits.
pub(super) fn grouped(number: u64, separator: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_one_decimal() {
        for (bytes, expected) in [
            (0, None),
            (999, None),
            (1_000, Some(("1.0", 0))),
            (999_949, Some(("999.9", 0))),
            (999_950, Some(("1.0", 1))),
            (1_500_000_000, Some(("1.5", 2))),
            (u64::MAX, Some(("18446.7", 4))),
        ] {
            assert_eq!(scaled(bytes), expected.map(|(text, unit)| (text.to_owned(), unit)), "{bytes}");
        }
    }

    #[test]
    fn digits_are_in_groups_of_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1_000"), (12_345, "12_345"), (1_234_567, "1_234_567")]
        {
            assert_eq!(grouped(number, "_"), text);
        }
        assert_eq!(grouped(u64::MAX, ","), "18,446,744,073,709,551,615");
    }
}
