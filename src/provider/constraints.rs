//! Reading `provider_constraints.yaml`. Fails closed: no file, no dispatch.

use std::path::Path;

use crate::domain::Fault;
use crate::domain::constraint::Constraints;
use crate::project::{MAX_CONFIG, yaml};
use crate::sys::files;

/// The shipped file, which `vnx init` copies into a project.
pub const SHIPPED: &str = include_str!("../../provider_constraints.yaml");

/// Reads the project's constraints.
pub fn load(vnx_folder: &Path) -> Result<Constraints, Fault> {
    let file = vnx_folder.join("provider_constraints.yaml");
    let Some(bytes) = files::read_capped(&file, MAX_CONFIG)? else {
        return Err(Fault::environment(format!(
            "{} is missing, and without constraints nothing is dispatched",
            file.display()
        ))
        .fix("run `vnx init`, which writes the shipped file"));
    };
    let constraints: Constraints = yaml::parse(&file, &bytes)?;
    let wrong = |what: String| {
        Err(Fault::input(format!("{}: {what}", file.display())).fix("correct the file and run `vnx doctor`"))
    };
    if constraints.version != 1 {
        return wrong(format!("version {} is not known to this vnx; it knows 1", constraints.version));
    }
    let mut seen = std::collections::HashSet::new();
    for constraint in &constraints.constraints {
        if let Err(why) = constraint.check_shape() {
            return wrong(why);
        }
        if !seen.insert(&constraint.id) {
            return wrong(format!("constraint {} stands twice", constraint.id));
        }
    }
    Ok(constraints)
}
