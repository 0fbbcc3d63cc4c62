//! What an SSH signature says of how it was made (PROTOCOL.sshsig and PROTOCOL.u2f of OpenSSH). It proves nothing before
//! `ssh-keygen` has verified the same bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// The bit of the flags that the user was present: the key was touched.
const USER_PRESENT: u8 = 0x01;
/// Keys in hardware; the flags stand behind their signatures, and are part of what is signed.
const SECURITY_KEYS: [&[u8]; 3] = [
    b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Whether a security key made this signature and somebody touched it for that. What is not understood says no.
pub fn was_touched(armored: &str) -> bool {
    flags(armored).is_some_and(|flags| flags & USER_PRESENT != 0)
}

fn flags(armored: &str) -> Option<u8> {
    let (_, rest) = armored.split_once(BEGIN)?;
    let (text, _) = rest.split_once(END)?;
    let text: String = text.split_ascii_whitespace().collect();
    let blob = STANDARD.decode(text).ok()?;
    let mut rest = blob.strip_prefix(b"SSHSIG")?;
    let version = take(&mut rest, 4)?;
    let [_key, _namespace, _reserved, _hash, signature] =
        [string(&mut rest)?, string(&mut rest)?, string(&mut rest)?, string(&mut rest)?, string(&mut rest)?];
    let mut signature = signature;
    let kind = string(&mut signature)?;
    let _signature = string(&mut signature)?;
    let is_known = version == [0, 0, 0, 1] && SECURITY_KEYS.contains(&kind) && rest.is_empty();
    is_known.then(|| take(&mut signature, 1))?.map(|flags| flags[0])
}

/// A length of four bytes and as many bytes.
fn string<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(from, 4)?.try_into().ok()?);
    take(from, usize::try_from(length).ok()?)
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(all: &[&[u8]]) -> Vec<u8> {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_be_bytes();
        all.iter().flat_map(|part| [&length(part)[..], part].concat()).collect()
    }

    fn armored(kind: &[u8], after: &[u8]) -> String {
        let signature = [packed(&[kind, &[7; 64]]), after.to_vec()].concat();
        let parts = packed(&[&packed(&[kind, &[1; 32], b"ssh:"]), b"vnx-decision", b"", b"sha512", &signature]);
        let blob = [b"SSHSIG\0\0\0\x01".as_slice(), &parts].concat();
        let text = STANDARD.encode(blob);
        let lines: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    #[test]
    fn a_touch_is_read_from_the_flags_of_a_security_key() {
        for kind in SECURITY_KEYS {
            assert!(was_touched(&armored(kind, &[0x01, 0, 0, 0, 9])));
            assert!(was_touched(&armored(kind, &[0x05, 0, 0, 0, 9])), "with a fingerprint beside");
            assert!(!was_touched(&armored(kind, &[0x04, 0, 0, 0, 9])), "present is another bit than verified");
            assert!(!was_touched(&armored(kind, &[0x00, 0, 0, 0, 9])));
            assert!(!was_touched(&armored(kind, &[])), "without flags");
        }
        assert!(!was_touched(&armored(b"ssh-ed25519", &[0x01, 0, 0, 0, 9])), "a key in a file is not touched");
    }

    #[test]
    fn what_is_not_understood_is_no_touch() {
        let good = armored(SECURITY_KEYS[0], &[0x01, 0, 0, 0, 9]);
        for cut in 0..good.len() - END.len() - 1 {
            assert!(!was_touched(&good[..cut]));
        }
        assert!(!was_touched("") && !was_touched(&good.replace("U1NIU0", "U1NIU1")));
        crate::domain::fuzz::fuzz(&[good.into_bytes()], |bytes| {
            let _ = was_touched(&String::from_utf8_lossy(bytes));
        });
    }
}
