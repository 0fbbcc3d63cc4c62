"""A terminal program for the tests: it behaves as coding CLIs do and records what it is given.

It reports its status (OSC 7501) if the terminal answers the query, takes pasted text in brackets,
submits on Enter, and writes every message to $TUI_RECORD as one JSON line. Words make it act:
`quit`, `ask` (waits for a permission, y or n), `deaf` (swallows five answers before), `picky` (asks a
second time), `busy` (stays at work), `hang`.
"""
import base64
import json
import os
import select
import signal
import sys
import termios
import tty

record = open(os.environ["TUI_RECORD"], "a", buffering=1)
tty.setraw(0)


def out(text):
    os.write(1, text.encode())


def read(seconds):
    ready, _, _ = select.select([0], [], [], seconds)
    return os.read(0, 65536) if ready else None


def answer(query, end):
    out(query)
    got = b""
    while not got.endswith(end):
        more = read(5)
        if not more:
            return None
        got += more
    return got


def report(state, **more):
    extra = "".join(f":{key}={value}" for key, value in more.items())
    out(f"\x1b]7501;state={state}:app=tui{extra}\x1b\\")


def commit(name, text):
    with open(name, "w") as file:
        file.write(text)
    os.system(f"git add {name} && git commit -qm {name}")


queries = {
    "da1": answer("\x1b[c", b"c"),
    "cursor": answer("\x1b[3;7H\x1b[6n", b"R"),
    "colour": answer("\x1b]11;?\x1b\\", b"\x1b\\"),
    "status": answer("\x1b]7501;?\x1b\\", b"\x1b\\"),
    "version": answer("\x1b[>q\x1b[5n", b"n"),
    "size": answer("\x1b[18t", b"t"),
}
record.write(json.dumps({"queries": {k: v and v.decode() for k, v in queries.items()}}) + "\n")


def resized(*_):
    record.write(json.dumps({"size": list(os.get_terminal_size(0))}) + "\n")
    ruler()


signal.signal(signal.SIGWINCH, resized)

out("\x1b[?2004h\x1b[?1049h\x1b[2J\x1b[H\x1b[1;34mtui is ready\x1b[0m\r\n")


def ruler(*_):
    cols = os.get_terminal_size(0).columns
    out(f"\x1b7\x1b[9;1H\x1b[2K{(chr(48) + '123456789') * (cols // 10)}\x1b8")


ruler()
report("idle")


def take(message, pasted):
    record.write(json.dumps({"message": message.decode("utf-8", "surrogateescape"), "pasted": pasted}) + "\n")
    if message == b"quit":
        sys.exit(0)
    out(f"\x1b[4;1H\x1b[2Kgot {len(message)} bytes")
    report("working")
    if message == b"hang":
        return
    if message in (b"ask", b"deaf", b"picky"):
        report("blocked", kind="permission", msg=base64.b64encode(b"approve Bash: rm -rf build").decode())
        out("\x1b[6;1HAllow this? (y/n)")
        if message == b"deaf":
            for _ in range(5):
                os.read(0, 1)
        if message == b"picky":
            os.read(0, 1)
            out("\x1b[7;1Hreally?")
        key = b""
        while key not in (b"y", b"n"):
            key = os.read(0, 1)
        record.write(json.dumps({"permission": key.decode()}) + "\n")
        report("working")
    commit("message.txt", f"{len(message)} bytes\n")
    report("done")


if len(sys.argv) > 1 and sys.argv[1]:
    take(sys.argv[1].encode(), False)

line, pasting, was_pasted = b"", False, False
while True:
    data = os.read(0, 65536)
    line += data
    while True:
        if pasting:
            end = line.find(b"\x1b[201~", begin)
            if end < 0:
                break
            line = line[:end] + line[end + 6:]
            pasting, was_pasted, after = False, True, end
        start = line.find(b"\x1b[200~")
        if start >= 0:
            line = line[:start] + line[start + 6:]
            pasting, begin = True, start
            continue
        enter = line.find(b"\r", after if was_pasted else 0)
        if enter < 0:
            break
        message, line = line[:enter], line[enter + 1:]
        take(message, was_pasted)
        was_pasted = False
