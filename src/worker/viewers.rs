//! Who watches an interactive worker. A viewer never slows the worker down: one that falls
//! behind misses output and gets the whole screen once it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::sys::pty::Size;

/// Frames that may wait for a viewer.
const QUEUE: usize = 64;
/// Longest frame.
const FRAME: usize = 256 << 10;

/// Where a viewer's frames go.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) id: u64,
    sender: mpsc::Sender<Arc<[u8]>>,
}

impl Frames {
    pub(super) fn new() -> (Self, mpsc::Receiver<Arc<[u8]>>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { id: NEXT.fetch_add(1, Ordering::Relaxed), sender }, receiver)
    }
}

/// Somebody who wants to watch.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) size: Size,
    pub(super) read_only: bool,
    pub(super) frames: Frames,
}

#[derive(Debug)]
struct Viewer {
    is: Newcomer,
    behind: bool,
}

/// All viewers of one worker, the one who came or changed last at the end.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    all: Vec<Viewer>,
}

impl Viewers {
    /// Shows the whole screen to a newcomer and keeps it.
    pub(super) fn add(&mut self, is: Newcomer, snapshot: Vec<u8>) {
        let mut viewer = Viewer { is, behind: false };
        viewer.show(&snapshot.into());
        self.all.push(viewer);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.all.retain(|v| v.is.frames.id != id);
    }

    /// Whether a viewer's keys go to the worker.
    pub(super) fn may_type(&self, id: u64) -> bool {
        self.all.iter().any(|v| v.is.frames.id == id && !v.is.read_only)
    }

    /// A viewer changed its size, which makes it the one that counts.
    pub(super) fn resize(&mut self, id: u64, size: Size) {
        if let Some(at) = self.all.iter().position(|v| v.is.frames.id == id) {
            let mut viewer = self.all.remove(at);
            viewer.is.size = size;
            self.all.push(viewer);
        }
    }

    /// The size that the worker's terminal should have: that of whoever may type and came last.
    pub(super) fn size(&self) -> Option<Size> {
        self.all.iter().rev().find(|v| !v.is.read_only).map(|v| v.is.size)
    }

    /// Shows output to everybody who keeps up.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        if self.all.is_empty() {
            return;
        }
        for part in bytes.chunks(FRAME) {
            let part: Arc<[u8]> = part.into();
            for viewer in self.all.iter_mut().filter(|v| !v.behind) {
                viewer.show(&part);
            }
        }
    }

    /// Shows the whole screen to a viewer that had fallen behind.
    pub(super) fn catch_up(&mut self, id: u64, snapshot: impl FnOnce() -> Vec<u8>) {
        if let Some(viewer) = self.all.iter_mut().find(|v| v.is.frames.id == id && v.behind) {
            viewer.behind = false;
            viewer.show(&snapshot().into());
        }
    }
}

impl Viewer {
    fn show(&mut self, bytes: &Arc<[u8]>) {
        self.behind |= self.is.frames.sender.try_send(Arc::clone(bytes)).is_err();
    }
}
