//! The key of a link: what it is for, and a signature that nobody else can make.
//!
//! Who has a link can do what it is for until it expires, and nothing else. So an id may be guessed, logged or chosen by the
//! caller without giving anything away, and whose a download is holds from its first minute, when there is no file yet that
//! could say so.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::core::Timestamp;
use crate::soil::PartialFailure;

/// What is signed along, so that a signature made for something else with the same secret is none here.
const PURPOSE: &[u8] = b"celeriac soil link 2\n";

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The id in the path.
    pub(super) id: String,
    /// It is the id of a group, and what the failure of some of its members makes of the whole.
    pub(super) group: Option<Policy>,
    /// Who may use it; nobody named: everybody who has it.
    pub(super) owners: Vec<String>,
    /// What to say when it is ready.
    pub(super) message: Option<String>,
    /// It ends with this second, since 1970.
    pub(super) expires: u64,
}

/// [`PartialFailure`], as it is written.
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

/// Why a key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadKey {
    /// It is none, or another secret's.
    Forged,
    /// It is for another id.
    Elsewhere,
    /// Its time is over.
    Expired,
}

/// Makes and reads keys.
#[derive(Clone)]
pub(super) struct Keyring(Hmac<Sha256>);

impl Keyring {
    pub(super) fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("HMAC takes any key"));
        mac.update(PURPOSE);
        Self(mac)
    }

    pub(super) fn sign(&self, grant: &Grant) -> String {
        // Text, numbers and lists: there is nothing in it that postcard cannot write.
        let said = postcard::to_allocvec(grant).unwrap_or_default();
        let mut mac = self.0.clone();
        mac.update(&said);
        let signature = mac.finalize().into_bytes();
        format!("{}.{}", BASE64.encode(said), BASE64.encode(signature))
    }

    pub(super) fn read(&self, key: &str, id: &str, now: Timestamp) -> Result<Grant, BadKey> {
        let (said, signature) = key.split_once('.').ok_or(BadKey::Forged)?;
        let said = BASE64.decode(said).map_err(|_| BadKey::Forged)?;
        let signature = BASE64.decode(signature).map_err(|_| BadKey::Forged)?;
        let mut mac = self.0.clone();
        mac.update(&said);
        mac.verify_slice(&signature).map_err(|_| BadKey::Forged)?; // in constant time
        let grant: Grant = postcard::from_bytes(&said).map_err(|_| BadKey::Forged)?;
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
        Grant { id: "a".into(), group: None, owners: vec!["amina".into()], message: None, expires: 100 }
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
                // The last letter of base64 may have bits that are not read, and those must be nought.
                assert!(other == key || keys.read(&other, "a", Timestamp::ZERO).is_err(), "{at} {with}");
            }
        }
        for none in ["", ".", "..", "a.b", "\u{1F600}.x", &key.repeat(1_000)] {
            assert_eq!(keys.read(none, "a", Timestamp::ZERO), Err(BadKey::Forged));
        }
    }
}
