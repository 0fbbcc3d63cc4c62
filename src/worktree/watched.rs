//! Reading a worktree within a bound, whatever a worker has left in it.
//!
//! The reading is done on a thread of its own; whoever waits for it reads nothing of the tree and cannot be made to
//! hang. Where it takes long, what git may be waiting for is looked for, and after [`READ_WITHIN`] it is given up. What
//! was not read is unknown, and unknown keeps a tree.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Collected, Tree, facts};
use crate::domain::plan::TeardownPolicy;
use crate::domain::{Digest, DispatchId};
use crate::git::Git;
use crate::project::Paths;
use crate::sys::process;

/// How long the facts of a worktree may take to be read.
pub const READ_WITHIN: Duration = Duration::from_mins(1);
/// How long that is nothing to wonder about.
const QUICK: Duration = Duration::from_secs(2);
/// How long git may take to die.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Reads everything about a worktree whose processes are gone.
pub fn collect(tree: &Tree<'_>) -> Collected {
    // By its name: what says whose it is may be what git would wait for.
    let git_dir = tree.path.file_name().map(|name| tree.common_dir.join("worktrees").join(name));
    let git_dir = git_dir.filter(|folder| folder.is_dir());
    let repository = Git::repository(tree.common_dir);
    match git_dir.as_deref().map_or(Ok(Vec::new()), Git::set_aside) {
        Ok(odd) if odd.is_empty() => {}
        Ok(odd) => {
            let odd = odd[0].display();
            return Collected::unknown(vec![format!("{odd} was not the file that git expects; it is {odd}.vnx-aside")]);
        }
        Err(e) => return Collected::out_of_reach(format!("git's folder of it cannot be looked through: {e}")),
    }
    if let Some(odd) = repository.odd_shared() {
        return Collected::out_of_reach(format!("git would wait for {}, which is no file", odd.display()));
    }
    let (send, receive) = channel();
    let owned = Owned::of(tree);
    let thread = crate::sys::thread(move || {
        // Nobody listens any more where it took too long.
        let _ = send.send(facts::collect(&owned.tree()));
    });
    if let Err(fault) = thread {
        return Collected::out_of_reach(fault.what);
    }
    if let Ok(collected) = receive.recv_timeout(QUICK) {
        return collected;
    }
    let odd = git_dir.as_ref().and_then(|git_dir| Git::tree(git_dir, tree.path).odd_anywhere());
    let odd = odd.or_else(|| repository.odd_anywhere());
    let why = match odd {
        Some(odd) => format!("git waits for {}, which is no file", odd.display()),
        None => match receive.recv_timeout(READ_WITHIN.saturating_sub(QUICK)) {
            Ok(collected) => return collected,
            Err(_) => format!("it could not be read within {} seconds", READ_WITHIN.as_secs()),
        },
    };
    let folders = git_dir.iter().map(PathBuf::as_path).chain([tree.common_dir]);
    end_gits(&folders.map(|folder| format!("GIT_DIR={}", folder.display())).collect::<Vec<_>>(), &receive);
    Collected::out_of_reach(why)
}

/// Kills what our own calls of git wait for, until the thread that makes them is done.
fn end_gits(theirs: &[String], receive: &Receiver<Collected>) {
    let until = Instant::now() + END_WITHIN;
    while Instant::now() < until {
        process::kill_children_with(theirs);
        if receive.recv_timeout(Duration::from_millis(20)).is_ok() {
            return;
        }
    }
}

/// A [`Tree`] that outlives who made it.
struct Owned {
    id: DispatchId,
    own_branch: Option<String>,
    common_dir: PathBuf,
    path: PathBuf,
    base: String,
    base_name: String,
    policy: TeardownPolicy,
    git_risk: Digest,
    scratch: PathBuf,
    paths: Paths,
}

impl Owned {
    fn of(tree: &Tree<'_>) -> Self {
        Self {
            id: tree.id.clone(),
            own_branch: tree.own_branch.map(str::to_owned),
            common_dir: tree.common_dir.to_owned(),
            path: tree.path.to_owned(),
            base: tree.base.to_owned(),
            base_name: tree.base_name.to_owned(),
            policy: tree.policy.clone(),
            git_risk: *tree.git_risk,
            scratch: tree.scratch.to_owned(),
            paths: tree.paths.clone(),
        }
    }

    fn tree(&self) -> Tree<'_> {
        Tree {
            id: &self.id,
            own_branch: self.own_branch.as_deref(),
            common_dir: &self.common_dir,
            path: &self.path,
            base: &self.base,
            base_name: &self.base_name,
            policy: &self.policy,
            git_risk: &self.git_risk,
            scratch: &self.scratch,
            paths: &self.paths,
        }
    }
}
