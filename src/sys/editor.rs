//! The editor in which a person writes a text.

use std::io::{IsTerminal, Write};
use std::process::Command;

use super::files;
use crate::domain::Fault;

/// More than this is not read back.
const MOST: u64 = 4 << 20;

/// Shows a text in an editor, a command for a shell, and returns what became of it. An error if the editor cannot be run
/// or says that it failed.
pub fn edit(editor: &str, text: &str) -> Result<String, Fault> {
    let refused = |why: String| {
        Fault::environment(format!("the editor {editor:?} {why}"))
            .fix("set EDITOR to one that works, or give the text as an argument")
    };
    let no_file = |e: std::io::Error| Fault::io(format!("no file can be made for the editor: {e}"));
    // A name by which editors know what kind of text it is.
    let mut file = tempfile::Builder::new().prefix("vnx-").suffix(".md").tempfile().map_err(no_file)?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(no_file)?;
    // As git does it: the setting may be more than a program, and the file's name is no part of the script.
    let script = format!("{editor} \"$@\"");
    let mut command = Command::new("/bin/sh");
    // The answer may go elsewhere: `id=$(vnx dispatch --detach …)`.
    let terminal = || std::fs::OpenOptions::new().write(true).open("/dev/tty").ok();
    if let Some(terminal) = terminal().filter(|_| !std::io::stdout().is_terminal()) {
        command.stdout(terminal);
    }
    let status = command.arg("-c").arg(script).arg(editor).arg(file.path()).status();
    let status = status.map_err(|e| refused(format!("cannot be run: {e}")))?;
    if !status.success() {
        return Err(refused(format!("ended with {status}")));
    }
    let bytes = files::read_capped(file.path(), MOST)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| Fault::input("what the editor wrote is not UTF-8").fix("save it as UTF-8"))
}
