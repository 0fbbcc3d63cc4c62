//! Creating, reading, rescuing and removing worktrees, beside git's own commands in the same run.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a bench prints, and may stop at the first surprise"
)]

#[expect(dead_code, reason = "it serves other benches too")]
#[path = "place/line.rs"]
mod figures;
#[path = "place/mod.rs"]
mod place;

use std::time::{Duration, Instant};

use figures::line;
use place::{Place, median};
use vnx::domain::plan::TeardownPolicy;
use vnx::domain::setup::Setup;
use vnx::domain::span::Size;
use vnx::domain::tree::classify;
use vnx::domain::{Digest, DispatchId};
use vnx::git::Git;
use vnx::project::Paths;
use vnx::worktree::{self, Pool, Tree};

const ROUNDS: usize = 5;

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

struct Round<'a> {
    place: &'a Place,
    base: String,
    risk: Digest,
    policy: TeardownPolicy,
    paths: Paths,
}

impl Round<'_> {
    fn with(&self, n: usize, work: impl FnOnce(&Tree<'_>)) {
        let id = DispatchId::parse(&format!("bench-{n}")).unwrap();
        let common = self.place.repo.join(".git");
        let (path, scratch) = (self.place.root.join("trees").join(id.as_str()), self.place.root.join(format!("s{n}")));
        std::fs::create_dir_all(&scratch).unwrap();
        work(&Tree {
            id: &id,
            own_branch: None,
            common_dir: &common,
            path: &path,
            base: &self.base,
            base_name: "refs/heads/master",
            policy: &self.policy,
            git_risk: &self.risk,
            scratch: &scratch,
            paths: &self.paths,
        });
    }
}

fn at(files: usize, create_bar: &str) {
    let place = Place::new(files);
    let common = place.repo.join(".git");
    let base = Git::repository(&common).resolve("HEAD").unwrap().unwrap();
    let risk = Git::repository(&common).config().unwrap().risk();
    let policy = TeardownPolicy {
        reproducible: vec!["target".to_owned()],
        rescue_ignored_max: Size(32 << 20),
        disk_floor: Size(0),
    };
    let paths = Paths::at(place.root.join("state"));
    std::fs::create_dir_all(paths.locks()).unwrap();
    let round = Round { place: &place, base, risk, policy, paths: paths.clone() };
    let mut found: [Vec<f64>; 8] = Default::default();
    for n in 0..ROUNDS {
        let branch = format!("bare-{n}");
        let theirs = place.root.join(&branch);
        let add = ["worktree", "add", "-q", "--no-track", "-b", &branch, theirs.to_str().unwrap()];
        found[1].push(timed(|| drop(place.run("git", &add))));
        round.with(n, |tree| {
            found[0].push(timed(|| drop(worktree::create(tree, &Setup::default(), None).unwrap())));
            let status =
                ["-C", tree.path.to_str().unwrap(), "status", "--porcelain=v2", "--untracked-files=all", "--ignored"];
            found[3].push(timed(|| drop(place.run("git", &status))));
            let mut collected = None;
            found[2].push(timed(|| collected = Some(worktree::collect(tree))));
            let collected = collected.unwrap();
            let class = classify(&collected.facts);
            found[4].push(timed(|| drop(worktree::teardown(tree, class, &collected).unwrap())));
            worktree::create(tree, &Setup::default(), None).unwrap();
            for file in 0..200 {
                std::fs::write(tree.path.join(format!("src/m{:02}/f{file}.rs", file % 50)), format!("{n}")).unwrap();
            }
            let collected = worktree::collect(tree);
            let class = classify(&collected.facts);
            found[5].push(timed(|| drop(worktree::teardown(tree, class, &collected).unwrap())));
            std::fs::remove_dir_all(tree.path).unwrap();
        });
        found[6].push(timed(|| std::fs::remove_dir_all(&theirs).unwrap()));
    }
    let root = place.root.join("trees");
    let pool = Pool { common_dir: &common, root: &root, paths: &paths };
    for n in ROUNDS..2 * ROUNDS {
        pool.fill(&place.root.join("pool.lock"), &Setup::default(), &round.base, 1, || true).unwrap();
        round.with(n, |tree| {
            found[7].push(timed(|| drop(worktree::create(tree, &Setup::default(), None).unwrap())));
        });
    }
    let [create, add, facts, status, remove, rescue, delete, taken] = found.map(median);
    let of = |what: &str| format!("{what}, {files} files");
    line(&of("create"), create, "git worktree add", add, create_bar);
    line(&of("create from the pool"), taken, "git worktree add", add, "25 ms");
    line(&of("facts of a clean tree"), facts, "git status + 20 ms", status + 0.02, "1.00");
    line(&of("removal in the foreground"), remove, "rm -r", delete, "5 ms");
    line(&of("rescue of 200 changed files"), rescue, "git status", status, "300 ms");
}

fn main() {
    // So that the build before it is not measured.
    std::thread::sleep(Duration::from_millis(200));
    at(2000, "1.10");
    at(20_000, "0.70");
    if std::env::var_os("VNX_BENCH_FULL").is_some() {
        at(100_000, "0.70");
    }
}
