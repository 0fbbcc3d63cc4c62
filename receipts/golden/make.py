#!/usr/bin/env python3
"""Makes the tampered ledgers of this folder from sound.ndjson: `make.py FOLDER` writes them there.

expected.json says what a verifier must find in each: the exit code, and the name and line of the first fault.
"""
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
SOUND = (HERE / "sound.ndjson").read_bytes()
LINES = SOUND.splitlines(keepends=True)


def sealed(body):
    """A line with the right hash for these bytes."""
    return body + b',"hash":"' + hashlib.sha256(b"\0" + body).hexdigest().encode() + b'"}\n'


def body(n):
    return LINES[n][:-76]


def rewritten(start, lines):
    """The lines from `start` on with all links and hashes made anew."""
    out = lines[:start]
    for line in lines[start:]:
        prev = out[-1][-67:-3] if out else b"0" * 64
        out.append(sealed(line[:15] + prev + line[79:-76]))
    return b"".join(out)


def forged(n, old, new):
    """Line n with other bytes and the right hash for them; nothing after it fits."""
    assert old in LINES[n], (n, old)
    return b"".join(LINES[:n] + [sealed(body(n).replace(old, new, 1))] + LINES[n + 1:])


last = len(LINES) - 1
swapped = LINES[:5] + [LINES[6], LINES[5]] + LINES[7:]
lie = [line.replace(b'"decision":"accept"', b'"decision":"reject"') for line in LINES]
first_lie = next(n for n, line in enumerate(lie) if line != LINES[n])
cases = {
    # name: (bytes, exit code, fault, line, with the checkpoint)
    "edited": (SOUND.replace(b'"decision":"accept"', b'"decision":"reject"', 1), 1, "edited", first_lie + 1, False),
    "edited-last": (SOUND[:-90] + bytes([SOUND[-90] ^ 1]) + SOUND[-89:], 1, "edited", last + 1, False),
    "deleted": (b"".join(LINES[:5] + LINES[6:]), 1, "deleted", 6, False),
    "deleted-first": (b"".join(LINES[1:]), 1, "deleted", 1, False),
    "inserted": (b"".join(LINES[:6] + [LINES[3]] + LINES[6:]), 1, "inserted", 7, False),
    "inserted-forged": (b"".join(LINES[:6] + [rewritten(6, LINES[:6] + [LINES[6]]).splitlines(True)[-1]] + LINES[6:]),
                        1, "inserted", 8, False),
    "reordered": (b"".join(swapped), 1, "reordered", 6, False),
    "forked": (forged(first_lie, b'"decision":"accept"', b'"decision":"reject"'), 1, "forked", first_lie + 2, False),
    "truncated": (b"".join(LINES[:20]), 3, "truncated", 21, True),
    "truncated-unnoticed": (b"".join(LINES[:20]), 0, None, None, False),
    "rewritten": (rewritten(first_lie, lie), 3, "rewritten", last + 2, True),
    "rewritten-unnoticed": (rewritten(first_lie, lie), 0, None, None, False),
    "torn": (SOUND[:-20], 4, "torn", last + 1, False),
    "empty": (b"", 5, "missing", 1, False),
    "blank-line": (SOUND.replace(b"\n", b"\n\n", 1), 1, "format", 2, False),
    "crlf": (SOUND.replace(b"\n", b"\r\n", 1), 1, "format", 1, False),
    "byte-order-mark": (b"\xef\xbb\xbf" + SOUND, 1, "format", 1, False),
    "other-version": (SOUND.replace(b'{"v":1,', b'{"v":2,'), 1, "format", 1, False),
    "duplicate-member": (forged(1, b'"agent":', b'"agent":"x","agent":'), 1, "format", 2, False),
    "unknown-kind": (forged(1, b"dispatch.requested", b"dispatch.blessed"), 1, "format", 2, False),
    "member-order": (forged(1, b'"attempt":1,"key"', b'"key"'), 1, "format", 2, False),
    "float": (forged(1, b'"attempt":1,', b'"attempt":1.0,'), 1, "format", 2, False),
    "null": (forged(1, b'"agent":', b'"model":null,"agent":'), 1, "format", 2, False),
    "too-large": (forged(3, b'"took_ms":', b'"took_ms":9007199254740993'), 1, "format", 4, False),
    "second-beginning": (rewritten(6, LINES[:6] + [LINES[0].replace(b'"seq":0,', b'"seq":6,')]), 1, "format", 7, False),
}

# An older ledger that was taken over, in a folder with its copy.
OLDER = b'{"dispatch_id":"d0","n":0,"status":"done","prev_hash":"%s"}\n' % (b"0" * 64)
ID = hashlib.sha256(OLDER).hexdigest()
told = (f'{{"sha256":"{ID}","bytes":{len(OLDER)},"lines":1,"status":"verified","chained":1,"epochs":0,"violations":0,'
        '"name":"t0_receipts.ndjson"}').encode()
import_line = sealed(b'{"v":1,"prev":"%s","seq":1,"ts":"2026-11-21T15:00:00.000000Z","kind":"ledger.imported",'
                     b'"key":"ledger/ledger.imported/1/%s","data":%s' % (LINES[0][-67:-3], ID.encode(), told))
folders = {
    # name: (the copy, exit code, fault, line)
    "imported": (OLDER, 0, None, None),
    "imported-edited": (OLDER.replace(b"done", b"lost"), 1, "edited", 2),
    "imported-gone": (None, 1, "deleted", 2),
}

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    expected = [{"file": "sound", "exit": 0, "kind": None, "line": None, "checkpoint": True}]
    for name, (content, code, kind, line, checkpoint) in cases.items():
        (folder / f"{name}.ndjson").write_bytes(content)
        expected.append({"file": name, "exit": code, "kind": kind, "line": line, "checkpoint": checkpoint})
    for name, (copy, code, kind, line) in folders.items():
        (folder / name / "imported").mkdir(parents=True, exist_ok=True)
        (folder / name / "ledger.ndjson").write_bytes(LINES[0] + import_line)
        if copy:
            (folder / name / "imported" / f"{ID}.ndjson").write_bytes(copy)
        expected.append({"file": name, "exit": code, "kind": kind, "line": line, "checkpoint": False})
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
