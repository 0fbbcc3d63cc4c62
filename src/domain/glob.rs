//! Paths as the configuration names them: parts between `/`, with `*`, `?` and, as a part of its own, `**`.

/// A path or a pattern of paths, relative to the main checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<String>,
}

impl Glob {
    /// Reads one. What could lead out of the checkout, or into git's folder, is refused.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let parts: Vec<String> = trimmed.split('/').map(str::to_owned).collect();
        if text.len() > 1000 || text.contains(|c: char| c.is_control() || "[]{}\\".contains(c)) {
            return Err("only `*`, `?` and `**` stand for something, and control characters, [ ] { } \\ are refused");
        }
        if parts.iter().any(|part| part.is_empty() || part == "." || part == "..") {
            return Err("it must be a path below the main checkout, without `..`");
        }
        if parts[0] == ".git" {
            return Err("git's own folder is not for worktrees");
        }
        if parts.iter().any(|part| part.contains("**") && part != "**") {
            return Err("`**` stands alone between slashes");
        }
        Ok(Self { parts })
    }

    /// It names one path.
    pub fn is_literal(&self) -> bool {
        !self.parts.iter().any(|part| part.contains(['*', '?']))
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        matches_parts(&self.parts, &path)
    }

    /// What is left to find below `folder`, if this pattern leads into it by counted steps: `**` does not,
    /// because it would search what git does not look into.
    pub fn below(&self, folder: &str) -> Option<Self> {
        let steps: Vec<&str> = folder.split('/').collect();
        let counted = self.parts.len() > steps.len() && !self.parts.iter().any(|part| part == "**");
        let leads = counted && steps.iter().zip(&self.parts).all(|(step, part)| matches_part(part, step));
        leads.then(|| Self { parts: self.parts[steps.len()..].to_vec() })
    }

    /// The first step, and the rest if there is one.
    pub fn step(&self) -> (Step<'_>, Option<Self>) {
        let rest = (self.parts.len() > 1).then(|| Self { parts: self.parts[1..].to_vec() });
        (Step(&self.parts[0]), rest)
    }
}

/// One part of a pattern.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a>(&'a str);

impl Step<'_> {
    /// Whether a name matches.
    pub fn matches(self, name: &str) -> bool {
        matches_part(self.0, name)
    }
}

fn matches_parts(parts: &[String], path: &[&str]) -> bool {
    is_match(parts, path, |part| part == "**", |part, name| matches_part(part, name))
}

fn matches_part(part: &str, name: &str) -> bool {
    let (part, name): (Vec<char>, Vec<char>) = (part.chars().collect(), name.chars().collect());
    is_match(&part, &name, |c| *c == '*', |c, of_name| *c == '?' || c == of_name)
}

/// With one place to go back to, the last that stands for any number: what an earlier one took cannot help a later one. So
/// the time is bounded by the product of both lengths, whatever a worker calls its files.
fn is_match<P, N>(pattern: &[P], text: &[N], is_any: impl Fn(&P) -> bool, is_one: impl Fn(&P, &N) -> bool) -> bool {
    let (mut p, mut n, mut any) = (0, 0, None);
    while n < text.len() {
        match pattern.get(p) {
            Some(one) if is_any(one) => {
                any = Some((p, n));
                p += 1;
            }
            Some(one) if is_one(one, &text[n]) => (p, n) = (p + 1, n + 1),
            _ => match any {
                Some((at, taken)) => {
                    any = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, yes, no) in [
            (".env", ".env", "a/.env"),
            (".env*", ".env.local", "x.env"),
            ("**/.env", "a/b/.env", "a/b/.envx"),
            ("**/.env", ".env", "env"),
            ("conf/*.local", "conf/a.local", "conf/a/b.local"),
            ("a?c", "abc", "ac"),
            ("*a*b", "xaxbxb", "xaxbx"),
            ("node_modules/", "node_modules", "node_modules/x"),
            ("a/**/z", "a/z", "a/z/y"),
            ("a/**", "a", "b/a"),
            ("**/a/**/b/*", "x/a/y/a/b/b/c", "b/a/b"),
            ("a/**/b/**/c", "a/c/b/c/b/c", "a/c/b"),
            ("ä*", "äöü", "a"),
        ] {
            assert!(glob(pattern).matches(yes), "{pattern} {yes}");
            assert!(!glob(pattern).matches(no), "{pattern} {no}");
        }
    }

    /// A worker names the paths, and may name them so that each `**` could stand for a hundred things.
    #[test]
    fn no_path_takes_time_without_end() {
        let (pattern, path) = ("**/a/*/".repeat(120), "a/".repeat(2000));
        assert!(!glob(&(pattern.clone() + "b")).matches(&(path.clone() + "c")));
        assert!(glob(&(pattern + "c")).matches(&(path + "c")));
        assert!(!glob(&"*a".repeat(400)).matches(&("a".repeat(4000) + "b")));
    }

    #[test]
    fn what_leads_out_is_refused() {
        for bad in ["", "/etc", "../x", "a/../b", "a//b", "./a", ".git/config", "a\nb", "a**", "[a]", "{a,b}", "a\\b"] {
            assert!(Glob::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counted_steps_lead_into_ignored_folders() {
        assert_eq!(glob("secrets/*.pem").below("secrets"), Some(glob("*.pem")));
        assert_eq!(glob("*/x/y").below("a/x"), Some(glob("y")));
        assert_eq!(glob("**/x").below("a"), None);
        assert_eq!(glob("secrets").below("secrets"), None);
        assert_eq!(glob("other/x").below("secrets"), None);
        assert!(Glob::parse(&"a".repeat(1000)).is_ok() && Glob::parse(&"a".repeat(1001)).is_err());
        let several = glob("*.d/x/y");
        let (step, rest) = several.step();
        assert!(step.matches("a.d") && !step.matches("a") && rest == Some(glob("x/y")));
        assert_eq!(glob("x").step().1, None);
        assert!(glob(".env").is_literal() && !glob("*.x").is_literal());
    }
}
