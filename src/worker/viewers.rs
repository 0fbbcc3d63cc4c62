//! Who watches an interactive worker. A viewer never slows the worker down: one that falls
//! behind misses output and gets the whole screen once it has caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::screen::Screen;
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
    /// It misses output.
    behind: bool,
    /// A bell was among it.
    missed: bool,
    /// Its size is another than the worker's: it is shown the part that it has room for, and these
    /// rows stand there. One of the worker's size gets what the worker writes.
    rows: Option<Vec<String>>,
}

/// All viewers of one worker, the one who came or changed last at the end.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    all: Vec<Viewer>,
    /// Somebody of another size has not been shown the newest output.
    stale: bool,
}

impl Viewers {
    /// Keeps a newcomer; `settle` shows the screen.
    pub(super) fn add(&mut self, is: Newcomer) {
        self.all.push(Viewer { is, behind: true, missed: false, rows: None });
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
            viewer.behind = true;
            self.all.push(viewer);
        }
    }

    /// The size that the worker's terminal should have: that of whoever may type and came last.
    pub(super) fn size(&self) -> Option<Size> {
        self.all.iter().rev().find(|v| !v.is.read_only).map(|v| v.is.size)
    }

    /// Shows output to everybody of the worker's size who keeps up.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.stale |= self.all.iter().any(|v| v.rows.is_some());
        for part in bytes.chunks(FRAME) {
            if self.all.is_empty() {
                return;
            }
            let part: Arc<[u8]> = part.into();
            for viewer in self.all.iter_mut().filter(|v| !v.behind && v.rows.is_none()) {
                viewer.send(&part);
            }
        }
    }

    /// Rings at everybody.
    pub(super) fn ring(&mut self) {
        self.all.iter_mut().for_each(Viewer::ring);
    }

    /// Rings at whoever came or changed last.
    pub(super) fn ring_newest(&mut self) {
        self.all.iter_mut().next_back().into_iter().for_each(Viewer::ring);
    }

    /// Somebody of another size waits to be shown the newest output.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Shows it.
    pub(super) fn render(&mut self, screen: &Screen) {
        self.stale = false;
        for viewer in self.all.iter_mut().filter(|v| !v.behind) {
            viewer.render(screen);
        }
    }

    /// After somebody came, left or changed, or the worker's size did: who is new to what they see gets
    /// the whole screen, in the way that suits their size.
    pub(super) fn settle(&mut self, screen: &Screen) {
        for viewer in &mut self.all {
            let same = viewer.is.size == screen.size();
            if viewer.behind || same != viewer.rows.is_none() {
                viewer.begin(screen);
            }
        }
    }

    /// A viewer that had fallen behind has caught up.
    pub(super) fn catch_up(&mut self, id: u64, screen: &Screen) {
        if let Some(viewer) = self.all.iter_mut().find(|v| v.is.frames.id == id && v.behind) {
            viewer.begin(screen);
        }
    }
}

impl Viewer {
    fn send(&mut self, bytes: &Arc<[u8]>) {
        self.behind |= self.is.frames.sender.try_send(Arc::clone(bytes)).is_err();
    }

    fn ring(&mut self) {
        self.send(&Arc::from(*b"\x07"));
        self.missed = self.behind;
    }

    fn begin(&mut self, screen: &Screen) {
        self.behind = false;
        if self.is.size == screen.size() {
            self.rows = None;
            self.send(&screen.snapshot().into());
        } else {
            self.rows = Some(Vec::new());
            self.render(screen);
        }
        if std::mem::take(&mut self.missed) {
            self.ring();
        }
    }

    fn render(&mut self, screen: &Screen) {
        let Some(rows) = &mut self.rows else { return };
        let frame = screen.cropped(self.is.size, rows);
        if !frame.is_empty() {
            self.send(&frame.into());
        }
    }
}
