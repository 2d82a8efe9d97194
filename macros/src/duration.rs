//! Durations in an attribute: a number of seconds, as in Celery, or a text with units.

use std::time::Duration;

use syn::{Expr, ExprLit, Lit};

/// The longest duration. A longer one has a wrong unit, most likely. A century also keeps every sum with "now" in
/// range.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const EXAMPLES: &str =
    "write seconds (`30`, `0.5`) or text with units (\"500ms\", \"30s\", \"15m\", \"6h\", \"2d\", \"1h30m\")";

/// Reads the value of a duration option. The error names the value at fault and shows how to write it.
pub fn from_expr(expr: &Expr) -> syn::Result<Duration> {
    let bad = |what: String| Err(syn::Error::new_spanned(expr, format!("{what}; {EXAMPLES}")));
    let parsed = match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => from_text(&text.value()),
        Expr::Lit(ExprLit { lit: Lit::Int(n), .. }) if n.suffix().is_empty() => {
            n.base10_parse().map(Duration::from_secs).map_err(|_| format!("`{n}` is too long"))
        }
        Expr::Lit(ExprLit { lit: Lit::Float(n), .. }) if n.suffix().is_empty() => {
            seconds(n.base10_parse().unwrap_or(f64::INFINITY)).ok_or_else(|| format!("`{n}` is too long"))
        }
        Expr::Unary(_) => Err("a duration is not negative".to_owned()),
        _ => Err("this is no duration".to_owned()),
    };
    match parsed {
        Ok(duration) if duration > LONGEST => bad("this is more than a century".to_owned()),
        Ok(duration) => Ok(duration),
        Err(what) => bad(what),
    }
}

fn seconds(n: f64) -> Option<Duration> {
    // The number is rounded to the microsecond, so that 0.1 does not become 0.100000001.
    Duration::try_from_secs_f64((n * 1e6).round() / 1e6).ok()
}

/// Reads a text such as `1h30m`: numbers with units, the greatest unit first.
fn from_text(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("the duration is empty".to_owned());
    }
    let mut total = Duration::ZERO;
    let mut previous = f64::INFINITY;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        rest = tail.trim_start();
        let Ok(n) = number.parse::<f64>() else {
            return Err(format!("\"{text}\" is no duration"));
        };
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            "" => return Err(format!("`{number}` in \"{text}\" has no unit (ms, s, m, h or d)")),
            _ => return Err(format!("`{unit}` in \"{text}\" is no unit (ms, s, m, h or d)")),
        };
        if scale >= previous {
            return Err(format!("the units of \"{text}\" do not go from the greatest to the least"));
        }
        previous = scale;
        total = seconds(n * scale)
            .and_then(|d| total.checked_add(d))
            .ok_or_else(|| format!("\"{text}\" is too long"))?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_str;

    fn read(source: &str) -> Result<Duration, String> {
        from_expr(&parse_str(source).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn seconds_and_units() {
        for (source, millis) in [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            ("0.1", 100),
            ("1_000", 1_000_000),
            ("\"500ms\"", 500),
            ("\"30s\"", 30_000),
            ("\"15m\"", 900_000),
            ("\"6h\"", 21_600_000),
            ("\"2d\"", 172_800_000),
            ("\"1h30m\"", 5_400_000),
            ("\"1h 30m\"", 5_400_000),
            ("\"1.5h\"", 5_400_000),
            ("\"1d 2h 3m 4s 5ms\"", 93_784_005),
        ] {
            assert_eq!(read(source), Ok(Duration::from_millis(millis)), "{source}");
        }
    }

    #[test]
    fn errors_say_what_and_show_how() {
        for (source, what) in [
            ("\"\"", "the duration is empty"),
            ("\"30\"", "`30` in \"30\" has no unit"),
            ("\"30x\"", "`x` in \"30x\" is no unit"),
            ("\"soon\"", "\"soon\" is no duration"),
            ("\"1.2.3s\"", "\"1.2.3s\" is no duration"),
            ("\"1m2h\"", "do not go from the greatest to the least"),
            ("\"1m1m\"", "do not go from the greatest to the least"),
            ("-5", "a duration is not negative"),
            ("\"-5s\"", "\"-5s\" is no duration"),
            ("true", "this is no duration"),
            ("5u64", "this is no duration"),
            ("\"40000d\"", "more than a century"),
            ("99999999999999999999999", "too long"),
            ("1e300", "too long"),
        ] {
            let error = read(source).unwrap_err();
            assert!(error.contains(what) && error.ends_with(EXAMPLES), "{source}: {error}");
        }
    }
}
