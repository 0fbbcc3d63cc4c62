//! A scriptable stub model server, so that tests can run the real coding CLIs without a network, an account or a bill.
//!
//! It speaks Anthropic Messages (Claude Code) and OpenAI Responses (Codex) on one loopback port, and answers every
//! model request with a [`Step`] of a script. The conversation is not remembered between requests: the step index
//! rides in the id of the tool call that the stub hands out and comes back with the tool's result. So retries,
//! resumed sessions and several CLIs on one stub need no bookkeeping; only [`Step::Fail`] with `times` counts.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// What the stub answers to one model request.
///
/// A request without a tool result at its tail gets the first step, the result of step N's tool call asks for step
/// N+1, and the last step repeats: end a script with [`Step::Say`], or the CLI calls the last tool for ever.
#[derive(Clone, Debug)]
pub enum Step {
    /// Plain text; it ends the CLI's turn.
    Say(String),
    /// A call of whatever shell tool the CLI offers.
    Bash(String),
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
    /// "The prompt is too long"; both vendors send it with status 400.
    Context,
    /// The account's allowance is used up; both vendors send it with status 429.
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
    last_prompt_bytes: AtomicUsize,
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
            last_prompt_bytes: AtomicUsize::new(0),
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

    /// The base URL as Claude Code wants it; Codex wants `/v1` appended.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many model requests came in, retries and side requests included.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// Size in bytes of the newest user text: the prompt as the model saw it, without the CLI's own reminders.
    pub fn last_prompt_bytes(&self) -> usize {
        self.shared.last_prompt_bytes.load(SeqCst)
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
        match (words.next().unwrap_or(""), words.next().unwrap_or("")) {
            ("POST", "/v1/messages") => self.model_request(shared, Vendor::Anthropic, &body),
            ("POST", "/v1/responses" | "/responses") => self.model_request(shared, Vendor::OpenAi, &body),
            ("POST", "/v1/messages/count_tokens") => {
                self.send_json(200, &json!({ "input_tokens": 1 + body.len() / 4 }))
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

    fn model_request(&mut self, shared: &Shared, api: Vendor, body: &[u8]) -> io::Result<()> {
        let number = shared.requests.fetch_add(1, SeqCst);
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return self.send_json(400, &json!({ "error": { "message": "stub: the body is not JSON" } }));
        };
        let chat = Chat::read(&body);
        // A request without tools is a side job of the CLI (a title, a quota probe): it must not use up a step.
        let (at, step) = if chat.tools.is_empty() {
            (0, Step::Say("stub side answer".into()))
        } else {
            shared.last_prompt_bytes.store(chat.prompt_bytes, SeqCst);
            shared.play(chat.wanted)
        };
        let model = body["model"].as_str().unwrap_or("?");
        let mut block = match &step {
            Step::Say(said) => text(said),
            Step::Bash(command) => chat.shell_call(command),
            Step::Write { path, content } => chat.write_call(path, content),
            Step::HangMid | Step::Drop { mid: true } => text(CUT_TEXT),
            Step::Hang => return self.hang(),
            Step::Drop { mid: false } => return Ok(()),
            Step::Fail { status, kind, .. } => return self.send_json(*status, &api.error(*status, *kind, model)),
        };
        let id = format!("stub_s{at}_{:x}_{number}", shared.born);
        if block["type"] == "tool_use" {
            block["id"] = json!(format!("toolu_{id}"));
        }
        let events = match api {
            // Only streams are cut: after a broken one Claude Code asks again for a whole message, and recovers.
            Vendor::Anthropic if body["stream"] != true => {
                return self.send_json(200, &anthropic_message(model, &id, &block));
            }
            Vendor::Anthropic => anthropic_events(&anthropic_message(model, &id, &block)),
            Vendor::OpenAi => openai_events(model, &id, &block),
        };
        let half = &events[..events.len() / 2];
        match step {
            Step::HangMid => self.send_events(half, false).and_then(|()| self.hang()),
            Step::Drop { .. } => {
                self.send_events(half, false)?;
                thread::sleep(Duration::from_millis(50)); // or the reset overtakes what was sent
                Ok(())
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
            let text = format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("?"));
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

/// The parts of a model request that decide the answer.
#[derive(Default)]
struct Chat<'a> {
    prompt_bytes: usize,
    /// The step that the tail of the conversation asks for.
    wanted: usize,
    tools: Vec<&'a Value>,
}

impl<'a> Chat<'a> {
    /// Both vendors' shapes at once. Anthropic: messages made of blocks, a tool result being a block of the user's;
    /// OpenAI: a list of items, a tool call and its output being items without a role.
    fn read(body: &'a Value) -> Chat<'a> {
        let mut chat = Chat { tools: body["tools"].as_array().into_iter().flatten().collect(), ..Chat::default() };
        for entry in ["messages", "input"].iter().filter_map(|key| body[key].as_array()).flatten() {
            for part in entry["content"].as_array().map_or(std::slice::from_ref(entry), Vec::as_slice) {
                let kind = part["type"].as_str().unwrap_or("");
                if kind == "tool_result" || kind.ends_with("_output") {
                    let id = part["tool_use_id"].as_str().or(part["call_id"].as_str()).unwrap_or("");
                    let step = id.split_once("stub_s").and_then(|(_, rest)| rest.split('_').next()?.parse().ok());
                    chat.wanted = step.map_or(0, |step: usize| step + 1);
                } else if entry["role"] == "assistant" || kind.ends_with("_call") {
                    chat.wanted = 0;
                } else if let Some(text) = part["text"].as_str().or(part["content"].as_str())
                    && entry["role"] == "user"
                {
                    chat.prompt_bytes = text.len();
                }
            }
        }
        chat
    }

    fn tool(&self, name: &str) -> Option<&'a Value> {
        self.tools.iter().find(|tool| tool["name"] == name).copied()
    }

    fn shell_call(&self, command: &str) -> Value {
        for name in ["exec_command", "shell_command", "shell", "Bash", "bash"] {
            let Some(tool) = self.tool(name) else { continue };
            let schema = tool.get("input_schema").unwrap_or(&tool["parameters"]);
            let key = if schema["properties"]["cmd"].is_null() { "command" } else { "cmd" };
            let input = match schema["properties"][key]["type"].as_str() {
                _ if tool["type"] == "custom" => json!(command),
                Some("array") => json!({ key: ["bash", "-lc", command] }),
                _ => json!({ key: command }),
            };
            return call(name, &input);
        }
        let offered: Vec<_> = self.tools.iter().map(|tool| &tool["name"]).collect();
        text(&format!("stub: no shell tool among {offered:?}"))
    }

    fn write_call(&self, path: &str, content: &str) -> Value {
        if self.tool("Write").is_some() {
            return call("Write", &json!({ "file_path": path, "content": content }));
        }
        if let Some(tool) = self.tool("apply_patch") {
            let lines: Vec<String> = content.lines().map(|line| format!("+{line}\n")).collect();
            let input = format!("*** Begin Patch\n*** Add File: {path}\n{}*** End Patch", lines.concat());
            let free_form = tool["type"] == "custom";
            return call("apply_patch", &if free_form { json!(input) } else { json!({ "input": input }) });
        }
        // printf and not a here-document: so the content arrives byte for byte.
        let [path, content] = [path, content].map(|text| format!("'{}'", text.replace('\'', r"'\''")));
        self.shell_call(&format!("mkdir -p -- \"$(dirname -- {path})\" && printf %s {content} > {path}"))
    }
}

#[derive(Clone, Copy)]
enum Vendor {
    Anthropic,
    OpenAi,
}

impl Vendor {
    /// The body of an API error. The texts are those of the recorded runs, the odd ones (403) included: the CLIs
    /// repeat them, and so a run stays comparable with its recording.
    fn error(self, status: u16, kind: FailKind, model: &str) -> Value {
        use FailKind::{Context, Plain, UsageLimit};
        let error = match self {
            Vendor::Anthropic => {
                let (name, message) = match (kind, status) {
                    (Context, _) => ("invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"),
                    (UsageLimit, _) => (
                        "rate_limit_error",
                        "This request would exceed your account's rate limit. Please try again later.",
                    ),
                    (Plain, 400) => ("invalid_request_error", "stub bad request"),
                    (Plain, 401) => ("authentication_error", "invalid x-api-key"),
                    (Plain, 403) => ("permission_error", "Internal server error"),
                    (Plain, 404) => ("not_found_error", &*format!("model: {model}")),
                    (Plain, 429) => ("rate_limit_error", "This request would exceed your organization's rate limit"),
                    (Plain, 529) => ("overloaded_error", "Overloaded"),
                    (Plain, _) => ("api_error", "Internal server error"),
                };
                return json!({ "type": "error", "error": { "type": name, "message": message } });
            }
            Vendor::OpenAi if kind == UsageLimit => json!({ "type": "usage_limit_reached", "plan_type": "plus",
                "message": "The usage limit has been reached", "resets_at": LIMIT_RESET, "resets_in_seconds": 3600 }),
            Vendor::OpenAi => {
                let no_model = format!("The model `{model}` does not exist or you do not have access to it.");
                let (code, message) = match (kind, status) {
                    (Context, _) => ("context_length_exceeded", "Your input exceeds the context window of this model."),
                    (_, 400) => ("invalid_request", "stub bad request"),
                    (_, 401) => ("invalid_api_key", "Incorrect API key provided: sk-test."),
                    (_, 404) => ("model_not_found", &*no_model),
                    (_, 429) => ("rate_limit_exceeded", "Rate limit reached for requests"),
                    _ => ("server_error", "The server had an error while processing your request"),
                };
                let name = if status < 429 { "invalid_request_error" } else { "server_error" };
                json!({ "message": message, "type": name, "param": null, "code": code })
            }
        };
        json!({ "error": error })
    }
}

/// A piece of an answer in Anthropic's shape, like [`call`]; [`openai_events`] translates it.
fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// A tool call; `input` is a string for a free-form tool, else an object.
fn call(tool: &str, input: &Value) -> Value {
    json!({ "type": "tool_use", "name": tool, "input": input })
}

fn anthropic_message(model: &str, id: &str, block: &Value) -> Value {
    let stop = if block["type"] == "text" { "end_turn" } else { "tool_use" };
    json!({ "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model, "content": [block],
        "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": 1200, "output_tokens": 34,
        "cache_creation_input_tokens": 50, "cache_read_input_tokens": 100 } })
}

/// The stream that builds up `message`.
fn anthropic_events(message: &Value) -> Vec<Value> {
    let (mut start, mut block) = (message.clone(), message["content"][0].clone());
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let delta = if block["type"] == "text" {
        json!({ "type": "text_delta", "text": std::mem::replace(&mut block["text"], json!("")) })
    } else {
        let input = std::mem::replace(&mut block["input"], json!({}));
        json!({ "type": "input_json_delta", "partial_json": input.to_string() })
    };
    let end = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    vec![
        json!({ "type": "message_start", "message": start }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": end, "usage": message["usage"] }),
        json!({ "type": "message_stop" }),
    ]
}

/// The stream of one answer. No deltas: Codex acts on whole items only.
fn openai_events(model: &str, id: &str, block: &Value) -> Vec<Value> {
    let mut item = match (&block["text"], &block["input"]) {
        (Value::String(text), _) => json!({ "type": "message", "role": "assistant",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }] }),
        (_, Value::String(input)) => json!({ "type": "custom_tool_call", "input": input }),
        (_, input) => json!({ "type": "function_call", "arguments": input.to_string() }),
    };
    item["id"] = json!(format!("item_{id}"));
    if block["type"] == "tool_use" {
        item["call_id"] = block["id"].clone();
        item["name"] = block["name"].clone();
    }
    let response = |status: &str, output: Value, usage: Value| {
        json!({ "id": format!("resp_{id}"), "object": "response", "created_at": 0, "model": model, "status": status,
            "output": output, "usage": usage })
    };
    let usage = json!({ "input_tokens": 1200, "input_tokens_details": { "cached_tokens": 100 }, "output_tokens": 34,
        "output_tokens_details": { "reasoning_tokens": 8 }, "total_tokens": 1234 });
    vec![
        json!({ "type": "response.created", "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item }),
        json!({ "type": "response.completed", "response": response("completed", json!([item]), usage) }),
    ]
}
