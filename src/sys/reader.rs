//! The program with which a person reads what is longer than the terminal.
//!
//! It takes the place of this process and reads from a file, so that no signal of the keyboard and no exit
//! code has two owners.

use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::cmd::Cmd;
use super::path::{self, Found};

/// Shows a text with `$PAGER`, otherwise with less(1), as git does. Returns only where that cannot be: then nothing
/// was shown.
pub fn page(text: &[u8]) {
    let pager = std::env::var_os("PAGER").unwrap_or_else(|| "less".into());
    if pager.is_empty() || pager == "cat" {
        return;
    }
    let name = pager.to_string_lossy();
    let search = std::env::var_os("PATH").unwrap_or_default();
    let program = name.split_whitespace().next().unwrap_or_default();
    if !matches!(path::find(program, &search), Found::At(_)) {
        return;
    }
    // A shell, as its words may be more than a program.
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&pager);
    if std::env::var_os("LESS").is_none() {
        // Leave at once where it fits, pass colours, keep the screen.
        command.env("LESS", "FRX");
    }
    become_it(command, text);
}

/// Shows the source of a manual page with man(1). Returns only where that cannot be: others than man-db's show no
/// page from standard input, and a distribution may have a word of its own in man's place.
pub fn manual(page: &[u8]) {
    let version = Cmd::new("man").args(["--version"]).run();
    if !version.is_ok_and(|said| said.ok() && said.text().starts_with("man ")) {
        return;
    }
    let mut command = Command::new("man");
    command.args(["-l", "-"]);
    become_it(command, page);
}

fn become_it(mut command: Command, text: &[u8]) {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(text).and_then(|()| file.rewind()).is_ok() {
        // What comes back is why it could not be; whoever asked shows the text without it.
        let _ = command.stdin(file).exec();
    }
}
