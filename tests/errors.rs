//! What people read when something is wrong: what, where and the next step. `tests/errors.txt` is what they see.
//!
//! `VNX_BLESS=1 cargo test --test stories errors` writes it anew; read what has changed.

use std::fmt::Write;
use std::path::Path;

use crate::common::{Run, World, names, script};

/// What differs from run to run has a word in its place.
fn steady(world: &World, text: &str) -> String {
    let mut text = text.replace(&world.root.display().to_string(), "ROOT");
    for (pattern, word) in [
        (r"\b20\d{6}-\d{6}-[a-z0-9-]+", "ID"),
        (r"\b[0-9a-f]{12,64}\b", "HASH"),
        (r"\b\d\d:\d\d:\d\d\b", "TIME"),
        (r"in process \d+", "in process PID"),
        (r"\(byte \d+\)|\blast \d+ bytes", "(SOMEWHERE)"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    text
}

struct Page<'a> {
    text: String,
    world: &'a World,
    /// Which of them lack a next step.
    bare: Vec<String>,
}

impl<'a> Page<'a> {
    fn of(world: &'a World, title: &str) -> Self {
        Self { text: format!("## {title}\n"), world, bare: Vec::new() }
    }

    fn says(&mut self, shown: &str, run: &Run) {
        if run.code == 0 {
            self.bare.push(format!("{shown} is no error"));
        }
        assert!(!run.err.contains("panicked") && run.code != 70, "{shown}: {}", run.err);
        let said = steady(self.world, &format!("{}{}", run.out, run.err));
        let next = ["fix: ", "Usage: ", "--help", "`vnx ", "\n    ", "tip: "].iter().any(|word| said.contains(word));
        if !next {
            self.bare.push(shown.to_owned());
        }
        let _ = writeln!(self.text, "\n$ {}\nexit {}\n{}", steady(self.world, shown), run.code, said.trim_end());
    }

    /// Runs it as it stands; words are divided by blanks, and `~` stands for one.
    fn run(&mut self, line: &str) {
        let args: Vec<String> = line.split(' ').map(|word| word.replace('~', " ")).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = self.world.vnx(&args);
        self.says(&format!("vnx {}", line.replace('~', " ")), &run);
    }

    fn all(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.run(line);
        }
    }
}

const WORDS: &str = "
    shwo
    show nobody
    show --nonsense
    dispatch-agent
    dispatch-agent --agent nobody
    dispatch-agent --agent ../x
    dispatch-agent --agent hello-world --provider nothing
    dispatch-agent --agent hello-world --lane acp
    dispatch-agent --agent hello-world --lane sideways
    dispatch-agent --agent hello-world --model x
    dispatch-agent --agent hello-world --base nowhere
    dispatch-agent --agent hello-world --deadline 10
    dispatch-agent --agent hello-world --deadline 0s
    dispatch-agent --agent hello-world --path ../outside
    dispatch-agent --agent hello-world --override x
    dispatch-agent --agent hello-world --override x=because
    dispatch-agent --agent hello-world --env-file missing.env
    dispatch-agent --agent hello-world --env-file bad.env
    dispatch-agent --agent hello-world --env-file latin.txt
    dispatch-agent --agent hello-world --id ../x
    dispatch-agent --agent hello-world -i ~
    dispatch-agent --agent hello-world -f missing.md
    dispatch-agent --agent hello-world -f src
    dispatch-agent --agent hello-world -f latin.txt
    stage --agent nobody -i x
    promote nobody --reason x
    logs nobody
    attach nobody
    send nobody hi
    permit nobody allow
    permit nobody perhaps
    resume nobody
    wait nobody
    cancel nobody
    undo nobody
    gate list extra
    gate run nobody
    gate run @last tests
    gate show nobody tests
    gate-check nobody
    gate-check --commit nowhere
    approve nobody --reason x
    merge nobody
    revert nobody --reason x
    items add nobody x
    items close i-404 --reason x
    provider show nothing
    provider check nothing
    receipts show 99999
    receipts query --kind sideways
    receipts query --outcome sideways
    receipts query --since yesterday
    receipts export --redact [
    receipts export --redact (
    audit-chain verify --file missing.ndjson
    audit-chain verify --require-anchor
    audit-chain verify --anchor-ref ..
    audit-chain prove 99999
    audit-chain import missing.ndjson
    worktree new hello --base nowhere
    worktree gc --older-than 10
    worktree gc --apply nothing
    worktree rescue show nobody
    worktree rescue drop nobody
    path nothing
    path dispatch nobody
    man nothing
    completions tcsh
    attach @last --detach-key q
";

fn good() -> World {
    let world = World::new();
    world.config("tmux: {panes: off}\n");
    std::fs::write(world.repo.join("bad.env"), "A=1\nnot a line\n").unwrap();
    std::fs::write(world.repo.join("latin.txt"), b"caf\xe9").unwrap();
    world
}

/// Configurations with a mistake each.
const CONFIGS: &[&str] = &[
    "no",
    "version: 2\nproject_id: repo\n",
    "version: 1\n",
    "version: 1\nproject_id: Repo\n",
    "version: 1\nproject_id: repo\nworktre: {}\n",
    "version: 1\nproject_id: repo\nversion: 1\n",
    "version: 1\nproject_id: repo\nlimits: {parallel: 0}\n",
    "version: 1\nproject_id: repo\nlimits: {parallel: many}\n",
    "version: 1\nproject_id: repo\ndefaults: {deadline: 10}\n",
    "version: 1\nproject_id: repo\nworktree: {pool: 1000}\n",
    "version: 1\nproject_id: repo\nworktree: {copy: [/etc]}\n",
    "version: 1\nproject_id: repo\nworktree: {caches: {PATH: bin}}\n",
    "version: 1\nproject_id: repo\nmerge: {strategy: revert}\n",
    "version: 1\nproject_id: repo\nmerge: {target: 'a..b'}\n",
    "version: 1\nproject_id: repo\ngates: {t: {}}\n",
    "version: 1\nproject_id: repo\ngates: {t: {command: 'true', human: {}}}\n",
    "version: 1\nproject_id: repo\ngates: {t: {command: 'true', after: [u]}}\n",
    "version: 1\nproject_id: repo\ngates: {t: {command: 'true', when: {paths: ['/abs']}}}\n",
    "version: 1\nproject_id: repo\npresence: maybe\n",
    "version: 1\nproject_id: repo\npresence: {trust: none}\n",
    "version: 1\nproject_id: repo\nagents: {approve: true}\n",
    "version: 1\nproject_id: repo\nkey: [1\n",
];

/// Files that people edit, each with a mistake.
fn configurations(world: &World) -> Page<'_> {
    let mut page = Page::of(world, "A configuration with a mistake");
    for config in CONFIGS {
        std::fs::write(world.repo.join(".vnx/config.yaml"), config).unwrap();
        let run = world.vnx(&["dispatch-agent", "--agent", "hello-world"]);
        page.says(
            &format!("{}\n$ vnx dispatch-agent --agent hello-world", config.trim_end().replace('\n', "\n$ ")),
            &run,
        );
    }
    world.config("");
    world.agent("broken", "permissions: everything");
    world.agent("skilled", "skills: [nothing]");
    std::fs::write(world.repo.join(".vnx/provider_constraints.yaml"), "version: 1\nconstraints: nothing\n").unwrap();
    page.all(
        "
        dispatch-agent --agent broken
        dispatch-agent --agent hello-world
    ",
    );
    std::fs::remove_file(world.repo.join(".vnx/provider_constraints.yaml")).unwrap();
    page.all(
        "
        dispatch-agent --agent skilled
    ",
    );
    page
}

/// A ledger that was edited, cut, emptied, taken away.
fn ledgers(world: &World) -> Page<'_> {
    let mut page = Page::of(world, "A ledger that is not what it was");
    world.vnx(&["dispatch-agent", "--agent", "hello-world"]).expect(0);
    let sound = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), sound.replacen("hello-world", "other-world", 1)).unwrap();
    page.all("audit-chain verify\naudit-chain seal\nstatus\nreceipts show 1");
    std::fs::write(world.ledger(), &sound[..sound.len() - 10]).unwrap();
    page.all("audit-chain verify");
    std::fs::write(world.ledger(), "").unwrap();
    page.all("audit-chain verify\ndispatch-agent --agent hello-world");
    std::fs::remove_file(world.ledger()).unwrap();
    page.all("audit-chain verify\ndispatch-agent --agent hello-world\nreceipts list");
    page
}

fn prepare_decisions(world: &World) {
    world.config("gates:\n  lead: {human: {}}\npresence: {override: key}\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "-qm", "vnx"]);
    let script = "echo 1 > f; git add f; git commit -qm f";
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--id", "work", "-i", script];
    world.vnx(&args).expect(0);
}

/// Decisions of nobody who is there.
fn decisions(world: &World) -> Page<'_> {
    let mut page = Page::of(world, "What only a person decides");
    page.all(
        "
        approve work --reason x
        approve work --reason x --sign
        gate override work lead --reason x
    ",
    );
    let run = world.person_typing(&["approve", "work", "--reason", "x"], |_| "nothing".to_owned());
    page.says("vnx approve work --reason x   # another code", &run);
    page
}

/// What an agent may not.
fn of_an_agent(world: &World) -> Page<'_> {
    let mut page = Page::of(world, "What is no agent's");
    page.all("approve work --reason x\nmerge work");
    page
}

fn pages() -> (String, Vec<String>) {
    let (mut text, mut bare) = (String::new(), Vec::new());
    let mut add = |page: Page<'_>| {
        text += &page.text;
        text += "\n";
        bare.extend(page.bare);
    };
    let world = good();
    let mut page = Page::of(&world, "What does not exist, or cannot be meant");
    page.all(WORDS);
    add(page);

    let mut page = Page::of(&world, "What is over, or not so far");
    world.vnx(&["dispatch-agent", "--agent", "hello-world", "--id", "done"]).expect(0);
    let args = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--id", "left", "-i"];
    world.vnx(&[&args[..], &["echo 1 > left"]].concat()).expect(4);
    page.all(
        "
        dispatch-agent --agent hello-world --id done
        send done hi
        permit done allow
        cancel done
        resume done -i more
        undo left
        merge done
        gate-check left
        gate run done tests
        approve left --reason x
        gate override left verdict --reason x
        revert done --reason x
        pr done
        worktree rescue show done
        attach done --detach-key ctrl-m
    ",
    );
    add(page);

    add(configurations(&world));
    let world = good();
    add(ledgers(&world));
    let mut world = good();
    prepare_decisions(&world);
    add(decisions(&world));
    world.set("CLAUDECODE", "1");
    add(of_an_agent(&world));

    let world = World::bare("repo");
    let mut page = Page::of(&world, "A place where it cannot work");
    page.all("dispatch-agent --agent hello-world\nps\nstatus\nreceipts list\n--project src/nothing ps");
    let empty = world.root.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let run = world.vnx_in(&empty, &["init"]);
    page.says("vnx init   # no repository", &run);
    world.git_in(&empty, &["init", "-q"]);
    world.vnx_in(&empty, &["init"]).expect(0);
    let run = world.vnx_in(&empty, &["dispatch-agent", "--agent", "hello-world"]);
    page.says("vnx dispatch-agent --agent hello-world   # no commit", &run);
    add(page);

    let mut world = good();
    world.config("gates: {tests: {command: make test}}\n");
    std::fs::remove_file(world.state().join("trust.json")).unwrap();
    let mut page = Page::of(&world, "A repository that somebody else made");
    page.all("trust\ndispatch-agent --agent hello-world\nworktree new mine");
    add(page);
    world.config("");
    std::fs::set_permissions(world.state(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    world.set("OLLAMA_HOST", "http://evil.example\\@127.0.0.1/");
    let mut page = Page::of(&world, "A state that others can write, and an endpoint that is not private");
    page.all("dispatch-agent --agent hello-world");
    std::fs::set_permissions(world.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    page.run("dispatch-agent --agent backend-developer --provider ollama --model m -i x --dry-run");
    add(page);

    let mut world = good();
    let programs = world.root.join("programs");
    std::fs::create_dir(&programs).unwrap();
    world.set("PATH", &programs);
    let mut page = Page::of(&world, "A machine that lacks something");
    page.all("dispatch-agent --agent hello-world");
    add(page);
    script(&programs.join("git"), "echo git version 2.20.1");
    let mut page = Page::of(&world, "A git that is too old");
    page.all("dispatch-agent --agent hello-world");
    add(page);
    (text.trim_end().to_owned() + "\n", bare)
}

#[test]
fn every_error_says_what_where_and_what_next() {
    let (text, bare) = pages();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors.txt");
    if std::env::var_os("VNX_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let first = written.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(written == text, "tests/errors.txt has another text, first: {first:?}; VNX_BLESS=1 writes it");
    assert_eq!(bare, Vec::<String>::new(), "without a next step");
}

/// Whoever refuses what somebody asked for says in the same breath what to do.
#[test]
fn a_refusal_has_its_next_step_beside_it() {
    fn below(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for name in names(folder) {
            let path = folder.join(name);
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut without = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for word in ["Fault::input(", "Fault::refused("] {
            for (at, _) in text.match_indices(word) {
                let mut depth = 1;
                let after = text[at + word.len()..].char_indices().find(|(_, c)| {
                    depth += i32::from("([{".contains(*c)) - i32::from(")]}".contains(*c));
                    depth == 0
                });
                let rest = after.map_or("", |(end, _)| &text[at + word.len() + end + 1..]);
                if !rest.trim_start_matches([')', ' ', '\n']).starts_with(".fix(") {
                    without.push(format!("{}:{}", path.display(), text[..at].lines().count()));
                }
            }
        }
    }
    assert!(without.is_empty(), "{without:#?}");
}
