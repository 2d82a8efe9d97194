//! The key of a link: what the link is for, and a signature that nobody else can make.
//!
//! A user who has a link can do what it is for until it expires, and nothing else. So callers may guess, log or
//! choose ids without giving anything away. The owners of a download hold from its first minute, when there is no
//! file yet that could state them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::core::Timestamp;
use crate::soil::PartialFailure;

/// A text that is signed too, so that a signature made for another purpose with the same secret is not valid here.
const PURPOSE: &[u8] = b"celeriac soil link 2\n";
/// The same text for links that state their generation, because earlier links of the same id were revoked.
const RENEWED: &[u8] = b"celeriac soil link 3\n";

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The id in the path of the link.
    pub(super) id: String,
    /// Set for the id of a group: what the failure of some of its members makes of the whole.
    pub(super) group: Option<Policy>,
    /// The users who may use the link; an empty list means everybody who has it.
    pub(super) owners: Vec<String>,
    /// The text that the page shows when the file is ready.
    pub(super) message: Option<String>,
    /// The last second at which the link is valid, since 1970.
    pub(super) expires: u64,
    /// The generation of the link. Links of generations before the present one are revoked.
    #[serde(skip)]
    pub(super) generation: u64,
}

/// [`PartialFailure`] in the form in which a key has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Policy {
    FailsAtOnce,
    Fails,
    Tolerated,
}

impl From<PartialFailure> for Policy {
    fn from(policy: PartialFailure) -> Self {
        match policy {
            PartialFailure::FailsAtOnce => Self::FailsAtOnce,
            PartialFailure::Fails => Self::Fails,
            PartialFailure::Tolerated => Self::Tolerated,
        }
    }
}

impl From<Policy> for PartialFailure {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::FailsAtOnce => Self::FailsAtOnce,
            Policy::Fails => Self::Fails,
            Policy::Tolerated => Self::Tolerated,
        }
    }
}

/// Why a key is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadKey {
    /// The key is malformed, or signed with another secret.
    Forged,
    /// The key is for another id.
    Elsewhere,
    /// The key is valid no more: it has expired.
    Expired,
}

/// Signs and reads keys. The first secret signs, and keys of all secrets are valid.
#[derive(Clone)]
pub(super) struct Keyring(Vec<Secret>);

#[derive(Clone)]
struct Secret {
    plain: Hmac<Sha256>,
    renewed: Hmac<Sha256>,
}

impl Secret {
    fn new(secret: &[u8]) -> Self {
        let keyed = |purpose: &[u8]| {
            // HMAC takes keys of any length, so this cannot fail.
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("HMAC takes any key"));
            mac.update(purpose);
            mac
        };
        Self { plain: keyed(PURPOSE), renewed: keyed(RENEWED) }
    }
}

impl Keyring {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(vec![Secret::new(secret)])
    }

    /// Makes keys valid that were signed with this secret.
    pub(super) fn accept(&mut self, secret: &[u8]) {
        self.0.push(Secret::new(secret));
    }

    pub(super) fn sign(&self, grant: &Grant) -> String {
        // A grant has only text, numbers and lists, all of which postcard can write.
        let said = if grant.generation == 0 {
            postcard::to_allocvec(grant)
        } else {
            postcard::to_allocvec(&(grant, grant.generation))
        };
        let said = said.unwrap_or_default();
        let Some(secret) = self.0.first() else { return String::new() };
        let mut mac = if grant.generation == 0 { secret.plain.clone() } else { secret.renewed.clone() };
        mac.update(&said);
        let signature = mac.finalize().into_bytes();
        format!("{}.{}", BASE64.encode(said), BASE64.encode(signature))
    }

    pub(super) fn read(&self, key: &str, id: &str, now: Timestamp) -> Result<Grant, BadKey> {
        let (said, signature) = key.split_once('.').ok_or(BadKey::Forged)?;
        let said = BASE64.decode(said).map_err(|_| BadKey::Forged)?;
        let signature = BASE64.decode(signature).map_err(|_| BadKey::Forged)?;
        let is_of = |mac: &Hmac<Sha256>| {
            let mut mac = mac.clone();
            mac.update(&said);
            mac.verify_slice(&signature).is_ok() // the comparison takes constant time
        };
        let grant: Grant = if self.0.iter().any(|secret| is_of(&secret.plain)) {
            postcard::from_bytes(&said).map_err(|_| BadKey::Forged)?
        } else if self.0.iter().any(|secret| is_of(&secret.renewed)) {
            let (grant, generation): (Grant, u64) =
                postcard::from_bytes(&said).map_err(|_| BadKey::Forged)?;
            Grant { generation, ..grant }
        } else {
            return Err(BadKey::Forged);
        };
        if grant.id != id {
            return Err(BadKey::Elsewhere);
        }
        if grant.expires < now.as_millis() / 1_000 {
            return Err(BadKey::Expired);
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            id: "a".into(),
            group: None,
            owners: vec!["amina".into()],
            message: None,
            expires: 100,
            generation: 0,
        }
    }

    #[test]
    fn all_secrets_open_and_the_first_one_signs() {
        let (old, new) = (Keyring::new(&[7; 32]), Keyring::new(&[8; 32]));
        let mut both = new.clone();
        both.accept(&[7; 32]);
        let renewed = Grant { generation: 3, ..grant() };
        for grant in [grant(), renewed] {
            let (by_old, by_both) = (old.sign(&grant), both.sign(&grant));
            assert_eq!(by_both, new.sign(&grant));
            for key in [&by_old, &by_both] {
                assert_eq!(both.read(key, "a", Timestamp::ZERO), Ok(grant.clone()));
            }
            assert_eq!(new.read(&by_old, "a", Timestamp::ZERO), Err(BadKey::Forged));
            assert_eq!(old.read(&by_both, "a", Timestamp::ZERO), Err(BadKey::Forged));
        }
    }

    /// This link has the form of those in old mails, which must stay valid.
    #[test]
    fn a_key_of_an_earlier_version_opens() {
        let key = "AWEAAQVhbWluYQBk.";
        let signed = Keyring::new(&[7; 32]).sign(&grant());
        assert!(signed.starts_with(key), "{signed}");
    }

    #[test]
    fn a_key_opens_what_it_is_for_until_it_expires() {
        let keys = Keyring::new(&[7; 32]);
        let key = keys.sign(&grant());
        assert_eq!(keys.read(&key, "a", Timestamp::from_millis(100_999)), Ok(grant()));
        assert_eq!(keys.read(&key, "a", Timestamp::from_millis(101_000)), Err(BadKey::Expired));
        assert_eq!(keys.read(&key, "b", Timestamp::ZERO), Err(BadKey::Elsewhere));
        assert_eq!(Keyring::new(&[8; 32]).read(&key, "a", Timestamp::ZERO), Err(BadKey::Forged));
    }

    #[test]
    fn no_other_text_is_a_key() {
        let keys = Keyring::new(&[7; 32]);
        let key = keys.sign(&grant());
        for at in 0..key.len() {
            for with in ["A", "_", ".", ""] {
                let mut other = key.clone();
                other.replace_range(at..=at, with);
                // The last letter of base64 may have bits that are not read, and those must be zero.
                assert!(other == key || keys.read(&other, "a", Timestamp::ZERO).is_err(), "{at} {with}");
            }
        }
        for none in ["", ".", "..", "a.b", "\u{1F600}.x", &key.repeat(1_000)] {
            assert_eq!(keys.read(none, "a", Timestamp::ZERO), Err(BadKey::Forged));
        }
    }
}
