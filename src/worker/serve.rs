//! The supervisor's side of `control.sock`: each connection is a task that talks to the loop.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::control::{Answer, MAX_REQUEST, Request, frame};
use super::viewers::{Frames, Newcomer};
use crate::sys::process::uid;
use crate::sys::pty::Size;

/// What a connection wants of the loop.
#[derive(Debug)]
pub(super) enum Ask {
    /// A request and where its answer goes.
    Request(Request, oneshot::Sender<Answer>),
    /// Somebody attached.
    Attached(Newcomer, oneshot::Sender<Answer>),
    /// A viewer typed.
    Typed(u64, Vec<u8>),
    /// A viewer has another size.
    Resized(u64, Size),
    /// A viewer that had fallen behind has caught up.
    Drained(u64),
    /// A viewer is gone.
    Left(u64),
}

/// One connection. Another user's gets no answer.
pub(super) async fn serve(stream: UnixStream, asks: mpsc::Sender<Ask>) {
    if stream.peer_cred().map(|c| c.uid()).ok() != Some(uid()) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = String::new();
    let mut limited = (&mut reader).take(MAX_REQUEST);
    let read = tokio::time::timeout(Duration::from_secs(5), limited.read_line(&mut line));
    if !matches!(read.await, Ok(Ok(n)) if n > 0) {
        return;
    }
    let Ok(request) = serde_json::from_str::<Request>(&line) else {
        return;
    };
    let (reply, answer) = oneshot::channel();
    if let Request::Attach { size, read_only } = request {
        let (frames, shown) = Frames::new();
        let id = frames.id;
        let newcomer = Newcomer { size: size.sane(), read_only, frames };
        if asks.send(Ask::Attached(newcomer, reply)).await.is_err() {
            return;
        }
        let Ok(answer) = answer.await else { return };
        if tell(&mut write, &answer).await.is_err() || !answer.accepted {
            return;
        }
        let typing = tokio::spawn(hear(reader, id, asks.clone()));
        show(write, shown, id, &asks).await;
        typing.abort();
        let _ = asks.send(Ask::Left(id)).await;
        return;
    }
    // Whoever asked may hang up before the answer is there; a hook does when its question is settled.
    let mut nothing = [0; 1];
    if asks.send(Ask::Request(request, reply)).await.is_ok() {
        tokio::select! {
            // Where nobody will answer any more, whoever asked is let go.
            answer = answer => if let Ok(answer) = answer { let _ = tell(&mut write, &answer).await; },
            _ = reader.read(&mut nothing) => {}
        }
    }
}

async fn tell(write: &mut OwnedWriteHalf, answer: &Answer) -> std::io::Result<()> {
    let mut text = serde_json::to_string(answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

/// What a viewer says, until it leaves.
async fn hear(mut reader: BufReader<OwnedReadHalf>, id: u64, asks: mpsc::Sender<Ask>) {
    loop {
        let mut head = [0; 5];
        if reader.read_exact(&mut head).await.is_err() {
            break;
        }
        let [kind, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > frame::MAX {
            break;
        }
        let mut payload = vec![0; length];
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        let ask = match (kind, payload.as_slice()) {
            (frame::INPUT, _) => Ask::Typed(id, payload),
            (frame::RESIZE, [a, b, c, d]) => {
                let size = Size { cols: u16::from_be_bytes([*a, *b]), rows: u16::from_be_bytes([*c, *d]) };
                Ask::Resized(id, size.sane())
            }
            _ => break,
        };
        if asks.send(ask).await.is_err() {
            break;
        }
    }
    let _ = asks.send(Ask::Left(id)).await;
}

/// What a viewer sees, until it or the worker leaves.
async fn show(
    mut write: OwnedWriteHalf,
    mut shown: mpsc::Receiver<std::sync::Arc<[u8]>>,
    id: u64,
    asks: &mpsc::Sender<Ask>,
) {
    while let Some(bytes) = shown.recv().await {
        let head = frame::head(frame::OUTPUT, bytes.len());
        if write.write_all(&head).await.is_err() || write.write_all(&bytes).await.is_err() {
            return;
        }
        if shown.is_empty() {
            let _ = asks.send(Ask::Drained(id)).await;
        }
    }
}
