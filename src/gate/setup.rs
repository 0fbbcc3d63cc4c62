//! What a checkout's git says to whoever sets a project up.

use super::policy::CONFIG;
use crate::git::Git;
use crate::project::Located;

/// The command that adds `.vnx`, where nothing stands in its way.
pub const ADD: &str = "git add .vnx";

/// The command that adds `.vnx` in a checkout: git refuses what it ignores, and what a sparse checkout leaves out. The
/// ledger is no file of the repository, whatever is added.
pub fn how_to_add(checkout: &Located) -> &'static str {
    let ways: [(&[&str], &str); 3] = [
        (&[], ADD),
        (&["--force"], "git add --force .vnx ':!.vnx/receipts'"),
        (&["--sparse"], "git add --sparse .vnx"),
    ];
    let git = Git::tree(&checkout.git_dir, &checkout.top);
    let way = ways.iter().find(|(flags, _)| git.would_add(flags, CONFIG));
    way.map_or(ADD, |(_, way)| way)
}

/// The line of an allowed signers file for the key that this user's git signs with, if it signs with an SSH key.
pub fn own_signer(checkout: &Located) -> Option<String> {
    let config = Git::tree(&checkout.git_dir, &checkout.top).config().ok()?;
    let email = config.value("user.email").filter(|email| !email.contains(char::is_whitespace))?;
    Some(format!("{email} {}", config.signing_key()?.public?))
}
