//! The writer under faults: whichever system call fails, tears or is the last one, nothing that
//! was acknowledged is lost, and the next writer goes on.

use std::fs;

use super::disk::fault::{Fault, inject};
use super::tests::{entry, ledger, name, status, verify};
use super::verify::Status;
use super::*;
use crate::domain::DispatchId;
use crate::domain::receipt::{Body, DispatchPrepared, DispatchRefused, DispatchRequested, Entry, Kind};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const MODES: [Fault; 6] =
    [Fault::Error(EIO), Fault::Error(ENOSPC), Fault::Crash, Fault::Tear(0), Fault::Tear(60), Fault::Short(60)];

/// A receipt whose writer waits for the disk.
fn waiting(n: usize) -> Entry {
    let id = DispatchId::parse(&format!("20261121-100000-test-{n:04}")).unwrap();
    let body = DispatchPrepared { head: "0".repeat(40), prompt: Digest::of(b"p"), took_ms: n as u64 };
    Entry::of(&id, Body::DispatchPrepared(body))
}

fn keys(ledger: &Ledger) -> Vec<String> {
    ledger.last(100).unwrap().into_iter().map(|r| r.key).collect()
}

/// Runs `append` with every fault at every call, on a ledger as `prepare` leaves it.
fn everywhere(limit: u64, prepare: impl Fn(&Ledger)) {
    let mut runs = 0;
    for mode in MODES {
        for at in 1.. {
            let (_folder, ledger) = ledger(3);
            let ledger = ledger.with_limit(Limit { receipts: limit, ..Limit::default() });
            prepare(&ledger);
            let acknowledged = [1, 2].map(|n| entry(n).key());
            let new = [entry(7), waiting(7)];
            let (result, calls, came) = inject(at, mode, || ledger.append(&new));
            let told = format!("{mode:?} at call {at} of {calls:?}: {result:?}");
            let report = verify(&ledger);
            assert!(matches!(report.status, Status::Verified | Status::TornTail), "{told}: {report:?}");
            // The next writer, without faults.
            let later = ledger.append(&[entry(8), waiting(8)]).unwrap_or_else(|e| panic!("{told}: {e}"));
            let report = verify(&ledger);
            assert_eq!(report.status, Status::Verified, "{told}: {report:?}");
            assert_eq!(later.last().unwrap().seq + 1, report.receipts, "{told}");
            let keys = keys(&ledger);
            for key in acknowledged.iter().chain(&[entry(8).key(), waiting(8).key()]) {
                assert_eq!(keys.iter().filter(|k| *k == key).count(), 1, "{told}: {key} in {keys:?}");
            }
            let new = new.iter().map(|e| keys.iter().filter(|k| **k == e.key()).count()).collect::<Vec<_>>();
            match &result {
                // Nobody lives to hear the answer, and a whole line of a torn write is a receipt.
                Err(_) if matches!(mode, Fault::Crash | Fault::Tear(_)) => {
                    assert!(new.iter().all(|n| *n <= 1), "{told}");
                }
                Ok(_) => assert_eq!(new, [1, 1], "{told}: acknowledged and not there"),
                Err(LedgerError::NotWritten { .. }) => assert_eq!(new, [0, 0], "{told}: rolled back and there"),
                Err(_) => assert!(new == [0, 0] || new == [1, 1], "{told}: half of it is there"),
            }
            assert!(!ledger.folder().join("POISONED").exists(), "{told}");
            let sealed = keys.iter().filter(|k| k.contains("ledger.sealed")).count();
            assert!(if limit < 3 { sealed <= 2 } else { sealed == 0 }, "{told}: {keys:?}");
            runs += 1;
            if !came {
                assert!(result.is_ok(), "{told}");
                break;
            }
        }
    }
    assert!(runs > 20, "only {runs} runs");
}

#[test]
fn every_call_of_an_append_may_fail() {
    everywhere(1000, |_| {});
}

#[test]
fn every_call_of_a_seal_may_fail() {
    // Three receipts are as many as fit: the next append begins a segment.
    everywhere(2, |_| {});
}

#[test]
fn every_call_of_a_repair_may_fail() {
    everywhere(1000, |ledger| {
        let mut bytes = fs::read(ledger.file()).unwrap();
        bytes.extend_from_slice(b"{\"v\":1,\"prev\":\"torn");
        fs::write(ledger.file(), bytes).unwrap();
    });
}

#[test]
fn every_call_after_a_failed_sync_may_fail() {
    everywhere(1000, |ledger| fs::write(ledger.folder().join("POISONED"), "EIO").unwrap());
}

#[test]
fn every_call_of_an_import_may_fail() {
    let entry = "{\"dispatch_id\":\"d\",\"status\":\"done\"}\n".repeat(9000);
    for mode in MODES {
        for at in 1.. {
            let (folder, ledger) = ledger(3);
            let older = folder.path().join("older.ndjson");
            fs::write(&older, &entry).unwrap();
            let (result, calls, came) = inject(at, mode, || ledger.import(&older, &|_| {}));
            let told = format!("{mode:?} at call {at} of {calls:?}: {result:?}");
            let report = verify(&ledger);
            assert!(matches!(report.status, Status::Verified | Status::TornTail), "{told}: {report:?}");
            let (imported, _) = ledger.import(&older, &|_| {}).unwrap_or_else(|e| panic!("{told}: {e}"));
            let report = verify(&ledger);
            assert_eq!((report.status, report.imported.len()), (Status::Verified, 1), "{told}: {report:?}");
            assert_eq!(imported.lines, 9000);
            let copies = fs::read_dir(ledger.folder().join("imported")).unwrap().count();
            assert_eq!(copies, 2, "{told}: the copy and the lock");
            assert_eq!(keys(&ledger).iter().filter(|k| k.contains("dispatch.requested")).count(), 2, "{told}");
            if !came {
                assert!(result.is_ok(), "{told}");
                break;
            }
        }
    }
}

#[test]
fn every_call_of_a_creation_may_fail() {
    for mode in MODES {
        for at in 1.. {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::at(folder.path());
            let (result, calls, came) = inject(at, mode, || ledger.create(&name()));
            let there = ledger.file().exists();
            assert!(!there || status(&ledger) == Status::Verified, "{mode:?} at {at} of {calls:?}");
            assert!(there || result.is_err(), "{mode:?} at {at} of {calls:?}");
            assert_eq!(ledger.create(&name()).unwrap(), !there);
            assert_eq!(status(&ledger), Status::Verified);
            if !came {
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_is_not_acknowledged_and_the_next_writer_writes_the_file_anew() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, ledger) = ledger(2);
    let inode = fs::metadata(ledger.file()).unwrap().ino();
    let position = inject(100, Fault::Crash, || ledger.append(&[waiting(5)])).1;
    let sync = position.iter().position(|call| call == "fdatasync").unwrap() + 1;
    let (result, ..) = inject(sync, Fault::Error(EIO), || ledger.append(&[waiting(6)]));
    assert!(matches!(result, Err(LedgerError::NotSynced { .. })), "{result:?}");
    ledger.append(&[waiting(7)]).unwrap();
    assert_ne!(fs::metadata(ledger.file()).unwrap().ino(), inode, "other pages, another file");
    let kinds: Vec<Kind> = ledger.last(10).unwrap().iter().map(|r| r.body.kind()).collect();
    assert_eq!(kinds.iter().filter(|k| **k == Kind::LedgerIoError).count(), 1, "{kinds:?}");
    assert_eq!(status(&ledger), Status::Verified);
}

#[test]
fn a_full_disk_still_takes_what_must_be_said() {
    let (_folder, ledger) = ledger(2);
    let reserve = ledger.folder().join("RESERVE");
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 1 << 20);
    let calls = inject(100, Fault::Crash, || ledger.append(&[waiting(5)])).1;
    let write = calls.iter().position(|call| call == "write").unwrap() + 1;
    let (result, calls, _) = inject(write, Fault::Error(ENOSPC), || ledger.append(&[waiting(6)]));
    assert!(result.is_ok(), "{calls:?}: {result:?}");
    assert!(!reserve.exists(), "it was given back");
    let (result, ..) = inject(write, Fault::Error(ENOSPC), || ledger.append(&[waiting(7)]));
    assert!(matches!(result, Err(LedgerError::NotWritten { .. })), "{result:?}");
    assert_eq!(status(&ledger), Status::Verified);
    for left in [None, Some(10)] {
        if let Some(bytes) = left {
            fs::write(&reserve, vec![0; bytes]).unwrap();
        }
        ledger.fill_reserve();
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 1 << 20);
    }
    let (result, ..) = inject(write, Fault::Error(EIO), || ledger.append(&[waiting(8)]));
    assert!(matches!(result, Err(LedgerError::NotWritten { .. })) && reserve.exists(), "space does not help there");
}

#[test]
fn a_new_ledger_has_its_name_on_the_disk_before_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (created, calls, _) = inject(100, Fault::Crash, || Ledger::at(folder.path()).create(&name()));
    assert!(created.unwrap());
    assert_eq!(calls, ["open", "write", "fdatasync", "rename", "fsync"]);
    let missing = super::disk::sync_folder(&folder.path().join("missing"));
    assert!(missing.is_err(), "the folder itself is asked");
}

#[test]
fn what_is_settled_or_synced_waits_for_the_disk() {
    let (_folder, ledger) = ledger(2);
    let (result, calls, _) = inject(1, Fault::Error(EIO), || ledger.sync());
    assert!(matches!(result, Err(LedgerError::NotSynced { .. })), "{calls:?}");
    ledger.settle().unwrap();
    assert_eq!(verify(&ledger).receipts, 3, "and the receipt of it");
    let torn = [fs::read(ledger.file()).unwrap(), b"{\"v\":1,".to_vec()].concat();
    fs::write(ledger.file(), torn).unwrap();
    Ledger::at(ledger.folder()).settle().unwrap();
    assert_eq!((status(&ledger), verify(&ledger).recoveries), (Status::Verified, 1));
}

#[test]
fn what_a_full_disk_and_a_broken_one_ask_for_differs() {
    use crate::domain::{Fault, FaultKind};
    let of = |errno| {
        let full = Fault::from(LedgerError::NotWritten { source: io::Error::from_raw_os_error(errno) });
        (full.kind, full.next().contains("free disk space"))
    };
    assert_eq!((of(ENOSPC), of(122)), ((FaultKind::Environment, true), (FaultKind::Environment, true)), "or a quota");
    assert_eq!(of(EIO), (FaultKind::Io, false));
}

#[test]
fn the_same_receipt_is_written_once_and_another_one_under_its_key_is_an_error() {
    let (_folder, ledger) = ledger(1);
    ledger.append(&[entry(1)]).unwrap();
    let first = ledger.append(&[waiting(1)]).unwrap()[0];
    // Far apart, and with others of the same kind in between.
    let others: Vec<Entry> = (2..1500).flat_map(|n| [entry(n), waiting(n)]).collect();
    ledger.append(&others).unwrap();
    let len = fs::metadata(ledger.file()).unwrap().len();
    let again = ledger.append(&[waiting(1)]).unwrap()[0];
    assert_eq!((again.seq, again.hash, again.offset, again.repeated), (first.seq, first.hash, first.offset, true));
    for n in (2..1500).step_by(7) {
        assert!(ledger.append(&[waiting(n)]).unwrap()[0].repeated, "{n} is found wherever blocks end");
    }
    assert_eq!(fs::metadata(ledger.file()).unwrap().len(), len, "nothing was written");
    let Body::DispatchPrepared(mut other) = waiting(1).body else { panic!() };
    other.took_ms = 99;
    let other = Entry { body: Body::DispatchPrepared(other), ..waiting(1) };
    let error = ledger.append(&[entry(1600), other.clone()]).unwrap_err();
    assert!(matches!(error, LedgerError::Conflict { seq, .. } if seq == first.seq), "{error}");
    assert_eq!(fs::metadata(ledger.file()).unwrap().len(), len, "all of it or nothing");
    // Within one call as well.
    let twice = ledger.append(&[entry(1601), waiting(1601), waiting(1601)]).unwrap();
    assert_eq!((twice[1].seq, twice[2].seq, twice[2].repeated), (twice[1].seq, twice[1].seq, true));
    // Another attempt is another receipt.
    let second = Entry { attempt: 2, ..other };
    assert!(!ledger.append(&[second]).unwrap()[0].repeated);
    assert_eq!(status(&ledger), Status::Verified);
}

#[test]
fn lines_that_are_longer_than_what_is_read_at_once_hide_nothing() {
    let (_folder, ledger) = ledger(1);
    ledger.append(&[entry(1), waiting(1)]).unwrap();
    for (n, bytes) in [(1, 5 << 10), (2, 30 << 10), (3, 200 << 10), (4, 900 << 10)] {
        let refused = DispatchRefused { agent: name(), rule: format!("r{n}"), reason: "x".repeat(bytes) };
        ledger.append(&[Entry::ledger(Body::DispatchRefused(refused))]).unwrap();
        // By the writer who knows the end, and by one who looks for what a crash has left.
        for writer in [&ledger, &Ledger::at(ledger.folder())] {
            assert!(writer.append(&[waiting(1)]).unwrap()[0].repeated, "behind {bytes} bytes");
            assert_eq!(writer.head().unwrap().seq, n + 2);
        }
    }
    assert_eq!(status(&ledger), Status::Verified);
}

#[test]
fn what_is_no_line_is_cut_off_only_behind_a_sound_one() {
    let (_folder, ledger) = ledger(2);
    let whole = fs::read(ledger.file()).unwrap();
    let with = |sound: &[u8], junk: usize| {
        fs::write(ledger.file(), [sound, &vec![b'x'; junk]].concat()).unwrap();
        Ledger::at(ledger.folder()).append(&[entry(9)]).map(|done| done[0].seq).map_err(|e| e.to_string())
    };
    for junk in [100, 2 << 20] {
        fs::write(ledger.file(), [&whole[..], &vec![b'x'; junk]].concat()).unwrap();
        let report = verify::verify(ledger.folder(), &verify::Options::default());
        let reason = report.first_bad.unwrap().reason;
        assert_eq!(
            (report.status, reason),
            (Status::TornTail, format!("the last {junk} bytes are an incomplete line"))
        );
    }
    assert_eq!(with(&whole, 5 << 20), Ok(3), "after the receipt of the recovery");
    assert!(with(&whole, 20 << 20).unwrap_err().contains("a line is longer than the format allows"));
    assert!(with(b"", 100).unwrap_err().contains("there is no complete line"));
}

#[test]
fn lost_sectors_at_the_end_are_a_torn_tail() {
    for (which, keep_feed) in [(0, true), (1, true), (1, false)] {
        let (_folder, ledger) = ledger(6);
        let bytes = fs::read(ledger.file()).unwrap();
        let acknowledged = bytes.len();
        ledger.append(&(10..16).map(entry).collect::<Vec<_>>()).unwrap();
        let mut bytes = fs::read(ledger.file()).unwrap();
        let sector = (acknowledged / 512 + 1 + which) * 512;
        let end = if keep_feed { sector + 512 } else { bytes.len() };
        bytes[sector..end].fill(0);
        fs::write(ledger.file(), &bytes).unwrap();
        let report = verify(&ledger);
        assert_eq!(report.status, Status::TornTail, "{report:?}");
        ledger.append(&[entry(20)]).unwrap();
        let report = verify(&ledger);
        assert_eq!((report.status, report.recoveries), (Status::Verified, 1));
        assert_eq!(
            keys(&ledger)[..6],
            (0..6).map(|n| if n == 0 { "ledger/ledger.created/1".into() } else { entry(n).key() }).collect::<Vec<_>>()
                [..]
        );
    }
}

#[test]
fn what_was_anchored_is_not_cut_off() {
    use crate::domain::receipt::AnchorWritten;
    let (_folder, ledger) = ledger(4);
    let before = usize::try_from(fs::metadata(ledger.file()).unwrap().len()).unwrap();
    ledger.append(&[entry(10), entry(11), entry(12)]).unwrap();
    let body = AnchorWritten { size: 7, root: Digest::ZERO, commit: "0".repeat(40), signed: false };
    ledger.append(&[Entry::ledger(Body::AnchorWritten(body))]).unwrap();
    let mut bytes = fs::read(ledger.file()).unwrap();
    let sector = (before / 512 + 1) * 512;
    bytes[sector..sector + 512].fill(0);
    fs::write(ledger.file(), &bytes).unwrap();
    assert!(matches!(ledger.append(&[entry(20)]), Err(LedgerError::BrokenHead { .. })));
    assert_eq!(fs::read(ledger.file()).unwrap(), bytes, "the evidence is untouched");
    assert!(Ledger::at(ledger.folder()).head().is_err(), "doctor must not call it sound");
}

#[test]
fn a_receipt_that_readers_would_refuse_is_not_written() {
    let (_folder, ledger) = ledger(1);
    let body = |took_ms| DispatchPrepared { head: String::new(), prompt: Digest::ZERO, took_ms };
    let id = DispatchId::parse("20261121-100000-test-0001").unwrap();
    let long = DispatchRequested { request: Digest::ZERO, agent: name() };
    let at = |body| Entry::of(&id, Body::DispatchPrepared(body));
    assert!(matches!(ledger.append(&[at(body(1 << 53))]), Err(LedgerError::Unfit { .. })));
    let huge = DispatchPrepared { head: "x".repeat(1 << 20), ..body(1) };
    assert!(matches!(ledger.append(&[at(huge)]), Err(LedgerError::Unfit { .. })));
    let nobody = Entry { attempt: 0, ..Entry::of(&id, Body::DispatchRequested(long)) };
    assert!(matches!(ledger.append(&[nobody]), Err(LedgerError::Unfit { .. })));
    assert_eq!(verify(&ledger).receipts, 1);
    ledger.append(&[at(body((1 << 53) - 1))]).unwrap();
    assert_eq!(status(&ledger), Status::Verified);
}
