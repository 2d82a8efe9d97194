//! Addresses of brokers, stores and buckets in a form that may be shown to anybody: without the secrets in them.
//!
//! Errors quote the address that is at fault, and such an address often lacks the form that it should have. So this
//! module parses nothing. It hides whatever could be a password, wherever in the address it stands, and rather hides
//! too much than too little:
//!
//! - all text before the last `@`, also before an encoded one (`%40`), back to the scheme;
//! - all text after the first `?`, `#` or `=`, and all text after the scheme if one of these stands before an `@`;
//! - the text after a `:`, unless it is a port.

use std::fmt::Display;

/// The text that [`shown`] writes in the place of what it hides.
const HIDDEN: &str = "***";
/// The characters, plain and percent-encoded, after which an address may hold a secret.
const ENDS: [&str; 8] = ["?", "#", "=", "%3f", "%3F", "%23", "%3d", "%3D"];

/// The address in a form that may be shown to anybody. `addresses` may hold several, with `;`, `,` or blanks between
/// them.
///
/// ```
/// use celeriac::core::address::shown;
/// assert_eq!(shown("amqp://user:password@host:5672/vhost"), "amqp://***@host:5672/vhost");
/// assert_eq!(shown("user:password@host"), "***@host");
/// assert_eq!(shown("s3://bucket/prefix?secret_access_key=x"), "s3://bucket/prefix?***");
/// ```
pub fn shown(addresses: &str) -> String {
    let mut text = String::with_capacity(addresses.len());
    let mut rest = addresses;
    while let Some(end) = end_of_first(rest) {
        let (first, others) = rest.split_at(end);
        text.push_str(&shown_one(first));
        rest = others;
    }
    text.push_str(&shown_one(rest));
    text
}

/// The text of `error` about `address`, or a text that says nothing of the address if the error repeats a part that
/// [`shown`] hides.
pub fn said_of(address: &str, error: &dyn Display) -> String {
    let error = error.to_string();
    let decoded = percent_encoding::percent_decode_str(address).decode_utf8_lossy().into_owned();
    let visible = shown(address);
    let words = |text: &str| -> Vec<String> {
        let ends = |c: char| ":/@?#&;=,".contains(c) || c.is_whitespace();
        text.split(ends).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let open = words(&visible);
    let hidden = words(address).into_iter().chain(words(&decoded)).filter(|word| !open.contains(word));
    if hidden.into_iter().any(|word| error.contains(&word)) || error.contains(address) {
        return "it cannot be read, and why is not shown here, because that would show what is secret in it"
            .to_owned();
    }
    error
}

/// The byte at which the first address ends, where a separator and another address with a scheme follow it.
fn end_of_first(addresses: &str) -> Option<usize> {
    let is_between = |c: char| matches!(c, ';' | ',') || c.is_whitespace();
    addresses.char_indices().filter(|(at, c)| *at > 0 && is_between(*c)).map(|(at, _)| at).find(|at| {
        let next = addresses[*at..].trim_start_matches(is_between);
        split_scheme(next).0.ends_with("//")
    })
}

/// Splits an address behind its scheme (`amqp://`). Without a scheme the first part is empty, or holds only
/// separators.
fn split_scheme(address: &str) -> (&str, &str) {
    let skipped =
        address.len() - address.trim_start_matches(|c: char| ";,".contains(c) || c.is_whitespace()).len();
    let own = &address[skipped..];
    // The user may have mistyped the scheme. People lose the colon more often than the slashes.
    let Some(slashes) = own.find("//") else { return address.split_at(skipped) };
    let name = own[..slashes].strip_suffix(':').unwrap_or(&own[..slashes]);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let is_scheme = name.len() <= 20 && name.chars().all(is_name);
    address.split_at(if is_scheme { skipped + slashes + 2 } else { skipped })
}

fn shown_one(address: &str) -> String {
    let (scheme, rest) = split_scheme(address);
    let at = rest.rfind('@').map(|at| at + 1);
    let encoded = rest.rfind("%40").map(|at| at + 3);
    match at.max(encoded) {
        // The `@` may itself be part of a secret, so everything behind the scheme is hidden.
        Some(host) if ENDS.iter().any(|end| rest[..host].contains(end)) => format!("{scheme}{HIDDEN}"),
        Some(host) => format!("{scheme}{HIDDEN}@{}", shown_place(&rest[host..])),
        None => format!("{scheme}{}", shown_place(rest)),
    }
}

/// The part behind the `@` (host, port and path), with everything hidden that is no port and no path.
fn shown_place(place: &str) -> String {
    let end = ENDS.iter().filter_map(|end| place.find(end).map(|at| (at, end.len()))).min();
    let (place, more) = match end {
        Some((at, _)) if at + 1 == place.len() => (place, ""),
        Some((at, len)) => (&place[..at], if len == 1 { &place[at..=at] } else { "?" }),
        None => (place, ""),
    };
    let hidden = if more.is_empty() { "" } else { HIDDEN };
    let path = place.find('/').unwrap_or(place.len());
    let (authority, path) = place.split_at(path);
    // The colons of an IPv6 address are inside of its brackets.
    let brackets = authority.strip_prefix('[').and_then(|rest| rest.find(']')).map_or(0, |at| at + 2);
    let Some(colon) = authority[brackets..].find(':').map(|at| at + brackets) else {
        return format!("{place}{more}{hidden}");
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let is_port = port.is_empty() || (!host.is_empty() && port.parse::<u16>().is_ok());
    let port = if is_port { port } else { HIDDEN };
    format!("{host}:{port}{path}{more}{hidden}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_secret_is_shown() {
        for plain in [
            "",
            "localhost",
            "localhost:6379",
            "redis://[::1]:6379/0",
            "amqp://rabbit:5672//",
            "s3://bucket/a/prefix",
            "file:///srv/exports",
            "ftp://host/exports",
            "S3//bucket",
            "memory://",
            "redis+unix:///run/redis.sock",
        ] {
            assert_eq!(shown(plain), plain);
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not() {
        for (address, text) in [
            ("user:geheim@h", "***@h"),
            ("redis//:geheim@h/0", "redis//***@h/0"),
            ("REDIS://:geheim@h", "REDIS://***@h"),
            ("s3://k:geheim@b/prefix", "s3://***@b/prefix"),
            ("amqp://u:ge@he/im@h:5672/hq", "amqp://***@h:5672/hq"),
            ("amqp://u:geheim?@h:5672/hq", "amqp://***"),
            ("redis://h/0?password=@geheim", "redis://***"),
            ("amqp://u%3Ageheim%40h", "amqp://***@h"),
            (
                "amqp://u:geheim@one//; pyamqp://u:geheim@two:5673/hq ;",
                "amqp://***@one//; pyamqp://***@two:5673/hq ;",
            ),
            ("amqp://one;redis://:geheim@two", "amqp://one;redis://***@two"),
            ("redis://:geheim", "redis://:***"),
            ("redis://user:geheim/0", "redis://user:***/0"),
            ("redis://h/0?password=geheim&x=1", "redis://h/0?***"),
            ("redis://h/0#geheim", "redis://h/0#***"),
            ("redis://h/0%3Fpassword%3Dgeheim", "redis://h/0?***"),
            ("h:6379,password=geheim", "h:***=***"),
            ("host=h password=geheim", "host=***"),
            ("redis://[::1]:geheim", "redis://[::1]:***"),
        ] {
            assert_eq!(shown(address), text);
        }
    }

    #[test]
    fn what_others_say_is_told_unless_it_shows_a_secret() {
        let address = "amqp://user:ge%68eim@h:x";
        assert_eq!(said_of(address, &"invalid port number"), "invalid port number");
        for error in ["Invalid URL: 'amqp://user:ge%68eim@h:x'", "no vhost geheim", "no user user"] {
            assert!(!said_of(address, &error).contains("geheim"), "{error}");
            assert!(said_of(address, &error).starts_with("it cannot be read"), "{error}");
        }
    }

    /// Addresses, well-formed and not, with `secret` in each place where a password may stand.
    fn places(secret: &str) -> Vec<String> {
        let mut places = Vec::new();
        for scheme in
            ["amqp://", "REDISS://", "redis//", "s3://", "rpc:", "", "x+y://", "://", "file://", " redis://"]
        {
            for place in [
                format!("user:{secret}@host:1/0"),
                format!(":{secret}@host"),
                format!("{secret}@host/a/b"),
                format!("user:{secret}%40host"),
                format!("user:{secret}@"),
                format!("host/0?password={secret}"),
                format!("host?a=b&token={secret}"),
                format!("host/0#{secret}"),
                format!("host,password={secret}"),
                format!("user:p@host;amqp://user:{secret}@host"),
                format!("one, redis://:{secret}@two, redis://three"),
                format!("user:{secret}@one/a b;redis://two"),
            ] {
                places.push(format!("{scheme}{place}"));
            }
        }
        places
    }

    proptest! {
        /// The secret differs from every other word of the address, and has a letter, because a number could be a
        /// port.
        #[test]
        fn no_secret_is_ever_shown(secret in "[!-~äß€ ]{0,6}[G-Z]{2}[!-~äß€ ]{4,12}") {
            let encoded = percent_encoding::utf8_percent_encode(&secret, percent_encoding::NON_ALPHANUMERIC).to_string();
            for written in [&secret, &encoded] {
                for address in places(written) {
                    let text = shown(&address);
                    prop_assert!(!text.contains(&secret) && !text.contains(written.as_str()), "{address}: {text}");
                    let error = format!("cannot read `{address}` because of `{secret}`");
                    prop_assert!(!said_of(&address, &error).contains(&secret), "{address}");
                }
            }
        }

        /// Neither [`shown`] nor [`said_of`] panics on any text.
        #[test]
        fn any_text_is_taken(text in "\\PC{0,40}") {
            let _ = (shown(&text), said_of(&text, &text));
        }
    }
}
