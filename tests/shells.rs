//! Life in a shell: what Tab completes, manual pages, and what a misspelt word gets.

use std::path::Path;

use crate::common::{World, script};

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

/// A shell in a terminal of its own: how it is started, and what it is told before Tab knows of vnx.
fn tab_completes_an_id(shell: &str, told: &str) {
    let mut world = World::new();
    // No pane: a server whose last one closes goes, and takes a session with it that comes at that moment.
    world.config("tmux: {panes: off}\n");
    world.script("true").expect(4);
    let id = world.last_id();
    let bin = Path::new(World::binary()).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", world.env["PATH"]);
    world.set("PATH", path);
    world.tmux(&["new-session", "-d", "-s", "shell", "-x", "150", "-y", "20", shell]);
    let screen = || world.tmux(&["capture-pane", "-p", "-t", "=shell:"]);
    let sees = |what: &str| {
        let begun = std::time::Instant::now();
        while !screen().contains(what) {
            let waits = begun.elapsed() < std::time::Duration::from_secs(30);
            assert!(waits, "no {what:?} in {shell}: {:?}, {:?}", screen(), world.processes());
            std::thread::yield_now();
        }
    };
    let types = |keys: &str| world.tmux(&["send-keys", "-t", "=shell:", "-l", keys]);
    sees("ready");
    types(&format!("{told}; echo so\"urced\"\r"));
    sees("sourced");
    types("vnx show 20\t");
    sees(&format!("vnx show {id}"));
    world.tmux(&["kill-session", "-t", "=shell"]);
}

#[test]
fn tab_completes_an_id_in_bash() {
    tab_completes_an_id("PS1='ready ' bash --norc --noprofile -i", "source <(vnx completions bash)");
}

#[test]
fn tab_completes_an_id_in_zsh() {
    let told = "autoload -Uz compinit; compinit -u -D; source <(vnx completions zsh)";
    tab_completes_an_id("PS1='ready ' zsh -f -i", told);
}

#[test]
fn tab_completes_an_id_in_fish() {
    let shell = "fish --no-config -C 'function fish_prompt; echo -n \"ready \"; end'";
    tab_completes_an_id(shell, "vnx completions fish | source");
}

/// What a command writes to a terminal of this kind (script(1) makes one).
fn written_to(world: &World, term: &str, command: &str) -> String {
    let mut script = world.command("script");
    script.env("TERM", term).args(["-qec", &format!("{} {command}", World::binary()), "/dev/null"]);
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

#[test]
fn a_terminal_that_knows_nothing_is_told_nothing_but_text() {
    let mut world = World::new();
    world.script("printf '\\033[31mred\\033[0m\\n10%%\\r20%%\\n'; echo x > f").expect(4);
    let commands =
        ["status", "ps", "show", "show -v", "logs", "receipts list", "worktree list", "worktree gc", "doctor"];
    for command in commands {
        let plain = written_to(&world, "dumb", command);
        assert!(!plain.contains('\x1b') && plain.lines().count() > 0, "{command}: {plain:?}");
    }
    assert!(written_to(&world, "xterm-256color", "show").contains('\x1b'), "colour is for those that have it");
    // What the worker coloured and drew over comes as it was to be read.
    assert_eq!(written_to(&world, "dumb", "logs"), "red\r\n20%\r\n");
    world.set("NO_COLOR", "1");
    assert!(!written_to(&world, "xterm-256color", "show").contains('\x1b'));
}

#[test]
fn what_is_longer_than_the_terminal_is_shown_by_a_pager() {
    let mut world = World::new();
    world.script("seq 1 100 > f; git add f; git commit -qm f; echo said").expect(0);
    let id = world.last_id();
    let pager = world.root.join("pager");
    script(&pager, "echo \"paged $1\"; sed 's/.*/P:&/'");
    world.set("PAGER", format!("{} -x", pager.display()));
    let in_rows = |world: &World, command: &str| {
        let line = format!("stty rows 24 cols 80; exec {} {command}", World::binary());
        let mut script = world.command("script");
        let output = script.args(["-qec", &line, "/dev/null"]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, diff) = in_rows(&world, "show --diff");
    assert!(code == Some(0) && diff.starts_with("paged -x\r\n"), "{diff}");
    assert!(diff.contains("P:\x1b[32m+100\x1b[0m\r"), "{diff}");
    let (_, report) = in_rows(&world, "show --report");
    assert_eq!(report, "said\r\n", "it fits");
    // What is judged hides nothing: neither behind a return of the carriage nor behind a sequence.
    world.script("printf 'evil()\\r+fine\\n\\033[8mhidden\\033[0m\\nsame\\r\\n' > f; git add f; git commit -qm f; printf 'no\\ryes\\n'").expect(0);
    world.set("PAGER", "cat");
    for (command, seen) in [
        ("show --diff", ["evil()\u{fffd}", "[8mhidden"]),
        ("show --report", ["no", "yes"]),
        ("logs --raw", ["no", "yes"]),
    ] {
        let (_, text) = in_rows(&world, command);
        assert!(seen.iter().all(|what| text.contains(what)) && !text.contains("\x1b[8m"), "{command}: {text:?}");
    }
    assert!(in_rows(&world, "show --diff").1.contains("+same\u{fffd}"), "a line's end is a change too");
    // Neither into a pipe, nor where somebody wants none, nor where there is none.
    assert!(!world.vnx(&["show", &id, "--diff"]).expect(0).out.contains("P:"));
    for none in ["cat", "", "/nowhere/less"] {
        world.env.insert("PAGER".to_owned(), none.to_owned());
        let (_, text) = in_rows(&world, &format!("show {id} --diff"));
        assert!(text.contains("\x1b[32m+100") && !text.contains("P:"), "{none}: {text}");
    }
}

/// As when a connection breaks: the terminal goes, and whoever waited in it; the dispatch does not.
#[test]
fn a_terminal_that_goes_away_takes_no_dispatch_with_it() {
    let world = World::new();
    let (begun, go) = (world.root.join("begun"), world.root.join("go"));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.01; done; echo 1 > f; git add f; git commit -qm f",
        begun.display(),
        go.display()
    );
    std::fs::write(world.root.join("assignment"), script).unwrap();
    let said = world.root.join("said");
    let command = format!(
        "{} dispatch-agent --provider shell --agent hello-world -f {} 2> {}",
        World::binary(),
        world.root.join("assignment").display(),
        said.display()
    );
    // A tmux server may end while it begins, and says so.
    let open = ["new-session", "-d", "-s", "connection", &command];
    world.until("a terminal", || world.command("tmux").args(open).output().unwrap().status.success());
    let began = std::panic::catch_unwind(|| crate::common::until("the worker to begin", || begun.exists()));
    assert!(began.is_ok(), "{:?}\n{}", std::fs::read_to_string(&said), world.tmux(&["list-panes", "-a"]));
    world.tmux(&["kill-session", "-t", "=connection"]);
    // Not the tmux server, whose command line holds the same words.
    let waits =
        |(_, command): &(i32, String)| command.starts_with(World::binary()) && command.contains(" dispatch-agent ");
    world.until("whoever waited to go", || !world.processes().iter().any(waits));
    std::fs::write(go, "").unwrap();
    let id = world.vnx(&["wait", "@last"]).expect(0);
    assert!(id.out.contains("accept"), "{}", id.out);
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
    // A distribution may have a word of its own in man's place.
    let programs = world.root.join("programs");
    std::fs::create_dir(&programs).unwrap();
    script(&programs.join("man"), "echo 'This system has no manual pages.'");
    let mut world = world;
    world.set("PATH", format!("{}:{}", programs.display(), world.env["PATH"]));
    let help = written_to(&world, "xterm", "man gate run");
    assert!(help.contains("--jobs") && !help.contains("no manual pages"), "{help}");
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
