//! What a verification makes of the files around the lines: those that are missing, unreadable, older or known already.

use std::fs;
use std::path::Path;

use super::tests::{entry, ledger, verify};
use super::verify::{Flaw, Options, Report, Since, Status};
use super::*;
use crate::domain::Digest;
use crate::domain::merkle::CompactRange;
use crate::domain::receipt::{
    AnchorWritten, Body, DispatchRefused, Entry, LedgerCreated, LedgerOpened, LedgerRecovered, LedgerSealed,
};

fn at(path: &Path) -> Report {
    super::verify::verify(path, &Options::default())
}

fn told(report: &Report) -> (Status, Option<Flaw>, &str) {
    let bad = report.first_bad.as_ref();
    (report.status, bad.map(|bad| bad.kind), bad.map_or("", |bad| &bad.reason))
}

/// Some sealed segments and an open one.
fn several() -> (tempfile::TempDir, Ledger) {
    let (folder, ledger) = ledger(1);
    let ledger = ledger.with_limit(Limit { receipts: 10, ..Limit::default() });
    for n in 1..40 {
        ledger.append(&[entry(n)]).unwrap();
    }
    assert_eq!(ledger.sealed().unwrap().len(), 3, "with a line more in each");
    (folder, ledger)
}

/// A receipt of nearly the greatest length.
fn long(n: usize) -> Entry {
    let reason = format!("{n}{}", "y".repeat(900_000));
    Entry::ledger(Body::DispatchRefused(DispatchRefused { agent: super::tests::name(), rule: "x".into(), reason }))
}

#[test]
fn what_is_not_there_is_told_from_what_cannot_be_read() {
    let (_folder, ledger) = several();
    let file = ledger.file();
    let missing = at(&ledger.folder().join("other.ndjson"));
    assert_eq!(told(&missing).0, Status::Undecided);
    assert!(told(&missing).2.starts_with("there is no ledger at "), "{missing:?}");
    let below = at(&file.join("x"));
    assert_eq!((told(&below).0, told(&below).1), (Status::Unreadable, Some(Flaw::Unreadable)));
    assert!(matches!(Ledger::at(ledger.folder().join("none")).head(), Err(LedgerError::Missing(_))));
    let second = ledger.folder().join("0002.ndjson");
    for in_its_place in ["folder", "link"] {
        let away = ledger.folder().join("away");
        fs::rename(&second, &away).unwrap();
        if in_its_place == "folder" {
            fs::create_dir(&second).unwrap();
        } else {
            std::os::unix::fs::symlink("nowhere", &second).unwrap();
        }
        let report = verify(&ledger);
        assert_eq!((told(&report).0, told(&report).1), (Status::Unreadable, Some(Flaw::Unreadable)), "{in_its_place}");
        fs::remove_dir(&second).or_else(|_| fs::remove_file(&second)).unwrap();
        fs::rename(&away, &second).unwrap();
    }
    assert_eq!(verify(&ledger).status, Status::Verified);
    let error = Ledger::at(&file).head().unwrap_err();
    assert!(!matches!(error, LedgerError::Missing(_)), "{error}");
}

#[test]
fn one_file_verifies_by_itself_also_a_compressed_one() {
    let (_folder, ledger) = several();
    let first = ledger.folder().join("0001.ndjson");
    let plain = at(&first);
    assert_eq!((plain.status, plain.receipts), (Status::Verified, 12));
    ledger.pack().unwrap();
    let packed = at(&ledger.folder().join("0001.ndjson.zst"));
    assert_eq!((packed.status, packed.receipts, packed.head), (Status::Verified, 12, plain.head));
}

#[test]
fn without_its_open_segment_a_ledger_has_no_end() {
    let (_folder, ledger) = several();
    let (open, next) = (ledger.file(), ledger.folder().join(segment::NEXT));
    let bytes = fs::read(&open).unwrap();
    fs::write(&open, "").unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::Broken, Some(Flaw::Missing)));
    assert!(told(&report).2.starts_with("the open segment is empty: "), "{report:?}");
    fs::remove_file(&open).unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::Broken, Some(Flaw::Missing)));
    assert!(told(&report).2.starts_with("the open segment is not there: "), "{report:?}");
    let gone = ledger.head().unwrap_err().to_string();
    assert!(gone.contains("is gone: the open segment"), "{gone}");
    // A writer that was cut off between the two renames.
    fs::write(&next, &bytes).unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::TornTail, Some(Flaw::Torn)));
    let head = ledger.head().unwrap();
    assert!(open.exists() && !next.exists());
    let report = verify(&ledger);
    assert_eq!((report.status, report.head), (Status::Verified, Some(head.hash)), "{report:?}");
    // Left beside a sound one it says nothing, and an empty one alone is no ledger.
    fs::write(&next, "x").unwrap();
    assert_eq!(verify(&ledger).status, Status::Verified);
    let (_other, alone) = super::tests::ledger(1);
    fs::write(alone.file(), "").unwrap();
    assert_eq!((told(&verify(&alone)).0, told(&verify(&alone)).1), (Status::Undecided, Some(Flaw::Missing)));
}

#[test]
fn the_copies_of_older_ledgers_belong_to_it() {
    let (_folder, ledger) = several();
    let ledger = ledger.with_limit(Limit::default());
    (0..3).for_each(|n| drop(ledger.append(&[long(n)]).unwrap()));
    let source = tempfile::tempdir().unwrap();
    let older = source.path().join("older.ndjson");
    fs::write(&older, "{\"event\":\"a\"}\n{\"event\":\"b\"}\n").unwrap();
    let (imported, written) = ledger.import(&older, &|_| ()).unwrap();
    ledger.append(&[entry(3)]).unwrap();
    let copy = import::place(ledger.folder(), &imported.sha256);
    let bytes = fs::read(&copy).unwrap();
    let sound = verify(&ledger);
    assert_eq!((sound.status, sound.imported.as_slice()), (Status::Verified, &[imported.clone()][..]));
    fs::write(&copy, "{\"event\":\"c\"}\n").unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::Broken, Some(Flaw::Edited)));
    let bad = report.first_bad.unwrap();
    let above =
        fs::read(ledger.file()).unwrap()[..usize::try_from(written.offset).unwrap()].split(|b| *b == b'\n').count();
    assert_eq!((bad.line, bad.offset, bad.file), (above as u64, written.offset, None));
    assert_eq!(bad.expected, Some(imported.sha256.to_string()));
    assert_eq!(bad.found, Some(Digest::of(b"{\"event\":\"c\"}\n").to_string()));
    // Behind a torn line it counts as well.
    let lines = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), &lines[..lines.len() - 5]).unwrap();
    assert_eq!(verify(&ledger).status, Status::Broken);
    fs::write(ledger.file(), &lines).unwrap();
    fs::remove_file(&copy).unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::Broken, Some(Flaw::Deleted)));
    fs::create_dir(&copy).unwrap();
    let report = verify(&ledger);
    assert_eq!((told(&report).0, told(&report).1), (Status::Unreadable, Some(Flaw::Unreadable)));
    fs::remove_dir(&copy).unwrap();
    fs::write(&copy, bytes).unwrap();
    assert_eq!(verify(&ledger).status, Status::Verified);
    // A file that was copied alone has none beside it.
    let (_folder, alone) = super::tests::ledger(2);
    alone.import(&older, &|_| ()).unwrap();
    fs::remove_dir_all(import::place(alone.folder(), &imported.sha256).parent().unwrap()).unwrap();
    assert_eq!((verify(&alone).status, at(&alone.file()).status), (Status::Broken, Status::Verified));
}

/// What an anchor proves need not be read again, if it ends with the very receipt that stands there.
#[test]
fn a_verification_goes_on_where_an_anchor_ends_and_nowhere_else() {
    let (_folder, ledger) = several();
    // More than one line of the greatest length stands before the last ones.
    let ledger = ledger.with_limit(Limit::default());
    for n in 0..3 {
        ledger.append(&[long(n)]).unwrap();
    }
    for n in 40..50 {
        ledger.append(&[entry(n)]).unwrap();
    }
    let whole = super::verify::verify(ledger.folder(), &Options { roots: Some(&[]), ..Options::default() });
    let mut after = Vec::new();
    let mut tree = CompactRange::empty(0);
    let each = |place: Place, line: &[u8]| {
        let receipt = format::parse(line).unwrap();
        tree.push(receipt.hash);
        let end = place.offset + line.len() as u64 + 1;
        let since = Since {
            tree: tree.clone(),
            head: receipt.hash,
            segment: place.segment,
            offset: end,
            ledger: String::new(),
        };
        after.push(since);
        Ok::<_, LedgerError>(())
    };
    ledger.walk(Place::default(), each).unwrap();
    let from = |since: &Since| {
        super::verify::verify(ledger.folder(), &Options { since: Some(since), roots: Some(&[]), ..Options::default() })
    };
    // What is wrong further down has the same place, wherever the reading begins.
    for path in fs::read_dir(ledger.folder()).unwrap().map(|e| e.unwrap().path()) {
        let Some(bytes) = fs::read(&path).ok().filter(|bytes| bytes.ends_with(b"\"}\n")) else { continue };
        let mut edited = bytes.clone();
        edited[bytes.len() - 5] ^= 1;
        fs::write(&path, &edited).unwrap();
        let bad = super::verify::verify(ledger.folder(), &Options::default()).first_bad.unwrap();
        for since in after.iter().filter(|since| from(since).first_bad.is_some_and(|bad| bad.kind == Flaw::Edited)) {
            assert_eq!(from(since).first_bad.as_ref(), Some(&bad), "{since:?}");
        }
        fs::write(&path, bytes).unwrap();
    }
    for packed in [false, true] {
        if packed {
            ledger.pack().unwrap();
        }
        for (nth, since) in after.iter().enumerate() {
            let report = from(since);
            assert_eq!((report.status, report.receipts), (Status::Verified, whole.receipts), "{nth}: {report:?}");
            assert_eq!((report.head, report.tree.as_ref()), (whole.head, whole.tree.as_ref()), "{nth}");
            let before = if nth == 0 { CompactRange::empty(0) } else { after[nth - 1].tree.clone() };
            let wrong = [
                Since { head: Digest::ZERO, ..since.clone() },
                Since { tree: before, ..since.clone() },
                Since { offset: since.offset - 1, ..since.clone() },
                Since { offset: since.offset + 1, ..since.clone() },
            ];
            for other in wrong {
                let report = from(&other);
                let want = (Status::AnchorMismatch, Some(Flaw::Rewritten));
                assert_eq!((told(&report).0, told(&report).1), want, "{nth}: {other:?}");
            }
        }
    }
}

/// Several threads read a long ledger, and each has lines in its hands when one of them finds the first fault.
#[test]
fn the_first_fault_is_named_whichever_thread_finds_it() {
    let (_folder, ledger) = ledger(1);
    let reason = "z".repeat(2000);
    let refused = |n: usize| {
        let rule = format!("r{n}");
        Entry::ledger(Body::DispatchRefused(DispatchRefused {
            agent: super::tests::name(),
            rule,
            reason: reason.clone(),
        }))
    };
    ledger.append(&(0..1500).map(refused).collect::<Vec<_>>()).unwrap();
    let sound = fs::read(ledger.file()).unwrap();
    assert!(sound.len() > 3 << 20);
    for part in 1..24 {
        let spot = sound.len() * part / 24;
        // Two of them: the second one stands a little further down.
        let mut edited = sound.clone();
        for spot in [spot, spot + (100 << 10)] {
            if let Some(byte) = edited.get_mut(spot).filter(|byte| **byte != b'\n') {
                *byte ^= 1;
            }
        }
        fs::write(ledger.file(), &edited).unwrap();
        let line = 1 + memchr::memchr_iter(b'\n', &sound[..spot]).count() as u64;
        let report = verify(&ledger);
        let bad = report.first_bad.unwrap();
        assert!(matches!(bad.kind, Flaw::Edited | Flaw::Format), "{bad:?}");
        assert_eq!((report.status, bad.line), (Status::Broken, line), "{bad:?}");
    }
}

/// A writer that repairs a torn tail while it is read leaves lines of halves to the reader, and a sound ledger.
#[test]
fn what_is_repaired_while_it_is_read_is_read_again() {
    let (_folder, ledger) = ledger(3);
    let sound = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), [&sound[..], b"half a line"].concat()).unwrap();
    let once = std::sync::Once::new();
    let repair = |_| once.call_once(|| drop(Ledger::at(ledger.folder()).append(&[entry(9)]).unwrap()));
    let options = Options { progress: Some(&repair), ..Options::default() };
    let report = super::verify::verify(ledger.folder(), &options);
    assert_eq!((report.status, report.recoveries), (Status::Verified, 1), "{report:?}");
}

/// Sectors that a crash lost are a torn tail for the verifier where they are one for the writer, however many they are.
#[test]
fn whatever_the_writer_repairs_is_a_torn_tail() {
    let (_folder, ledger) = ledger(3);
    let sound = fs::read(ledger.file()).unwrap();
    let with = |bytes: &[u8]| {
        fs::write(ledger.file(), [&sound[..], bytes].concat()).unwrap();
        let status = verify(&ledger).status;
        let written = Ledger::at(ledger.folder()).append(&[entry(9)]);
        (status, written.is_ok_and(|_| verify(&ledger).recoveries == 1))
    };
    let zeros = |n: usize| vec![0_u8; n];
    for n in [1024, 64 << 10, 200 << 10, 1 << 20] {
        assert_eq!(with(&[zeros(n), b"\n".to_vec()].concat()), (Status::TornTail, true), "{n}");
    }
    // Whole lines after the hole were written with it, unless that is further up than the writer looks.
    let next = format::build(&entry(8), &Digest::ZERO, 9, crate::sys::now(), &Redactor::default()).unwrap().0;
    let lines = |n: usize| format!("\n{next}").repeat(n) + "\n";
    assert_eq!(with(&[zeros(1024), lines(20).into_bytes()].concat()), (Status::TornTail, true));
    assert_eq!(with(&[zeros(1024), lines(400).into_bytes()].concat()), (Status::Broken, false));
    // What was anchored is not cut off.
    let anchored = lines(2).replace(&entry(8).body.kind().word().to_string(), "anchor.written");
    assert_eq!(with(&[zeros(1024), anchored.into_bytes()].concat()), (Status::Broken, false));
    let edited = String::from_utf8(sound.clone()).unwrap().replace("test-0002", "test-0003");
    fs::write(ledger.file(), edited).unwrap();
    assert_eq!(verify(&ledger).status, Status::Broken);
}

/// A file with these, each chained to the one before it.
fn chained(entries: &[Entry], head: Option<Head>) -> (String, Head) {
    let (mut seq, mut prev) = head.map_or((0, Digest::ZERO), |head| (head.seq + 1, head.hash));
    let mut text = String::new();
    for entry in entries {
        let (line, hash) = format::build(entry, &prev, seq, crate::sys::now(), &Redactor::default()).unwrap();
        text += &(line + "\n");
        (seq, prev) = (seq + 1, hash);
    }
    (text, Head { seq: seq - 1, hash: prev, end: 0 })
}

/// What begins and ends a ledger and its files stands there and nowhere else, also where payloads are not looked at.
#[test]
fn each_end_of_a_file_has_its_receipt() {
    let created = || {
        Entry::ledger(Body::LedgerCreated(LedgerCreated {
            ledger: "l".into(),
            project: super::tests::name(),
            vnx: "0".into(),
        }))
    };
    let opened = |segment| {
        let opened = LedgerOpened { segment, bytes: 1, sha256: Digest::ZERO, nodes: Vec::new() };
        Entry::ledger(Body::LedgerOpened(opened))
    };
    let sealed = |segment| Entry::ledger(Body::LedgerSealed(LedgerSealed { segment, size: 1, root: Digest::ZERO }));
    let not_first = "the first receipt, and no other, must be ledger.created";
    let begins = "a segment begins with ledger.created or ledger.opened, in its order";
    let number = "the segment has another number than its place";
    let after = "a receipt follows the one that seals its segment";
    let ends = "segments end with ledger.sealed, and nothing follows that in the same file";
    let cases: [(&[&[Entry]], &str); 11] = [
        (&[&[created(), entry(1), sealed(1)], &[opened(2), entry(2)]], ""),
        (&[&[created(), entry(1), created()]], not_first),
        (&[&[opened(1), entry(1)]], not_first),
        (&[&[entry(1), entry(2)]], not_first),
        (&[&[created(), entry(1), opened(1), entry(2)]], begins),
        (&[&[created(), sealed(1)], &[entry(1), entry(2)]], begins),
        (&[&[created(), sealed(1)], &[created(), entry(2)]], not_first),
        (&[&[created(), sealed(1)], &[opened(3), entry(2)]], number),
        (&[&[created(), sealed(1), entry(1)], &[opened(2)]], after),
        (&[&[created(), entry(1)], &[opened(2)]], ends),
        (&[&[created(), sealed(1)], &[opened(2), sealed(2)], &[opened(3), entry(3), opened(3)]], begins),
    ];
    for (files, why) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut head = None;
        for (nth, entries) in files.iter().enumerate() {
            let (text, last) = chained(entries, head);
            head = Some(last);
            let name = if nth + 1 == files.len() { segment::OPEN.to_owned() } else { format!("{:04}.ndjson", nth + 1) };
            fs::write(folder.path().join(name), text).unwrap();
        }
        for quick in [false, true] {
            let report = super::verify::verify(folder.path(), &Options { quick, ..Options::default() });
            let want = if why.is_empty() { (Status::Verified, None) } else { (Status::Broken, Some(Flaw::Format)) };
            assert_eq!((told(&report).0, told(&report).1, told(&report).2), (want.0, want.1, why), "quick: {quick}");
        }
    }
}

#[test]
fn the_last_anchor_and_what_was_repaired_are_told() {
    let anchor = |size| AnchorWritten { size, root: Digest::ZERO, commit: "c".repeat(40), signed: false };
    let recovered = LedgerRecovered { offset: 1, bytes: 1, sha256: Digest::ZERO, quarantine: "q".into() };
    let created = LedgerCreated { ledger: "l".into(), project: super::tests::name(), vnx: "0".into() };
    let entries = [
        Body::LedgerCreated(created),
        Body::AnchorWritten(anchor(1)),
        Body::LedgerRecovered(recovered.clone()),
        Body::AnchorWritten(anchor(2)),
        Body::LedgerRecovered(recovered),
    ];
    let (text, _) = chained(&entries.map(Entry::ledger), None);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(segment::OPEN), text).unwrap();
    for quick in [false, true] {
        let report = super::verify::verify(folder.path(), &Options { quick, ..Options::default() });
        assert_eq!((report.status, report.recoveries, report.ledger.as_deref()), (Status::Verified, 2, Some("l")));
        assert_eq!(report.last_anchor, Some((3, anchor(2))));
    }
}
