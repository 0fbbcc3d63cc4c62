//! Panes: a tmux view for each dispatch. Nothing waits for them, and losing them loses nothing.

use std::thread::JoinHandle;
use std::time::Duration;

use super::claim::refuse_swapped;
use super::door::Options;
use super::view;
use crate::domain::{DispatchId, Fault, Name};
use crate::project::Project;
use crate::project::config::Panes;
use crate::sys::files::{self, HeldFolder};
use crate::sys::{lock, path};
use crate::tmux::{Layout, Socket, Tmux, TmuxError};

/// What a pane needs to be opened.
struct Place {
    tmux: Tmux,
    session: Name,
    layout: Layout,
}

/// Where panes go; `None` where there are none.
fn place(project: &Project, socket: Option<&Name>) -> Option<Place> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let config = &project.config.tmux;
    let layout = match config.panes {
        Panes::Off => return None,
        Panes::Window => Layout::Window,
        Panes::Split => Layout::Tiled(usize::MAX),
        Panes::Grid => Layout::Tiled(config.grid as usize),
    };
    if !Tmux::installed(&search) {
        return None;
    }
    let tmux = Tmux::on(Socket::choose(socket.or(config.socket.as_ref())));
    let session = Name::parse("session", &format!("vnx-{}", project.id())).ok()?;
    Some(Place { tmux, session, layout })
}

/// `vnx attach --pane <id>`.
fn command(project: &Project, id: &DispatchId) -> Result<Vec<String>, Fault> {
    let (vnx, top) = (path::text(&path::own_executable()?)?, path::text(&project.located.top)?);
    let words = [vnx.as_str(), "--project", &top, "attach", "--pane", id.as_str()];
    Ok(words.map(str::to_owned).into())
}

/// Opens a dispatch's pane, on a thread of its own.
pub(super) fn beside(
    project: &Project,
    id: &DispatchId,
    held: HeldFolder,
    options: &Options,
) -> Option<JoinHandle<()>> {
    if options.no_pane {
        return None;
    }
    let place = place(project, options.socket.as_ref())?;
    let (argv, window) = (command(project, id).ok()?, Name::parse("window", id.as_str()).ok()?);
    // Where no thread can be had, there is no pane.
    let opened = std::thread::Builder::new().spawn(move || {
        let text = match place.open(&window, &argv) {
            Ok(pane) => format!("{} {pane}\n", place.session),
            Err(e) => format!("none: {e}\n"),
        };
        let _ = files::replace(&held.path().join("pane"), text.as_bytes());
    });
    opened.ok()
}

impl Place {
    fn open(&self, window: &Name, argv: &[String]) -> Result<String, TmuxError> {
        self.tmux.open_pane(&self.session, window, self.layout, argv)
    }
}

/// Gives every dispatch that runs a pane again; returns the ids that got one.
pub fn repane(project: &Project, socket: Option<&Name>) -> Result<Vec<DispatchId>, Fault> {
    let Some(place) = place(project, socket) else {
        return Err(Fault::environment("there is no tmux, or `tmux.panes` is off")
            .fix("install tmux, or set tmux.panes in .vnx/config.yaml; `vnx attach` works without it"));
    };
    // Two at once would each give every dispatch one.
    let _lock = lock::exclusive(&project.paths.panes_lock(), Duration::from_mins(1))?;
    let mut opened = Vec::new();
    // The server may be gone, and then so are all panes.
    let standing = place.tmux.panes(&place.session).unwrap_or_default();
    for live in view::live(project)? {
        // A viewer could not show one whose plan it cannot read, and nothing is written into what took its place.
        if view::plan(project, &live.id).is_err() || refuse_swapped(&project.paths, &live.id).is_err() {
            continue;
        }
        let note = project.paths.dispatch(&live.id).join("pane");
        let had = live.pane.as_deref().and_then(|p| p.split(' ').nth(1));
        // Pane ids start again with a new server: the name must be right as well.
        if standing.iter().any(|(pane, name)| Some(pane.as_str()) == had && name.contains(live.id.as_str())) {
            continue;
        }
        let window = Name::parse("window", live.id.as_str())?;
        let pane = place.open(&window, &command(project, &live.id)?).map_err(|e| {
            Fault::environment(format!("the pane of {} cannot be opened: {e}", live.id)).fix("look at `tmux ls`")
        })?;
        files::replace(&note, format!("{} {pane}\n", place.session).as_bytes())?;
        opened.push(live.id);
    }
    Ok(opened)
}
