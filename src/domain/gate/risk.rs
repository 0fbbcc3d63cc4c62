//! Changes that are held to everything, whatever the configuration says of them.

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

/// Those of `paths` that make a change strict; `more` are patterns of the project's own.
pub fn strict_paths(paths: &[String], more: &[String]) -> Vec<String> {
    let all = STRICT.iter().copied().chain(more.iter().map(String::as_str));
    // A file system may not tell capitals apart, and what runs there does not either.
    let globs: Vec<Glob> = all.filter_map(|text| Glob::parse(&text.to_lowercase()).ok()).collect();
    let hit = |path: &str| globs.iter().any(|glob| glob.matches(path));
    paths.iter().filter(|path| hit(&path.to_lowercase())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_strict_is_strict_wherever_it_lies() {
        let strict = |path: &str| !strict_paths(&[path.to_owned()], &["deploy/**".to_owned()]).is_empty();
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
        ] {
            assert!(!strict(path), "{path}");
        }
        assert!(STRICT.iter().all(|glob| Glob::parse(glob).is_ok()));
    }
}
