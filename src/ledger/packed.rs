//! Compressed segments: Zstandard (RFC 8878) in frames that stand alone, so that a line in the middle
//! is read without what comes before it. To every other reader they are one compressed file.

use std::io::{self, Read};

use zstd::zstd_safe;

use super::Place;

/// How much of a segment goes into one frame.
const FRAME: usize = 1 << 20;
/// Zstandard's own default level.
const LEVEL: i32 = 3;

/// The bytes of a segment, compressed.
pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut packed = Vec::with_capacity(bytes.len() / 4);
    for block in bytes.chunks(FRAME) {
        packed.extend_from_slice(&compressor.compress(block)?);
    }
    Ok(packed)
}

/// The lines that begin at these places of a segment, which are ascending; one that is not there is
/// empty.
pub(super) fn lines_at(packed: &[u8], places: &[Place]) -> io::Result<Vec<Vec<u8>>> {
    let frames = frames(packed).unwrap_or_else(|| vec![Frame { bytes: packed, begin: 0, end: u64::MAX }]);
    let (mut plain, mut from, mut next) = (Vec::new(), 0, 0);
    let mut lines = Vec::with_capacity(places.len());
    for place in places {
        let frame = frames.partition_point(|f| f.end <= place.offset);
        if frame >= next || place.offset < from {
            let Some(first) = frames.get(frame) else {
                lines.push(Vec::new());
                continue;
            };
            (plain, from, next) = (first.unpacked()?, first.begin, frame + 1);
        }
        let start = usize::try_from(place.offset - from).unwrap_or(usize::MAX);
        // A line may go on in the frames after its own.
        loop {
            let rest = plain.get(start..).unwrap_or_default();
            if let Some(feed) = memchr::memchr(b'\n', rest) {
                lines.push(rest[..feed].to_vec());
                break;
            }
            let Some(more) = frames.get(next) else {
                lines.push(Vec::new());
                break;
            };
            plain.extend_from_slice(&more.unpacked()?);
            next += 1;
        }
    }
    Ok(lines)
}

/// A part of a compressed file that stands alone.
struct Frame<'a> {
    bytes: &'a [u8],
    /// What it holds of the plain text.
    begin: u64,
    end: u64,
}

impl Frame<'_> {
    fn unpacked(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        zstd::stream::read::Decoder::new(self.bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }
}

/// The frames of a compressed file; `None` if one does not say how much it holds.
fn frames(mut packed: &[u8]) -> Option<Vec<Frame<'_>>> {
    let (mut frames, mut begin) = (Vec::new(), 0);
    while !packed.is_empty() {
        let length = zstd_safe::find_frame_compressed_size(packed).ok()?;
        let holds = zstd_safe::get_frame_content_size(packed).ok().flatten()?;
        let (bytes, rest) = packed.split_at_checked(length)?;
        let end = begin + holds;
        frames.push(Frame { bytes, begin, end });
        (begin, packed) = (end, rest);
    }
    Some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_wherever_frames_end() {
        let text: Vec<u8> = (0..4000).flat_map(|n| format!("{}\n", "x".repeat(n * 7 % 3001)).into_bytes()).collect();
        assert!(text.len() > 4 * FRAME);
        let begins = std::iter::once(0).chain(memchr::memchr_iter(b'\n', &text).map(|feed| feed as u64 + 1));
        let places: Vec<Place> = begins.map(|offset| Place { segment: 1, offset }).collect();
        let whole = zstd::stream::encode_all(&text[..], LEVEL).unwrap();
        for packed in [compress(&text).unwrap(), whole] {
            let expected: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
            assert_eq!(lines_at(&packed, &places).unwrap(), expected);
            for at in [0, 1, 399, 1777, 3999, 4000] {
                assert_eq!(lines_at(&packed, &places[at..=at]).unwrap(), [expected[at]]);
            }
            assert_eq!(zstd::stream::decode_all(&packed[..]).unwrap(), text);
        }
        assert!(lines_at(b"no zstd at all", &places[..1]).is_err());
    }
}
