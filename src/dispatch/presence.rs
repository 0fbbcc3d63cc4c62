//! How a person stands behind a decision: by a code typed back on a terminal, or by a signature over all of what is decided.
//!
//! The code is a speed bump. It stops whoever has no terminal, which is every tool call of an agent and everything that a
//! worker left behind; it does not stop a program that makes itself a terminal far from any worker. A key does that where
//! no program can use it alone.

use std::path::PathBuf;
use std::time::Duration;

use super::caller;
use crate::anchor::Signers;
use crate::domain::authority::{Caller, Deciding, Operation, Presence, code, is_code};
use crate::domain::line::summary;
use crate::domain::receipt::{Attestation, Signed};
use crate::domain::sshsig::was_touched;
use crate::domain::{Digest, Fault};
use crate::git::Git;
use crate::project::{Paths, Project};
use crate::sys::cmd::Cmd;
use crate::sys::process::{self, Process};
use crate::sys::tty::Terminal;
use crate::sys::{self, files};

/// What a signature is for (ssh-keygen, `-n`).
const NAMESPACE: &str = "vnx-decision";
/// How long a code waits to be typed.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a person is asked to stand behind.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What kind of decision it is.
    pub deciding: Deciding,
    /// All of it in one line, for the terminal.
    pub line: &'a str,
    /// All of it as it is signed; what has none cannot be signed.
    pub statement: Option<&'a str>,
    /// It shall be signed.
    pub sign: bool,
    /// The least presence that the target asks for.
    pub minimum: Presence,
    /// Whom the target trusts to sign (ALLOWED SIGNERS).
    pub signers: Option<&'a [u8]>,
}

/// Lets the person at the terminal, or their key, stand behind a decision; what stands against it is refused.
pub fn attest(project: &Project, decision: &Decision<'_>) -> Result<Attestation, Fault> {
    caller::require(Operation::Decide(decision.deciding), || Ok(crate::domain::authority::Agents::default()))?;
    match (decision.sign, decision.statement, decision.minimum) {
        (true, Some(statement), _) => sign(project, decision, statement),
        (_, _, Presence::None) => Ok(Attestation { presence: Presence::None, signed: None }),
        (_, statement, Presence::Tty) => ask(decision.line, statement.is_some()),
        (_, statement, least @ (Presence::Key | Presence::Touch)) => {
            let fix = if statement.is_some() { "add --sign" } else { "`vnx stage` it, then `vnx promote ID --sign`" };
            Err(Fault::refused(format!("the target asks for presence {} here, which is a signature", least.word()))
                .fix(fix))
        }
    }
}

fn ask(line: &str, can_be_signed: bool) -> Result<Attestation, Fault> {
    let or = if can_be_signed { ", or sign it with --sign" } else { "" };
    let fix = format!("run it in a terminal of your own{or}");
    let mut terminal =
        Terminal::controlling().ok_or_else(|| Fault::refused("there is no terminal to ask a person on").fix(fix))?;
    not_a_workers(&terminal)?;
    let code = code(sys::random::<4>()?);
    let text = format!("vnx: {}\ntype {code} to decide it: ", summary(line));
    let typed = terminal.ask(&text, PATIENCE).map_err(|e| Fault::io(format!("the terminal cannot be read: {e}")))?;
    match typed {
        Some(typed) if is_code(&code, &typed) => Ok(Attestation { presence: Presence::Tty, signed: None }),
        Some(_) => Err(Fault::refused("what was typed is not the code; nothing was decided").fix("run it again")),
        None => Err(Fault::refused("nobody typed the code in two minutes; nothing was decided").fix("run it again")),
    }
}

/// Refuses the terminal of a worker or an agent: one whose session is theirs, or whose other end they hold.
fn not_a_workers(terminal: &Terminal) -> Result<(), Fault> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let own = Process::read(me).and_then(|process| process.pseudo_terminal());
    let holders = own.map(process::terminal_holders).unwrap_or_default();
    for pid in terminal.owners().into_iter().chain(holders).filter(|pid| *pid != me) {
        let is_supervisor = process::is_own_program(pid);
        let (caller, fact) = caller::of(pid);
        if is_supervisor || caller != Caller::Person {
            let because = fact.map(|fact| format!(": {fact}")).unwrap_or_default();
            return Err(Fault::refused(format!("this is a terminal of process {pid}, which is no person's{because}"))
                .fix("run it in a terminal of your own"));
        }
    }
    Ok(())
}

/// The files of a signature.
fn places(paths: &Paths, text: Digest) -> (PathBuf, PathBuf) {
    let folder = paths.signatures();
    (folder.join(format!("{text}.txt")), folder.join(format!("{text}.sig")))
}

fn sign(project: &Project, decision: &Decision<'_>, statement: &str) -> Result<Attestation, Fault> {
    let config = Git::tree(&project.located.git_dir, &project.located.top).config()?;
    let key = config.value("user.signingkey").filter(|_| config.value("gpg.format") == Some("ssh"));
    let Some(key) = key else {
        return Err(Fault::environment("git is not configured to sign with an SSH key")
            .fix("git config --global gpg.format ssh; git config --global user.signingkey <public key file>"));
    };
    let text = Digest::of(statement.as_bytes());
    files::private_folder(&project.paths.signatures())?;
    let (file, sig) = places(&project.paths, text);
    files::replace(&file, statement.as_bytes())?;
    // A key itself, as git takes it, goes into a file for ssh-keygen.
    let literal = key.strip_prefix("key::").or_else(|| key.starts_with("ssh-").then_some(key));
    let key = match literal {
        Some(key) => {
            let path = file.with_extension("pub");
            files::replace(&path, format!("{key}\n").as_bytes())?;
            path
        }
        None => home(key),
    };
    let cmd = Cmd::new("ssh-keygen").args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(&key).arg(&file);
    let cmd = match std::env::var_os("SSH_AUTH_SOCK") {
        Some(agent) => cmd.env("SSH_AUTH_SOCK", agent),
        None => cmd,
    };
    let output = cmd.limit(PATIENCE).run().map_err(|e| Fault::environment(e.to_string()))?;
    if !output.ok() {
        return Err(Fault::environment(format!("ssh-keygen did not sign: {}", output.complaint()))
            .fix("check user.signingkey, and that the agent has the key"));
    }
    files::rename(&file.with_extension("txt.sig"), &sig)?;
    let signature = files::read_capped(&sig, 1 << 20)?.ok_or_else(|| Fault::io("ssh-keygen left no signature"))?;
    let signed = Some(Signed { text, signature: Digest::of(&signature) });
    let allowed = decision.signers.map(trusted);
    let claimed = Attestation { presence: Presence::Key, signed };
    let (presence, by) = verify(&project.paths, &claimed, statement, allowed.as_ref()).map_err(Fault::io)?;
    if by.is_some() && presence >= decision.minimum {
        return Ok(Attestation { presence, signed });
    }
    // Nothing was decided, so nothing of it stays.
    files::remove(&file)?;
    files::remove(&sig)?;
    if by.is_none() {
        return Err(Fault::refused("the key that signed is not in .vnx/allowed_signers of the target")
            .fix("commit its public key there, or decide on a terminal, without --sign"));
    }
    Err(Fault::refused("the target asks for a key that somebody has to touch, and this one was not touched")
        .fix("set user.signingkey to one of a security key (ssh-keygen -t ed25519-sk)"))
}

fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// Those whom a target trusts to sign.
pub(super) fn trusted(text: &[u8]) -> Signers {
    Signers::in_text(text.to_vec(), ".vnx/allowed_signers of the target")
}

/// What an attestation amounts to now, and who signed it: a signature counts for as much as can be read from it, and for
/// nothing where nobody made it whom the target trusts. An error says why its files are not what its receipt says.
pub(super) fn verify(
    paths: &Paths,
    attestation: &Attestation,
    statement: &str,
    allowed: Option<&Signers>,
) -> Result<(Presence, Option<String>), String> {
    let Some(signed) = attestation.signed else {
        // Only a signature is more than a terminal.
        return Ok((attestation.presence.min(Presence::Tty), None));
    };
    let (text, signature) = places(paths, signed.text);
    let read = |path: &PathBuf, what: &str, digest: Digest| {
        let bytes = files::read_capped(path, 1 << 20).map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("its {what} is missing ({})", path.display()))?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(format!("its {what} was edited ({})", path.display()))
        }
    };
    let text = read(&text, "text", signed.text)?;
    let signature = read(&signature, "signature", signed.signature)?;
    if text != statement.as_bytes() {
        return Err("what was signed is not what its receipt says".to_owned());
    }
    let signature = String::from_utf8_lossy(&signature).into_owned();
    let by = allowed.map_or(Ok(None), |allowed| allowed.of_text(&text, &signature, NAMESPACE))?;
    let presence = match &by {
        None => Presence::None,
        Some(_) if was_touched(&signature) => Presence::Touch,
        Some(_) => Presence::Key,
    };
    Ok((presence, by))
}
