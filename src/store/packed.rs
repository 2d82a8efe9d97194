//! How larger values are written into notes, which are texts: a character that says how the rest is written, and then the value's
//! bytes, compressed, in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The most bytes that a note may have when it is unpacked.
const MOST_UNPACKED: usize = 16 << 20;
/// The first character of a note.
const VERSION: char = '1';

/// The text of a value. `level` says how hard it is compressed, from 1 to 22; `what` is the value's name in an error.
///
/// # Errors
/// The value has no form.
pub(super) fn packed<T: Serialize>(value: &T, level: i32, what: &str) -> Result<String, StoreError> {
    let unwritable = |error: String| StoreError::Refused(format!("{what} has no form: {error}"));
    let bytes = postcard::to_stdvec(value).map_err(|error| unwritable(error.to_string()))?;
    let bytes = zstd::bulk::compress(&bytes, level).map_err(|error| unwritable(error.to_string()))?;
    let mut text = String::from(VERSION);
    BASE64.encode_string(&bytes, &mut text);
    Ok(text)
}

/// The value of a text. `None`: the text is none of this version.
pub(super) fn unpacked<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = BASE64.decode(text.strip_prefix(VERSION)?).ok()?;
    let bytes = zstd::bulk::decompress(&bytes, MOST_UNPACKED).ok()?;
    postcard::from_bytes(&bytes).ok()
}
