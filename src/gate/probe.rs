//! `vnx probe FILE`: starts the built thing, asks it, stops it, and prints what it heard.
//!
//! It runs as the command of a gate, so a deadline ends it, and nothing that it starts outlives it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::domain::Fault;
use crate::domain::gate::{Probe, ProbeCheck, Ready};
use crate::domain::line::summary;
use crate::sys::files;
use crate::worker::end_all;

/// The subcommand, for whoever starts it.
pub const PROBE: &str = "__probe";
/// How much of an answer is looked at, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How long what was started may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What a check asked and heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSaid {
    /// What was asked.
    pub asked: String,
    /// It was as it must be.
    pub good: bool,
    /// What was heard, in one line.
    pub heard: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What was started, ended when this goes.
struct Service {
    child: Child,
    /// Its lines, as they come; they pass to our own standard error.
    lines: Receiver<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        // With what it has started: a probe leaves as little behind as any other gate.
        end_all(GRACE);
    }
}

/// Runs a probe in the current folder, one line of JSON on `out` for each check. `Ok(false)`: one was not as it must be.
pub fn probe(probe: &Probe, mut out: impl FnMut(&ProbeSaid)) -> Result<bool, Fault> {
    // Whoever answers there already is not what was built.
    if probe.start.is_some()
        && let Some(port) = ports(probe).find(|port| answers(*port, Duration::from_secs(1)))
    {
        return Err(Fault::environment(format!("port {port} is taken: something answers there before the start"))
            .fix("end what listens there, or use $VNX_PORT"));
    }
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .map_err(|e| Fault::environment(format!("cannot become a child subreaper: {e}")))?;
    let mut service = probe.start.as_deref().map(start).transpose()?;
    if let (Some(service), Some(ready)) = (&mut service, &probe.ready) {
        let said = timed(format!("ready: {}", title(ready)), || wait(service, ready));
        out(&said);
        if !said.good {
            return Ok(false);
        }
    }
    for check in &probe.checks {
        let said = timed(check.title(), || ask(check));
        out(&said);
        if !said.good {
            return Ok(false);
        }
        // A service that is gone would have answered from nowhere.
        if let Some(Ok(Some(status))) = service.as_mut().map(|service| service.child.try_wait()) {
            out(&ProbeSaid {
                asked: "still running".into(),
                good: false,
                heard: format!("it ended: {status}"),
                took_ms: 0,
            });
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ports of this machine that the probe asks.
fn ports(probe: &Probe) -> impl Iterator<Item = u16> {
    let ready = probe.ready.iter().filter_map(|ready| ready.port.clone());
    let asked = probe.checks.iter().filter_map(|check| {
        let address = filled(check.http.as_deref()?).ok()?;
        let address = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest).to_owned();
        let host = address.split(['/', '?', '#']).next().unwrap_or_default();
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
        ["localhost", "127.0.0.1", "[::1]"].contains(&name).then(|| port.to_owned())
    });
    ready.chain(asked).filter_map(|port| filled(&port).ok()?.parse().ok())
}

fn answers(port: u16, within: Duration) -> bool {
    TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), within).is_ok()
}

fn title(ready: &Ready) -> String {
    match (&ready.port, &ready.line) {
        (Some(port), _) => format!("port {port}"),
        (None, line) => format!("line {:?}", line.as_deref().unwrap_or_default()),
    }
}

fn timed(asked: String, work: impl FnOnce() -> Result<String, String>) -> ProbeSaid {
    let begun = Instant::now();
    let heard = work();
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let good = heard.is_ok();
    ProbeSaid { asked, good, heard: summary(&heard.unwrap_or_else(|why| why)), took_ms }
}

fn start(command: &str) -> Result<Service, Fault> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Fault::environment(format!("cannot start a shell: {e}")))?;
    let (send, lines) = channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    for stream in streams.into_iter().flatten() {
        let send = send.clone();
        let hear = move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // A line without an end is passed on in pieces.
            while (&mut reader).take(64 << 10).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                // What it says is recorded; where nobody records, nobody misses it.
                let _ = writeln!(std::io::stderr().lock(), "{text}");
                line.clear();
                // Nobody listens any more; what it says is recorded all the same.
                let _ = send.send(text);
            }
        };
        crate::sys::thread(hear)?;
    }
    Ok(Service { child, lines })
}

fn wait(service: &mut Service, ready: &Ready) -> Result<String, String> {
    let begun = Instant::now();
    let within = ready.within.duration();
    loop {
        let left = within.checked_sub(begun.elapsed());
        let left = left.ok_or_else(|| format!("not within {}", ready.within))?;
        // A port says nothing when it opens, so it is asked again and again.
        let pause = if ready.port.is_some() { left.min(Duration::from_millis(20)) } else { left };
        match service.lines.recv_timeout(pause) {
            Ok(line) if ready.line.as_ref().is_some_and(|wanted| line.contains(wanted)) => return Ok(line),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ready.line.is_some() => {
                return Err("it said nothing of that".to_owned());
            }
            // It has closed its output and may listen all the same.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
        }
        if let Some(port) = &ready.port {
            let port = filled(port)?.parse::<u16>().map_err(|e| format!("port {port:?}: {e}"))?;
            if answers(port, left) {
                return Ok(format!("port {port} answers"));
            }
        }
        if let Ok(Some(status)) = service.child.try_wait() {
            return Err(format!("it ended before it was ready: {status}"));
        }
    }
}

/// The text with `$VNX_PORT` filled in.
fn filled(text: &str) -> Result<String, String> {
    if !text.contains("$VNX_PORT") {
        return Ok(text.to_owned());
    }
    let port = std::env::var("VNX_PORT").map_err(|_| "no port is free, so $VNX_PORT stands for nothing".to_owned())?;
    Ok(text.replace("$VNX_PORT", &port))
}

fn ask(check: &ProbeCheck) -> Result<String, String> {
    let (heard, text) = match check {
        ProbeCheck { http: Some(url), .. } => get(&filled(url)?, check.status.unwrap_or(200))?,
        ProbeCheck { run: Some(command), .. } => run(command)?,
        ProbeCheck { file: Some(path), .. } => {
            let bytes = files::read_capped(Path::new(path), MAX_ANSWER).map_err(|e| e.to_string())?;
            let bytes = bytes.ok_or_else(|| "there is no such file".to_owned())?;
            (format!("{} bytes", bytes.len()), String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => return Err("it asks nothing".to_owned()),
    };
    match &check.contains {
        Some(wanted) if !text.contains(wanted) => Err(format!("{heard}, without {wanted:?}: {}", summary(&text))),
        _ => Ok(heard),
    }
}

fn get(url: &str, wanted: u16) -> Result<(String, String), String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .build();
    let mut answer = ureq::Agent::new_with_config(config).get(url).call().map_err(|e| e.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let heard = format!("status {status}, {} bytes", body.len());
    if status == wanted { Ok((heard, text)) } else { Err(format!("{heard}; {wanted} is wanted: {}", summary(&text))) }
}

fn run(command: &str) -> Result<(String, String), String> {
    let output =
        Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = |text: &str| summary(text.trim_end().lines().last().unwrap_or_default());
    let words = if said.trim().is_empty() { last(&text) } else { last(&said) };
    if output.status.success() {
        Ok((format!("exit 0: {words}"), text))
    } else {
        Err(format!("{}: {words}", output.status))
    }
}
