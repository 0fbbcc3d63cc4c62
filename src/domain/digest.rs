//! SHA-256 digests (FIPS 180-4) as a type.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest; text form is 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
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
    /// An inner node of RFC 6962 section 2.1: SHA-256(0x01 ‖ left ‖ right).
    pub fn node(left: &Self, right: &Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self::of(&bytes)
    }
    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// A digest of these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The text form as bytes.
    pub fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        hex
    }
    /// Reads exactly 64 lower-case hex digits.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        /// The value of each digit; 0xff for what is none.
        const VALUES: [u8; 256] = {
            let mut values = [0xff; 256];
            let mut digit = 0;
            while digit < 16 {
                values[b"0123456789abcdef"[digit as usize] as usize] = digit;
                digit += 1;
            }
            values
        };
        let pairs: &[[u8; 2]; 32] = hex.as_chunks::<2>().0.try_into().ok()?;
        let (mut bytes, mut seen) = ([0; 32], 0);
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
            seen |= high | low;
            *byte = high << 4 | low & 15;
        }
        (hex.len() == 64 && seen < 16).then_some(Self(bytes))
    }
    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.hex()))
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}
/// Without a `String` in between: a verification reads millions of them.
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hex digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                Digest::from_hex(text.as_bytes()).ok_or_else(wrong)
            }
        }
        from.deserialize_str(Hex)
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

    #[test]
    fn every_digit_counts_and_people_see_twelve() {
        let good = Digest::of(b"abc").to_string();
        for at in 0..64 {
            for bad in ["g", "/", ":", "`", "G", " "] {
                let mut text = good.clone();
                text.replace_range(at..=at, bad);
                assert_eq!(Digest::from_hex(text.as_bytes()), None, "{text}");
            }
        }
        assert_eq!(Digest::from_hex(&[b'z'; 64]), None);
        assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
        assert_eq!(serde_json::to_string(&Digest::of(b"abc")).unwrap(), format!("{good:?}"));
        let error = serde_json::from_str::<Digest>("\"ab\"").unwrap_err().to_string();
        assert!(error.contains("64 lower-case hex digits"), "{error}");
    }
}
