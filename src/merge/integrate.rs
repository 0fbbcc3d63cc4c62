//! Makes the commit that the target shall move to, in a checkout of its own.
//!
//! The project's hooks may refuse it or word its message; what it contains is decided without them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Ended, Trailers};
use crate::dispatch::gates::{CONFLICT, Looked, by_the_branch};
use crate::dispatch::request::Request;
use crate::domain::gate::check::{Subject, short, short_ref};
use crate::domain::receipt::Strategy;
use crate::domain::redact::Redactor;
use crate::domain::setup::Lfs;
use crate::domain::span::Span;
use crate::domain::verdict::End;
use crate::domain::{Fault, Name};
use crate::git::{Git, GitConfig, Joined, PINNED};
use crate::project::Project;
use crate::provider::{self, environment};
use crate::sys::files;
use crate::worker::{CommandJob, Spoken, control, run_command};
use crate::worktree::Place;

/// How long the project's hooks may take.
const LIMIT: Span = Span(30 * 60_000);
/// The longest first line of a message, in characters.
const MAX_SUBJECT: usize = 72;
/// Variables that sign commits, beside those of every worker.
const SIGNING: [&str; 4] = ["SSH_AUTH_SOCK", "GNUPGHOME", "GPG_TTY", "GPG_AGENT_INFO"];

/// As many whole words as fit, with an ellipsis where some do not; a single word that is too long is cut.
fn first_words(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let fits: String = text.chars().take(most - 1).collect();
    let ends_a_word = text.chars().nth(most - 1) == Some(' ');
    let whole = fits.rsplit_once(' ').filter(|_| !ends_a_word).map_or(fits.as_str(), |(words, _)| words);
    format!("{}…", whole.trim_end_matches([' ', ',', ';', ':']))
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Integrated {
    /// The commit.
    pub(super) commit: String,
    /// Its tree.
    pub(super) tree: String,
}

/// The work, in its checkout.
pub(super) struct Integrate<'a> {
    project: &'a Project,
    looked: &'a Looked,
    trailers: &'a Trailers,
    strategy: Strategy,
    config: GitConfig,
    git: Git,
    path: PathBuf,
    /// Hooks or signatures make it more than git alone.
    guarded: bool,
    folder: PathBuf,
}

impl<'a> Integrate<'a> {
    /// Makes the checkout, at the target's commit.
    pub(super) fn begin(
        project: &'a Project,
        looked: &'a Looked,
        nonce: &str,
        trailers: &'a Trailers,
        strategy: Strategy,
    ) -> Result<Self, Ended> {
        let common_dir = &project.located.common_dir;
        let root = project.worktrees();
        let config = Git::tree(common_dir, project.located.main_top()).config().map_err(Fault::from)?;
        if !config.has_identity() {
            return Err(Ended::because(
                "git does not know who merges",
                "git config --global user.name NAME; git config --global user.email ADDRESS",
            ));
        }
        let place = Place { common_dir, root: &root, paths: &project.paths, name: nonce };
        let git = place.make(&looked.situation.subject.base, Lfs::Git, || None)?;
        let folder = project.paths.dispatch(&looked.situation.dispatch).join("merges").join(nonce);
        files::private_folder(&folder).map_err(Fault::from)?;
        let signs = config.value("commit.gpgsign").is_some_and(|v| v != "false");
        let guarded = git.has_hooks(common_dir, &config) || signs;
        Ok(Self { project, looked, trailers, strategy, path: place.path(), guarded, config, git, folder })
    }

    /// Where the project's hooks are.
    pub(super) fn hooks(&self) -> PathBuf {
        let repository = Git::repository(&self.project.located.common_dir);
        repository.hooks_folder(&self.config, &self.project.located.main_top())
    }

    /// What ran here was written by others, who may have put our checkout on a branch: nothing more is done in it then,
    /// and a target that git moved for us goes back.
    fn still_detached(&self) -> Result<(), Ended> {
        if self.git.is_detached() {
            return Ok(());
        }
        let Subject { target, base, .. } = self.subject();
        let moved = self.git.head().ok().flatten();
        if let Some((commit, Some(branch))) = moved
            && branch == *target
            && commit != *base
        {
            let common = Git::repository(&self.project.located.common_dir);
            let _ = common.move_ref(target, base, Some(&commit), "vnx: taken back");
        }
        Err(Ended::because("a hook put the merge's checkout on a branch", "look at what the project's hooks run"))
    }

    fn subject(&self) -> &Subject {
        &self.looked.situation.subject
    }

    /// Joins the dispatch's branch.
    pub(super) fn branch(&self, strategy: Strategy) -> Result<Integrated, Ended> {
        self.pre_merge()?;
        let Subject { base, head, .. } = self.subject();
        match strategy {
            Strategy::Merge => {
                let message = self.message(&self.title("Merge"), "")?;
                let args = words(&["merge", "--no-ff", "--no-stat", "--no-edit", "--no-log", "-F", &message, head]);
                self.concluded(Some(&self.without_commit()), &args, &[], &[base, head])
            }
            Strategy::Squash => {
                let body = self.commits()?;
                let message = self.message(&self.title(""), &body)?;
                self.clean(self.git.join(&words(&["merge", "--squash", "--no-stat", head]), &[]))?;
                let author = self.git.author_of(head).map_err(Fault::from)?;
                let args = words(&["commit", "--no-edit", "--cleanup=verbatim", "-F", &message]);
                self.concluded(None, &args, &author, &[base])
            }
            Strategy::Rebase => self.rebased(),
            Strategy::Revert => Err(Ended::because("a revert is no way to merge", "use merge, squash or rebase")),
        }
    }

    /// Joins it as `branch` does, and makes no commit that could land: the tree that it would have.
    pub(super) fn joins(&self) -> Result<String, Ended> {
        if self.strategy == Strategy::Rebase {
            return Ok(self.git.tree_of(&self.onto()?).map_err(Fault::from)?);
        }
        self.clean(self.git.join(&self.without_commit(), &[]))?;
        Ok(self.git.staged_tree().map_err(Fault::from)?)
    }

    fn without_commit(&self) -> Vec<String> {
        words(&["merge", "--no-ff", "--no-stat", "--no-commit", &self.subject().head])
    }

    /// Its commits on top of the target; the last one carries the trailers.
    fn rebased(&self) -> Result<Integrated, Ended> {
        let tip = self.onto()?;
        if tip == self.subject().base {
            return Err(Ended::because("nothing of it is left on top of the target", "its change is there already"));
        }
        let expected = self.git.tree_of(&tip).map_err(Fault::from)?;
        let said = self.git.message_of(&tip).map_err(Fault::from)?;
        let message = self.written(&said)?;
        let parent = self.git.resolve(&format!("{tip}^")).map_err(Fault::from)?.unwrap_or_default();
        let args = words(&["commit", "--amend", "--no-edit", "--allow-empty", "--cleanup=verbatim", "-F", &message]);
        let done = self.concluded(None, &args, &[], &[&parent])?;
        if done.tree == expected { Ok(done) } else { Err(hook_changed()) }
    }

    /// The commit that its commits end with when they are put on top of the target.
    fn onto(&self) -> Result<String, Ended> {
        let Subject { base, head, .. } = self.subject();
        let fork = self.looked.fork.clone().unwrap_or_else(|| base.clone());
        let (_, merges) = self.git.commits_between(&fork, head).map_err(Fault::from)?;
        if merges {
            return Err(Ended::because(
                "the branch has merges, which a rebase would leave out",
                "use --strategy merge or squash",
            ));
        }
        self.git.start_again(head).map_err(Fault::from)?;
        let rebase = words(&["rebase", "--quiet", "--no-autostash", "--no-stat", "--onto", base, &fork]);
        self.clean(self.git.join(&rebase, &[]))?;
        let (tip, _) = self.git.head().map_err(Fault::from)?.unwrap_or_default();
        Ok(tip)
    }

    /// Takes back what had landed: `commits`, newest first, the first of which may be a merge.
    pub(super) fn revert(&self, landed: &str, before: &str, reason: &str) -> Result<Integrated, Ended> {
        let base = &self.subject().base;
        let (mut commits, merges) = self.git.commits_between(before, landed).map_err(Fault::from)?;
        let args = if merges {
            words(&["revert", "--no-commit", "-m", "1", landed])
        } else {
            commits.reverse();
            [words(&["revert", "--no-commit"]), commits].concat()
        };
        self.clean(self.git.join(&args, &[]))?;
        let title = format!("Revert {}", self.looked.situation.dispatch);
        let body = format!("{reason}\n\nThis takes back {landed}.");
        let message = self.message(&title, &body)?;
        let args = words(&["commit", "--no-edit", "--cleanup=verbatim", "-F", &message]);
        self.concluded(None, &args, &[], &[base])
    }

    fn clean(&self, joined: crate::git::Result<Joined>) -> Result<(), Ended> {
        match joined.map_err(Fault::from)? {
            Joined::Clean => Ok(()),
            Joined::Conflict(paths) => Err(self.conflict(&paths)),
        }
    }

    fn conflict(&self, paths: &[String]) -> Ended {
        let target = short_ref(&self.subject().target);
        let clear = self.by_the_branch();
        let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
        let first = paths.first().map_or("", String::as_str);
        Ended::because(format!("{CONFLICT}{target} in {first:?}{more}"), clear)
    }

    /// What helps where branch and target do not fit together.
    pub(super) fn by_the_branch(&self) -> String {
        let (target, id) = (short_ref(&self.subject().target), &self.looked.situation.dispatch);
        match self.strategy {
            Strategy::Revert => "take it back by hand (`git revert`) and settle what has changed since".to_owned(),
            Strategy::Merge | Strategy::Squash | Strategy::Rebase => by_the_branch(target, id),
        }
    }

    /// Makes the commit. With hooks or signatures in play git does it as the person would; what comes of it must
    /// hold what it holds without them. `plain` is how that is found out, where nothing is staged yet.
    fn concluded(
        &self,
        plain: Option<&[String]>,
        args: &[String],
        env: &[(String, String)],
        parents: &[&String],
    ) -> Result<Integrated, Ended> {
        if self.guarded {
            let expected = match plain {
                Some(plain) => {
                    self.clean(self.git.join(plain, &[]))?;
                    let tree = self.git.staged_tree().map_err(Fault::from)?;
                    self.git.start_again(&self.subject().base).map_err(Fault::from)?;
                    tree
                }
                None => self.git.staged_tree().map_err(Fault::from)?,
            };
            self.contained(args, env)?;
            let done = self.done(parents)?;
            return if done.tree == expected { Ok(done) } else { Err(hook_changed()) };
        }
        self.clean(self.git.join(args, env))?;
        self.done(parents)
    }

    /// The commit as git has it, which must be what was meant.
    fn done(&self, parents: &[&String]) -> Result<Integrated, Ended> {
        self.still_detached()?;
        let head = self.git.head().map_err(Fault::from)?;
        let (commit, _) = head.ok_or_else(|| Ended::because("git made no commit", "try again"))?;
        let read = self.git.raw_commits(std::slice::from_ref(&commit)).map_err(Fault::from)?.pop();
        let made = read.ok_or_else(|| Ended::because("git did not keep the commit", "run `git fsck`"))?;
        if made.parents.iter().collect::<Vec<_>>() != parents {
            return Err(Ended::because(
                "nothing came of it, or a hook made another commit",
                "look at the project's hooks",
            ));
        }
        if super::trailers_of(&made.message).as_ref() != Some(self.trailers) {
            return Err(Ended::because(
                "a hook took the trailers out of the message",
                "let commit-msg keep lines that begin with Vnx-",
            ));
        }
        let tree = self.git.tree_of(&commit).map_err(Fault::from)?;
        Ok(Integrated { commit, tree })
    }

    /// Runs git as the person would, with the project's hooks, contained as a worker is.
    fn contained(&self, args: &[String], env: &[(String, String)]) -> Result<(), Ended> {
        let mut all = words(&["-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
        // Not those of the checkout: the branch would bring what judges it.
        let hooks = format!("core.hooksPath={}", crate::sys::path::text(&self.hooks())?);
        all.extend(PINNED.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        all.extend(["-c".to_owned(), hooks]);
        all.extend(args.iter().cloned());
        let signing = SIGNING.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let env: Vec<(String, String)> = signing.chain(env.iter().cloned()).collect();
        let (ended, said) = self.command("git", all, "git", LIMIT, &env)?;
        self.still_detached()?;
        // What git adds to a hook's words says nothing of why.
        let of_git = |line: &&str| line.trim().is_empty() || line.starts_with("Not committing merge; use 'git commit'");
        let said = said.text.lines().rev().find(|line| !of_git(line)).map(crate::domain::line::summary);
        if ended == (End::Exited { code: 0 }) {
            return Ok(());
        }
        match self.git.conflicts().map_err(Fault::from)? {
            paths if paths.is_empty() => {
                let last = said.map(|line| format!(": {line}")).unwrap_or_default();
                Err(Ended::because(
                    format!("git or a hook of the project refused it{last}"),
                    "do what it says, then merge again",
                ))
            }
            paths => Err(self.conflict(&paths)),
        }
    }

    fn command(
        &self,
        program: &str,
        args: Vec<String>,
        name: &str,
        timeout: Span,
        more: &[(String, String)],
    ) -> Result<(End, Spoken), Ended> {
        let shell = provider::load(self.project, &Name::try_from("shell".to_owned())?)?;
        let pass = environment::allowed(&shell);
        let id = &self.looked.situation.dispatch;
        let set = BTreeMap::from([
            ("VNX_MERGE".to_owned(), id.to_string()),
            ("VNX_TARGET".to_owned(), short_ref(&self.subject().target).to_owned()),
            ("VNX_HEAD".to_owned(), self.subject().head.clone()),
        ]);
        let mut env = environment::build(&pass, &set, &BTreeMap::new(), None)?;
        env.extend(more.iter().cloned());
        let found = crate::sys::path::find(program, env.get("PATH").map_or("", String::as_str).as_ref());
        let crate::sys::path::Found::At(program) = found else {
            return Err(Ended::because(format!("{program} is not in PATH"), "install it"));
        };
        let program = crate::sys::path::text(&program)?;
        let (ended, said) = run_command(CommandJob {
            program: &program,
            args,
            timeout,
            keep: 64 << 10,
            name,
            env,
            cwd: &self.path,
            grace: self.project.config.defaults.grace,
            folder: &self.folder,
            redactor: &Redactor::default(),
            control: control::bind(&self.folder)?,
        })?;
        Ok((ended.end, said))
    }

    /// The project's `pre_merge` hooks, on the branch as it is.
    fn pre_merge(&self) -> Result<(), Ended> {
        let hooks = &self.looked.policy.pre_merge;
        if hooks.is_empty() {
            return Ok(());
        }
        self.git.start_again(&self.subject().head).map_err(Fault::from)?;
        for (hook, nth) in hooks.iter().zip(1..) {
            let (program, args) = crate::worker::shell(&hook.run);
            let name = format!("pre_merge-{nth}");
            let (end, said) = self.command(program, args, &name, hook.timeout, &[])?;
            self.still_detached()?;
            if end != (End::Exited { code: 0 }) {
                let last = said.last.map(|line| format!(": {line}")).unwrap_or_default();
                return Err(Ended::because(
                    format!("hook {name} refuses it{last}"),
                    "do what it says, then merge again",
                ));
            }
        }
        self.still_detached()?;
        self.git.start_again(&self.subject().base).map_err(Fault::from)?;
        Ok(())
    }

    /// What the dispatch was about, as the first line of a message.
    fn title(&self, verb: &str) -> String {
        let id = &self.looked.situation.dispatch;
        let first = Request::read(&self.project.paths, id).and_then(|asked| asked.title()).unwrap_or_default();
        let words = match (verb, first.as_str()) {
            ("", "") => id.to_string(),
            ("", first) => first.to_owned(),
            (verb, "") => format!("{verb} {}", id.branch()),
            (verb, first) => format!("{verb} {}: {first}", id.branch()),
        };
        let words: String = Redactor::default().redact(&words).chars().filter(|c| !c.is_control()).collect();
        first_words(&words, MAX_SUBJECT)
    }

    /// The subjects of the commits that are squashed.
    fn commits(&self) -> Result<String, Ended> {
        let Subject { base, head, .. } = self.subject();
        let fork = self.looked.fork.as_deref().unwrap_or(base);
        let (commits, _) = self.git.commits_between(fork, head).map_err(Fault::from)?;
        let read = self.git.raw_commits(&commits).map_err(Fault::from)?;
        let lines =
            read.iter().map(|c| format!("* {} ({})", c.message.lines().next().unwrap_or_default(), short(&c.id)));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// A message with its trailers, as a file.
    fn message(&self, title: &str, body: &str) -> Result<String, Ended> {
        let text = if body.is_empty() { format!("{title}\n") } else { format!("{title}\n\n{body}\n") };
        self.written(&text)
    }

    fn written(&self, text: &str) -> Result<String, Ended> {
        // Somebody may have written such lines before; ours are the only ones.
        let kept: Vec<&str> = text.lines().filter(|line| !line.to_ascii_lowercase().starts_with("vnx-")).collect();
        let text = kept.join("\n") + "\n";
        let text = self.git.with_trailers(&text, &self.trailers.lines()).map_err(Fault::from)?;
        let file = self.folder.join("message");
        files::replace(&file, text.as_bytes()).map_err(Fault::from)?;
        Ok(crate::sys::path::text(&file)?)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn hook_changed() -> Ended {
    Ended::because(
        "a hook of the project changed what is merged, which no gate has seen",
        "let hooks check and not change; run the formatter on the branch",
    )
}

#[cfg(test)]
mod tests {
    use super::first_words;

    #[test]
    fn a_subject_ends_with_a_whole_word() {
        assert_eq!(first_words("Merge it", 8), "Merge it");
        assert_eq!(first_words("Merge vnx/one: make the retries, slowly", 33), "Merge vnx/one: make the retries…");
        assert_eq!(first_words("aaaaaaaaaa", 5), "aaaa…");
    }
}
