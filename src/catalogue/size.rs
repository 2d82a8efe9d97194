//! Sizes of memory, as a person writes them: `400MB`, `2GiB`.

/// The units, each with its bytes. Those in powers of 1024 come first, because [`format_size`] takes the first that fits.
const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size such as `400MB`, `512MiB` or `2GiB`, in bytes. A number without a unit is none.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size by the largest unit of which it is a whole number.
///
/// ```
/// use celeriac::catalogue::format_size;
/// assert_eq!(format_size(512 << 20), "512MiB");
/// assert_eq!(format_size(400_000 << 10), "400000KiB");
/// assert_eq!(format_size(3_000_000_000), "3GB");
/// ```
pub fn format_size(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_number_and_a_unit() {
        for (text, bytes) in [
            ("400MB", Some(400_000_000)),
            ("512MiB", Some(512 << 20)),
            ("2 GiB", Some(2 << 30)),
            ("8kB", Some(8_000)),
            ("0B", Some(0)),
            ("", None),
            ("400", None),
            ("MB", None),
            ("1.5GB", None),
            ("-1MB", None),
            ("400mb", None),
            ("99999999999GiB", None),
            ("99999999999999999999B", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bytes in [0, 1, 999, 1_000, 1_024, 400_000 << 10, 512 << 20, 7 << 30, 3_000_000_000, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes), "{}", format_size(bytes));
        }
    }
}
