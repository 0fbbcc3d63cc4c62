//! What is written is true: the tables of README and `--help` are the code's.

use crate::common::World;

#[test]
fn readme_and_help_show_the_same_exit_codes() {
    let world = World::bare("repo");
    let help = world.vnx(&["--help"]).expect(0).out;
    let readme = include_str!("../README.md");
    let table: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Exit codes"))
        .skip(1)
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(table.len(), 11, "{help}");
    for line in table {
        let (code, meaning) = line.split_once(' ').unwrap();
        assert!(readme.contains(&format!("| {code} | {} |", meaning.trim())), "README lacks: {line}");
    }
}

/// A command that lacks its subcommand is told so, and not what vnx as a whole can do.
#[test]
fn a_missing_subcommand_shows_those_of_its_command() {
    let world = World::new();
    for args in [&["gate"][..], &["gate", "-q"], &["audit-chain", "-v"]] {
        let said = world.vnx(args).expect(2).err;
        assert!(said.contains(&format!("vnx {}", args[0])) && !said.contains("dispatch-agent"), "{args:?}: {said}");
    }
    for args in [&[][..], &["-q"], &["--project", "."]] {
        let said = world.vnx(args).expect(2).err;
        assert!(said.contains("dispatch-agent") && !said.contains("__probe"), "{args:?}: {said}");
    }
}

#[test]
fn every_command_has_help_and_every_name_in_the_readme_exists() {
    let world = World::bare("repo");
    let help = world.vnx(&["--help"]).expect(0).out;
    for command in [
        "init",
        "doctor",
        "agent",
        "dispatch-agent",
        "status",
        "ps",
        "show",
        "logs",
        "attach",
        "send",
        "provider",
        "resume",
        "permit",
        "wait",
        "cancel",
        "receipts",
        "gate",
        "gate-check",
        "approve",
        "merge",
        "revert",
        "stage",
        "promote",
        "pr",
        "items",
        "audit-chain",
        "rebuild",
        "worktree",
        "path",
        "demo",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("  {command}")), "{command}");
        assert!(!world.vnx(&[command, "--help"]).expect(0).out.is_empty());
    }
    world.vnx(&["--version"]).expect(0);
    let readme = include_str!("../README.md");
    for (at, _) in readme.match_indices("\nvnx ") {
        let word: String = readme[at + 5..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        assert!(help.contains(&format!("  {word}")), "README names vnx {word}");
    }
}

#[test]
fn the_specification_and_the_second_verifier_know_every_kind() {
    let spec = include_str!("../receipts/SPEC.md");
    let verifier = include_str!("../receipts/verify.py");
    for kind in vnx::domain::receipt::Kind::ALL {
        assert!(spec.contains(&format!("| `{}` |", kind.word())), "{}", kind.word());
        let known = |c: char| !(c.is_ascii_alphabetic() || c == '.' || c == '_');
        assert!(verifier.split(known).any(|word| word == kind.word()), "verify.py lacks {}", kind.word());
    }
}

/// The template of a provider is one.
#[test]
fn the_manifests_in_the_book_load() {
    let world = World::new();
    let folder = world.repo.join(".vnx/providers");
    std::fs::create_dir_all(&folder).unwrap();
    let book = include_str!("../docs/providers.md");
    let manifests: Vec<&str> = book.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let mut found = 0;
    for text in manifests {
        let Some(name) = text.lines().find_map(|l| l.strip_prefix("name: ")) else { continue };
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
        world.vnx(&["provider", "show", name]).expect(0);
        found += 1;
    }
    assert_eq!(found, 2);
    for provider in
        ["claude", "codex", "gemini", "kimi", "deepseek", "glm", "ollama", "claude-ollama", "codex-oss", "shell"]
    {
        assert!(book.contains(&format!("`{provider}`")), "{provider}");
    }
}
