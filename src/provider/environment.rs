//! The worker's environment: an allow list. Names are decided in the plan; values are looked up
//! when the worker starts and never written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use crate::domain::Fault;
use crate::domain::endpoint::EndpointSpec;
use crate::domain::variable::{NEVER, is_name, matches, may_pass};
use crate::sys::files;

/// What every worker gets if the caller has it: enough for shells, toolchains and proxies.
const BASE: [&str; 42] = [
    "HOME",
    "PATH",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "COLORTERM",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_SYSTEM_CA",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "GOPATH",
    "GOMODCACHE",
    "JAVA_HOME",
    "NVM_DIR",
    "PYENV_ROOT",
    "PNPM_HOME",
    "VOLTA_HOME",
];

/// The names that pass to a worker of this provider. Of a service that a variable chooses, as far as the environment of
/// this process chooses it.
pub fn allowed(manifest: &Manifest) -> Vec<String> {
    let mut names: Vec<String> = BASE.iter().map(|n| (*n).to_owned()).collect();
    names.extend(manifest.env.pass.iter().cloned());
    let said = |name: &str| std::env::var(name).ok();
    names.extend(manifest.endpoint.iter().flat_map(|endpoint| endpoint.passed(said)).cloned());
    names.extend(manifest.env.never.iter().map(|n| format!("!{n}")));
    names.extend(NEVER.iter().map(|n| format!("!{n}")));
    names
}

/// Whether a variable passes: some entry allows it and no `!entry` forbids it.
pub fn passes(list: &[String], name: &str) -> bool {
    let matches = |pattern: &str| matches(pattern, name);
    let forbidden = list.iter().filter_map(|p| p.strip_prefix('!')).any(matches);
    !forbidden && list.iter().filter(|p| !p.starts_with('!')).any(|p| matches(p))
}

/// A variable of this process that a text names and that does not pass: whoever wrote the text may have missed it.
pub fn missed(pass: &[String], text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // A single word is one of many languages, and no variable.
    let names = words.filter(|word| word.contains('_') && !word.contains(|c: char| c.is_ascii_lowercase()));
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.filter(is_set).find(|name| !passes(pass, name) && may_pass(name)).map(str::to_owned)
}

/// Reads `NAME=value` lines; `#` starts a comment, quotes are not interpreted.
pub fn parse_file(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, _)) if NEVER.iter().any(|n| matches(n, name)) => {
                return Err(format!("line {}: {name} is never passed to a worker", number + 1));
            }
            Some((name, value)) if is_name(name) && !value.contains('\0') => {
                pairs.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(format!("line {} is not NAME=value", number + 1)),
        }
    }
    Ok(pairs)
}

/// The worker's whole environment: what passes of the caller's, a file, and what is set.
pub fn build(
    pass: &[String],
    set: &BTreeMap<String, String>,
    from: &BTreeMap<String, String>,
    file: Option<&str>,
) -> Result<BTreeMap<String, String>, Fault> {
    let own: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?))).collect();
    let mut env: BTreeMap<String, String> =
        own.iter().filter(|(name, _)| passes(pass, name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    // What the caller has under that name is another vendor's.
    env.retain(|name, _| !from.contains_key(name));
    let mut given = BTreeMap::new();
    if let Some(file) = file {
        let path = Path::new(file);
        let bytes = files::read_capped(path, 1 << 20)?.ok_or_else(|| {
            Fault::input(format!("{file} is missing")).fix("write NAME=value lines into it, or leave --env-file out")
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Fault::input(format!("{file} is not UTF-8")).fix("save it as UTF-8"))?;
        given.extend(parse_file(&text).map_err(|why| {
            Fault::input(format!("{file}: {why}"))
                .fix("correct the line; # begins a comment, and quotes are not interpreted")
        })?);
    }
    env.extend(given.clone());
    env.extend(set.clone());
    // A key under another name; a plan without it is refused.
    let named = from
        .iter()
        .filter_map(|(target, source)| Some((target.clone(), given.get(source).or_else(|| own.get(source))?.clone())));
    env.extend(named);
    Ok(env)
}

/// The file of the CLI's own that can move its endpoint, if one does. What is in it is the user's: its words are looked
/// for, its syntax is the CLI's affair. One that cannot be read may say anything.
pub fn moved_in(spec: &EndpointSpec, env: &BTreeMap<String, String>) -> Option<String> {
    spec.settings.iter().flatten().find_map(|settings| {
        let said = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = said(&settings.variable).or_else(|| Some(said("HOME")?.join(&settings.usual)))?;
        let file = folder.join(&settings.file);
        let moves = match files::read_capped(&file, 4 << 20) {
            Ok(None) => false,
            Ok(Some(bytes)) => {
                settings.words.iter().any(|word| memchr::memmem::find(&bytes, word.as_bytes()).is_some())
            }
            Err(e) => e.source.kind() != std::io::ErrorKind::NotADirectory,
        };
        moves.then(|| file.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_pass_and_never_wins() {
        let list: Vec<String> =
            ["HOME", "CLAUDE_CODE_*", "!CLAUDE_CODE_SESSION_ID", "!GIT_*"].map(str::to_owned).into();
        assert!(passes(&list, "HOME") && passes(&list, "CLAUDE_CODE_MAX_RETRIES"));
        assert!(!passes(&list, "CLAUDE_CODE_SESSION_ID") && !passes(&list, "GIT_DIR") && !passes(&list, "HOMEX"));
    }

    #[test]
    fn an_env_file_is_lines_of_assignments() {
        assert_eq!(parse_file("# c\n\nA=1=2\n").unwrap(), [("A".to_owned(), "1=2".to_owned())]);
        assert_eq!(parse_file("A=1\nexport B=2\n").unwrap_err(), "line 2 is not NAME=value");
    }
}
