//! A ledger of many files is one ledger: for the verifier, for readers and for the writer.

use std::fs;

use super::format::Receipt;
use super::place::Place;
use super::tests::{entry, ledger, name, verify};
use super::verify::{Flaw, Options, Since, Status};
use super::*;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{Body, DispatchPrepared, DispatchRefused, Entry, Kind};
use crate::domain::{Digest, DispatchId};

fn prepared(n: usize) -> Entry {
    let id = DispatchId::parse(&format!("20261121-100000-test-{n:04}")).unwrap();
    Entry::of(&id, Body::DispatchPrepared(DispatchPrepared { head: String::new(), prompt: Digest::ZERO, took_ms: 1 }))
}

/// A ledger whose segments have ten receipts.
fn small() -> (tempfile::TempDir, Ledger) {
    let (folder, ledger) = ledger(1);
    (folder, ledger.with_limit(Limit { receipts: 10, ..Limit::default() }))
}

/// The same with five sealed segments and some more.
fn many() -> (tempfile::TempDir, Ledger) {
    let (folder, ledger) = small();
    for n in 1..58 {
        ledger.append(&[entry(n)]).unwrap();
    }
    (folder, ledger)
}

fn files(ledger: &Ledger) -> Vec<String> {
    let names = crate::sys::files::names(ledger.folder()).unwrap();
    names.into_iter().filter(|n| n.contains("ndjson")).collect()
}

fn numbers(ledger: &Ledger) -> Vec<u64> {
    ledger.last(1000).unwrap().iter().map(|r| r.seq).collect()
}

#[test]
fn the_chain_and_the_tree_run_through_all_of_them() {
    let (_folder, ledger) = many();
    assert_eq!(
        files(&ledger),
        ["0001.ndjson", "0002.ndjson", "0003.ndjson", "0004.ndjson", "0005.ndjson", "ledger.ndjson"]
    );
    let total = 58 + 2 * 5;
    for packed in [false, true] {
        if packed {
            ledger.pack().unwrap();
            assert!(files(&ledger)[..5].iter().all(|n| n.ends_with(".ndjson.zst")), "{:?}", files(&ledger));
        }
        let sizes: Vec<u64> = (1..=total).collect();
        let options = Options { roots: Some(&sizes), project: Some(&name()), ..Options::default() };
        let report = super::verify::verify(ledger.folder(), &options);
        assert_eq!((report.status, report.receipts), (Status::Verified, total), "{report:?}");
        assert_eq!(numbers(&ledger), (0..total).collect::<Vec<_>>());
        assert_eq!(ledger.created().unwrap().project, name());
        let mut tree = CompactRange::empty(0);
        let mut all = ledger.all().unwrap();
        while let Some(receipt) = all.next_receipt().unwrap() {
            match &receipt.body {
                Body::LedgerSealed(sealed) => assert_eq!((sealed.size, sealed.root), (tree.end(), tree.root())),
                Body::LedgerOpened(opened) => {
                    assert_eq!(opened.nodes, tree.nodes());
                    let before = ledger.sealed().unwrap()[opened.segment as usize - 2].read().unwrap();
                    assert_eq!((opened.bytes, opened.sha256), (before.len() as u64, Digest::of(&before)));
                }
                _ => {}
            }
            tree.push(receipt.hash);
            assert_eq!(report.roots[&tree.end()], tree.root());
        }
        assert_eq!(tree.end(), total);
        let early = ledger.of_dispatch(entry(3).dispatch.as_ref().unwrap()).unwrap();
        assert_eq!(early.len(), 1);
        assert!(ledger.line_of(4).unwrap().is_some());
    }
    ledger.append(&[entry(99)]).unwrap();
    assert_eq!(verify(&ledger).status, Status::Verified);
}

#[test]
fn a_segment_is_sealed_once_it_is_that_long() {
    for (longer, sealed) in [(1, 0), (0, 1)] {
        let (_folder, ledger) = ledger(5);
        let bytes = ledger.head().unwrap().end + longer;
        let ledger = ledger.with_limit(Limit { bytes, ..Limit::default() });
        ledger.append(&[entry(5)]).unwrap();
        assert_eq!(ledger.sealed().unwrap().len(), sealed, "{longer} bytes are missing");
        // It has that many now.
        ledger.append(&[entry(6)]).unwrap();
        assert_eq!((ledger.sealed().unwrap().len(), verify(&ledger).status), (1, Status::Verified));
    }
}

#[test]
fn every_line_has_its_place_whichever_segment_it_is_in() {
    let (_folder, ledger) = many();
    let long = DispatchRefused { agent: name(), rule: "x".into(), reason: "y".repeat(10_000) };
    ledger.append(&[Entry::ledger(Body::DispatchRefused(long)), entry(70)]).unwrap();
    let walked = |from: Place| {
        let mut seen = Vec::new();
        let each = |place, line: &[u8]| {
            seen.push((place, line.to_vec()));
            Ok::<_, LedgerError>(())
        };
        ledger.walk(from, each).unwrap();
        seen
    };
    let all = walked(Place::default());
    assert_eq!(all.len(), 58 + 2 * 5 + 2);
    for packed in [false, true] {
        if packed {
            ledger.pack().unwrap();
        }
        for (nth, (place, line)) in all.iter().enumerate() {
            assert_eq!(walked(*place), all[nth..], "{place:?}");
            assert_eq!(ledger.lines_at(&[*place]).unwrap(), std::slice::from_ref(line), "{place:?}");
            assert_eq!(format::parse(line).unwrap().seq, nth as u64);
        }
        let places: Vec<Place> = all.iter().step_by(3).map(|(place, _)| *place).collect();
        let lines: Vec<Vec<u8>> = all.iter().step_by(3).map(|(_, line)| line.clone()).collect();
        assert_eq!(ledger.lines_at(&places).unwrap(), lines);
        let nowhere = [(2, 1 << 30), (6, 1 << 30), (9, 0)].map(|(segment, offset)| Place { segment, offset });
        assert_eq!(ledger.lines_at(&nowhere).unwrap(), vec![Vec::<u8>::new(); 3]);
    }
    // What has no end is no line yet.
    let (last, _) = all.last().unwrap();
    let bytes = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!((walked(*last), ledger.lines_at(&[*last]).unwrap()), (vec![], vec![vec![]]));
    fs::write(ledger.file(), [bytes, vec![b'x'; format::MAX_LINE + (8 << 10)], b"\n".to_vec()].concat()).unwrap();
    let beyond = Place {
        offset: fs::metadata(ledger.file()).unwrap().len() - (format::MAX_LINE + (8 << 10) + 1) as u64,
        ..*last
    };
    assert_eq!(ledger.lines_at(&[beyond]).unwrap(), [Vec::<u8>::new()], "longer than a line may be");
}

#[test]
fn the_newest_come_first_as_long_as_somebody_wants_more() {
    let (_folder, ledger) = many();
    let (mut seqs, total) = (Vec::new(), 58 + 2 * 5);
    let want = |seqs: &mut Vec<u64>, most: usize, receipt: Receipt| {
        seqs.push(receipt.seq);
        seqs.len() < most
    };
    ledger.newest_first(|receipt| want(&mut seqs, 30, receipt)).unwrap();
    assert_eq!(seqs, (total - 30..total).rev().collect::<Vec<_>>());
    // One that was edited is passed over.
    let text = fs::read_to_string(ledger.file()).unwrap();
    let edited = text.replacen("test-0057\",\"attempt\"", "test-0075\",\"attempt\"", 1);
    assert_ne!(edited, text);
    fs::write(ledger.file(), edited).unwrap();
    seqs.clear();
    ledger.newest_first(|receipt| want(&mut seqs, 2, receipt)).unwrap();
    assert_eq!(seqs, [total - 2, total - 3]);
}

#[test]
fn what_is_done_to_a_segment_is_found_and_named() {
    type Deed = fn(&Ledger);
    let deeds: [(&str, Deed, Flaw, Option<&str>); 7] = [
        (
            "one is gone",
            |l| fs::remove_file(l.folder().join("0003.ndjson")).unwrap(),
            Flaw::Deleted,
            Some("0004.ndjson"),
        ),
        (
            "the first is gone",
            |l| fs::remove_file(l.folder().join("0001.ndjson")).unwrap(),
            Flaw::Deleted,
            Some("0002.ndjson"),
        ),
        (
            "two are swapped",
            |l| {
                let (a, b) = (l.folder().join("0002.ndjson"), l.folder().join("0003.ndjson"));
                let (x, y) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
                fs::write(a, y).unwrap();
                fs::write(b, x).unwrap();
            },
            Flaw::Reordered,
            Some("0002.ndjson"),
        ),
        (
            "one is edited",
            |l| {
                let path = l.folder().join("0002.ndjson");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replacen("\"agent\":\"test\"", "\"agent\":\"tess\"", 1)).unwrap();
            },
            Flaw::Edited,
            Some("0002.ndjson"),
        ),
        (
            "one is cut in a line",
            |l| {
                let path = l.folder().join("0002.ndjson");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
            },
            Flaw::Format,
            Some("0002.ndjson"),
        ),
        (
            "one lost its seal",
            |l| {
                let path = l.folder().join("0002.ndjson");
                let text = fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                fs::write(path, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
            },
            Flaw::Deleted,
            Some("0003.ndjson"),
        ),
        (
            "two are one file",
            |l| {
                let (a, b) = (l.folder().join("0002.ndjson"), l.folder().join("0003.ndjson"));
                let both = [fs::read(&a).unwrap(), fs::read(&b).unwrap()].concat();
                fs::write(a, both).unwrap();
                fs::remove_file(b).unwrap();
            },
            Flaw::Format,
            Some("0002.ndjson"),
        ),
    ];
    for (what, deed, flaw, file) in deeds {
        let (_folder, ledger) = many();
        deed(&ledger);
        let report = verify(&ledger);
        let bad = report.first_bad.unwrap_or_else(|| panic!("{what} was not found"));
        assert_eq!(
            (report.status, bad.kind, bad.file.as_deref()),
            (Status::Broken, flaw, file),
            "{what}: {}",
            bad.reason
        );
    }
    // Damage to a compressed one.
    let (_folder, ledger) = many();
    ledger.pack().unwrap();
    let packed = ledger.folder().join("0002.ndjson.zst");
    let bytes = fs::read(&packed).unwrap();
    for at in [4, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(&packed, damaged).unwrap();
        assert!(matches!(verify(&ledger).status, Status::Broken | Status::Unreadable), "byte {at}");
    }
}

/// What was verified once need not be unpacked again, as long as the files are what they were.
#[test]
fn a_verification_may_begin_after_files_that_are_known() {
    let (_folder, ledger) = many();
    assert_eq!(ledger.packed_files().unwrap(), None, "nothing is compressed");
    ledger.pack().unwrap();
    let known = ledger.packed_files().unwrap().unwrap();
    let size = ledger.head().unwrap().seq + 1;
    let begin = |size| ledger.after_packed(size, &known, "x");
    let first = begin(size).unwrap().tree.end();
    assert_eq!(begin(first), None, "the beginning of the open segment is not covered");
    assert_eq!(ledger.after_packed(size, &known[1..], "x"), None);
    ledger.append(&[entry(99)]).unwrap();
    let since = begin(size).unwrap();
    let sizes = [size];
    let options = Options { roots: Some(&sizes), ..Options::default() };
    let whole = super::verify::verify(ledger.folder(), &options);
    let passed = super::verify::verify(ledger.folder(), &Options { since: Some(&since), ..options });
    assert_eq!((passed.status, passed.receipts), (Status::Verified, size + 1), "{passed:?}");
    assert_eq!((passed.head, passed.roots, passed.tree), (whole.head, whole.roots, whole.tree));
    assert!(passed.bytes < whole.bytes / 4);
    // A beginning that does not follow what is said to stand before it.
    let other = Since { head: Digest::ZERO, ..since };
    let other = super::verify::verify(ledger.folder(), &Options { since: Some(&other), ..options });
    assert_eq!(other.status, Status::Broken);
    for name in files(&ledger).iter().filter(|name| name.contains(".zst")) {
        let path = ledger.folder().join(name);
        let bytes = fs::read(&path).unwrap();
        let plain = zstd::stream::decode_all(&bytes[..]).unwrap();
        // Damaged; the same text otherwise compressed; not compressed; gone.
        for other in [bytes[1..].to_vec(), zstd::stream::encode_all(&plain[..], 19).unwrap()] {
            fs::write(&path, other).unwrap();
            assert_eq!(begin(size), None, "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(begin(size), None, "{name}");
        fs::write(path.with_extension(""), plain).unwrap();
        assert_eq!(begin(size), None, "{name}");
        fs::remove_file(path.with_extension("")).unwrap();
        fs::write(&path, bytes).unwrap();
        assert!(begin(size).is_some());
    }
    // Copies of older ledgers are not among these files.
    fs::create_dir(ledger.folder().join("imported")).unwrap();
    assert_eq!(begin(size), None);
}

#[test]
fn a_reader_follows_into_the_next_segment() {
    let (_folder, ledger) = small();
    let mut follow = ledger.from(ledger.head().unwrap().end).unwrap();
    let mut seen = Vec::new();
    for n in 1..40 {
        ledger.append(&[entry(n)]).unwrap();
        while let Some((seq, _)) = follow.next_line().unwrap() {
            seen.push(seq);
        }
    }
    assert_eq!(seen, (1..=ledger.head().unwrap().seq).collect::<Vec<_>>());
    // And says so when the ground is taken away.
    let bytes = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), &bytes[..bytes.len() / 2]).unwrap();
    let error = follow.next_line().unwrap_err().to_string();
    assert!(error.contains("shorter"), "{error}");
}

#[test]
fn a_dispatch_that_began_in_another_segment_is_still_written_once() {
    let (_folder, ledger) = small();
    ledger.append(&[entry(1), prepared(1)]).unwrap();
    for n in 2..30 {
        ledger.append(&[entry(n)]).unwrap();
    }
    assert!(ledger.append(&[prepared(1)]).unwrap()[0].repeated);
    ledger.pack().unwrap();
    assert!(ledger.append(&[prepared(1)]).unwrap()[0].repeated);
    assert_eq!(ledger.of_dispatch(prepared(1).dispatch.as_ref().unwrap()).unwrap().len(), 2);
    assert!(!ledger.append(&[prepared(2)]).unwrap()[0].repeated);
    assert_eq!(verify(&ledger).status, Status::Verified);
}

#[test]
fn a_verifier_beside_writers_that_seal_never_sees_a_broken_ledger() {
    let (_folder, ledger) = small();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let ledger = &ledger;
                scope.spawn(move || (0..60).for_each(|n| drop(ledger.append(&[entry(writer * 1000 + n)]).unwrap())))
            })
            .collect();
        while writers.iter().any(|w| !w.is_finished()) {
            let report = verify(&ledger);
            assert!(matches!(report.status, Status::Verified | Status::TornTail), "{report:?}");
            ledger.pack().unwrap();
            assert!(!ledger.last(3).unwrap().is_empty());
        }
    });
    let report = verify(&ledger);
    assert_eq!(report.status, Status::Verified, "{report:?}");
    let kinds: Vec<Kind> = ledger.last(1000).unwrap().iter().map(|r| r.body.kind()).collect();
    assert_eq!(kinds.iter().filter(|k| **k == Kind::DispatchRequested).count(), 240);
}
