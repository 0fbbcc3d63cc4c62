//! Corners that nobody had looked into: each was wrong as it stands here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::common::World;
use crate::gates::{commit, done, project};
use crate::merges::main;

const SHELL: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];

/// Runs a script in the repository.
#[track_caller]
fn sh(world: &World, script: &str) {
    let output = world.command("sh").current_dir(&world.repo).args(["-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A worker that waits for a file beside the repository.
fn waiting(world: &World) -> String {
    let script = format!("echo begun; while [ ! -e {}/go ]; do sleep 0.02; done", world.root.display());
    world.vnx(&[&SHELL[..], &["--detach", "-i", &script]].concat()).expect(0).out.trim().to_owned()
}

fn let_go(world: &World) {
    std::fs::write(world.root.join("go"), "").unwrap();
}

#[test]
fn a_state_folder_has_one_place() {
    let mut world = World::new();
    world.set("VNX_STATE_DIR", "state");
    for args in [&["init"][..], &["status"], &[&SHELL[..], &["-i", "true"]].concat()] {
        let said = world.vnx(args).expect(2).err;
        assert!(said.contains("VNX_STATE_DIR state is not an absolute path") && said.contains("fix:"), "{said}");
    }
    assert!(!world.repo.join("state").exists());
    // Through a link it is the same place.
    let link = world.root.join("link");
    std::os::unix::fs::symlink(world.repo.join(".git"), &link).unwrap();
    world.set("VNX_STATE_DIR", link.join("vnx").to_str().unwrap());
    world.script("true").expect(4);
    world.vnx(&["rebuild"]).expect(0);
    world.unset("VNX_STATE_DIR");
    assert_eq!(world.count("dispatch.closed"), 1);
}

/// A provider that tells what Codex tells, with an answer to whoever reviews: the figures are its whole thread's.
fn counting(world: &World) {
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let script = world.root.join("counts.sh");
    let text = r#"#!/bin/sh
[ "$1" = --version ] && { echo 1.0.0; exit; }
cat > asked.tmp; nonce=$(sed -n 's/^----- begin //p' asked.tmp); rm asked.tmp
echo $(($(cat ROOT/turns 2>/dev/null || echo 0) + 1)) > ROOT/turns; n=$(cat ROOT/turns)
[ -n "$nonce" ] || { echo $n > f; git add f; git commit -qm $n; }
echo '{"type":"thread.started","thread_id":"t1"}'
printf '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"{\\"schema\\":\\"vnx.review/1\\",\\"nonce\\":\\"%s\\",\\"verdict\\":\\"pass\\",\\"summary\\":\\"s\\",\\"findings\\":[]}"}}\n' "$nonce"
echo '{"type":"turn.completed","usage":{"input_tokens":'$((n * 1000))',"cached_input_tokens":0,"output_tokens":'$((n * 10))'}}'
"#;
    std::fs::write(&script, text.replace("ROOT", world.root.to_str().unwrap())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let manifest = format!(
        "version: 1\nname: counts\ntitle: counts\nbinaries: [{}]\nversion_probe: {{args: [--version], min: \"0.0.0\"}}\n\
         lanes:\n  headless: {{args: [], resume_args: [\"{{session}}\"], prompt_by: stdin, parser: codex-json}}\n\
         permissions: {{read: [], work: []}}\n",
        script.display()
    );
    std::fs::write(world.repo.join(".vnx/providers/counts.yaml"), manifest).unwrap();
}

/// What a reviewer used is counted once, and what it decided is a gate's matter.
#[test]
fn a_review_is_counted_once() {
    let world = World::new();
    counting(&world);
    commit(&world, "gates:\n  review: {review: {providers: [counts]}}\n");
    let id = done(&world, "echo 1 > f");
    world.vnx(&["gate", "run", &id]).expect(0);
    let today = world.vnx(&["status", "--json"]).expect(0).json()["today"].clone();
    let figures = ["accepted", "unproven", "rejected", "input_tokens", "output_tokens"].map(|key| today[key].as_u64());
    assert_eq!(figures, [Some(1), Some(0), Some(0), Some(1000), Some(10)], "{today:#}");
}

/// A session that goes on tells its total again: only what is new is the dispatch's own.
#[test]
fn a_dispatch_that_goes_on_does_not_pay_twice() {
    let world = World::new();
    counting(&world);
    world.agent("worker", "permissions: work");
    let args = ["dispatch-agent", "--provider", "counts", "--agent", "worker", "--no-pane", "-i", "x"];
    world.vnx(&args).expect(0);
    let first = world.last_id();
    // On from the last one, and then from the first one again: it is the same session.
    for turn in 0..4 {
        let from = if turn == 3 { &first } else { "@last" };
        if turn > 0 {
            world.vnx(&["resume", from, "--no-pane"]).expect(0);
        }
        let usage = world.last("dispatch.closed")["usage"].clone();
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&1000.into(), &10.into()), "{turn}: {usage}");
    }
}

/// It lands where the first one would have, with what that one did, and its gates look at all of it once. What goes on from
/// what has landed begins at the target as it is now.
#[test]
fn a_dispatch_that_goes_on_lands_on_the_target() {
    let world = World::new();
    counting(&world);
    world.agent("worker", "permissions: work");
    commit(&world, "gates:\n  ok: {command: 'true'}\nmerge: {strategy: rebase}\n");
    let dispatch = |args: &[&str]| {
        world.vnx(&[args, &["--no-pane"]].concat()).expect(0);
        world.last_id()
    };
    let first = dispatch(&["dispatch-agent", "--provider", "counts", "--agent", "worker", "-i", "x", "--path", "f"]);
    let second = dispatch(&["resume", &first]);
    assert!(world.vnx(&["show", &second]).expect(0).out.contains("from main"));
    let checked = world.vnx(&["gate-check", &second, "--json"]).expect(1).json();
    assert_eq!(checked["subject"]["target"], "refs/heads/main");
    world.vnx(&["merge", &second, "--gates"]).expect(0);
    assert_eq!(world.git(&["log", "--format=%s", "-2", "main"]), "2\n1");
    assert_eq!(world.count("gate.resulted"), 1);
    // Its commits are on the target under other names.
    let again = world.vnx(&["merge", &first, "--gates"]).expect(1);
    assert!(again.err.contains(""), "{}", again.err);
    world.git(&["commit", "-q", "--allow-empty", "-m", "meanwhile"]);
    let third = dispatch(&["resume", &second]);
    assert_eq!(world.last("dispatch.closed")["base"]["commit"].as_str().unwrap(), world.git(&["rev-parse", "main"]));
    world.vnx(&["merge", &third, "--gates"]).expect(0);
    assert_eq!(world.git(&["show", "main:f"]), "3");
}

/// The worktree of a session that goes on stands where the first one's stood, and is not the first one's.
#[test]
fn what_is_given_up_is_not_what_goes_on_in_its_place() {
    let world = World::new();
    counting(&world);
    world.agent("worker", "permissions: work");
    let args = ["dispatch-agent", "--provider", "counts", "--agent", "worker", "--no-pane", "-i", "x"];
    world.vnx(&args).expect(0);
    let first = world.last_id();
    let script = world.root.join("counts.sh");
    let text = std::fs::read_to_string(&script).unwrap();
    std::fs::write(&script, text.replace("git commit -qm $n", "git commit -qm $n; echo mine > left")).unwrap();
    world.vnx(&["resume", &first, "--no-pane"]).expect(4);
    let second = world.last_id();
    let left = world.worktrees().join(&first).join("left");
    assert!(left.exists(), "it stands in the place of the first one");
    world.vnx(&["drop", &first]).expect(0);
    assert!(left.exists(), "it is the second one's");
    world.vnx(&["drop", &second]).expect(0);
    assert!(!left.exists());
    world.vnx(&["undo", &second]).expect(0);
    assert_eq!(std::fs::read_to_string(left).unwrap(), "mine\n");
}

/// What the first one changed outside of its paths does not land with what goes on from it.
#[test]
fn a_dispatch_that_goes_on_answers_for_what_it_goes_on_from() {
    let world = World::new();
    counting(&world);
    world.agent("worker", "permissions: work");
    commit(&world, "gates:\n  ok: {command: 'true'}\n");
    let args = ["dispatch-agent", "--provider", "counts", "--agent", "worker", "--no-pane", "-i", "x", "--path", "g"];
    world.vnx(&args).expect(4);
    let first = world.last_id();
    let script = world.root.join("counts.sh");
    let text = std::fs::read_to_string(&script).unwrap().replace("> f; git add f", "> g; git add g");
    std::fs::write(&script, text).unwrap();
    world.vnx(&["resume", &first, "--no-pane"]).expect(0);
    let held = world.vnx(&["merge", "@last", "--gates"]).expect(1);
    let why = format!("it goes on from what {first} did, and changes \"f\" outside of the given paths");
    assert!(held.out.contains(&why), "{}{}", held.out, held.err);
}

#[test]
fn a_result_that_was_edited_is_shown_as_none() {
    let world = project("gates:\n  ok: {command: 'true'}\n  lead: {human: {}}\n");
    let id = done(&world, "echo 1 > f");
    // A person's gate is not run, and that is not passed.
    let said = world.vnx(&["gate", "run", &id, "lead"]).expect(1).err;
    assert!(said.contains(&format!("`vnx approve {id} --reason WHY`")), "{said}");
    world.vnx(&["gate", "run", &id, "ok"]).expect(0);
    world.vnx(&["gate", "show", &id, "ok"]).expect(0);
    let folder = world.state().join("dispatches").join(&id);
    sh(
        &world,
        &format!("f=$(find {} -name result.json); chmod u+w $f; sed -i 's/\"pass\"/\"PASS\"/' $f", folder.display()),
    );
    let said = world.vnx(&["-q", "gate", "show", &id, "ok"]).expect(1).out;
    assert!(said.starts_with("does not count  ok:"), "{said}");
    assert!(world.vnx(&["gate", "show", &id, "ok", "--json"]).expect(1).json()["broken"].is_string());
}

#[test]
fn a_proposal_has_no_flags_of_a_run() {
    let world = World::new();
    let stage = ["stage", "--provider", "shell", "--agent", "hello-world", "-i", "true"];
    let plan = world.vnx(&[&stage[..], &["--dry-run"]].concat()).expect(0).out;
    assert!(plan.contains("shell"), "{plan}");
    for more in [&["--detach"][..], &["--wait-slot"], &["--no-pane"], &["--retry", "2"], &["--tmux-socket", "x"]] {
        let said = world.vnx(&[&stage[..], more].concat()).expect(2).err;
        assert!(said.contains(more[0]), "{said}");
    }
    assert_eq!(world.vnx(&["promote", "--json"]).expect(0).json()["proposals"], serde_json::json!([]));
    let id = world.vnx(&stage).expect(0).out.trim().to_owned();
    let gone = world.person(&["promote", &id, "--withdraw", "--json"]).expect(0).json();
    assert_eq!((&gone["schema"], &gone["id"]), (&"vnx.withdrawn/1".into(), &id.into()));
}

/// Whoever follows ends with what is followed, and with who reads.
#[test]
fn following_ends() {
    let world = World::new();
    let id = waiting(&world);
    for args in [&["logs", "-f", &id][..], &["receipts", "tail", "-f"], &["status", "--watch"]] {
        let mut child = world.command(World::binary()).args(args).stdout(Stdio::piped()).spawn().unwrap();
        // It says something, and then its reader goes.
        let mut first = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        drop(child.stdout.take());
        let child = std::cell::RefCell::new(child);
        world.until(args[0], || child.borrow_mut().try_wait().unwrap().is_some());
    }
    let follows = [&["logs", "-f", &id][..], &["attach", &id]].map(|args| {
        let mut child = world.start(args);
        // It follows: a command that begins later finishes the dispatch itself.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    });
    world.kill_supervisor();
    for child in follows {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(5) && said.contains("the supervisor of"), "{output:?}");
    }
    // A word that is wrong in the configuration is in nobody's way.
    let config = std::fs::read_to_string(world.repo.join(".vnx/config.yaml")).unwrap();
    std::fs::write(world.repo.join(".vnx/config.yaml"), format!("{config}\nwrong: 1\n")).unwrap();
    let_go(&world);
    let shown = world.vnx(&["show", &id]).expect(0);
    assert!(
        shown.out.contains("supervisor_lost") && shown.err.contains("finished dispatch"),
        "{}{}",
        shown.out,
        shown.err
    );
}

#[test]
fn init_writes_whole_files_and_only_its_own() {
    let world = World::bare("repo");
    let victim = world.root.join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("keys"), "mine\n").unwrap();
    std::fs::create_dir_all(world.repo.join(".vnx/agents")).unwrap();
    let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, world.repo.join(at)).unwrap();
    link(&victim.join("keys"), ".vnx/agents/README.md");
    link(&victim.join("authorized"), ".vnx/allowed_signers");
    link(&victim, ".vnx/skills");
    let report = world.vnx(&["init", "--diff", "--json"]).expect(0).json();
    let written = |path: &str| {
        let items = report["items"].as_array().unwrap().iter();
        items.clone().find(|item| item["path"] == path).unwrap()["written"].clone()
    };
    assert_eq!((written(".vnx/config.yaml"), written(".vnx/allowed_signers")), ("would_create".into(), "kept".into()));
    // A file that does not fit is not there in part. (A block of this limit is 512 or 1024 bytes.)
    let vnx = World::binary();
    let output = world.command("sh").args(["-c", &format!("ulimit -f 1; trap '' XFSZ; {vnx} init")]).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(!world.repo.join(".vnx/config.yaml").exists());
    world.vnx(&["init"]).expect(0);
    world.vnx(&["init", "--force"]).expect(0);
    assert_eq!(std::fs::read_to_string(victim.join("keys")).unwrap(), "mine\n");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
    let mode = world.repo.join(".vnx/config.yaml").metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o444, 0o444, "{mode:o}");
    let other = World::bare("repo");
    std::os::unix::fs::symlink(&victim, other.repo.join(".vnx")).unwrap();
    assert!(other.vnx(&["init"]).expect(2).err.contains(".vnx is a link"));
}

/// All checkouts of a repository have one place for worktrees, also where none of them is the main one.
#[test]
fn a_repository_has_one_place_for_worktrees() {
    let world = World::new();
    sh(
        &world,
        "git add -A; git commit -qm vnx; git clone -q --bare . ../bare.git; cd ../bare.git; git worktree add -q ../a main",
    );
    sh(&world, "cd ../bare.git; git worktree add -q -b b ../b");
    let (a, b) = (world.root.join("a"), world.root.join("b"));
    world.vnx_in(&a, &["init"]).expect(0);
    let script = [&SHELL[..], &["--id", "kept1", "-i", "echo 1 > f"]].concat();
    world.vnx_in(&a, &script).expect(4);
    for place in [&a, &b] {
        let listed = world.vnx_in(place, &["worktree", "list", "--json"]).expect(0).json();
        assert_eq!(listed["worktrees"][0]["state"], "kept", "{listed:#}");
        let path = world.vnx_in(place, &["path", "worktrees"]).expect(0).out;
        assert_eq!(path.trim(), world.root.join("bare.git.worktrees").to_str().unwrap());
    }
    world.vnx_in(&b, &["worktree", "gc", "--apply", "kept1"]).expect(0);
    assert!(!world.root.join("bare.git.worktrees").exists());
    // A submodule's is not in the superproject.
    sh(
        &world,
        "cd ..; git init -q super; cd super; git -c protocol.file.allow=always submodule --quiet add ../repo sub",
    );
    let path = world.vnx_in(&world.root.join("super/sub"), &["path", "worktrees"]).expect(0).out;
    assert_eq!(path.trim(), world.root.join("super.sub.worktrees").to_str().unwrap());
}

/// What is gone is not told of as if it stood.
#[test]
fn show_tells_what_is_left() {
    let world = World::new();
    world.vnx(&[&SHELL[..], &["--id", "draft", "-i", "echo 1 > f"]].concat()).expect(4);
    world.vnx(&["worktree", "gc", "--apply", "draft"]).expect(0);
    let shown = world.vnx(&["show", "draft"]).expect(0).out;
    assert!(shown.contains("its worktree was reclaimed; `vnx undo draft` brings it back"), "{shown}");
    world.person(&["worktree", "rescue", "drop", "draft", "--yes"]).expect(0);
    let shown = world.vnx(&["show", "draft"]).expect(0).out;
    assert!(shown.contains("refs/vnx/rescue/draft (dropped since)") && !shown.contains("git show"), "{shown}");
    world.vnx(&[&SHELL[..], &["--id", "three", "-i", "echo 1 > f; git add f; git commit -qm f"]].concat()).expect(0);
    world.git(&["branch", "-D", "vnx/three"]);
    let shown = world.vnx(&["show", "three"]).expect(0).out;
    assert!(shown.contains("the branch vnx/three is gone since"), "{shown}");
}

/// What a worker committed elsewhere is named, so that it can be looked at.
#[test]
fn commits_elsewhere_are_named() {
    let world = World::new();
    let commit = "echo $VNX_DISPATCH_ID > f; git add f; git commit -qm f";
    for (script, place) in [
        (format!("git checkout -q -b feature; {commit}"), "on the dispatch branch: on feature, at HEAD"),
        (format!("git checkout -q --detach; {commit}; git checkout -q -"), "branch: HEAD, which is on no branch"),
        ("git checkout -q --detach; git branch -qD vnx/$VNX_DISPATCH_ID".to_owned(), "the dispatch branch is gone"),
    ] {
        world.script(&format!("{script}; git rev-parse HEAD@{{1}} HEAD > {}/heads", world.root.display())).expect(4);
        let heads = std::fs::read_to_string(world.root.join("heads")).unwrap();
        let verdict = world.last("dispatch.closed")["verdict"].clone();
        let named = heads
            .lines()
            .any(|head| verdict["reason"].as_str().unwrap().ends_with(&place.replace("HEAD", &head[..12])));
        assert!(named, "{verdict} {heads}");
    }
}

/// A collection that began before its commits and ended before its worker took an object: the worktree has the only copy.
#[test]
fn what_git_has_lost_is_not_accepted() {
    let world = World::new();
    for lost in ["HEAD:f", "HEAD^{tree}", "HEAD~:f"] {
        let objects = world.repo.join(".git/objects");
        let name = format!("o=$(git rev-parse '{lost}'); rm -f {}/${{o%${{o#??}}}}/${{o#??}}", objects.display());
        let commits = "for n in 1 2; do echo $VNX_DISPATCH_ID $n > f; git add f; git commit -qm $n; done";
        world.script(&format!("{commits}; {name}")).expect(4);
        let closed = world.last("dispatch.closed");
        assert_eq!(closed["verdict"]["reason"], "git could not be read completely", "{lost}: {closed}");
        let tree = world.worktrees().join(world.last_id());
        assert_eq!(std::fs::read_to_string(tree.join("f")).unwrap(), format!("{} 2\n", world.last_id()), "{lost}");
    }
}

/// The last one is the last that was asked for, whatever clocks and copies did.
#[test]
fn the_last_one_is_the_ledgers_to_tell() {
    let world = World::new();
    for id in ["two", "one"] {
        world.vnx(&[&SHELL[..], &["--id", id, "-i", "true"]].concat()).expect(4);
    }
    let plan = world.state().join("dispatches/one/plan.json");
    sh(&world, &format!("touch -d 2020-01-01 {}", plan.display()));
    assert!(world.vnx(&["show"]).expect(0).out.starts_with("one  hello-world on shell, "));
    // A folder of nobody is no kept worktree.
    sh(&world, "mkdir -p ../repo.worktrees/notes");
    assert_eq!(world.vnx(&["status", "--json"]).expect(0).json()["kept"], 0);
}

#[test]
fn nothing_of_a_file_is_obeyed_by_a_terminal() {
    let world = World::new();
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let manifest = "version: 1\nname: evil\ntitle: \"E\\e]0;PWNED\\aX\"\nbinaries: [no-such-program]\nversion_probe: {args: [], min: \"0.0.0\"}\n\
                    lanes:\n  headless: {args: [], prompt_by: stdin, parser: text}\npermissions: {read: []}\n";
    std::fs::write(world.repo.join(".vnx/providers/evil.yaml"), manifest).unwrap();
    std::fs::write(world.repo.join(".vnx/provider_constraints.yaml"), "# \u{1b}]0;PWNED\u{7}\u{1b}[2J\n").unwrap();
    for args in [&["provider", "check", "evil"][..], &["init", "--diff"]] {
        let run = world.vnx(args);
        let all = run.out + &run.err;
        assert!(all.contains("PWNED") && !all.contains('\u{1b}') && !all.contains('\u{7}'), "{all:?}");
    }
}

/// A report changes nothing.
#[test]
fn doctor_leaves_what_it_did_not_make() {
    let world = World::new();
    world.config("worktree: {root: ../myroot}\n");
    let root = world.root.join("myroot");
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir_all(world.repo.join(".vnx/agents/My Agent")).unwrap();
    let doctor = world.vnx(&["doctor", "--json"]).json();
    assert!(root.is_dir());
    let agents = doctor["checks"].as_array().unwrap().iter().find(|check| check["id"] == "agents").unwrap().clone();
    assert_ne!(agents["level"], "fail", "{agents}");
    world.script("true").expect(4);
}

/// A program that git's settings name is not run by what vnx asks of git after the worker.
#[test]
fn a_workers_settings_run_nothing_later() {
    let world = World::new();
    let ran = world.root.join("ran");
    sh(&world, "echo base > f; git add f; git commit -qm base");
    let script = format!(
        "printf '#!/bin/sh\\ntouch {0}\\nexit 1\\n' > ../gpg; chmod +x ../gpg; git config gpg.program \"$PWD/../gpg\"; \
         git config log.showSignature true; echo mine > f; git add f; tree=$(git write-tree); \
         c=$(printf 'tree %s\\nparent %s\\nauthor a <a> 1 +0000\\ncommitter a <a> 1 +0000\\ngpgsig -----BEGIN PGP SIGNATURE-----\\n x\\n -----END PGP SIGNATURE-----\\n\\nx\\n' \
         $tree $(git rev-parse HEAD) | git hash-object -t commit -w --stdin); git reset -q --hard $c; \
         cd {1}; echo other > f; git add f; git commit -qm other; git log --show-signature -1 $c >/dev/null 2>&1; rm {0}",
        ran.display(),
        world.repo.display()
    );
    world.script(&script);
    assert!(!ran.exists(), "it was run");
    assert_eq!(world.count("dispatch.closed"), 1);
    sh(&world, "git config --unset gpg.program; git config --unset log.showSignature");
}

#[test]
fn a_workers_git_does_no_housekeeping() {
    let world = World::new();
    world.script("[ \"$(git config maintenance.auto)\" = false ]; echo 1 > f; git add f; git commit -qm f").expect(0);
    assert_eq!(world.git(&["config", "--get", "--default", "none", "--local", "maintenance.auto"]), "none");
    // It is no secret.
    world.script("echo maintenance.auto; echo 2 > f; git add f; git commit -qm f").expect(0);
    let report = world.state().join("dispatches").join(world.last_id()).join("report.md");
    assert_eq!(std::fs::read_to_string(report).unwrap().trim(), "maintenance.auto");
}

/// An upgrade while something runs.
#[test]
fn a_binary_that_is_replaced_goes_on() {
    let world = World::new();
    let vnx = world.root.join("bin/vnx");
    std::fs::create_dir(world.root.join("bin")).unwrap();
    // Not by ourselves: a test beside this one could be starting a process that has our file open for writing.
    assert!(world.command("cp").arg(World::binary()).arg(&vnx).status().unwrap().success());
    let hook = format!("cp {0} {0}.new && mv {0}.new {0}", vnx.display());
    world.config(&format!("worktree: {{hooks: {{post_create: [{{run: \"{hook}\"}}]}}}}\n"));
    let args = [&SHELL[..], &["-i", "echo 1 > f; git add f; git commit -qm f"]].concat();
    let output = world.command(&vnx).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    world.until("its supervisor to end", || world.processes().is_empty());
}

/// Of a partial clone, what a checkout needs is fetched.
#[test]
fn a_partial_clone_is_completed_for_a_worktree() {
    let world = World::new();
    sh(&world, "echo old > f; git add .; git commit -qm old; echo new > f; git commit -qam new");
    sh(&world, "git config uploadpack.allowFilter true; git clone -q --filter=blob:none file://$PWD ../part");
    let part = world.root.join("part");
    world.vnx_in(&part, &["init"]).expect(0);
    let args = [&SHELL[..], &["--base", "HEAD~1", "-i", "cat f > g; git add g; git commit -qm g"]].concat();
    world.vnx_in(&part, &args).expect(0);
    let id = world.vnx_in(&part, &["show", "--json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.git_in(&part, &["show", &format!("vnx/{id}:g")]), "old");
    // What came from where the clone can fetch again is whole.
    sh(&world, "git checkout -qb more; echo more > more; git add more; git commit -qm more; git checkout -q main");
    let fetched = "git fetch -q origin; git merge -q --ff-only origin/more; echo h > h; git add h; git commit -qm h";
    world.vnx_in(&part, &[&SHELL[..], &["--id", "forward", "-i", fetched]].concat()).expect(0);
    let closed = world.vnx_in(&part, &["show", "forward", "--json"]).expect(0).json();
    assert_eq!(closed["closed"]["commits"], 1, "{closed:#}");
}

/// Reproducible builds date their commits at the beginning of time.
#[test]
fn a_commit_of_1970_lands() {
    let world = project("merge: {ungated: [hello-world]}\n");
    world.script("echo 1 > f; git add f; GIT_AUTHOR_DATE='@0 +0000' git commit -qm f").expect(0);
    world.vnx(&["merge", "--strategy", "squash"]).expect(0);
    assert_eq!(world.git(&["log", "-1", "--format=%at", &main(&world)]), "0");
}

/// Where references are kept in tables, HEAD is no file, and what reflogs name is not known.
#[test]
fn a_repository_with_reference_tables_merges() {
    let world = World::new();
    let made = world.command("git").args(["init", "-q", "--ref-format=reftable", "../tables"]).output().unwrap();
    if !made.status.success() {
        // An older git knows no tables, and makes none.
        assert!(String::from_utf8_lossy(&made.stderr).contains("ref-format"), "{made:?}");
        return;
    }
    let tables = world.root.join("tables");
    sh(&world, "cd ../tables; echo 1 > a; git add a; git commit -qm a");
    world.vnx_in(&tables, &["init"]).expect(0);
    sh(
        &world,
        "cd ../tables; echo 'merge: {ungated: [hello-world]}' >> .vnx/config.yaml; git add .vnx; git commit -qm vnx",
    );
    world
        .vnx_in(&tables, &[&SHELL[..], &["--id", "t1", "-i", "echo 1 > f; git add f; git commit -qm f"]].concat())
        .expect(0);
    let show = world.vnx_in(&tables, &["show", "t1"]).expect(0);
    assert!(show.out.contains("references are kept in tables"), "{}", show.out);
    assert!(world.vnx_in(&tables, &["doctor"]).expect(0).out.contains("every worktree is kept"));
    world.vnx_in(&tables, &["merge", "t1"]).expect(0);
    assert!(tables.join("f").exists(), "the checkout that has the target is brought along");
}

/// Whose key is missing would get another vendor's login.
#[test]
fn a_key_that_is_missing_is_refused() {
    let mut world = World::new();
    let bin = world.root.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let claude = bin.join("claude");
    std::fs::write(&claude, "#!/bin/sh\necho 2.1.329\n").unwrap();
    std::fs::set_permissions(&claude, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.set("PATH", format!("{}:{}", bin.display(), world.env["PATH"]));
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let manifest = "version: 1\nname: mygateway\ntitle: mine\nextends: claude\nenv:\n  set: {ANTHROPIC_BASE_URL: \"https://gateway.invalid\"}\n  from: {ANTHROPIC_AUTH_TOKEN: MY_KEY}\n";
    std::fs::write(world.repo.join(".vnx/providers/mygateway.yaml"), manifest).unwrap();
    world.set("ANTHROPIC_AUTH_TOKEN", "of-another-vendor");
    let plan = [
        "dispatch-agent",
        "--agent",
        "backend-developer",
        "-i",
        "x",
        "--lane",
        "interactive",
        "--dry-run",
        "--provider",
    ];
    let said = world.vnx(&[&plan[..], &["mygateway"]].concat()).expect(5).err;
    assert!(said.contains("ANTHROPIC_AUTH_TOKEN from MY_KEY, which is not set"), "{said}");
    world.vnx(&[&plan[..], &["glm"]].concat()).expect(3);
    world.set("MY_KEY", "sk-test");
    world.vnx(&[&plan[..], &["mygateway"]].concat()).expect(0);
}

#[test]
fn one_whose_plan_cannot_be_read_is_seen_while_it_runs() {
    let world = World::new();
    let id = waiting(&world);
    world.until("it works", || world.vnx(&["ps"]).out.contains("working"));
    let plan = world.repo.join(".git/vnx/dispatches").join(&id).join("plan.json");
    let of_another_vnx = std::fs::read_to_string(&plan).unwrap().replacen('{', "{\"tomorrow\":1,", 1);
    std::fs::write(&plan, of_another_vnx).unwrap();
    let seen = world.vnx(&["ps", "--json"]).expect(0).json();
    let seen = &seen["dispatches"][0];
    assert_eq!((seen["id"].as_str(), seen["agent"].as_str()), (Some(id.as_str()), Some("hello-world")), "{seen}");
    assert_eq!((seen["provider"].as_str(), seen["state"].as_str()), (Some("shell"), Some("working")), "{seen}");
    world.vnx(&["ps", "--repane"]).expect(0);
    assert_eq!(world.vnx(&["ps", "--json"]).expect(0).json()["dispatches"][0]["pane"], serde_json::json!(null));
    for command in ["show", "attach"] {
        let err = world.vnx(&[command, &id]).expect(74).err;
        assert!(err.contains("unknown field `tomorrow`") && err.contains(&format!("--dispatch {id}")), "{err}");
    }
    let_go(&world);
    world.until("its end", || !world.vnx(&["ps"]).out.contains(&id));
}

#[test]
fn whoever_follows_does_not_wake_itself() {
    let world = World::new();
    let id = waiting(&world);
    world.until("it works", || world.vnx(&["ps"]).out.contains("working"));
    let mut followers: Vec<_> = [&["logs", "-f", &id][..], &["attach", &id], &["receipts", "tail", "-f"]]
        .map(|args| world.command(World::binary()).current_dir(&world.repo).args(args).stdout(Stdio::piped()).spawn())
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let reads = |pid: u32| -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
    };
    // Each reads a few files when something changes, and once in a second; one that wakes itself reads 100,000 times in one.
    for _ in 0..20 {
        world.vnx(&["ps"]).expect(0);
    }
    for follower in &mut followers {
        assert!(follower.try_wait().unwrap().is_none(), "{follower:?} is over");
        assert!(reads(follower.id()) < 5_000, "{follower:?} read {} times", reads(follower.id()));
    }
    let_go(&world);
    world.until("its end", || world.processes().len() <= followers.len());
    for follower in &mut followers {
        let _ = follower.kill();
        follower.wait().unwrap();
    }
}
