//! What README and the book show is what appears: every `console` block is typed into a shell, page by page.

use std::path::Path;

use crate::common::World;

/// A command, what it printed on the page, and the line of the page.
struct Shown {
    command: String,
    printed: Vec<String>,
    line: usize,
}

/// The commands of a page: `$ ` begins one, and what follows is what it prints.
fn shown(text: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    for (n, line) in text.lines().enumerate() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => {
                    all.push(Shown { command: command.to_owned(), printed: Vec::new(), line: n + 1 });
                }
                (None, Some(last)) => last.printed.push(line.to_owned()),
                (None, None) => panic!("line {}: a console block begins with a command", n + 1),
            },
        }
    }
    all
}

/// Whether a line is as the page has it, where `…` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.trim_end().split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.trim_end().strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (n, part) in parts.iter().enumerate() {
        let at = if n + 1 == parts.len() { rest.len().checked_sub(part.len()) } else { rest.find(part) };
        let Some(at) = at.filter(|at| rest.get(*at..).is_some_and(|r| r.starts_with(part))) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Whether lines are as the page has them, where `…` alone stands for any number of them, but for no error.
fn all_fit(patterns: &[String], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "…" => {
            let is_error = |line: &&str| line.starts_with("vnx: ") || line.starts_with("error: ");
            let most = lines.iter().position(is_error).unwrap_or(lines.len());
            (0..=most).any(|n| all_fit(rest, &lines[n..]))
        }
        Some((first, rest)) => lines.first().is_some_and(|line| fits(first, line)) && all_fit(rest, &lines[1..]),
    }
}

fn replay(page: &str) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut world = World::bare("shop");
    let bin = Path::new(World::binary()).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", world.env["PATH"]);
    world.set("PATH", path);
    let all = shown(&text);
    assert!(!all.is_empty(), "{page} shows nothing");
    for Shown { command, printed, line } in all {
        let output = world.command("bash").args(["-c", &format!("exec 2>&1; {command}")]).output().unwrap();
        let appeared = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = appeared.lines().collect();
        assert!(
            all_fit(&printed, &lines),
            "{page}:{line}: $ {command}\nshows\n{}\nand this appeared:\n{appeared}",
            printed.join("\n")
        );
    }
    world.until("all of it to end", || world.processes().is_empty());
}

#[test]
fn of_the_readme() {
    replay("README.md");
}

#[test]
fn of_the_book() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = crate::common::names(&docs).into_iter().filter(|name| name.ends_with("md"));
    let with_some = pages.filter(|name| std::fs::read_to_string(docs.join(name)).unwrap().contains("```console"));
    let all: Vec<String> = with_some.map(|name| format!("docs/{name}")).collect();
    assert!(!all.is_empty());
    for page in &all {
        replay(page);
    }
}

#[test]
fn what_stands_for_anything_stands_for_nothing_else() {
    assert!(fits("a…c", "abc") && fits("a…c", "ac") && fits("a…b…", "axbx") && fits("same", "same"));
    assert!(!fits("a…c", "abd") && !fits("a…c", "bc") && !fits("same", "same as") && !fits("…b", "ba"));
    let page = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(all_fit(&page(&["a", "…", "z"]), &["a", "b", "c", "z"]) && all_fit(&page(&["…"]), &[]));
    assert!(!all_fit(&page(&["…"]), &["vnx: no"]) && !all_fit(&page(&["…", "z"]), &["error: no", "z"]));
    assert!(!all_fit(&page(&["a"]), &["a", "b"]) && !all_fit(&page(&["…", "z"]), &["a"]));
}

/// Links between pages lead to what is there.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md"), root.join("receipts/SPEC.md")];
    for folder in ["docs", "adr"] {
        let names = crate::common::names(&root.join(folder));
        pages.extend(names.iter().filter(|n| n.contains(".md")).map(|n| root.join(folder).join(n)));
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let there = page.parent().unwrap().join(file);
            assert!(there.exists(), "{}: {link} leads nowhere", page.display());
            if let Some((_, heading)) = link.split_once('#').filter(|_| file.contains(".md")) {
                let mut target = std::fs::read_to_string(&there).unwrap();
                for included in target.clone().split("{{#include ").skip(1) {
                    let name = included.split("}}").next().unwrap();
                    target += &std::fs::read_to_string(there.parent().unwrap().join(name)).unwrap();
                }
                let slug = |line: &str| {
                    let kept = line.trim_start_matches('#').trim().to_lowercase();
                    kept.chars()
                        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                        .collect::<String>()
                        .replace(' ', "-")
                };
                assert!(target.lines().any(|l| l.starts_with('#') && slug(l) == heading), "{}: {link}", page.display());
            }
        }
    }
}
