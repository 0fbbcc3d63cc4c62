//! Environment variables by their names: which of a caller's a worker can get.

/// What no worker ever gets from its caller: variables that would make it act for another
/// repository, pane, session or dispatch.
pub const NEVER: [&str; 4] = ["GIT_*", "TMUX*", "VNX_*", "STY"];

/// Whether a pattern, a name or `PREFIX_*`, names a variable.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Whether it has the form of a name (POSIX.1, 8.1).
pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether variables of the caller's by this name, or `PREFIX_*`, can be let pass.
pub fn may_pass(pattern: &str) -> bool {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    is_name(name) && !NEVER.iter().any(|never| matches(never, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_a_name_or_a_family_that_is_nobody_elses() {
        assert!(["MY_KEY", "AWS_*", "_x", "SSH_AUTH_SOCK"].into_iter().all(may_pass));
        assert!(!["", "*", "GIT_DIR", "VNX_*", "A-B", "1A", "A=1", "A*B"].into_iter().any(may_pass));
    }
}
