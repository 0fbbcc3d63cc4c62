//! SHA-256 digests (FIPS 180-4) as a type.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest; text form is 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// 64 zeros: the `prev` of the first receipt.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
    /// The leaf hash of RFC 6962 section 2.1: SHA-256(0x00 ‖ body).
    pub fn leaf(body: &[u8]) -> Self {
        let mut hasher = sha2::Sha256::new();
        hasher.update([0]);
        hasher.update(body);
        Self(hasher.finalize().into())
    }
    /// Reads exactly 64 lower-case hex digits.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let pairs: &[[u8; 2]; 32] = hex.as_chunks::<2>().0.try_into().ok()?;
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}
impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::from_hex(text.as_bytes()).ok_or_else(|| format!("{text:?} is not 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_published_vector() {
        // FIPS 180-4 example: "abc".
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), hex);
        assert_eq!(Digest::from_hex(hex.as_bytes()), Some(Digest::of(b"abc")));
        assert_eq!(Digest::from_hex(&hex.as_bytes()[..63]), None);
        assert_eq!(Digest::from_hex(hex.to_uppercase().as_bytes()), None);
    }

    #[test]
    fn a_leaf_is_not_the_plain_digest() {
        // RFC 6962: the hash of an empty leaf is SHA-256(0x00).
        assert_eq!(Digest::leaf(b""), Digest::of(&[0]));
    }
}
