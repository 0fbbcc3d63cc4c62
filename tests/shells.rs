//! Life in a shell: what Tab completes, manual pages, and what a misspelt word gets.

use std::path::Path;

use crate::common::World;

/// What a shell would be offered after these words.
fn offered(world: &World, words: &[&str]) -> Vec<String> {
    let mut command = world.command(World::binary());
    command.env("VNX_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let output = command.env("_CLAP_IFS", "\n").arg("--").args(words).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_there_is_is_offered() {
    let world = World::new();
    world.config("tmux: {panes: off}\ngates: {tests: {command: 'true'}, lint: {command: 'true'}}\n");
    world.script("true").expect(4);
    let id = world.last_id();
    let offers = |words: &[&str], what: &str| {
        let all = offered(&world, words);
        assert!(all.iter().any(|word| word == what), "{words:?}: {all:?}");
    };
    offers(&["vnx", "sho"], "show");
    offers(&["vnx", "show", ""], &id);
    offers(&["vnx", "show", &id[..9]], &id);
    offers(&["vnx", "merge", "@"], "@last");
    offers(&["vnx", "worktree", "rescue", "show", ""], &id);
    offers(&["vnx", "dispatch-agent", "--agent", "hel"], "hello-world");
    offers(&["vnx", "dispatch-agent", "--provider", ""], "shell");
    offers(&["vnx", "gate", "show", &id, ""], "lint");
    // It has ended, so there is nothing to cancel; and a new id is nobody's.
    for words in [["vnx", "cancel", ""].as_slice(), &["vnx", "dispatch-agent", "--id", ""]] {
        assert!(!offered(&world, words).contains(&id), "{words:?}");
    }
    // Outside of a project, and in one that is broken, there is nothing to offer and nothing to complain of.
    let empty = World::bare("repo");
    assert!(!offered(&empty, &["vnx", "show", ""]).contains(&id));
    std::fs::write(world.repo.join(".vnx/config.yaml"), "no").unwrap();
    offered(&world, &["vnx", "show", ""]);
}

#[test]
fn tab_completes_an_id_in_a_real_shell() {
    let mut world = World::new();
    world.script("true").expect(4);
    let id = world.last_id();
    let bin = Path::new(World::binary()).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", world.env["PATH"]);
    world.set("PATH", path);
    world.tmux(&[
        "new-session",
        "-d",
        "-s",
        "shell",
        "-x",
        "150",
        "-y",
        "20",
        "PS1='ready ' bash --norc --noprofile -i",
    ]);
    let sees = |what: &str| world.until(what, || world.tmux(&["capture-pane", "-p", "-t", "=shell:"]).contains(what));
    let types = |keys: &str| world.tmux(&["send-keys", "-t", "=shell:", "-l", keys]);
    sees("ready");
    types("source <(vnx completions bash); echo so\"urced\"\r");
    sees("sourced");
    types("vnx show 20\t");
    sees(&format!("vnx show {id}"));
    world.tmux(&["kill-session", "-t", "=shell"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let world = World::bare("repo");
    let folder = world.root.join("man");
    world.vnx(&["man", "--dir", folder.to_str().unwrap()]).expect(0);
    let pages = crate::common::names(&folder);
    for page in ["vnx.1", "vnx-dispatch-agent.1", "vnx-gate-run.1", "vnx-worktree-rescue-list.1"] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    assert!(pages.iter().all(|name| !name.contains("supervise") && !name.contains("runner")), "{pages:?}");
    let page = world.vnx(&["man", "gate", "run"]).expect(0).out;
    assert_eq!(page, std::fs::read_to_string(folder.join("vnx-gate-run.1")).unwrap());
    assert!(page.contains(".SH NAME") && page.contains("\\-\\-jobs"), "{page}");
    assert!(world.vnx(&["man", "gate", "rn"]).expect(2).err.contains("there is no command"));
    for shell in ["bash", "zsh", "fish", "elvish"] {
        assert!(world.vnx(&["completions", shell]).expect(0).out.contains("VNX_COMPLETE"), "{shell}");
    }
}

#[test]
fn a_misspelt_word_gets_the_right_one() {
    let world = World::bare("repo");
    for (words, right) in [
        (["shwo"].as_slice(), "show"),
        (&["gate", "sttus"], "status"),
        (&["ps", "--jsno"], "--json"),
        (&["worktree", "lst"], "list"),
    ] {
        let said = world.vnx(words).expect(2).err;
        assert!(said.contains(right) && said.contains("similar"), "{words:?}: {said}");
    }
}

/// A reader that has seen enough is no error.
#[test]
fn a_closed_pipe_is_quiet() {
    let world = World::new();
    for n in 0..3 {
        world.script(&format!("echo {n}")).expect(4);
    }
    for command in ["receipts list", "worktree list", "--help", "receipts tail -n 100", "show", "man", "provider list"]
    {
        let line = format!("{} {command} | head -n 1; echo ${{PIPESTATUS[0]}}", World::binary());
        let output = world.command("bash").args(["-c", &line]).output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(said.trim_end().ends_with(['0', '4']) && !errors.contains("roken"), "{command}: {said} {errors}");
    }
}
