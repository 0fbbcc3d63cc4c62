//! A worker that can only answer. The program is `tests/programs/ollama`, which does what ollama's
//! documentation says of it; that the real one does so too is not shown here.

use std::path::PathBuf;

use crate::common::{Run, World};

const MODEL: &str = "qwen3:8b";

/// A world with ollama in PATH and one model.
fn world() -> World {
    let mut world = World::new();
    let programs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    world.set("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
    std::fs::create_dir(world.root.join("home/.ollama")).unwrap();
    server(&world, "models", MODEL);
    world
}

fn server(world: &World, name: &str, content: &str) {
    std::fs::write(world.root.join("home/.ollama").join(name), content).unwrap();
}

fn ask(world: &World, agent: &str, more: &[&str]) -> Run {
    let args = ["dispatch-agent", "--agent", agent, "--provider", "ollama", "--model", MODEL, "--no-pane"];
    let more: &[&str] = if more.is_empty() { &["-i", "# Make one two.\n\nIn src/lib.rs."] } else { more };
    world.vnx(&[&args[..], more].concat())
}

/// A dispatch of a developer whose model gives this answer.
fn answered(world: &World, answer: &str) -> Run {
    server(world, "answer", answer);
    ask(world, "backend-developer", &[])
}

fn reason(world: &World) -> String {
    world.last("dispatch.closed")["verdict"]["reason"].as_str().unwrap().to_owned()
}

/// Nothing was committed, nothing is left half done, and the story says why.
#[track_caller]
fn assert_refused(world: &World, answer: &str, why: &str) {
    let run = answered(world, answer).expect(4);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "contract_missing", "{}", run.err);
    assert!(reason(world).contains(why), "{} instead of {why}", reason(world));
    assert_eq!(world.last("dispatch.closed")["commits"], 0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["class"], "clean");
    world.assert_nothing_left();
}

/// What the branch of the last dispatch changes: `git show` in short.
#[track_caller]
fn changed(world: &World) -> String {
    let branch = format!("vnx/{}", world.last_id());
    world.git(&["show", "--format=", "--summary", "--numstat", "-M", &branch])
}

fn fence(diff: &str) -> String {
    format!("I made it.\n\n```diff\n{diff}```\n")
}

const ONE_TO_TWO: &str =
    "--- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1,3 +1,3 @@\n pub fn one() -> u8 {\n-    1\n+    2\n }\n";

#[test]
fn a_reviewers_answer_is_its_report_and_a_diff_in_it_is_only_talk() {
    let world = world();
    server(&world, "answer", &format!("# Review\n\nOne thing.\n\n```diff\n{ONE_TO_TWO}```"));
    let run = ask(&world, "code-reviewer", &[]).expect(0);
    assert!(run.out.contains("the tree untouched"), "{}", run.out);
    let shown = world.vnx(&["show", "@last", "--report"]);
    assert!(shown.out.contains("One thing.") && !shown.out.contains("Thinking"), "{}{}", shown.out, shown.err);
    let closed = world.last("dispatch.closed");
    assert_eq!(closed["usage"], serde_json::json!({}), "unknown is not zero");
    assert_eq!((&closed["model"], &closed["provider"]), (&MODEL.into(), &"ollama".into()));
    world.assert_nothing_left();
}

#[test]
fn a_developers_diff_is_committed_and_accepted() {
    let world = world();
    let run = answered(&world, &fence(ONE_TO_TWO)).expect(0);
    assert_eq!(run.out, "accept  done: 1 commit on the dispatch branch\n");
    let id = world.last_id();
    let commit = world.git(&["log", "-1", "--format=%an <%ae>, %cn%n%B", &format!("vnx/{id}")]);
    let who = "Test <test@vnx.invalid>, Test\n";
    let by = "Written by ollama (qwen3:8b) as backend-developer; vnx applied the diff in its answer.";
    assert_eq!(commit, format!("{who}Make one two.\n\n{by}\n\nVnx-Dispatch: {id}"));
    assert_eq!(world.git(&["show", &format!("vnx/{id}:src/lib.rs")]), "pub fn one() -> u8 {\n    2\n}");
    assert_eq!(world.last("dispatch.closed")["diff"]["paths"], serde_json::json!(["src/lib.rs"]));
    let evidence = world.last("dispatch.judged")["verdict"]["evidence"].to_string();
    assert!(evidence.contains(&format!("is commit {}", world.git(&["rev-parse", &format!("vnx/{id}")]))), "{evidence}");
    let prompt = std::fs::read_to_string(world.root.join("home/.ollama/prompt")).unwrap();
    assert!(prompt.contains("one unified diff") && !prompt.contains("Commit your work"), "{prompt}");
    let report = std::fs::read_to_string(world.state().join("dispatches").join(&id).join("report.md")).unwrap();
    assert!(report.starts_with("I made it."), "the answer stays the report: {report}");
    world.assert_nothing_left();
    world.assert_verified();
    // Without an identity it is the worker's usual one.
    std::fs::write(world.root.join("home/.gitconfig"), "").unwrap();
    answered(&world, &fence(ONE_TO_TWO)).expect(0);
    let author = world.git(&["log", "-1", "--format=%an %ae", &format!("vnx/{}", world.last_id())]);
    assert_eq!(author, "vnx worker worker@vnx.invalid");
}

#[test]
fn a_diff_is_applied_whole_or_not_at_all() {
    let world = world();
    let wrong = ONE_TO_TWO.replace("    1", "    7");
    assert_refused(&world, &fence(&wrong), "patch failed: src/lib.rs:1");
    let readme = "--- a/README.md\n+++ b/README.md\n@@ -1 +1,2 @@\n # A project\n+More.\n";
    assert_refused(&world, &format!("{}{}", fence(readme), fence(&wrong)), "patch failed: src/lib.rs:1");
    assert_refused(&world, &fence(&readme.replace("README.md", "no.md")), "no.md");
    assert_refused(&world, &format!("```diff\n{readme}"), "ends within a diff block");
    let big = format!("{}\n{}", "many words ".repeat(60_000), fence(readme));
    assert_refused(&world, &big, "longer than what is kept");
    let secret = readme.replace("More.", "AKIAABCDEFGHIJKLMNOP");
    assert_refused(&world, &fence(&secret), "looks like a secret");
    // The same two, both good, in two blocks and as bare text.
    answered(&world, &format!("{}{}", fence(readme), fence(ONE_TO_TWO))).expect(0);
    assert_eq!(changed(&world), "1\t0\tREADME.md\n1\t1\tsrc/lib.rs");
    answered(&world, &format!("Here:\n\n{readme}{ONE_TO_TWO}\nThat is all.")).expect(0);
    assert_eq!(changed(&world), "1\t0\tREADME.md\n1\t1\tsrc/lib.rs");
    // A model that cannot count.
    answered(&world, &fence(&ONE_TO_TWO.replace("-1,3 +1,3", "-1,9 +1,12"))).expect(0);
    assert_eq!(changed(&world), "1\t1\tsrc/lib.rs");
}

/// Nothing but what lies below the top of the tree, and nothing of git's own.
#[test]
fn a_diff_cannot_leave_the_tree() {
    let world = world();
    let outside = world.root.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, world.repo.join("link")).unwrap();
    world.git(&["add", "link"]);
    world.git(&["commit", "--quiet", "-m", "a link"]);
    let new = |path: &str| fence(&format!("--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n"));
    assert_refused(&world, &new("b/../escape"), "../escape");
    assert_refused(&world, &new("b/src/../../escape"), "src/../../escape");
    assert_refused(&world, &new("/var/escape"), "do not begin with a/ and b/");
    assert_refused(&world, &new("b//etc/escape"), "/etc/escape");
    assert_refused(&world, &new("b/.git/config"), ".git/config");
    assert_refused(&world, &new("b/.git/hooks/pre-commit"), ".git/hooks/pre-commit");
    assert_refused(&world, &new("b/link/escape"), "link/escape");
    let through = "diff --git a/out b/out\nnew file mode 120000\n--- /dev/null\n+++ b/out\n@@ -0,0 +1 @@\n+../outside\n\\ No newline at end of file\n";
    let both = format!(
        "{through}diff --git a/out/x b/out/x\nnew file mode 100644\n--- /dev/null\n+++ b/out/x\n@@ -0,0 +1 @@\n+x\n"
    );
    assert_refused(&world, &fence(&both), "out/x");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!world.root.join("escape").exists() && !world.worktrees().join("escape").exists());
    // Policy files are files: a commit that changes them is seen before it is merged, as every agent's is.
    answered(&world, &new("b/.vnx/agents/x/AGENT.md")).expect(0);
    assert!(changed(&world).contains(".vnx/agents/x/AGENT.md"));
    // And the paths of the request hold.
    server(&world, "answer", &fence(ONE_TO_TWO));
    ask(&world, "backend-developer", &["-i", "x", "--path", "docs/**"]).expect(4);
    assert!(reason(&world).contains("outside the given paths"), "{}", reason(&world));
}

#[test]
fn every_kind_of_change_but_a_binary_one() {
    let world = world();
    std::fs::write(world.repo.join("crlf.txt"), "one\r\ntwo\r\n").unwrap();
    std::fs::write(world.repo.join("open.txt"), "one\ntwo").unwrap();
    std::fs::write(world.repo.join("gone.txt"), "gone\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "-m", "more"]);
    let diff = concat!(
        "--- a/crlf.txt\n+++ b/crlf.txt\n@@ -1,2 +1,2 @@\n one\r\n-two\r\n+2\r\n",
        "--- a/open.txt\n+++ b/open.txt\n@@ -1,2 +1,2 @@\n one\n-two\n\\ No newline at end of file\n+2\n\\ No newline at end of file\n",
        "diff --git a/gone.txt b/gone.txt\ndeleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n",
        "--- /dev/null\n+++ b/docs/new file.md\n@@ -0,0 +1,2 @@\n+# New\n+\n",
        "diff --git a/README.md b/READ.md\nsimilarity index 100%\nrename from README.md\nrename to READ.md\n",
        "diff --git a/src/lib.rs b/src/lib.rs\nold mode 100644\nnew mode 100755\n",
    );
    answered(&world, &fence(diff)).expect(0);
    let seen = changed(&world);
    for line in [
        "1\t1\tcrlf.txt",
        "1\t1\topen.txt",
        "delete mode 100644 gone.txt",
        "create mode 100644 docs/new file.md",
        "rename README.md => READ.md (100%)",
        "mode change 100644 => 100755 src/lib.rs",
    ] {
        assert!(seen.contains(line), "{line} is not in\n{seen}");
    }
    let show = |path: &str| {
        world.command("git").args(["show", &format!("vnx/{}:{path}", world.last_id())]).output().unwrap().stdout
    };
    assert_eq!(show("crlf.txt"), b"one\r\n2\r\n");
    assert_eq!(show("open.txt"), b"one\n2");
    world.assert_nothing_left();
    // Wrong line ends are a wrong line.
    assert_refused(&world, &fence("--- a/crlf.txt\n+++ b/crlf.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"), "crlf.txt:1");
    let binary = "diff --git a/x b/x\nnew file mode 100644\nindex 0000000..1111111\nGIT binary patch\nliteral 1\nIcmZQzU|;|M00aO5\n\n";
    assert_refused(&world, &fence(binary), "binary");
}

#[test]
fn no_diff_is_no_change() {
    let world = world();
    answered(&world, "It is fine as it is, because of this and that.").expect(4);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "empty");
    assert!(world.last("dispatch.judged")["verdict"]["evidence"].to_string().contains("the answer holds no diff"));
    answered(&world, "").expect(4);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "empty");
    // A writer that may only read writes nothing.
    world.agent("careful", "permissions: read\ndelivers: commit");
    server(&world, "answer", &fence(ONE_TO_TWO));
    ask(&world, "careful", &["-i", "x"]).expect(4);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "empty");
    world.assert_nothing_left();
}

/// What goes wrong has its own word, and nothing is fetched meanwhile.
#[test]
fn a_failure_of_ollama_is_told_apart() {
    let mut world = world();
    server(&world, "answer", "A report.");
    let outcome = |world: &World| world.last("dispatch.closed")["verdict"]["outcome"].as_str().unwrap().to_owned();
    let other = ["-i", "x", "--model", "mistral"];
    let args = ["dispatch-agent", "--agent", "code-reviewer", "--provider", "ollama", "--no-pane"];
    world.vnx(&[&args[..], &other].concat()).expect(1);
    assert_eq!(
        (outcome(&world), reason(&world)),
        ("model_unavailable".into(), "Error: model 'mistral' not found".into())
    );
    assert_eq!(world.last("dispatch.closed")["end"]["how"], "never_started");
    assert!(!world.root.join("home/.ollama/pulled").exists(), "a model was pulled");
    let run = world.vnx(&[&args[..], &["-i", "x"]].concat()).expect(2);
    assert!(run.err.contains("ollama has no model of its own"), "{}", run.err);
    for (error, word) in [
        ("llama runner process has terminated: exit status 2", "provider_error"),
        (
            "Post \"http://127.0.0.1:11434/api/generate\": dial tcp 127.0.0.1:11434: connect: connection refused",
            "network",
        ),
        ("model requires more system memory (9 GiB) than is available (4 GiB)", "model_unavailable"),
        ("something that nobody has heard of", "cli_crash"),
    ] {
        server(&world, "error", error);
        ask(&world, "code-reviewer", &[]).expect(1);
        // The spinner stands on the same line.
        assert_eq!((outcome(&world), reason(&world)), (word.into(), format!("Error: {error}")), "{error}");
    }
    server(&world, "signed-out", "");
    ask(&world, "code-reviewer", &[]).expect(1);
    assert_eq!(outcome(&world), "not_logged_in");
    assert_eq!(world.last("dispatch.closed")["end"]["code"], 0);
    server(&world, "down", "");
    ask(&world, "code-reviewer", &[]).expect(1);
    assert_eq!(outcome(&world), "network");
    assert!(reason(&world).contains("could not connect to ollama server"), "{}", reason(&world));
    world.set("OLLAMA_HOST", "models.example.org:11434");
    let run = ask(&world, "code-reviewer", &[]).expect(3);
    assert!(run.err.contains("constraint ollama-private:"), "{}", run.err);
    world.set("OLLAMA_HOST", "10.1.2.3:11434");
    ask(&world, "code-reviewer", &[]).expect(1);
    assert_eq!(outcome(&world), "network");
    world.assert_nothing_left();
    world.assert_verified();
}

#[test]
fn half_a_megabyte_is_asked_and_a_provider_can_be_looked_at() {
    let world = world();
    server(&world, "answer", "I have read it.");
    let text = "All work and no play.\n".repeat(500_000 / 22);
    std::fs::write(world.root.join("long"), &text).unwrap();
    ask(&world, "code-reviewer", &["-f", world.root.join("long").to_str().unwrap()]).expect(0);
    let prompt = std::fs::read_to_string(world.root.join("home/.ollama/prompt")).unwrap();
    assert!(prompt.contains(text.trim_end()), "{} bytes arrived", prompt.len());
    let list = world.vnx(&["provider", "list", "--json"]).expect(0).json();
    let row = list["providers"].as_array().unwrap().iter().find(|p| p["name"] == "ollama").unwrap().clone();
    assert_eq!((&row["verified_with"], &row["needs_model"]), (&serde_json::Value::Null, &true.into()));
    let show = world.vnx(&["provider", "show", "ollama"]).expect(0).out;
    assert!(show.contains("has to be named") && show.contains("the diff in it the change"), "{show}");
    let check = world.vnx(&["provider", "check", "ollama"]).expect(0);
    assert!(check.out.contains("PASS") && check.out.contains("never tried"), "{}", check.out);
    assert!(check.out.contains("0.12.3 at ") && check.out.contains("its server answers"), "{}", check.out);
    world.vnx(&["provider", "check", "ollama", "--live"]).expect(2);
    server(&world, "answer", "OK");
    let live = world.vnx(&["provider", "check", "ollama", "--live", "--model", MODEL]).expect(0);
    assert!(live.out.contains("accept"), "{}", live.out);
    server(&world, "down", "");
    let check = world.vnx(&["provider", "check", "ollama"]).expect(0);
    assert!(check.out.contains("WARN") && check.out.contains("could not connect"), "{}", check.out);
}
