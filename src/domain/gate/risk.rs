//! Changes that are held to everything, whatever the configuration says of them.

use std::collections::BTreeSet;

use crate::domain::glob::Glob;

/// Schema migrations, what a CI runs, what decides who reviews and what git runs, what the next worker or reviewer
/// obeys, and vnx's own policy.
const STRICT: [&str; 38] = [
    ".vnx/**",
    "**/migrations/**",
    "**/migrate/**",
    "**/*.sql",
    "**/schema.prisma",
    "**/schema.rb",
    ".github/**",
    ".gitlab-ci.yml",
    ".gitlab/**",
    ".circleci/**",
    ".buildkite/**",
    ".woodpecker/**",
    ".woodpecker.yml",
    ".travis.yml",
    ".drone.yml",
    ".forgejo/**",
    ".gitea/**",
    "Jenkinsfile",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "**/CODEOWNERS",
    "**/.gitattributes",
    ".gitmodules",
    ".husky/**",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    ".lefthook/**",
    "**/.claude/**",
    "**/.codex/**",
    "**/.gemini/**",
    "**/.kimi/**",
    "**/.agents/**",
    "**/.mcp.json",
    "**/CLAUDE*.md",
    "**/AGENTS*.md",
    "**/GEMINI*.md",
    ".githooks/**",
    "githooks/**",
];

/// Those of `paths` that make a change strict; `more` are patterns of the project's own, `linked` what strict links of the
/// target lead to: whoever follows one reads that.
pub fn strict_paths(paths: &[String], more: &[String], linked: &[String]) -> Vec<String> {
    let all = STRICT.iter().copied().chain(more.iter().map(String::as_str));
    // A file system may not tell capitals apart, and what runs there does not either.
    let globs: Vec<Glob> = all.filter_map(|text| Glob::parse(&text.to_lowercase()).ok()).collect();
    // What stands above the place can only be a link itself, or take a folder's place.
    let is_linked =
        |path: &str| linked.iter().map(|led| led.to_lowercase()).any(|led| is_at(path, &led) || is_at(&led, path));
    let hit = |path: &str| globs.iter().any(|glob| glob.matches(path)) || is_linked(path);
    paths.iter().filter(|path| hit(&path.to_lowercase())).cloned().collect()
}

/// Whether a path is this one, or below it; everything is below the tree itself, which is called nothing.
fn is_at(path: &str, place: &str) -> bool {
    place.is_empty() || path.strip_prefix(place).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// What the strict ones among these links lead to in the tree that they stand in, over other links too. `read` says
/// what stands in them, and where that cannot be read they may lead anywhere. One that leads out of the tree leads to nothing
/// that a change can change.
pub fn strict_links(links: &[String], more: &[String], read: impl Fn(&[&str]) -> Option<Vec<String>>) -> Vec<String> {
    // A link in a folder's place is strict where anything below it is.
    let is_strict = |link: &&String| !strict_paths(&[(*link).clone(), format!("{link}/x")], more, &[]).is_empty();
    let mut next: Vec<&str> = links.iter().filter(is_strict).map(String::as_str).collect();
    let (mut seen, mut linked) = (BTreeSet::new(), Vec::new());
    while !next.is_empty() {
        seen.extend(next.iter().copied());
        let Some(read) = read(&next) else { return vec![String::new()] };
        let led: Vec<String> = next.iter().zip(read).filter_map(|(link, to)| led_to(link, &to)).collect();
        let meets = |link: &str| led.iter().any(|led| is_at(led, link) || is_at(link, led));
        next = links.iter().map(String::as_str).filter(|link| !seen.contains(link) && meets(link)).collect();
        linked.extend(led);
    }
    linked
}

/// Where a link leads to, as a path of the tree that it stands in.
fn led_to(link: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    if to.starts_with('/') {
        return None;
    }
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_strict_is_strict_wherever_it_lies() {
        let linked = ["docs/Agents.md".to_owned(), "ci".to_owned()];
        let strict = |path: &str| !strict_paths(&[path.to_owned()], &["deploy/**".to_owned()], &linked).is_empty();
        for path in [
            ".vnx/config.yaml",
            ".vnx/agents/x/AGENT.md",
            ".VNX/config.yaml",
            "db/migrations/0001.py",
            "migrations/1.rb",
            "a/b.sql",
            ".github/workflows/ci.yml",
            "Jenkinsfile",
            "docs/CODEOWNERS",
            "sub/.gitattributes",
            "deploy/x",
            "jenkinsfile",
            "docs/codeowners",
            "Deploy/X",
            "AGENTS.md",
            "sub/Claude.md",
            "CLAUDE.local.md",
            "AGENTS.override.md",
            ".githooks/pre-commit",
            ".claude/settings.json",
            "sub/.codex/config.toml",
            ".mcp.json",
            "docs/agents.md",
            "ci/build.yml",
        ] {
            assert!(strict(path), "{path}");
        }
        for path in [
            "src/lib.rs",
            "vnx/config.yaml",
            "docs/migrations.md",
            "x.github",
            "README.md",
            "docs/agents/AGENTS.md.txt",
            "docs/agents.mdx",
            "cix",
        ] {
            assert!(!strict(path), "{path}");
        }
        assert!(STRICT.iter().all(|glob| Glob::parse(glob).is_ok()));
    }

    #[test]
    fn strict_links_lead_over_others_and_not_out() {
        let there = [
            ("AGENTS.md", "docs/shared.md"),
            ("docs", "./real/docs/"),
            (".github", "ci"),
            ("sub/CLAUDE.md", "../../out"),
            ("sub/GEMINI.md", "/etc/passwd"),
            ("sub/.mcp.json", "x/../mine.json"),
            ("plain", "other"),
            ("ci/round", "../ci/round"),
        ];
        let links: Vec<String> = there.iter().map(|(link, _)| (*link).to_owned()).collect();
        let to = |link: &&str| there.iter().find(|(known, _)| known == link).map(|(_, to)| (*to).to_owned());
        let mut linked = strict_links(&links, &[], |wanted| wanted.iter().map(to).collect());
        linked.sort();
        assert_eq!(linked, ["ci", "ci/round", "docs/shared.md", "real/docs", "sub/mine.json"]);
        // A link on the way may be turned elsewhere, and one that cannot be read leads anywhere.
        let strict = |path: &str, linked: &[String]| !strict_paths(&[path.to_owned()], &[], linked).is_empty();
        assert!(strict("docs", &linked) && strict("real", &linked) && !strict("evil/shared.md", &linked));
        let anywhere = strict_links(&links, &[], |_| None);
        assert!(strict("src/lib.rs", &anywhere) && strict_links(&["plain".to_owned()], &[], |_| None).is_empty());
    }
}
