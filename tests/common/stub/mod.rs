//! A scriptable stub model server, so that tests can run the real coding CLIs without a network, an account or a bill.
//!
//! It speaks Anthropic Messages (Claude Code), OpenAI Responses (Codex), OpenAI Chat Completions (Kimi Code) and the
//! Gemini API on one loopback port, and answers every model request with a [`Step`] of a script. The conversation is
//! not remembered between requests: the step index rides in the id of the tool call that the stub hands out and comes
//! back with the tool's result. So retries, resumed sessions and several CLIs on one stub need no bookkeeping; only
//! [`Step::Fail`] with `times` counts.

mod anthropic;
mod chat;
mod gemini;
mod openai;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// What the stub answers to one model request.
///
/// A request without a tool result at its tail gets the first step, the result of step N's tool call asks for step
/// N+1, and the last step repeats: end a script with [`Step::Say`], or the CLI calls the last tool for ever.
#[derive(Clone, Debug)]
pub enum Step {
    /// Plain text; it ends the CLI's turn. `{nonce}` in it is the one that the prompt names: "begin <nonce>".
    Say(String),
    /// A call of whatever shell tool the CLI offers; of "Bash" where it offers none, because a model may try.
    Bash(String),
    /// The same, and it asks to run outside of the CLI's sandbox, where the CLI has one.
    Escalate(String),
    /// A call of the CLI's file-writing tool, or of its shell where it offers none (Codex, for an unknown model).
    /// A relative path is relative to the CLI's working folder.
    Write { path: String, content: String },
    /// An API error. With `times`, only so many requests at this step fail; later ones get the step after it.
    Fail { status: u16, kind: FailKind, times: Option<u32> },
    /// Takes the request and never answers.
    Hang,
    /// Stalls in the middle of the stream.
    HangMid,
    /// Resets the connection, before the answer or in the middle of the stream.
    Drop { mid: bool },
}

/// The body of a [`Step::Fail`], in each vendor's own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailKind {
    /// What the vendor says for that status (401: bad key, 404: no such model).
    Plain,
    /// "The prompt is too long"; every vendor sends it with status 400.
    Context,
    /// The account's allowance is used up; every vendor sends it with status 429.
    UsageLimit,
}

/// When a [`FailKind::UsageLimit`] claims to end. Fixed, because Codex prints it and tests compare the text.
const LIMIT_RESET: u64 = 1_795_000_000;

/// The answer that [`Step::HangMid`] and [`Step::Drop`] cut: long enough for several stream events.
const CUT_TEXT: &str = "this is a longer text that will be cut in the middle of the stream because of a disconnect";

/// A running server. Dropping it frees the port and ends every open connection.
pub struct Stub {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

struct Shared {
    steps: Vec<Step>,
    /// Start time, to make tool-call ids unique: a CLI may resume, with a new stub, a session full of old ids.
    born: u128,
    stopping: AtomicBool,
    requests: AtomicUsize,
    last_prompt: Mutex<String>,
    said: Mutex<BTreeSet<String>>,
    /// How often each step with `times` has failed.
    failures: Mutex<HashMap<usize, u32>>,
    /// A second handle on every open connection, to end the hanging ones.
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Stub {
    /// Starts serving `steps` on a free loopback port.
    pub fn start(steps: Vec<Step>) -> Stub {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a loopback port");
        let addr = listener.local_addr().expect("the address of a bound listener");
        let shared = Arc::new(Shared {
            steps,
            born: SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos(),
            stopping: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            last_prompt: Mutex::default(),
            said: Mutex::default(),
            failures: Mutex::default(),
            open: Mutex::default(),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = Some(thread::spawn(move || accept(&listener, &for_acceptor)));
        Stub { addr, shared, acceptor }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The base URL as Claude Code and Gemini CLI want it; Codex and Kimi Code want `/v1` appended.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many model requests came in, retries and side requests included.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// Size in bytes of the newest user text: the prompt as the model saw it, without the CLI's own reminders.
    pub fn last_prompt_bytes(&self) -> usize {
        self.last_prompt().len()
    }

    /// The longest user text that the model saw, in bytes: CLIs add reminders of their own after it.
    pub fn longest_prompt_bytes(&self) -> usize {
        lock(&self.shared.said).iter().map(String::len).max().unwrap_or(0)
    }

    /// Whether the model saw this in a text of the user's.
    pub fn heard(&self, text: &str) -> bool {
        lock(&self.shared.said).iter().any(|said| said.contains(text))
    }

    /// The newest user text, as the model saw it.
    pub fn last_prompt(&self) -> String {
        lock(&self.shared.last_prompt).clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        // Nothing interrupts `accept`; a connection of our own wakes it up. Without one, a join would never end.
        if TcpStream::connect(self.addr).is_err() {
            return;
        }
        let handlers = self.acceptor.take().and_then(|acceptor| acceptor.join().ok()).unwrap_or_default();
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both); // fails if the client has gone
        }
        for handler in handlers {
            let _ = handler.join(); // a panic in there has printed its message
        }
    }
}

/// A lock that outlives a panic in another thread: it guards only counters and handles.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves each connection on a thread of its own; returns the threads when the stub stops.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let mut handlers = Vec::new();
    for (id, stream) in listener.incoming().enumerate() {
        if shared.stopping.load(SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let Ok(second) = stream.try_clone() else { continue };
        lock(&shared.open).insert(id, second);
        let shared = Arc::clone(shared);
        handlers.push(thread::spawn(move || {
            let mut conn = Conn { stream, unread: 0 };
            let _ = conn.serve(&shared); // an error only means that the client has gone
            lock(&shared.open).remove(&id); // before `conn`: closing the last handle sends the FIN or the reset
        }));
    }
    handlers
}

impl Shared {
    /// The step to play for a request that asks for step `wanted`, with its index.
    fn play(&self, wanted: usize) -> (usize, Step) {
        let last = self.steps.len().saturating_sub(1);
        for (at, step) in self.steps.iter().enumerate().skip(wanted.min(last)) {
            if let Step::Fail { times: Some(times), .. } = step {
                let mut failures = lock(&self.failures);
                let failed = failures.entry(at).or_insert(0);
                if *failed >= *times {
                    continue;
                }
                *failed += 1;
            }
            return (at, step.clone());
        }
        (last, Step::Say("stub: ok".into()))
    }
}

/// One connection, which carries one request: every answer says `Connection: close`.
struct Conn {
    stream: TcpStream,
    /// Bytes of the request that are still in the kernel, see [`Conn::read_body`].
    unread: usize,
}

impl Conn {
    fn serve(&mut self, shared: &Shared) -> io::Result<()> {
        let request_line = self.read_line()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
                Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
                Some(_) => {}
                None => break,
            }
        }
        let body = self.read_body(length, chunked)?;
        let mut words = request_line.split([' ', '?']);
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if let ("POST", Some(api)) = (method, Vendor::of(path)) {
            return self.model_request(shared, api, path, &body);
        }
        match (method, path) {
            ("POST", "/v1/messages/count_tokens") => {
                self.send_json(200, &json!({ "input_tokens": 1 + body.len() / 4 }))
            }
            ("POST", _) if path.ends_with(":countTokens") => {
                self.send_json(200, &json!({ "totalTokens": 1 + body.len() / 4 }))
            }
            ("HEAD", _) => self.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "", true),
            ("GET", path) if path.starts_with("/v1/models") => {
                let id = path.strip_prefix("/v1/models/");
                let card = json!({ "type": "model", "object": "model", "id": id.unwrap_or("stub-model"),
                    "display_name": "Stub", "created_at": "2026-01-01T00:00:00Z", "created": 0, "owned_by": "stub" });
                let list = json!({ "object": "list", "data": [card], "models": [], "has_more": false });
                self.send_json(200, if id.is_some() { &card } else { &list })
            }
            (_, path) => self.send_json(404, &json!({ "error": { "message": format!("stub: no such path {path}") } })),
        }
    }

    fn model_request(&mut self, shared: &Shared, api: Vendor, path: &str, body: &[u8]) -> io::Result<()> {
        let number = shared.requests.fetch_add(1, SeqCst);
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return self.send_json(400, &json!({ "error": { "message": "stub: the body is not JSON" } }));
        };
        let turn = api.read(&body);
        // A request without tools is a side job of the CLI (a title, a quota probe): it must not use up a step.
        let (at, step) = if turn.tools.is_empty() {
            (0, Step::Say("stub side answer".into()))
        } else {
            lock(&shared.last_prompt).clone_from(&turn.prompt);
            lock(&shared.said).extend(turn.said.iter().cloned());
            shared.play(turn.wanted)
        };
        let model = api.model(path, &body);
        let piece = match &step {
            Step::Say(said) => Piece::Text(said.replace("{nonce}", &nonce_in(&turn))),
            Step::Bash(command) => turn.shell_call(command, false),
            Step::Escalate(command) => turn.shell_call(command, true),
            Step::Write { path, content } => turn.write_call(path, content),
            Step::HangMid | Step::Drop { mid: true } => Piece::Text(CUT_TEXT.into()),
            Step::Hang => return self.hang(),
            Step::Drop { mid: false } => return Ok(()),
            Step::Fail { status, kind, .. } => return self.send_json(*status, &api.error(*status, *kind, model)),
        };
        let answer = Answer { model, id: &format!("stub_s{at}_{:x}_{number}", shared.born), piece };
        let events = match api {
            // Only streams are cut: after a broken one Claude Code asks again for a whole message, and recovers.
            Vendor::Anthropic if body["stream"] != true => return self.send_json(200, &anthropic::message(&answer)),
            Vendor::Anthropic => anthropic::events(&answer),
            Vendor::Responses => openai::events(&answer),
            Vendor::Chat if body["stream"] != true => return self.send_json(200, &chat::completion(&answer)),
            Vendor::Chat => chat::events(&answer),
            Vendor::Gemini if path.ends_with(":generateContent") => {
                return self.send_json(200, &gemini::response(&answer));
            }
            Vendor::Gemini => gemini::events(&answer),
        };
        let half = &events[..events.len() / 2];
        match step {
            Step::HangMid => self.send_events(half, false).and_then(|()| self.hang()),
            Step::Drop { .. } => {
                // An end in mid-chunk; a reset could overtake what was sent.
                self.send_events(half, false)?;
                self.stream.shutdown(Shutdown::Write)?;
                self.hang()
            }
            _ => self.send_events(&events, true),
        }
    }

    /// Byte by byte, because a buffered reader would take the body out of the kernel.
    fn read_line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads the body, but only peeks at the last of it. Closing a socket that holds unread data is the one way to
    /// send a reset with std (`SO_LINGER` is not stable there); [`Conn::send`] takes the rest for an orderly close.
    fn read_body(&mut self, length: usize, chunked: bool) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length.saturating_sub(1)];
        self.stream.read_exact(&mut body)?;
        let mut more = chunked;
        while more {
            let size = usize::from_str_radix(&self.read_line()?, 16).map_err(io::Error::other)?;
            more = size > 0;
            let mut chunk = vec![0; if more { size + 2 } else { 0 }]; // a line end follows each chunk
            self.stream.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
        }
        // Chunked, what is left is the empty line after the last chunk.
        self.unread = if chunked { 2 } else { length.min(1) };
        let mut next = [0];
        if self.unread > 0 && self.stream.peek(&mut next)? == 1 && !chunked {
            body.push(next[0]);
        }
        Ok(body)
    }

    /// Sends a head (without its empty line) and a body. Not `orderly`: a close right after it resets the connection.
    fn send(&mut self, head: &str, body: &str, orderly: bool) -> io::Result<()> {
        if orderly {
            self.stream.read_exact(&mut [0; 2][..self.unread])?;
        }
        let close = "request-id: req_stub\r\nConnection: close\r\n\r\n";
        self.stream.write_all([head, close, body].concat().as_bytes())
    }

    fn send_json(&mut self, status: u16, body: &Value) -> io::Result<()> {
        let body = body.to_string();
        // The waiting time bounds the CLIs' own back-off; Codex's answer to a used-up allowance ignores it.
        let retry = if status == 429 { "retry-after: 1\r\n" } else { "" };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Stub\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        self.send(&(head + retry), &body, true)
    }

    /// Sends server-sent events; without `complete` the stream lacks its end.
    fn send_events(&mut self, events: &[Value], complete: bool) -> io::Result<()> {
        let frame = |event: &Value| {
            // Gemini CLI understands no other line than "data:".
            let name = event["type"].as_str().map(|kind| format!("event: {kind}\n")).unwrap_or_default();
            let text = format!("{name}data: {event}\n\n");
            format!("{:x}\r\n{text}\r\n", text.len())
        };
        let mut frames: Vec<String> = events.iter().map(frame).collect();
        frames.extend(complete.then(|| "0\r\n\r\n".into()));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
        self.send(head, &frames.concat(), complete)
    }

    /// Keeps the connection open until the client gives up or the stub ends.
    fn hang(&mut self) -> io::Result<()> {
        while self.stream.read(&mut [0; 64])? > 0 {}
        Ok(())
    }
}

/// A dialect of the model API.
#[derive(Clone, Copy)]
enum Vendor {
    Anthropic,
    Responses,
    Chat,
    Gemini,
}

impl Vendor {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/v1/messages" => Some(Self::Anthropic),
            "/v1/responses" | "/responses" => Some(Self::Responses),
            "/v1/chat/completions" | "/chat/completions" => Some(Self::Chat),
            _ if path.ends_with("enerateContent") => Some(Self::Gemini),
            _ => None,
        }
    }

    /// Gemini names the model in the path: `/v1beta/models/NAME:streamGenerateContent`.
    fn model<'a>(self, path: &'a str, body: &'a Value) -> &'a str {
        match self {
            Self::Gemini => path.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or("?"),
            _ => body["model"].as_str().unwrap_or("?"),
        }
    }

    fn read(self, body: &Value) -> Turn<'_> {
        match self {
            Self::Anthropic => anthropic::read(body),
            Self::Responses => openai::read(body),
            Self::Chat => chat::read(body),
            Self::Gemini => gemini::read(body),
        }
    }

    /// The body of an API error. The texts are those of the recorded runs, the odd ones (403) included: the CLIs
    /// repeat them, and so a run stays comparable with its recording.
    fn error(self, status: u16, kind: FailKind, model: &str) -> Value {
        match self {
            Self::Anthropic => anthropic::error(status, kind, model),
            Self::Responses => openai::error(status, kind, model),
            Self::Chat => chat::error(status, kind, model),
            Self::Gemini => gemini::error(status, kind, model),
        }
    }
}

/// The nonce of the question in a prompt, wherever in the conversation it stands.
fn nonce_in(turn: &Turn<'_>) -> String {
    let mut texts = std::iter::once(turn.prompt.as_str()).chain(turn.said.iter().map(String::as_str));
    let after = |text: &str| text.split("begin ").nth(1).map(|rest| rest.chars().take(32).collect::<String>());
    texts.find_map(after).unwrap_or_default()
}

/// The parts of a model request that decide the answer.
#[derive(Default)]
struct Turn<'a> {
    prompt: String,
    /// Every text of the user's.
    said: Vec<String>,
    /// The step that the tail of the conversation asks for.
    wanted: usize,
    tools: Vec<Tool<'a>>,
}

/// A tool that the CLI offers.
struct Tool<'a> {
    name: &'a str,
    schema: &'a Value,
    /// It takes text instead of an object.
    free_form: bool,
}

/// What the stub says: text, or a tool call whose input is a string for a free-form tool, else an object.
enum Piece {
    Text(String),
    Call { tool: String, input: Value },
}

struct Answer<'a> {
    model: &'a str,
    id: &'a str,
    piece: Piece,
}

/// A conversation is read from its beginning, so the last word counts.
impl<'a> Turn<'a> {
    fn user_said(&mut self, text: &str) {
        text.clone_into(&mut self.prompt);
        self.said.push(text.to_owned());
    }

    fn model_spoke(&mut self) {
        self.wanted = 0;
    }

    fn tool_answered(&mut self, call_id: &str) {
        let step = call_id.split_once("stub_s").and_then(|(_, rest)| rest.split('_').next()?.parse().ok());
        self.wanted = step.map_or(0, |step: usize| step + 1);
    }

    fn tool(&self, name: &str) -> Option<&Tool<'a>> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    fn shell_call(&self, command: &str, escalate: bool) -> Piece {
        let names = ["exec_command", "shell_command", "shell", "Bash", "bash", "run_shell_command"];
        let Some(tool) = names.iter().find_map(|name| self.tool(name)) else {
            return call("Bash", json!({ "command": command }));
        };
        let inputs = &tool.schema["properties"];
        let key = if inputs["cmd"].is_null() { "command" } else { "cmd" };
        let mut input = match inputs[key]["type"].as_str() {
            _ if tool.free_form => json!(command),
            Some("array") => json!({ key: ["bash", "-lc", command] }),
            _ => json!({ key: command }),
        };
        if escalate && !inputs["sandbox_permissions"].is_null() {
            input["sandbox_permissions"] = json!("require_escalated");
            input["justification"] = json!("it needs more than the sandbox gives");
        }
        call(tool.name, input)
    }

    fn write_call(&self, path: &str, content: &str) -> Piece {
        if let Some(tool) = ["Write", "write_file"].iter().find_map(|name| self.tool(name)) {
            let key = if tool.schema["properties"]["file_path"].is_null() { "path" } else { "file_path" };
            return call(tool.name, json!({ key: path, "content": content }));
        }
        if let Some(tool) = self.tool("apply_patch") {
            let lines: Vec<String> = content.lines().map(|line| format!("+{line}\n")).collect();
            let input = format!("*** Begin Patch\n*** Add File: {path}\n{}*** End Patch", lines.concat());
            return call("apply_patch", if tool.free_form { json!(input) } else { json!({ "input": input }) });
        }
        // printf and not a here-document: so the content arrives byte for byte.
        let [path, content] = [path, content].map(|text| format!("'{}'", text.replace('\'', r"'\''")));
        self.shell_call(&format!("mkdir -p -- \"$(dirname -- {path})\" && printf %s {content} > {path}"), false)
    }
}

fn call(tool: &str, input: Value) -> Piece {
    Piece::Call { tool: tool.to_owned(), input }
}

/// A text in two pieces, as a stream brings it.
fn halves(text: &str) -> [&str; 2] {
    let middle = (text.len() / 2..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (first, second) = text.split_at(middle);
    [first, second]
}
