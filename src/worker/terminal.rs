//! The terminal of an interactive worker: its pty, the screen behind it, the recording and
//! whoever watches.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::cast::Cast;
use super::link::{Got, Told};
use super::pipes::note;
use super::record::{Recorder, Source};
use super::screen::Screen;
use super::viewers::{Newcomer, Viewers};
use crate::domain::event::{Listener, Notice};
use crate::sys::pty::{self, Size};

/// The screen is looked at once it has been quiet for this long …
const QUIET: Duration = Duration::from_millis(150);
/// … or at the latest after this long: a spinner is never quiet.
const RESTLESS: Duration = Duration::from_secs(1);

/// Viewers of another size are shown the screen at most once in this time.
const RENDER: Duration = Duration::from_millis(30);
/// How much a worker may leave unread, in bytes, and still be answered.
const MAX_UNREAD: usize = 64 << 10;

/// One worker's terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
    open: bool,
    buffer: Vec<u8>,
    bytes: u64,
    screen: Screen,
    cast: Cast,
    viewers: Viewers,
    /// What the worker has not read yet.
    outgoing: VecDeque<u8>,
    /// When viewers of another size were shown the screen last.
    rendered: Instant,
    /// When the screen changed first since it was looked at, and last.
    changed: Option<(Instant, Instant)>,
}

impl Terminal {
    /// Takes over the supervisor's end of a pty.
    #[expect(
        deprecated,
        reason = "unsound only for types whose descriptor may change; an OwnedFd is what it is, and the replacement is unsafe"
    )]
    pub(super) fn new(master: OwnedFd, size: Size, cast: Cast) -> std::io::Result<Self> {
        Ok(Self {
            master: AsyncFd::new(master)?,
            open: true,
            buffer: vec![0; 64 << 10],
            bytes: 0,
            screen: Screen::new(size),
            cast,
            viewers: Viewers::default(),
            outgoing: VecDeque::new(),
            rendered: Instant::now(),
            changed: None,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Waits for output; writes what the worker is to read meanwhile. Cancel-safe.
    pub(super) async fn next(&mut self) -> Got {
        if !self.open {
            return std::future::pending().await;
        }
        loop {
            let (waiting, _) = self.outgoing.as_slices();
            tokio::select! {
                ready = self.master.readable() => {
                    let Ok(mut ready) = ready else { return Got::Terminal(0) };
                    match ready.try_io(|fd| read_all(fd.get_ref(), &mut self.buffer)) {
                        Ok(Ok(n)) => return Got::Terminal(n),
                        // EIO: every copy of the worker's end is closed.
                        Ok(Err(_)) => return Got::Terminal(0),
                        Err(_would_block) => {}
                    }
                }
                ready = self.master.writable(), if !waiting.is_empty() => {
                    let Ok(mut ready) = ready else { return Got::Terminal(0) };
                    let write = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::write(fd.get_ref(), waiting)?);
                    if let Ok(Ok(n)) = ready.try_io(write) {
                        self.outgoing.drain(..n);
                        if self.outgoing.is_empty() {
                            return Got::Written;
                        }
                    }
                }
            }
        }
    }

    /// Shows, records and answers what came.
    pub(super) fn take(&mut self, got: &Got, listener: &mut dyn Listener, recorder: &mut Recorder) -> Told {
        let mut told = Told::default();
        let Got::Terminal(n) = *got else { return told };
        if n == 0 {
            self.open = false;
            return told;
        }
        self.bytes += n as u64;
        let fed = self.screen.feed(&self.buffer[..n]);
        self.cast.output(&self.buffer[..n]);
        self.viewers.show(&fed.shown);
        // A program that asks and does not read gets no more answers.
        if self.outgoing.len() < MAX_UNREAD {
            self.outgoing.extend(fed.replies);
        }
        let now = Instant::now();
        self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
        for notice in &fed.notices {
            let text = match notice {
                Notice::Status(text) => format!("status {text}"),
                Notice::Title(text) => format!("title {text}"),
                Notice::Progress(on) => format!("progress {}", if *on { "on" } else { "off" }),
                Notice::Notification(text) => format!("notification {text}"),
                Notice::Bell => "bell".to_owned(),
            };
            told.add(note(listener.notice(notice), recorder, Source::Terminal, &text));
        }
        told.add(listener.drew());
        told
    }

    /// When something wants to be done without anything happening.
    pub(super) fn due(&self) -> Option<Instant> {
        let look = self.changed.map(|(first, last)| (last + QUIET).min(first + RESTLESS));
        let render = self.viewers.is_stale().then(|| self.rendered + RENDER);
        look.into_iter().chain(self.cast.due()).chain(render).min()
    }

    /// Does it: writes the recording, looks at a screen that has come to rest.
    pub(super) fn on_due(&mut self, listener: &mut dyn Listener, recorder: &mut Recorder) -> Told {
        let mut told = Told::default();
        self.cast.flush();
        let now = Instant::now();
        if self.viewers.is_stale() && self.rendered + RENDER <= now {
            self.rendered = now;
            self.viewers.render(&self.screen);
        }
        if self.changed.is_some_and(|(first, last)| last + QUIET <= now || first + RESTLESS <= now) {
            self.changed = None;
            let text = self.screen.text();
            let heard = listener.screen(&text);
            if !heard.events.is_empty() || heard.keys.is_some() {
                told.add(note(heard, recorder, Source::Terminal, &format!("screen\n{text}")));
            }
        }
        told
    }

    /// Gives the worker bytes to read.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Whether the worker has read everything.
    pub(super) fn is_written(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Rings at every viewer: somebody has to answer. tmux marks the window.
    pub(super) fn ring(&mut self) {
        self.viewers.ring();
    }

    /// Shows the screen to somebody new, and rings if there is something to answer.
    pub(super) fn attach(&mut self, newcomer: Newcomer, rings: bool) {
        self.viewers.add(newcomer);
        self.fit();
        if rings {
            self.viewers.ring_newest();
        }
    }

    pub(super) fn typed(&mut self, viewer: u64, bytes: &[u8]) {
        if self.viewers.may_type(viewer) {
            self.write(bytes);
        }
    }

    pub(super) fn resized(&mut self, viewer: u64, size: Size) {
        self.viewers.resize(viewer, size);
        self.fit();
    }

    pub(super) fn drained(&mut self, viewer: u64) {
        self.viewers.catch_up(viewer, &self.screen);
    }

    pub(super) fn left(&mut self, viewer: u64) {
        self.viewers.remove(viewer);
        self.fit();
    }

    /// Gives the worker the size of whoever watches; without anybody it keeps what it has.
    fn fit(&mut self) {
        if let Some(size) = self.viewers.size().filter(|size| *size != self.screen.size())
            && pty::resize(self.master.get_ref(), size).is_ok()
        {
            self.screen.resize(size);
            self.cast.resized(size);
        }
        self.viewers.settle(&self.screen);
    }

    /// Writes what was held back, looks a last time, and lets the viewers go.
    pub(super) fn finish(&mut self, listener: &mut dyn Listener) {
        listener.screen(&self.screen.text());
        self.cast.finish();
        self.viewers = Viewers::default();
    }
}

/// Reads what there is, up to the buffer's size: the kernel hands out at most 4 KiB at once.
fn read_all(fd: &OwnedFd, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(_) if filled > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(filled)
}
