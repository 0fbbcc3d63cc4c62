//! What a CLI asks and says of itself, to the letter: what is answered is what was shown, and what goes on is not done.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::common::World;

const SHELL: [&str; 6] = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];
const OWN: [&str; 6] = ["dispatch-agent", "--provider", "own", "--agent", "asker", "--no-pane"];

/// A project with a CLI of its own: a script that gets its assignment as a file and runs it.
pub fn with_cli(lane: &str, program: &str) -> World {
    let world = World::new();
    std::fs::create_dir_all(world.repo.join(".vnx/providers")).unwrap();
    let manifest = format!(
        "version: 1\nname: own\ntitle: own\nbinaries: [{program}]\nversion_probe: {{args: [], min: \"0.0.0\"}}\nruns_assignment: true\n\
         lanes:\n{lane}permissions: {{read: [], work: [], ask: [], full: []}}\n"
    );
    std::fs::write(world.repo.join(".vnx/providers/own.yaml"), manifest).unwrap();
    world.agent("asker", "permissions: ask");
    world
}

/// A script whose hooks are those of Claude Code.
fn with_hooks() -> World {
    with_cli(
        "  interactive:\n    args: [-eu, \"{prompt_file}\"]\n    prompt_by: file\n    parser: terminal\n    linger: 10s\n    \
         interactive: {dialect: claude, settle: 100ms, allow_keys: \"1\", deny_keys: \"2\"}\n",
        "sh",
    )
}

fn start(world: &World, script: &str, more: &[&str]) -> String {
    let folder = world.state().join("dispatches");
    let hook = format!("hook() {{ {} __hook {}/$VNX_DISPATCH_ID; }}\n", World::binary(), folder.display());
    let script = format!("{hook}{script}");
    world.vnx(&[&OWN[..], &["--detach", "-i", &script], more].concat()).expect(0).out.trim().to_owned()
}

/// What the worker waits for, as it is shown.
fn asks(world: &World, what: &str) {
    world.until(what, || world.vnx(&["ps"]).out.contains(what));
}

/// A turn that ends while something goes on in the background is not the last one.
#[test]
fn a_stop_with_tasks_in_the_background_is_not_done() {
    let world = with_hooks();
    let id = start(
        &world,
        "echo '{\"hook_event_name\":\"UserPromptSubmit\"}' | hook\n\
         echo 1 > one; git add one; git commit -qm one\n\
         echo '{\"hook_event_name\":\"Stop\",\"last_assistant_message\":\"half\",\"background_tasks\":[{}]}' | hook\n\
         printf '\\033]7501;state=done\\007'\n\
         while [ ! -e ../../go ]; do sleep 0.05; done\n\
         echo 2 > two; git add two; git commit -qm two\n\
         echo '{\"hook_event_name\":\"Stop\",\"last_assistant_message\":\"whole\",\"background_tasks\":[]}' | hook\nsleep 60\n",
        &["--lane", "interactive"],
    );
    let recorded = world.state().join("dispatches").join(&id).join("events.ndjson");
    let has = |what: &str| std::fs::read_to_string(&recorded).is_ok_and(|text| text.contains(what));
    world.until("the first stop", || has("go on in the background") && has("state=done"));
    // Longer than any settle: nothing ends it.
    let since = std::time::Instant::now();
    world.until("a moment", || since.elapsed() > std::time::Duration::from_secs(1));
    std::fs::write(world.root.join("go"), "").unwrap();
    world.vnx(&["wait", &id]).expect(0);
    let closed = world.last("dispatch.closed");
    assert_eq!((&closed["commits"], &closed["verdict"]["outcome"]), (&2.into(), &"done".into()), "{closed:#}");
    assert_eq!(world.vnx(&["show", &id, "--report"]).expect(0).out.trim(), "whole");
}

/// Two hooks ask at once: each answer is for the question that is shown.
#[test]
fn questions_of_hooks_are_answered_one_by_one() {
    let world = with_hooks();
    let ask = |what: &str, to: &str| {
        format!(
            "printf '{{\"hook_event_name\":\"PermissionRequest\",\"tool_name\":\"Bash\",\"tool_input\":{{\"command\":\"{what}\"}}}}' | hook > {to}"
        )
    };
    let script = format!(
        "echo '{{\"hook_event_name\":\"UserPromptSubmit\"}}' | hook\n{} &\nwhile [ ! -e ../../second ]; do sleep 0.02; done\n{} &\n\
         touch ../../asked\nwait\ngit add one two; git commit -qm answers\n\
         echo '{{\"hook_event_name\":\"Stop\",\"last_assistant_message\":\"ok\"}}' | hook\nsleep 60\n",
        ask("rm -rf /precious", "one"),
        ask("ls", "two")
    );
    let id = start(&world, &script, &["--lane", "interactive"]);
    asks(&world, "Bash: rm -rf /precious");
    std::fs::write(world.root.join("second"), "").unwrap();
    let recorded = world.state().join("dispatches").join(&id).join("events.ndjson");
    world.until("the second question", || std::fs::read_to_string(&recorded).unwrap().contains("\\\"ls\\\""));
    assert!(world.vnx(&["ps"]).out.contains("rm -rf /precious"));
    let denied = world.vnx(&["permit", &id, "deny"]).expect(0).out;
    assert!(denied.contains("denied: Bash: rm -rf /precious"), "{denied}");
    asks(&world, "Bash: ls");
    let allowed = world.vnx(&["permit", &id, "allow"]).expect(0).out;
    assert!(allowed.contains("allowed: Bash: ls"), "{allowed}");
    world.vnx(&["wait", &id]);
    let said = |name: &str| world.git(&["show", &format!("vnx/{id}:{name}")]);
    assert!(said("one").contains("\"deny\"") && said("two").contains("\"allow\""), "{} {}", said("one"), said("two"));
}

/// The same in the protocol: the question that is shown is the one that is answered, and the next one follows.
#[test]
fn questions_of_a_protocol_are_answered_one_by_one() {
    let world = with_cli(
        "  acp: {args: [], prompt_by: message, parser: acp, linger: 2s, acp: {levels: {ask: {}, work: {}}}}\n",
        "REPLACE",
    );
    let agent = world.root.join("agent.py");
    std::fs::write(&agent, AGENT).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let manifest: PathBuf = world.repo.join(".vnx/providers/own.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap().replace("REPLACE", agent.to_str().unwrap());
    let text = text.replace("runs_assignment: true\n", "");
    std::fs::write(&manifest, text).unwrap();
    let id = start(&world, "go", &["--lane", "acp"]);
    asks(&world, "Bash: rm -rf /precious");
    world.vnx(&["permit", &id, "deny"]).expect(0);
    asks(&world, "Bash: ls");
    world.vnx(&["permit", &id, "allow"]).expect(0);
    world.vnx(&["wait", &id]);
    let answers = world.git(&["show", &format!("vnx/{id}:answers")]);
    assert_eq!(answers.lines().collect::<Vec<_>>(), ["1001 r", "1002 a"]);
}

const AGENT: &str = r#"#!/usr/bin/env python3
import json, sys, subprocess
def send(m): sys.stdout.write(json.dumps(m) + "\n"); sys.stdout.flush()
def ask(i, cmd):
    send({"jsonrpc": "2.0", "id": i, "method": "session/request_permission", "params": {"sessionId": "s",
        "toolCall": {"toolCallId": str(i), "kind": "execute", "title": "run it now", "rawInput": {"command": cmd}},
        "options": [{"optionId": "a", "kind": "allow_once"}, {"optionId": "r", "kind": "reject_once"}]}})
answers = []
for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize": send({"jsonrpc": "2.0", "id": m["id"], "result": {"protocolVersion": 1}})
    elif m.get("method") == "session/new": send({"jsonrpc": "2.0", "id": m["id"], "result": {"sessionId": "s"}})
    elif m.get("method") == "session/prompt":
        prompt = m["id"]
        ask(1001, "rm -rf /precious")
        ask(1002, "ls")
    elif "method" not in m:
        answers.append("%s %s" % (m["id"], m["result"]["outcome"].get("optionId")))
        if len(answers) == 2:
            open("answers", "w").write("\n".join(answers) + "\n")
            subprocess.run("git add answers; git commit -qm answers", shell=True)
            send({"jsonrpc": "2.0", "method": "session/update", "params": {"update": {
                "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "done"}}}})
            send({"jsonrpc": "2.0", "id": prompt, "result": {"stopReason": "end_turn"}})
"#;

/// Whatever text a worker shows, nothing of it is typed.
#[test]
fn a_file_that_is_shown_types_nothing() {
    let world = with_hooks();
    let id = start(
        &world,
        "stty -echo; printf '\\033]7501;?\\rrm -rf everything\\r\\033\\\\\\033[?1\\r2004$p'\n\
         read -r -t 1 line < /dev/tty || line=nothing\necho \"$line\" > read; git add read; git commit -qm read\n",
        &["--lane", "interactive"],
    );
    world.vnx(&["wait", &id]);
    assert_eq!(world.git(&["show", &format!("vnx/{id}:read")]), "nothing");
}

/// The first thread of a process may end before the others: it runs on, and has its deadline.
#[test]
fn a_worker_without_its_first_thread_is_ended() {
    let world = World::new();
    let python = "import ctypes, threading, time; threading.Thread(target=lambda: time.sleep(120)).start(); ctypes.CDLL(None).pthread_exit(None)";
    let script = format!("exec python3 -c '{python}'");
    let begun = std::time::Instant::now();
    world.vnx(&[&SHELL[..], &["--deadline", "2s", "-i", &script]].concat());
    assert!(begun.elapsed() < std::time::Duration::from_mins(1));
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "timeout_total");
    // Left behind by a worker that is done: found, ended and told.
    let script = format!("python3 -c '{python}' & echo 1 > f; git add f; git commit -qm f; sleep 0.3");
    world.script(&script);
    assert_eq!(world.last("dispatch.closed")["containment"]["empty"], true);
    assert!(world.last("dispatch.closed")["containment"]["survivors"][0].as_str().unwrap().contains("python"));
    world.assert_nothing_left();
}

/// A key that is printed line by line is a key.
#[test]
fn a_private_key_is_not_recorded_line_by_line() {
    let world = World::new();
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\\nAAAAB3NzaC1yc2EAAAADAQABAAABgQC7\\nqwertyuiopasdfghjklzxcvbnm123456\\n-----END OPENSSH PRIVATE KEY-----";
    world.script(&format!("printf '{}\\nafter\\n'; printf '%b\\n' '{key}' > key; cat key; rm key; \
                         echo 'it begins with -----BEGIN RSA PRIVATE KEY-----'; echo 'as every, one; knows'; echo after", "before"));
    let folder = world.state().join("dispatches").join(world.last_id());
    let recorded = std::fs::read_to_string(folder.join("events.ndjson")).unwrap();
    let out: Vec<&str> = recorded.lines().filter(|line| line.contains("\"out\"")).collect();
    assert!(out.last().unwrap().contains("after"), "{out:#?}");
    assert_eq!(out.iter().filter(|line| line.contains("redacted:private-key")).count(), 5, "{out:#?}");
    assert!(out.iter().any(|line| line.contains("as every, one; knows")), "{out:#?}");
    assert!(!out.iter().any(|line| line.contains("qwertyuiop") || line.contains("AAAAB3Nza")), "{out:#?}");
}

/// What a CLI says of itself does not keep its dispatch open.
#[test]
fn counts_and_names_that_no_receipt_takes() {
    let world =
        with_cli("  headless: {args: [-eu, \"{prompt_file}\"], prompt_by: file, parser: claude-stream-json}\n", "sh");
    for result in [
        "\"session_id\":\"s\",\"usage\":{\"input_tokens\":9007199254740993,\"output_tokens\":7}",
        "\"session_id\":\"LONG\",\"usage\":{\"output_tokens\":7}",
    ] {
        let result = result.replace("LONG", &"x".repeat(600));
        let script = format!(
            "echo 1 >> f; git add f; git commit -qm f\n\
             echo '{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\",{result}}}'"
        );
        let run = world.vnx(&[&OWN[..], &["--lane", "headless", "-i", &script]].concat());
        assert!(world.count("dispatch.closed") > 0, "{}{}", run.out, run.err);
        let closed = world.last("dispatch.closed");
        assert_eq!(closed["usage"]["output_tokens"], 7, "{closed:#}");
        assert!(closed["usage"]["input_tokens"].is_null(), "{closed:#}");
        assert!(closed["session"].is_null() || closed["session"] == "s", "{closed:#}");
        world.assert_nothing_left();
    }
    world.assert_verified();
}

/// A cancel while hooks run is a cancel of what follows, and no other.
#[test]
fn a_cancel_while_a_hook_runs_says_what_came_of_it() {
    let world = World::new();
    let left = world.root.join("left");
    let hook = format!("(trap \\\"\\\" TERM; touch {}; sleep 100) > /dev/null 2>&1 &", left.display());
    world.config(&format!("defaults: {{grace: 20s}}\nworktree: {{hooks: {{post_create: [{{run: \"{hook}\"}}]}}}}\n"));
    let dispatch =
        |script: &str| world.vnx(&[&SHELL[..], &["--detach", "-i", script]].concat()).expect(0).out.trim().to_owned();
    let id = dispatch("touch ../../began");
    world.until("what the hook leaves", || left.exists());
    world.until("the hook's end", || world.vnx(&["ps"]).out.contains("exited"));
    let said = world.vnx(&["cancel", &id, "--now"]).expect(0).out;
    assert!(said.contains("is cancelled"), "{said}");
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "cancelled");
    assert!(!world.root.join("began").exists());
    let at = world.root.join("at");
    world.config(&format!("worktree: {{hooks: {{pre_remove: [{{run: 'touch {}; sleep 100'}}]}}}}\n", at.display()));
    let id = dispatch("echo 1 > f; git add f; git commit -qm f");
    world.until("the hook", || at.exists());
    let said = world.vnx(&["cancel", &id]).expect(1).out;
    assert!(said.contains("was over already"), "{said}");
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "done");
}

/// Whoever has waited for one attempt hears signals also between two.
#[test]
fn an_interrupt_ends_the_wait_for_another_attempt() {
    let lane = "  headless: {args: [-eu, \"{prompt_file}\"], prompt_by: file, parser: claude-stream-json}\n\
                failures:\n  - {outcome: network, when: {message: \"API Error: 529 \"}}\n";
    let world = with_cli(lane, "sh");
    let script = "echo '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":true,\"api_error_status\":529,\"result\":\"API Error: 529 overloaded\"}'; exit 1";
    let run = world.start(&[&OWN[..], &["--lane", "headless", "--retry", "3", "-i", script]].concat());
    world.until("the end of the first attempt", || world.count("dispatch.closed") == 1);
    let outcome = world.last("dispatch.closed")["verdict"]["outcome"].clone();
    assert_eq!(outcome, "network", "what is tried again after a minute");
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.id()).unwrap()).unwrap();
    let begun = std::time::Instant::now();
    // Until it waits the signal is the next attempt's, of which there is none yet.
    world.until("its end", || {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        begun.elapsed() > std::time::Duration::from_secs(30) || run_is_over(pid)
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{outcome}");
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("interrupted while it waited"), "{said}");
    assert_eq!(world.count("dispatch.closed"), 1);
}

fn run_is_over(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// A question that comes up before a text is submitted is not answered by its Enter.
#[test]
fn a_question_in_between_is_not_answered_by_enter() {
    let world = with_cli(
        "  interactive:\n    args: [-eu, \"{prompt_file}\"]\n    prompt_by: file\n    parser: terminal\n    \
         interactive: {dialect: claude, settle: 100ms, allow_keys: \"1\", deny_keys: \"2\", pasted: \"NEVER SHOWN\"}\n",
        "sh",
    );
    let python = "import os, select, tty\ntty.setraw(0)\nos.write(1, b\"\\x1b[?2004h\\x1b]7501;state=working\\x07\")\nheard = b\"\"\n\
                  while b\"[201~\" not in heard: heard += os.read(0, 1000)\nos.write(1, b\"\\x1b]7501;state=blocked:kind=permission\\x07\")\n\
                  there = select.select([0], [], [], 1)[0]\nopen(\"got\", \"w\").write(repr(os.read(0, 100)) if there else \"nothing\")\n";
    let script = format!(
        "python3 -c '{python}'\ngit add got; git commit -qm got\nprintf '\\033]7501;state=done\\007'\nsleep 60\n"
    );
    let id = start(&world, &script, &["--lane", "interactive"]);
    world.until("it works", || world.vnx(&["ps"]).out.contains("working"));
    let sent = world.vnx(&["send", &id, "the text", "--json"]);
    assert!(sent.out.contains("\"queued\"") && sent.out.contains("a question came up"), "{}{}", sent.out, sent.err);
    world.vnx(&["wait", &id]);
    assert_eq!(world.git(&["show", &format!("vnx/{id}:got")]), "nothing");
}

/// Two projects may use the same id: a recovery in one leaves the worker of the other alone.
#[test]
fn a_recovery_ends_nobody_elses_worker() {
    let (lost, other) = (World::new(), World::new());
    let dispatch = |world: &World| {
        let script = format!("touch {0}/at; while [ ! -e {0}/go ]; do sleep 0.02; done", world.root.display());
        world.vnx(&[&SHELL[..], &["--id", "fix1", "--detach", "-i", &script]].concat()).expect(0);
        world.until("the worker", || world.root.join("at").exists());
    };
    dispatch(&lost);
    dispatch(&other);
    lost.kill_supervisor();
    lost.vnx(&["wait", "fix1"]);
    assert_eq!(lost.last("dispatch.closed")["verdict"]["outcome"], "supervisor_lost");
    std::fs::write(other.root.join("go"), "").unwrap();
    other.vnx(&["wait", "fix1"]);
    assert_eq!(other.last("dispatch.closed")["end"], serde_json::json!({"how": "exited", "code": 0}));
    lost.assert_nothing_left();
}

/// A process id means what it meant only since the same boot: a session of then is somebody else's now.
#[test]
fn a_recovery_of_another_boot_ends_no_session() {
    for same in [true, false] {
        let world = World::new();
        let pid = world.root.join("pid");
        let script =
            format!("env -i sh -c 'cd /; echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' & wait", pid.display());
        let id = world.vnx(&[&SHELL[..], &["--detach", "-i", &script]].concat()).expect(0).out.trim().to_owned();
        world.until("what it starts", || pid.exists());
        let pids = world.state().join("dispatches").join(&id).join("pids");
        if !same {
            let text = std::fs::read_to_string(&pids).unwrap();
            std::fs::write(&pids, format!("another boot {text}")).unwrap();
        }
        world.kill_supervisor_and_guard();
        world.vnx(&["wait", &id]);
        let left = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let left = rustix::process::Pid::from_raw(left).unwrap();
        assert_eq!(run_is_over(left), same);
        if !same {
            rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
        }
    }
}
