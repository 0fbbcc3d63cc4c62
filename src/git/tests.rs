//! Real git, real files: what vnx reads of an index itself must be what git reads of it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proptest::prelude::*;

use super::index::Index;
use super::{Git, Hidden};
use crate::sys::cmd::Cmd;

struct Repo {
    _temp: tempfile::TempDir,
    git: Git,
    tree: PathBuf,
}

impl Repo {
    fn new(files: usize, format: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let git = Git::tree(tree.join(".git"), &tree);
        Git::bare_cmd().args(["init", "-q", "--object-format", format]).arg(&tree).run().unwrap();
        for n in 0..files {
            std::fs::write(tree.join(format!("f{n}")), format!("line {n:04}\n")).unwrap();
        }
        let repo = Self { _temp: temp, git, tree };
        repo.git(&["config", "user.name", "t"]);
        repo.git(&["config", "user.email", "t@vnx.invalid"]);
        repo.git(&["add", "."]);
        repo.git(&["commit", "-q", "--allow-empty", "-m", "files"]);
        repo
    }

    fn git(&self, args: &[&str]) {
        let output = self.git.cmd().args(args).run().unwrap();
        assert!(output.ok(), "git {args:?}: {}", output.complaint());
    }

    /// Writes all files anew and the index right after them: nothing is as racy as this.
    fn checkout(&self) {
        for entry in std::fs::read_dir(&self.tree).unwrap().flatten().filter(|e| e.file_name() != ".git") {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
        self.git(&["reset", "-q", "--hard", "HEAD"]);
    }

    fn index(&self) -> Option<Index> {
        Index::read(&self.tree.join(".git/index"), 20)
    }

    /// Changed and untracked paths as vnx sees them.
    fn seen(&self, hash: usize) -> (Vec<String>, Vec<String>) {
        let status = self.git.status(&self.git.staged(hash).unwrap()).unwrap();
        let name = |path: PathBuf| path.to_str().unwrap().to_owned();
        let changed = status.changed.into_iter().map(|c| name(c.path)).collect();
        (changed, status.untracked.into_iter().map(name).collect())
    }
}

/// Changes that keep the size and as much of the timestamps as a program can keep.
fn change(tree: &Path, how: usize, n: usize) {
    let path = tree.join(format!("f{n}"));
    let text = format!("LINE {n:04}\n");
    let times = std::fs::metadata(&path).unwrap();
    match how {
        0 => std::fs::write(&path, &text).unwrap(),
        1 => {
            std::fs::write(&path, &text).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(times.modified().unwrap()).unwrap();
        }
        2 => {
            let other = tree.join("other");
            std::fs::write(&other, &text).unwrap();
            std::fs::File::options().write(true).open(&other).unwrap().set_modified(times.modified().unwrap()).unwrap();
            std::fs::rename(&other, &path).unwrap();
        }
        3 => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap(),
        4 => std::fs::remove_file(&path).unwrap(),
        5 => {
            std::fs::remove_file(&path).unwrap();
            symlink(text.trim_end(), &path).unwrap();
        }
        _ => {
            let far = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(how as u64 % 2 * 4_000_000_000);
            std::fs::write(&path, &text).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(far).unwrap();
        }
    }
}

#[test]
fn a_change_right_after_the_checkout_is_never_overlooked() {
    let repo = Repo::new(60, "sha1");
    for round in 0..40 {
        repo.checkout();
        let expected: Vec<usize> = (0..60).filter(|n| (n * 7 + round) % 5 == 0).collect();
        for n in &expected {
            change(&repo.tree, (n + round) % 8, *n);
        }
        let mut expected: Vec<String> = expected.iter().map(|n| format!("f{n}")).collect();
        let (mut seen, untracked) = repo.seen(20);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected, "round {round}");
        assert!(untracked.is_empty(), "{untracked:?}");
    }
}

#[test]
fn a_fresh_checkout_is_proven_clean_without_reading_its_files() {
    let repo = Repo::new(500, "sha1");
    repo.checkout();
    let index = repo.index().unwrap();
    let settled = index.settled(&repo.tree).expect("a checkout leaves doubts");
    let path = repo.tree.join(".git/settled");
    std::fs::write(&path, &settled).unwrap();
    let cleared = Index::read(&path, 20).unwrap().without_stat();
    assert!(cleared < 500, "only the files of the last clock tick are read again: {cleared}");
    // Where the index is not younger than a file, nothing is proven.
    let oldest =
        (0..500).map(|n| std::fs::metadata(repo.tree.join(format!("f{n}"))).unwrap().modified().unwrap()).min();
    let file = std::fs::File::options().write(true).open(repo.tree.join(".git/index")).unwrap();
    file.set_modified(oldest.unwrap()).unwrap();
    std::fs::write(&path, repo.index().unwrap().settled(&repo.tree).unwrap()).unwrap();
    assert_eq!(Index::read(&path, 20).unwrap().without_stat(), 500);
    assert_eq!(repo.seen(20), (Vec::new(), Vec::new()));
    assert!(std::fs::read_dir(repo.tree.join(".git")).unwrap().flatten().all(|e| {
        let name = e.file_name();
        !name.to_string_lossy().starts_with(".tmp")
    }));
}

#[test]
fn flags_conflicts_and_odd_names_read_as_git_reads_them() {
    let repo = Repo::new(6, "sha1");
    for name in ["with blank", "new\nline", "tab\t", "ünï"] {
        std::fs::write(repo.tree.join(name), "x").unwrap();
    }
    std::fs::write(repo.tree.join("a".repeat(200)), "").unwrap();
    std::fs::write(repo.tree.join("empty"), "").unwrap();
    repo.git(&["add", "."]);
    repo.git(&["update-index", "--assume-unchanged", "f1"]);
    repo.git(&["update-index", "--skip-worktree", "f2"]);
    std::fs::write(repo.tree.join("later"), "x").unwrap();
    repo.git(&["add", "--intent-to-add", "later"]);
    let commit = repo.git.resolve("HEAD").unwrap().unwrap();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},nested")]);
    let side = |n| format!("100644 {commit} {n}\tf3\n");
    let conflict = format!("0 {} 0\tf3\n{}{}{}", "0".repeat(40), side(1), side(2), side(3));
    assert!(repo.git.cmd().args(["update-index", "--index-info"]).stdin(conflict).run().unwrap().ok());
    let ours = repo.git.staged(20).unwrap();
    assert!(repo.index().is_some(), "version 3 is read");
    assert_eq!(ours.hidden, repo.git.hidden().unwrap());
    assert_eq!(ours.hidden, Hidden { flagged: vec!["f1".into(), "f2".into()], gitlinks: vec!["nested".into()] });
    std::fs::write(repo.tree.join("empty"), "full").unwrap();
    let (changed, _) = repo.seen(20);
    for name in ["empty", "later", "f3"] {
        assert!(changed.contains(&name.to_owned()), "{name} of {changed:?}");
    }
}

#[test]
fn other_forms_of_the_index_are_left_to_git() {
    for (setup, plain) in [
        (["update-index", "--index-version", "4"].as_slice(), false),
        (&["update-index", "--split-index"], false),
        (&["update-index", "--untracked-cache"], true),
        (&["-c", "index.skipHash=true", "update-index", "--force-write-index"], true),
    ] {
        let repo = Repo::new(8, "sha1");
        if !repo.git.cmd().args(setup).run().unwrap().ok() {
            continue; // This git does not know the option yet, so it cannot write the form either.
        }
        assert_eq!(repo.index().is_some(), plain, "{setup:?}");
        std::fs::write(repo.tree.join("f3"), "LINE 0003\n").unwrap();
        std::fs::write(repo.tree.join("new"), "").unwrap();
        assert_eq!(repo.seen(20), (vec!["f3".into()], vec!["new".into()]), "{setup:?}");
    }
    let repo = Repo::new(8, "sha256");
    assert!(repo.index().is_none(), "twenty bytes do not fit");
    assert!(Index::read(&repo.tree.join(".git/index"), 32).is_some());
    std::fs::write(repo.tree.join("f3"), "LINE 0003\n").unwrap();
    assert_eq!(repo.seen(32), (vec!["f3".into()], Vec::new()));
}

#[test]
fn an_index_that_is_missing_or_empty_is_no_error() {
    let repo = Repo::new(0, "sha1");
    assert_eq!(repo.seen(20), (Vec::new(), Vec::new()));
    let repo = Repo::new(2, "sha1");
    std::fs::remove_file(repo.tree.join(".git/index")).unwrap();
    let (changed, _) = repo.seen(20);
    assert_eq!(changed.len(), 2, "both count as deleted from the index: {changed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_bytes_make_the_reader_stumble(at in 0usize..600, value: u8, cut in 0usize..600) {
        thread_local! {
            static SOUND: Vec<u8> = {
                let repo = Repo::new(5, "sha1");
                std::fs::read(repo.tree.join(".git/index")).unwrap()
            };
        }
        let mut bytes = SOUND.with(Clone::clone);
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len - cut % len);
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("index"), &bytes).unwrap();
        if let Some(index) = Index::read(&temp.path().join("index"), 20) {
            let _ = (index.hidden(), index.settled(temp.path()));
        }
    }
}

/// A second worktree of the repository, registered without files, and what git says of it.
fn linked(repo: &Repo, name: &str) -> Git {
    let path = repo.tree.with_file_name(name);
    repo.git(&["worktree", "add", "-q", "--no-checkout", "--detach", path.to_str().unwrap()]);
    Git::tree(repo.tree.join(".git/worktrees").join(name), path)
}

fn said(git: &Git, args: &[&str]) -> String {
    let output = git.cmd().args(args).run().unwrap();
    assert!(output.ok(), "git {args:?}: {}", output.complaint());
    output.text()
}

fn commit_of_everything(format: &str) -> Repo {
    let repo = Repo::new(30, format);
    for folder in ["a/b/c", "a.b", "a-b", "z/y"] {
        std::fs::create_dir_all(repo.tree.join(folder)).unwrap();
        for name in ["plain", "run.sh", "new\nline", "ünï", "empty"] {
            std::fs::write(repo.tree.join(folder).join(name), if name == "empty" { "" } else { name }).unwrap();
        }
        std::fs::set_permissions(repo.tree.join(folder).join("run.sh"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        symlink("../nowhere", repo.tree.join(folder).join("link")).unwrap();
    }
    std::fs::write(repo.tree.join("long-".to_owned() + &"x".repeat(240)), vec![b'x'; 300_000]).unwrap();
    std::fs::write(repo.tree.join(".gitattributes"), "* text=auto eol=lf\n*.png binary\n").unwrap();
    std::fs::write(repo.tree.join("crlf"), "a\nb\n").unwrap();
    repo.git(&["add", "."]);
    let commit = repo.git.resolve("HEAD").unwrap().unwrap();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub/module")]);
    repo.git(&["commit", "-q", "-m", "everything"]);
    repo
}

#[test]
fn our_own_checkout_is_what_gits_would_be() {
    for format in ["sha1", "sha256"] {
        let repo = commit_of_everything(format);
        let commit = repo.git.resolve("HEAD").unwrap().unwrap();
        let (ours, gits) = (linked(&repo, "ours"), linked(&repo, "gits"));
        assert!(ours.write_plain(&repo.tree.join(".git"), &commit).unwrap());
        gits.checkout_files(1, crate::domain::setup::Lfs::Git, None).unwrap();
        // Before git writes an index of its own there.
        let hash = commit.len() / 2;
        let staged = ours.staged(hash).unwrap();
        assert!(Index::read(&ours.git_dir().join("index"), hash).is_some(), "it can be read");
        assert_eq!(ours.status(&staged).unwrap().changed, Vec::new());
        // Who trusts the cached tree and who looks through the index say the same.
        assert_eq!(said(&ours, &["write-tree"]), said(&repo.git, &["rev-parse", "HEAD^{tree}"]));
        said(&ours, &["fsck", "--cache", "--no-dangling"]);
        assert_eq!(said(&ours, &["ls-files", "-v", "--stage"]), said(&gits, &["ls-files", "-v", "--stage"]));
        // Every entry is of the file that is there: a refresh finds nothing to do.
        let entries = |git: &Git| said(git, &["ls-files", "--debug"]);
        let before = entries(&ours);
        said(&ours, &["update-index", "--really-refresh"]);
        let stat = |text: &str| {
            let line = |l: &&str| ["ctime", "mtime", "size", "dev"].iter().any(|w| l.trim_start().starts_with(w));
            text.lines().filter(line).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(stat(&before), stat(&entries(&ours)));
        let trees = ["ours", "gits"].map(|name| repo.tree.with_file_name(name));
        let diff = Cmd::new("diff").args(["-r", "--no-dereference", "--exclude=.git"]).args(&trees).run().unwrap();
        assert!(diff.ok(), "{}", diff.text());
        for tree in trees {
            let mode = std::fs::metadata(tree.join("a/b/c/run.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111 & !umask(&tree));
        }
    }
}

/// What new files here lose of their mode.
fn umask(folder: &Path) -> u32 {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join("umask");
    std::fs::OpenOptions::new().create_new(true).write(true).mode(0o777).open(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    std::fs::remove_file(path).unwrap();
    0o777 & !mode
}

#[test]
fn what_git_would_write_in_another_form_is_left_to_git() {
    for (attributes, setting) in [
        ("*.txt filter=lfs diff=lfs\n", None),
        ("*.txt eol=crlf\n", None),
        ("*.txt ident\n", None),
        ("*.txt working-tree-encoding=UTF-16\n", None),
        ("", Some(["core.autocrlf", "true"])),
        ("* text\n", Some(["core.eol", "crlf"])),
        ("", Some(["core.symlinks", "false"])),
    ] {
        let repo = Repo::new(3, "sha1");
        std::fs::create_dir(repo.tree.join("deep")).unwrap();
        std::fs::write(repo.tree.join("deep/.gitattributes"), attributes).unwrap();
        repo.git(&["add", "."]);
        repo.git(&["commit", "-q", "-m", "attributes"]);
        let commit = repo.git.resolve("HEAD").unwrap().unwrap();
        let tree = linked(&repo, "linked");
        let common = repo.tree.join(".git");
        if let Some([key, value]) = setting {
            repo.git(&["config", key, value]);
        } else {
            std::fs::create_dir_all(common.join("info")).unwrap();
            assert!(!tree.write_plain(&common, &commit).unwrap(), "{attributes}");
            // The same words outside of the tree.
            std::fs::write(repo.tree.join("deep/.gitattributes"), "").unwrap();
            repo.git(&["commit", "-q", "-a", "-m", "none"]);
            std::fs::write(common.join("info/attributes"), attributes).unwrap();
        }
        let commit = repo.git.resolve("HEAD").unwrap().unwrap();
        assert!(!tree.write_plain(&common, &commit).unwrap(), "{attributes} {setting:?}");
        assert!(!repo.tree.with_file_name("linked").join("f0").exists());
    }
}

/// Trees that nobody commits by accident: a name of git's own, and a link where a folder is.
#[test]
fn names_that_git_refuses_are_never_written() {
    let repo = Repo::new(1, "sha1");
    let blob = said(&repo.git, &["rev-parse", "HEAD:f0"]);
    let tree_of = |listing: &str| {
        let output = repo.git.cmd().args(["mktree"]).stdin(listing).run().unwrap();
        assert!(output.ok(), "{}", output.complaint());
        output.text()
    };
    let inner = tree_of(&format!("100644 blob {blob}\tconfig\n"));
    let mut wicked: Vec<String> =
        [".git", ".GIT", "git~1", ".git ", ".git.", ".."].map(|name| format!("040000 tree {inner}\t{name}\n")).into();
    wicked.push(format!("120000 blob {blob}\t.gitmodules\n"));
    for (n, listing) in wicked.iter().enumerate() {
        let tree = tree_of(&format!("{listing}100644 blob {blob}\tz\n"));
        let commit = said(&repo.git, &["commit-tree", "-m", "x", &tree]);
        let linked = linked(&repo, &format!("linked{n}"));
        assert!(!linked.write_plain(&repo.tree.join(".git"), &commit).unwrap(), "{listing}");
        assert!(!repo.tree.with_file_name(format!("linked{n}")).join("z").exists(), "{listing}");
    }
    // A link to a place outside and a folder of its name: nothing goes through it.
    let outside = repo.tree.with_file_name("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = repo.git.cmd().args(["hash-object", "-w", "--stdin"]).stdin(outside.to_str().unwrap()).run().unwrap();
    let tree = tree_of(&format!("120000 blob {}\tdoor\n040000 tree {inner}\tdoor\n", target.text()));
    let commit = said(&repo.git, &["commit-tree", "-m", "x", &tree]);
    assert!(!linked(&repo, "door").write_plain(&repo.tree.join(".git"), &commit).unwrap());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

/// What git has lost, a blob, a tree or a commit, is named with what finds out about it.
#[test]
fn what_is_lost_leads_to_fsck() {
    for lost in ["HEAD:f0", "HEAD^{tree}", "HEAD"] {
        let repo = Repo::new(1, "sha1");
        let base = said(&repo.git, &["rev-parse", "HEAD"]);
        std::fs::write(repo.tree.join("f0"), "2").unwrap();
        said(&repo.git, &["commit", "-qam", "two"]);
        let tip = said(&repo.git, &["rev-parse", "HEAD"]);
        let work = || repo.git.own_work(&base, &tip, &std::collections::BTreeSet::new());
        assert_eq!(work().unwrap().commits, [tip.as_str()]);
        let object = said(&repo.git, &["rev-parse", lost]);
        let objects = repo.tree.join(".git/objects");
        std::fs::remove_file(objects.join(&object[..2]).join(&object[2..])).unwrap();
        let fault = crate::domain::Fault::from(work().unwrap_err());
        assert!(fault.next().contains("git fsck"), "{lost}: {fault:?}");
    }
}

/// A copy has records of its original's worktrees, which are not its own to write to.
#[test]
fn a_copy_has_nothing_checked_out_in_its_originals_worktrees() {
    let repo = Repo::new(1, "sha1");
    let path = repo.tree.with_file_name("linked");
    repo.git(&["worktree", "add", "-q", "-b", "side", path.to_str().unwrap()]);
    let who = |tree: &Path| Git::repository(tree.join(".git")).who_has("refs/heads/side", tree).unwrap();
    assert_eq!(who(&repo.tree).iter().map(|place| place.path.clone()).collect::<Vec<_>>(), [path]);
    let copy = repo.tree.with_file_name("copy");
    assert!(Cmd::new("cp").arg("-a").args([&repo.tree, &copy]).run().unwrap().ok());
    assert_eq!(who(&copy), []);
}
