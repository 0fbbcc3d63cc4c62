#!/usr/bin/env python3
"""Verifies a vnx ledger or an inclusion proof; written from SPEC.md, standard library only.

    verify.py LEDGER [CHECKPOINT ...]   every line, then each checkpoint (files with three lines)
    verify.py --proof PROOF             what `vnx audit-chain prove` printed

Exit codes: 0 verified, 1 broken, 2 usage, 3 not what a checkpoint says, 4 torn tail, 5 nothing to verify, 74 unreadable.
"""
import base64
import hashlib
import json
import re
import sys

KINDS = """ledger.created ledger.recovered ledger.io_error ledger.sealed ledger.opened dispatch.requested
dispatch.refused dispatch.claimed override.used dispatch.prepared dispatch.started dispatch.exited dispatch.collected
dispatch.judged worktree.rescued worktree.removed worktree.kept dispatch.closed anchor.written""".split()
OWN = [kind for kind in KINDS if kind.startswith(("ledger.", "anchor.")) or kind == "dispatch.refused"]
MEMBERS = ["v", "prev", "seq", "ts", "kind", "key", "data", "hash"]
OF_DISPATCH = MEMBERS[:5] + ["dispatch", "attempt"] + MEMBERS[5:]
LINE = re.compile(rb'\{"v":1,"prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]{0,15}),"ts":".*,"hash":"([0-9a-f]{64})"\}', re.S)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{6}Z")


class Broken(Exception):
    pass


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def members(pairs):
    if len({name for name, _ in pairs}) != len(pairs):
        raise Broken("a member stands twice")
    return dict(pairs)


def integer(text):
    if not text.lstrip("-").isdigit() or abs(int(text)) >= 2**53:
        raise Broken(f"{text} is not an integer within 2^53")
    return int(text)


def receipt(line):
    """The links of one line (without LF), after everything that can be checked of it alone."""
    match = LINE.fullmatch(line)
    if len(line) > 1 << 20 or not match:
        raise Broken("not a receipt of version 1")
    prev, seq, digest = match.groups()
    if hashlib.sha256(b"\0" + line[:-75]).hexdigest().encode() != digest:
        raise Broken("edited: the hash does not fit the bytes")
    try:
        parsed = json.loads(line.decode("utf-8"), object_pairs_hook=members, parse_int=integer, parse_float=integer,
                            parse_constant=integer)
    except (ValueError, RecursionError) as error:
        raise Broken(f"not JSON: {error}") from error
    kind, owner = parsed.get("kind"), parsed.get("dispatch", "ledger")
    names = MEMBERS if kind in OWN else OF_DISPATCH
    if list(parsed) not in (names, names[:-2] + ["redacted"] + names[-2:]) or not 0 < int(parsed.get("redacted", 1)):
        raise Broken("members are missing, unknown, in another order or out of range")
    if kind not in KINDS or not TIME.fullmatch(parsed["ts"]) or not isinstance(parsed["data"], dict):
        raise Broken("kind, ts or data is not as the format has it")
    key = f"{owner}/{kind}/{parsed.get('attempt', 1)}"
    if parsed["key"] != key and not parsed["key"].startswith(key + "/"):
        raise Broken("the key is that of another receipt")
    return prev, int(seq), digest, kind


def push(stack, height, hash_):
    """Adds a perfect subtree to the roots of a tree, largest first (RFC 6962 section 2.1)."""
    while stack and stack[-1][0] == height:
        height, hash_ = height + 1, node(stack.pop()[1], hash_)
    stack.append((height, hash_))


def root(stack):
    hash_ = stack[-1][1]
    for _, left in reversed(stack[:-1]):
        hash_ = node(left, hash_)
    return hash_


def checkpoint(text):
    origin, size, encoded, end = text.split("\n")
    if end or not origin.startswith("vnx/"):
        raise ValueError("not a checkpoint")
    return int(size), base64.b64decode(encoded, validate=True)


def ledger(path, checkpoints):
    head, size, stack = b"0" * 64, 0, []
    with open(path, "rb") as file:
        while line := file.readline((1 << 20) + 2):
            if not line.endswith(b"\n"):
                if len(line) > 1 << 20:
                    raise Broken(f"line {size + 1}: too long")
                return 4, f"line {size + 1}: the last line is incomplete"
            try:
                prev, seq, digest, kind = receipt(line[:-1])
                if seq != size or prev != head or (kind == "ledger.created") != (size == 0):
                    raise Broken("does not follow the line before it")
            except Broken as why:
                raise Broken(f"line {size + 1}: {why}") from why
            head, size = digest, size + 1
            push(stack, 0, bytes.fromhex(digest.decode()))
            if any(covered == size and expected != root(stack) for covered, expected in checkpoints):
                return 3, f"the first {size} receipts are not those of the checkpoint"
    if any(covered > size for covered, _ in checkpoints):
        return 3, f"a checkpoint covers more than the {size} receipts that are here"
    return (0, f"{size} receipts are sound, head {head.decode()}") if size else (5, "the ledger is empty")


def proof(text):
    given = json.loads(text)
    size, expected = checkpoint(given["checkpoint"])
    _, seq, digest, _ = receipt(given["receipt"].encode())
    if seq != given["seq"] or seq >= size:
        return 1, "the proof is about another receipt"
    hash_, low, high, sides = bytes.fromhex(digest.decode()), 0, size, []
    while high - low > 1:  # RFC 9162 section 2.1.3: the sibling is the half that the leaf is not in
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        sides.append(seq < middle)
        low, high = (low, middle) if seq < middle else (middle, high)
    if len(sides) != len(given["path"]):
        return 1, "the path has the wrong length"
    for is_left, sibling in zip(reversed(sides), map(bytes.fromhex, given["path"])):
        hash_ = node(hash_, sibling) if is_left else node(sibling, hash_)
    return (0, f"receipt {seq} is among the {size} of the checkpoint") if hash_ == expected else (3, "another root")


def main(args):
    try:
        if len(args) == 2 and args[0] == "--proof":
            return proof(open(args[1], encoding="utf-8").read())
        if not args or args[0].startswith("-"):
            return 2, __doc__
        return ledger(args[0], [checkpoint(open(p, encoding="utf-8").read()) for p in args[1:]])
    except Broken as why:
        return 1, str(why)
    except FileNotFoundError as error:
        return 5, str(error)
    except (OSError, ValueError, KeyError) as error:
        return 74, str(error)


if __name__ == "__main__":
    status, message = main(sys.argv[1:])
    sys.exit(print(message) or status)
