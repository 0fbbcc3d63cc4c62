//! Waiting for a folder to change: inotify as a wake-up hint, never as truth. Whoever waits
//! re-reads what it cares about; a lost event costs at most the fallback interval.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches one folder, not recursively.
#[derive(Debug)]
pub struct FolderWatch {
    // Dropping the watcher ends the events.
    watcher: Option<RecommendedWatcher>,
    waker: Sender<()>,
    events: Receiver<()>,
}

impl FolderWatch {
    /// Starts watching. Where the kernel refuses (too many watches), only the fallback is left.
    pub fn on(folder: &Path) -> Self {
        let (send, events) = channel();
        let waker = send.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if !event.is_ok_and(|event| is_look(event.kind)) {
                // A receiver that is gone needs no news.
                let _ = send.send(());
            }
        });
        let watching = watcher.ok().and_then(|mut w| w.watch(folder, RecursiveMode::NonRecursive).ok().map(|()| w));
        Self { watcher: watching, waker, events }
    }

    /// What ends a wait as a change does, from any thread.
    pub fn waker(&self) -> impl Fn() + Send + 'static {
        let waker = self.waker.clone();
        move || {
            // A watch that is gone needs no news.
            let _ = waker.send(());
        }
    }

    /// Waits for a change, or for the fallback interval of one second.
    pub fn wait(&self) {
        // Where nobody watches, whoever waits looks more often.
        let interval = if self.watcher.is_some() { Duration::from_secs(1) } else { Duration::from_millis(200) };
        if self.events.recv_timeout(interval).is_ok() {
            while self.events.try_recv().is_ok() {}
        }
    }
}

/// Whoever looks opens what it reads: that is no change, and would wake it again.
fn is_look(kind: EventKind) -> bool {
    kind.is_access() && kind != EventKind::Access(AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{files, lock};

    #[test]
    fn looking_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let (file, end) = (folder.path().join("lock"), folder.path().join("end"));
        std::fs::write(&file, "1").unwrap();
        let _held = lock::try_exclusive(&file).unwrap();
        let (send, events) = channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let event = event.unwrap();
            send.send((is_look(event.kind), event.paths)).unwrap();
        })
        .unwrap();
        watcher.watch(folder.path(), RecursiveMode::NonRecursive).unwrap();
        assert!(!lock::is_free(&file).unwrap());
        assert!(lock::is_free(&folder.path().join("none")).unwrap());
        files::read_capped(&file, 10).unwrap().unwrap();
        files::names(folder.path()).unwrap();
        std::fs::create_dir(&end).unwrap();
        let before_the_end = events.iter().take_while(|(_, paths)| !paths.contains(&end));
        assert_eq!(before_the_end.filter(|(is_look, _)| !is_look).count(), 0);
    }
}
