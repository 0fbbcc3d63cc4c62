//! The book: it builds, its links hold, and nothing that a user can meet is missing in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The values of an attribute in a page.
fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
    html.split(attribute).skip(1).filter_map(|rest| rest.strip_prefix('"')?.split('"').next()).collect()
}

#[test]
fn it_builds_and_its_links_hold() {
    let folder = tempfile::tempdir().unwrap();
    let mut mdbook = Command::new("mdbook");
    let output = mdbook.arg("build").arg(root()).arg("-d").arg(folder.path()).output();
    let output = output.expect("mdbook is missing; bin/test installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("WARN") && !said.contains("ERROR"), "{said}");
    let pages: BTreeMap<PathBuf, String> = crate::common::names(folder.path())
        .into_iter()
        .filter(|name| {
            let page = name.strip_suffix(".html");
            page.is_some_and(|page| !["404", "print", "toc"].contains(&page))
        })
        .map(|name| folder.path().join(name))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    assert!(pages.len() > 20, "{:?}", pages.keys());
    for (page, html) in &pages {
        for link in values(html, "href=").into_iter().chain(values(html, "src=")) {
            if link.contains("://") || link.starts_with("data:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let there = if file.is_empty() { page.clone() } else { folder.path().join(file) };
            assert!(there.exists(), "{}: {link} leads nowhere", page.display());
            if let Some(target) = pages.get(&there).filter(|_| !anchor.is_empty()) {
                assert!(values(target, "id=").contains(&anchor), "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn every_page_is_in_it() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for name in crate::common::names(&root().join("docs")) {
        let page = name.strip_suffix(".md").filter(|page| *page != "SUMMARY");
        assert!(page.is_none() || summary.contains(&format!("]({name})")), "docs/SUMMARY.md lacks {name}");
    }
    let decisions = std::fs::read_to_string(root().join("docs/decisions.md")).unwrap();
    for name in crate::common::names(&root().join("adr")) {
        assert!(decisions.contains(&format!("../adr/{name}}}}}")), "docs/decisions.md lacks {name}");
    }
}

/// All files below a folder of the sources.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_variable_is_documented() {
    let mut all = Vec::new();
    for folder in ["src", "bin", "benches"] {
        sources(&root().join(folder), &mut all);
    }
    let page = std::fs::read_to_string(root().join("docs/reference-environment.md")).unwrap();
    let told: BTreeSet<&str> = page.split('`').map(|word| word.split('=').next().unwrap_or(word)).collect();
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
    let mut lacks = BTreeSet::new();
    for text in &all {
        let own = text.match_indices("VNX_").map(|(at, _)| &text[at..]);
        let asked = text.match_indices("env::var").filter_map(|(at, _)| {
            text[at..]
                .split('"')
                .nth(1)
                .filter(|_| text[at..].starts_with("env::var(\"") || text[at..].starts_with("env::var_os(\""))
        });
        for name in own.chain(asked) {
            let name = &name[..name.find(|c: char| !is_part(c)).unwrap_or(name.len())];
            if name.len() > 4 && !told.contains(name) {
                lacks.insert(name.to_owned());
            }
        }
    }
    assert!(lacks.is_empty(), "docs/reference-environment.md lacks {lacks:?}");
}
