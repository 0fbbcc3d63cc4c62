//! Whether the CLIs that can be workers work.

use std::time::Duration;

use super::{Check, Level};
use crate::dispatch::snapshot::look_up;
use crate::domain::{Fault, Name};
use crate::project::{Project, trust};
use crate::provider::{self, Asked, Manifest, VersionProbe, environment};
use crate::sys::cmd::{Cmd, CmdError};
use crate::sys::path::Found;

/// How long a CLI may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The providers, each asked in the environment that its worker would get.
pub(super) fn examine(project: &Project, wanted: Option<&Name>) -> Vec<Check> {
    let (all, broken) = match provider::names(&project.folder()) {
        Ok(names) => loaded(project, &names),
        Err(fault) => (Vec::new(), vec![fault]),
    };
    let default = &project.config.defaults.provider;
    let must = |m: &Manifest| wanted == Some(&m.name) || wanted.is_none() && *default == m.name;
    let mut rows: Vec<Check> = std::thread::scope(|scope| {
        // A variant runs the same program as the provider that it extends.
        let asked = all.iter().filter(|m| m.extends.is_none() || must(m));
        let jobs: Vec<_> =
            asked.map(|m| crate::sys::beside(scope, move || examine_provider(project, m, must(m)))).collect();
        jobs.into_iter().filter_map(|job| job.join().ok()).collect()
    });
    rows.extend(broken.iter().map(|fault| Check::new("providers", Level::Warn, &fault.what, fault.next())));
    for name in wanted.into_iter().chain((wanted.is_none() && default.as_str() != "auto").then_some(default)) {
        if !all.iter().any(|m| m.name == *name) {
            let known: Vec<String> = all.iter().map(|m| m.name.to_string()).collect();
            rows.push(Check::new(
                &format!("provider {name}"),
                Level::Fail,
                "unknown provider",
                format!("use one of: {}", known.join(", ")),
            ));
        }
    }
    let coding = all.iter().any(|m| m.coding && matches!(look_up(m), Found::At(_)));
    if !coding && wanted.is_none() && default.as_str() == "auto" {
        rows.push(Check::new(
            "providers",
            Level::Warn,
            "no coding CLI is installed: only agents that run on shell can work",
            "install claude or codex, or write a manifest in .vnx/providers/",
        ));
    }
    rows
}

/// The manifests that can be read, and what is wrong with the others.
fn loaded(project: &Project, names: &[String]) -> (Vec<Manifest>, Vec<Fault>) {
    let load = |name: &String| provider::load(project, &Name::parse("provider", name)?);
    let (mut all, mut broken) = (Vec::new(), Vec::new());
    for loaded in names.iter().map(load) {
        match loaded {
            Ok(manifest) => all.push(manifest),
            Err(fault) => broken.push(fault),
        }
    }
    (all, broken)
}

/// One provider, as if a dispatch had named it.
pub fn provider_check(project: &Project, manifest: &Manifest) -> Check {
    examine_provider(project, manifest, true)
}

fn examine_provider(project: &Project, manifest: &Manifest, must: bool) -> Check {
    let id = format!("provider {}", manifest.name);
    let bad = if must { Level::Fail } else { Level::Warn };
    // A stranger's probe would run with what passes to workers.
    if let Some(fault) = trust::refusal(&project.untrusted).filter(|_| manifest.is_of_project) {
        return Check::new(&id, bad, "it was not asked: nobody has accepted its manifest here", fault.next());
    }
    let path = match look_up(manifest) {
        Found::At(path) => path,
        Found::NotExecutable(path) => {
            return Check::new(
                &id,
                bad,
                format!("{} may not be executed", path.display()),
                "chmod +x it, or install it again",
            );
        }
        Found::Missing => {
            let what = format!("not installed: no {} in PATH", manifest.binaries.join(" or "));
            return Check::new(&id, bad, what, format!("install {} if you want to use it", manifest.title));
        }
    };
    let allowed = environment::allowed(manifest);
    let env = environment::build(&allowed, &manifest.env.set, &manifest.env.from, None).unwrap_or_default();
    let call = |args: &[String]| Cmd::new(&path).args(args).only_env(env.clone()).limit(PATIENCE).cwd("/").run();
    let mut what = path.display().to_string();
    if let Some(probe) = &manifest.version_probe {
        match provider::ask(probe, &path, &env) {
            Asked::Version(version) if provider::is_too_old(&version, probe) => {
                return Check::new(&id, bad, format!("{version} is older than {}", probe.min), "update it");
            }
            Asked::Version(version) => what = format!("{version} at {what} ({})", verified(probe)),
            Asked::Nothing => {
                return Check::new(
                    &id,
                    Level::Warn,
                    format!("{what} tells no version"),
                    "check that it is the right program",
                );
            }
            Asked::Late => {
                let seconds = PATIENCE.as_secs();
                let what = format!("{what} did not tell its version within {seconds} s, so nothing is known of it");
                return Check::new(&id, Level::Warn, what, "ask again when the machine has less to do");
            }
            Asked::Failed(why) => {
                return Check::new(&id, bad, format!("{what} does not run: {why}"), "install it again");
            }
        }
    }
    if let Some(probe) = &manifest.server_probe {
        let refused = match call(&probe.args) {
            Ok(output) if output.ok() => None,
            Ok(output) => Some(output.complaint()),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = refused {
            return Check::new(&id, Level::Warn, format!("{what}, but its server does not answer: {why}"), "start it");
        }
        what.push_str(", its server answers");
    }
    if let Some(probe) = &manifest.login_probe {
        match call(&probe.args) {
            Ok(output) if output.ok() => what.push_str(", logged in"),
            Err(CmdError::TimedOut { .. }) => what.push_str(", which did not say whether it is logged in"),
            _ => {
                return Check::new(
                    &id,
                    Level::Warn,
                    format!("{what}, says that it is not logged in"),
                    manifest.how_to_pay(),
                );
            }
        }
    }
    Check::new(&id, Level::Pass, what, "")
}

fn verified(probe: &VersionProbe) -> String {
    let by_words = || "by its documentation, never tried".to_owned();
    probe.tested.as_ref().map_or_else(by_words, |version| format!("verified with {version}"))
}
