//! Changes that are held to everything, whatever the configuration says of them.

use crate::domain::glob::Glob;

/// Schema migrations, what a CI runs, what decides who reviews and what git runs, and vnx's own policy.
const STRICT: [&str; 27] = [
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
];

/// Those of `paths` that make a change strict; `more` are patterns of the project's own.
pub fn strict_paths(paths: &[String], more: &[String]) -> Vec<String> {
    let all = STRICT.iter().copied().chain(more.iter().map(String::as_str));
    let globs: Vec<Glob> = all.filter_map(|text| Glob::parse(text).ok()).collect();
    // A file system may not tell them apart, and what runs there does not either.
    let hit = |path: &str| globs.iter().any(|glob| glob.matches(path) || glob.matches(&path.to_lowercase()));
    paths.iter().filter(|path| hit(path)).cloned().collect()
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
        ] {
            assert!(strict(path), "{path}");
        }
        for path in ["src/lib.rs", "vnx/config.yaml", "docs/migrations.md", "x.github", "README.md"] {
            assert!(!strict(path), "{path}");
        }
        assert!(STRICT.iter().all(|glob| Glob::parse(glob).is_ok()));
    }
}
