//! The two pipes of a headless worker.

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdout};

use super::lines::Lines;
use super::link::{Got, Told};
use super::record::{Recorder, Source};
use crate::domain::event::{Heard, Listener};

#[derive(Debug)]
struct Stream<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
    lines: Lines,
    bytes: u64,
}

impl<R: AsyncReadExt + Unpin> Stream<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, buffer: vec![0; 64 << 10], lines: Lines::default(), bytes: 0 }
    }

    /// Bytes read, 0 at the end; never ready again after the end. Cancel-safe.
    async fn read(&mut self) -> usize {
        match &mut self.pipe {
            Some(pipe) => pipe.read(&mut self.buffer).await.unwrap_or(0),
            None => std::future::pending().await,
        }
    }
}

/// Standard output and standard error.
#[derive(Debug)]
pub(super) struct Pipes {
    out: Stream<ChildStdout>,
    err: Stream<ChildStderr>,
}

impl Pipes {
    pub(super) fn new(out: Option<ChildStdout>, err: Option<ChildStderr>) -> Self {
        Self { out: Stream::new(out), err: Stream::new(err) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.out.pipe.is_some() || self.err.pipe.is_some()
    }

    /// Bytes so far, of each.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.out.bytes, self.err.bytes)
    }

    /// Waits for output. Cancel-safe.
    pub(super) async fn next(&mut self) -> Got {
        tokio::select! {
            n = self.out.read() => Got::Out(n),
            n = self.err.read() => Got::Err(n),
        }
    }

    /// Hands what was got to whoever understands it.
    pub(super) fn take(&mut self, got: &Got, listener: &mut dyn Listener, recorder: &mut Recorder) -> Told {
        let mut told = Told::default();
        match *got {
            Got::Out(0) => self.out.pipe = None,
            Got::Err(0) => self.err.pipe = None,
            Got::Out(n) => {
                self.out.bytes += n as u64;
                let bytes = &self.out.buffer[..n];
                self.out
                    .lines
                    .take(bytes, |line| told.add(note(listener.stdout_line(line), recorder, Source::Out, line)));
            }
            Got::Err(n) => {
                self.err.bytes += n as u64;
                let bytes = &self.err.buffer[..n];
                self.err
                    .lines
                    .take(bytes, |line| told.add(note(listener.stderr_line(line), recorder, Source::Err, line)));
            }
            Got::Terminal(_) | Got::Written => {}
        }
        told
    }

    /// What stands after the last line feed, once everything has ended.
    pub(super) fn finish(&mut self, listener: &mut dyn Listener, recorder: &mut Recorder) {
        self.out.lines.finish(|line| drop(note(listener.stdout_line(line), recorder, Source::Out, line)));
        self.err.lines.finish(|line| drop(note(listener.stderr_line(line), recorder, Source::Err, line)));
    }
}

/// Records a line and what was heard in it.
pub(super) fn note(heard: Heard, recorder: &mut Recorder, source: Source, line: &str) -> Heard {
    recorder.line(source, line, heard.events.clone());
    heard
}
