//! Readers at the edges: torn ends, endless lines, what is near the end, and files that are replaced under a follower.

use std::fs;

use super::super::tests::{entry, ledger};
use super::super::{Limit, format};
use super::*;

fn id(n: usize) -> DispatchId {
    entry(n).dispatch.unwrap()
}

fn append(ledger: &Ledger, bytes: &[u8]) {
    let whole = [&fs::read(ledger.file()).unwrap(), bytes].concat();
    fs::write(ledger.file(), whole).unwrap();
}

fn seqs(ledger: &Ledger, n: usize) -> Vec<u64> {
    ledger.last(n).unwrap().iter().map(|receipt| receipt.seq).collect()
}

#[test]
fn what_stands_in_the_place_of_a_ledger_is_no_missing_ledger() {
    let (folder, ledger) = ledger(3);
    assert!(matches!(Ledger::at(folder.path().join("none")).from(0), Err(LedgerError::Missing(_))));
    fs::rename(ledger.file(), folder.path().join("away")).unwrap();
    for in_its_place in ["folder", "link"] {
        if in_its_place == "folder" {
            fs::create_dir(ledger.file()).unwrap();
        } else {
            fs::remove_dir(ledger.file()).unwrap();
            std::os::unix::fs::symlink("away", ledger.file()).unwrap();
        }
        let asked =
            [ledger.head().map(drop), ledger.last(1).map(drop), ledger.from(0).map(drop), ledger.created().map(drop)];
        for answer in asked {
            assert!(!matches!(answer.unwrap_err(), LedgerError::Missing(_)), "{in_its_place}");
        }
    }
}

#[test]
fn as_many_as_are_asked_for() {
    let (_folder, ledger) = ledger(5);
    assert_eq!(seqs(&ledger, 0), [0; 0]);
    assert_eq!(seqs(&ledger, 1), [4]);
    assert_eq!(seqs(&ledger, 9), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_near_the_end_is_found_there() {
    let (_folder, ledger) = ledger(1);
    let ledger = ledger.with_limit(Limit { receipts: 1500, ..Limit::default() });
    let lines = |n| ledger.lines_of(&id(n)).unwrap();
    ledger.append(&(1..1000).map(entry).collect::<Vec<_>>()).unwrap();
    assert_eq!(lines(1).len(), 1);
    assert_eq!(ledger.recent_lines_of(&id(1)).unwrap(), Some(lines(1)));
    assert_eq!(ledger.recent_lines_of(&id(7000)).unwrap(), None, "nobody asked for it");
    for n in 2..5 {
        ledger.append(&(n * 1000..(n + 1) * 1000).map(entry).collect::<Vec<_>>()).unwrap();
    }
    assert!(ledger.head().unwrap().seq > 3900 && !ledger.sealed().unwrap().is_empty());
    assert_eq!(lines(1).len(), 1);
    assert_eq!(ledger.recent_lines_of(&id(1)).unwrap(), None, "more than a megabyte away");
    assert_eq!(ledger.recent_lines_of(&id(4000)).unwrap(), Some(lines(4000)));
}

#[test]
fn what_has_no_end_is_no_line() {
    for length in [1, 300 << 10, 3 << 20] {
        let (_folder, ledger) = ledger(2000);
        append(&ledger, &vec![b'x'; length]);
        assert_eq!(seqs(&ledger, 2), [1998, 1999], "{length}");
        assert_eq!(seqs(&ledger, 5000).len(), 2000, "{length}");
        let mut follow = ledger.all().unwrap();
        let whole = std::iter::from_fn(|| follow.next_receipt().transpose()).take_while(Result::is_ok).count();
        assert_eq!(whole, 2000, "{length}");
    }
    // Nor is the first line.
    let (_folder, ledger) = ledger(1);
    let bytes = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(seqs(&ledger, 9), [0; 0]);
}

#[test]
fn a_line_longer_than_may_be_is_an_error_and_not_all_memory() {
    for (length, is_read) in [(format::MAX_LINE, true), (format::MAX_LINE + 2, false), (5 << 20, false)] {
        let (_folder, ledger) = ledger(3);
        append(&ledger, &[&vec![b'x'; length][..], b"\n"].concat());
        let mut follow = ledger.all().unwrap();
        for _ in 0..3 {
            follow.next_raw().unwrap();
        }
        assert_eq!(follow.next_raw().map(|line| line.unwrap().len()).ok(), is_read.then_some(length), "{length}");
    }
    for after in [&b"\n"[..], b"\n{}\n"] {
        let (_folder, ledger) = ledger(3);
        append(&ledger, &[&vec![b'x'; 5 << 20][..], after].concat());
        let error = ledger.last_lines(9, |_| true).unwrap_err().to_string();
        assert!(error.contains("longer than the format allows"), "{error}");
    }
}

/// What every writer does that comes after one that was cut off.
#[test]
fn a_torn_tail_that_is_cut_off_under_a_follower_is_not_read_on() {
    let (_folder, ledger) = ledger(3);
    let mut follow = ledger.all().unwrap();
    let all = |follow: &mut Follow| std::iter::from_fn(|| follow.next_line().unwrap()).map(|(seq, _)| seq).collect();
    for first in [0, 5] {
        append(&ledger, b"{\"torn\":");
        let seen: Vec<u64> = all(&mut follow);
        assert_eq!(seen, if first == 0 { vec![0, 1, 2] } else { vec![] });
        ledger.append(&[entry(first + 10)]).unwrap();
        let seen: Vec<u64> = all(&mut follow);
        assert_eq!(
            seen,
            if first == 0 { [3, 4] } else { [5, 6] },
            "what was torn is on record, and what came after it"
        );
    }
    // It is nobody's only as long as nobody ends it.
    let bytes = fs::read(ledger.file()).unwrap();
    ledger.append(&[entry(30)]).unwrap();
    let more = fs::read(ledger.file()).unwrap();
    for end in bytes.len()..more.len() {
        fs::write(ledger.file(), &more[..end]).unwrap();
        let seen: Vec<u64> = all(&mut follow);
        assert_eq!(seen, [0; 0], "{end}");
    }
    fs::write(ledger.file(), &more).unwrap();
    let seen: Vec<u64> = all(&mut follow);
    assert_eq!(seen, [7]);
}

/// What a writer does whose sync failed, and what nobody may do.
#[test]
fn a_file_that_is_replaced_is_followed_where_the_old_one_ended() {
    let (folder, ledger) = ledger(3);
    let replace = |bytes: &[u8]| {
        fs::write(folder.path().join("new"), bytes).unwrap();
        fs::rename(folder.path().join("new"), ledger.file()).unwrap();
    };
    let mut follow = ledger.all().unwrap();
    let all = |follow: &mut Follow| -> Vec<u64> {
        std::iter::from_fn(|| follow.next_line().unwrap()).map(|(seq, _)| seq).collect()
    };
    assert_eq!(all(&mut follow), [0, 1, 2]);
    let three = fs::read(ledger.file()).unwrap();
    replace(&three);
    assert_eq!(all(&mut follow), [0; 0]);
    ledger.append(&[entry(4)]).unwrap();
    assert_eq!(all(&mut follow), [3]);
    // The half of a line that was seen in the old file is nobody's.
    let four = fs::read(ledger.file()).unwrap();
    append(&ledger, b"{\"torn\":");
    let torn = fs::read(ledger.file()).unwrap();
    fs::write(ledger.file(), &four).unwrap();
    ledger.append(&[entry(5)]).unwrap();
    let five = fs::read(ledger.file()).unwrap();
    for (was, seen) in [(&four, vec![4]), (&torn, vec![4]), (&five, vec![])] {
        replace(was);
        let mut follow = ledger.all().unwrap();
        all(&mut follow);
        replace(&five);
        assert_eq!(all(&mut follow), seen);
        replace(&three);
        let error = follow.next_line().unwrap_err().to_string();
        assert!(error.contains("replaced by a shorter one"), "{error}");
    }
}
