//! Dependencies point one way. Reads the `crate::` paths of the sources, because a rule that
//! has to be remembered is a rule that is broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rows, lowest first. A room may use the rows before its own.
const ROWS: [&[&str]; 8] = [
    &["domain"],
    &["sys"],
    &["project", "ledger", "git", "tmux"],
    &["provider", "prompt", "worktree", "worker", "anchor", "state"],
    &["gate"],
    &["dispatch"],
    &["merge"],
    &["cli"],
];

/// Within a row, by decision (ADR 0006).
const EXCEPTIONS: [(&str, &str); 1] = [("project", "ledger")];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let row = |room: &str| ROWS.iter().position(|rooms| rooms.contains(&room));
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let room =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        let own = row(&room).unwrap_or_else(|| panic!("{room} is in no row of the layering test"));
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("crate::") {
            let used: String = text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // `use crate::{a, b}` would hide rooms from this reader.
            assert!(!used.is_empty(), "{} groups rooms in one `use`", file.display());
            *uses.entry(room.clone()).or_default() += 1;
            let allowed = used == room
                || row(&used).is_some_and(|theirs| theirs < own)
                || EXCEPTIONS.contains(&(room.as_str(), used.as_str()));
            if !allowed {
                wrong.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(uses.len() >= 10, "the test reads too little: {uses:?}");
}

#[test]
fn only_sys_and_the_supervisor_start_processes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let allowed = [
        "sys/cmd.rs",
        "sys/editor.rs",
        "sys/reader.rs",
        "worker/run.rs",
        "worker/launch.rs",
        "gate/probe.rs",
        "dispatch/door.rs",
        "dispatch/guard.rs",
        "dispatch/gates/start.rs",
        "cli/demo.rs",
    ];
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("Command::new(") || allowed.contains(&relative.as_str()), "{relative} starts a process");
    }
}

/// A worker can put a pipe in the place of any file, and whoever opens it as it comes waits for ever: `sys::files` looks
/// what it is. Here are the files that a person names, that are our own alone, or the kernel's.
#[test]
fn only_sys_opens_files_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let allowed = ["cli/demo.rs", "cli/request.rs", "cli/reference.rs", "git/import.rs", "ledger/disk.rs"];
    // Modules of tests.
    let tests = ["ledger/segments.rs", "ledger/around.rs", "ledger/faults.rs", "domain/fuzz.rs", "domain/schema.rs"];
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if relative.starts_with("sys/")
            || relative.ends_with("tests.rs")
            || [&allowed[..], &tests].concat().contains(&&*relative)
        {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.contains("\"/proc/")) {
            let opens = ["fs::read(", "fs::read_to_string(", "fs::copy(", "File::open("];
            assert!(!opens.iter().any(|call| line.contains(call)), "{relative}: {line}");
        }
    }
}

/// Nothing of a size that no longer holds one idea.
#[test]
fn files_stay_readable() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}
