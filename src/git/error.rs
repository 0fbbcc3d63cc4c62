//! What can go wrong with a call of git, and what helps.

use super::commits;
use crate::domain::Fault;
use crate::domain::line::quoted;
use crate::sys::cmd::CmdError;
use crate::sys::files::PathError;

/// A git call that did not do what was needed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The call could not be made.
    #[error(transparent)]
    Call(#[from] CmdError),
    /// A file that git reads too could not be read, or one of ours not be written.
    #[error(transparent)]
    File(#[from] PathError),
    /// git refused.
    #[error("git {verb} failed (exit {code}): {complaint}")]
    Refused {
        /// The subcommand.
        verb: String,
        /// The exit code, -1 after a signal.
        code: i32,
        /// Its first line of complaint.
        complaint: String,
    },
    /// The answer has a form that we do not know.
    #[error("git {verb} answered in an unknown form")]
    Unreadable {
        /// The subcommand.
        verb: String,
    },
    /// An object is not what its name says, or history is hidden.
    #[error(
        "git's own files contradict its objects: one is not what its name says, or a list of shallow commits or grafts \
         hides history"
    )]
    Contradicted,
    /// What the repository was like before is not known.
    #[error("what the repository was like when it began is not on record")]
    NoBaseline,
    /// References and their logs are compressed (git's `reftable`): what they name cannot be looked for in bytes.
    #[error("references are kept in tables (reftable), which vnx does not read")]
    Tables,
}

impl GitError {
    /// What to do about a lock that git found: whose it is only a person can know.
    pub fn about_lock(&self) -> Option<String> {
        let Self::Refused { complaint, .. } = self else { return None };
        let path = complaint.split_once("Unable to create '")?.1.split_once("': File exists")?.0;
        path.strip_suffix(".lock")?;
        Some(format!("if no git runs here, rm {}; then try again", quoted(path)))
    }
}

impl From<GitError> for Fault {
    fn from(error: GitError) -> Self {
        let fix = match &error {
            GitError::Call(CmdError::Missing { .. }) => "install git 2.34 or newer".to_owned(),
            GitError::Contradicted => "`git fsck` tells which; fetch it again, or restore it from a copy".to_owned(),
            GitError::Call(CmdError::Spawn { .. }) => {
                "check free memory and the limit on processes (`ulimit -u`)".to_owned()
            }
            GitError::Refused { complaint, .. } if commits::is_loss(complaint) => {
                "`git fsck` tells what is lost; fetch it again, or restore it from a copy".to_owned()
            }
            _ => error.about_lock().unwrap_or_else(|| "run `vnx doctor`".to_owned()),
        };
        Self::environment(error.to_string()).fix(fix)
    }
}
