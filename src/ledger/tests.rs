use std::fs;

use proptest::prelude::*;

use super::verify::{Status, verify};
use super::*;
use crate::domain::receipt::{Body, DispatchRefused, DispatchRequested, Entry};
use crate::domain::{DispatchId, Name};

fn name() -> Name {
    Name::parse("test", "test").unwrap()
}

fn entry(n: usize) -> Entry {
    let id = DispatchId::parse(&format!("20261121-100000-test-{n:04}")).unwrap();
    Entry::of(&id, Body::DispatchRequested(DispatchRequested { request: Digest::of(b"x"), agent: name() }))
}

fn ledger(receipts: usize) -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    assert!(ledger.create(&name()).unwrap());
    for n in 1..receipts {
        ledger.append(&[entry(n)]).unwrap();
    }
    (folder, ledger)
}

fn status(ledger: &Ledger) -> Status {
    verify(&ledger.file(), Some(&name())).status
}

#[test]
fn what_is_appended_verifies_and_reads_back() {
    let (_folder, ledger) = ledger(1);
    assert!(!ledger.create(&name()).unwrap(), "a second create changes nothing");
    let first = ledger.append(&[entry(1), entry(2)]).unwrap();
    let later = ledger.append(&[entry(3)]).unwrap();
    assert_eq!((first[0].seq, first[1].seq, later[0].seq), (1, 2, 3));
    let report = verify(&ledger.file(), Some(&name()));
    assert_eq!((report.status, report.receipts), (Status::Verified, 4));
    let last = ledger.last(2).unwrap();
    assert_eq!(last.iter().map(|r| r.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(last[1].hash, ledger.head().unwrap().hash);
    let mut from = ledger.from(later[0].offset).unwrap();
    assert_eq!(from.next_receipt().unwrap().unwrap().seq, 3);
    assert!(from.next_receipt().unwrap().is_none());
    assert_eq!(verify(&ledger.file(), Some(&Name::parse("t", "other").unwrap())).status, Status::Broken);
}

#[test]
fn reading_backwards_crosses_blocks() {
    let (_folder, ledger) = ledger(1);
    let many: Vec<Entry> = (1..2000).map(entry).collect();
    ledger.append(&many).unwrap();
    assert!(fs::metadata(ledger.file()).unwrap().len() > 512 << 10);
    let seqs: Vec<u64> = ledger.last(5000).unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(seqs, (0..2000).collect::<Vec<_>>());
    assert_eq!(ledger.last_matching(1, |l| l.windows(10).any(|w| w == b"test-0007\"")).unwrap()[0].seq, 7);
}

#[test]
fn a_torn_tail_is_quarantined_and_recorded_and_nothing_is_glued_to_it() {
    let (_folder, ledger) = ledger(3);
    let whole = fs::read(ledger.file()).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last_line + 1..whole.len() {
        fs::write(ledger.file(), &whole[..cut]).unwrap();
        assert_eq!(status(&ledger), Status::TornTail, "cut at {cut}");
        ledger.append(&[entry(9)]).unwrap();
        let report = verify(&ledger.file(), Some(&name()));
        assert_eq!((report.status, report.recoveries, report.receipts), (Status::Verified, 1, 4), "cut at {cut}");
        let Body::LedgerRecovered(recovered) = &ledger.last(2).unwrap()[0].body else { panic!("not recorded") };
        assert_eq!(fs::read(ledger.quarantine().join(&recovered.quarantine)).unwrap(), whole[last_line..cut]);
    }
}

#[test]
fn nothing_is_appended_to_a_broken_head() {
    let (_folder, ledger) = ledger(3);
    let mut bytes = fs::read(ledger.file()).unwrap();
    let at = bytes.len() - 200;
    bytes[at] ^= 1;
    fs::write(ledger.file(), &bytes).unwrap();
    assert!(matches!(ledger.append(&[entry(9)]), Err(LedgerError::BrokenHead { .. })));
    assert_eq!(fs::read(ledger.file()).unwrap(), bytes, "the evidence is untouched");
}

#[test]
fn secrets_are_gone_before_the_hash() {
    let (_folder, ledger) = ledger(1);
    let reason = "key sk-ant-api03-abcdefghijklmnopqrst leaked".to_owned();
    let body = Body::DispatchRefused(DispatchRefused { agent: name(), rule: "x".into(), reason });
    ledger.append(&[Entry::ledger(body)]).unwrap();
    assert!(!fs::read_to_string(ledger.file()).unwrap().contains("abcdefghijklmnopqrst"));
    assert_eq!(status(&ledger), Status::Verified);
}

#[test]
fn threads_that_append_at_once_lose_nothing() {
    let (_folder, ledger) = ledger(1);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let ledger = &ledger;
            scope.spawn(move || {
                (0..25).for_each(|n| drop(ledger.append(&[entry(writer * 100 + n)]).unwrap()));
            });
        }
    });
    let report = verify(&ledger.file(), Some(&name()));
    assert_eq!((report.status, report.receipts), (Status::Verified, 201));
}

#[test]
fn an_empty_or_missing_ledger_is_never_a_pass() {
    let (_folder, ledger) = ledger(2);
    fs::write(ledger.file(), b"").unwrap();
    assert_eq!(status(&ledger), Status::NoLedger);
    fs::remove_file(ledger.file()).unwrap();
    assert_eq!(status(&ledger), Status::NoLedger);
    assert!(matches!(ledger.append(&[entry(1)]), Err(LedgerError::Missing(_))));
}

proptest! {
    /// Any single byte changed at any offset is found.
    #[test]
    fn every_changed_byte_is_found(at in 0_usize..10_000, to in any::<u8>()) {
        let (_folder, ledger) = ledger(4);
        let mut bytes = fs::read(ledger.file()).unwrap();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        fs::write(ledger.file(), &bytes).unwrap();
        prop_assert_ne!(status(&ledger), Status::Verified);
    }

    /// Removing, doubling or swapping whole lines is found, except at the very end.
    #[test]
    fn every_moved_line_is_found(a in 0_usize..5, b in 0_usize..5, how in 0..3) {
        let (_folder, ledger) = ledger(6);
        let text = fs::read_to_string(ledger.file()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        match how {
            0 => drop(lines.remove(a)),
            1 => lines.insert(a, lines[a]),
            _ => { prop_assume!(a != b); lines.swap(a, b); }
        }
        fs::write(ledger.file(), lines.join("\n") + "\n").unwrap();
        prop_assert_eq!(status(&ledger), Status::Broken);
    }
}
