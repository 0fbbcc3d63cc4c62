#!/usr/bin/env python3
"""Verifies a vnx ledger or an inclusion proof; written from SPEC.md, standard library only.
    verify.py LEDGER [CHECKPOINT ...]      a file, or a folder of segments; then each checkpoint (files of three lines)
    verify.py --proof PROOF CHECKPOINT     what `audit-chain prove` or `receipts export` printed, against one from elsewhere
Exit codes: 0 verified, 1 broken, 2 usage, 3 not what a checkpoint says, 4 torn tail, 5 nothing to verify, 74 unreadable."""
import base64, datetime, functools, hashlib, io, json, pathlib, re, subprocess, sys

kinds = lambda text: dict(entry.partition(":")[::2] for entry in text.split())  # each with what its key ends with
OWN = kinds("""ledger.created ledger.recovered ledger.io_error ledger.lost ledger.sealed:segment ledger.opened:segment
ledger.imported:sha256 dispatch.refused anchor.written:size stage.proposed:proposal stage.promoted:proposal""")
KINDS = OWN | kinds("""dispatch.requested dispatch.claimed override.used:constraint,gate.nonce dispatch.prepared dispatch.started dispatch.exited
dispatch.collected dispatch.judged dispatch.closed worktree.hook:hook worktree.rescued worktree.removed worktree.kept worktree.undone
gate.requested:binding.nonce gate.resulted:nonce approval.given:nonce item.opened:item,round item.closed:item,round
branch.dropped rescue.dropped:commit merge.started:nonce merge.landed:nonce merge.refused:nonce""")
LINE = re.compile(
    rb'\{"v":1,"prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]{0,15}),"ts":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:'
    rb'[0-9]{2}\.[0-9]{6})Z","kind":"([a-z_.]+)"(?:,"dispatch":"([a-z0-9][a-z0-9-]{0,62})","attempt":([1-9][0-9]{0,9}))?'
    rb',"key":"([^"\\]*)"(?:,"redacted":[1-9][0-9]{0,15})?,"data":(\{.*\}),"hash":"([0-9a-f]{64})"\}', re.S)
Broken = type("Broken", (Exception,), {})


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def members(pairs):
    if len({name for name, _ in pairs}) != len(pairs) or None in [value for name, value in pairs if name != "anchor"]:
        raise ValueError("a member stands twice, or is null")
    return dict(pairs)


def integer(text):
    if text == "-0" or not text.lstrip("-").isdigit() or abs(int(text)) >= 2**53:
        raise ValueError(f"{text} is not an integer within 2^53")
    return int(text)


def receipt(line):
    if len(line) > 1 << 20 or not (match := LINE.fullmatch(line)):
        raise Broken("not a receipt of version 1")
    prev, seq, ts, kind, owner, attempt, key, data, digest = (part and part.decode("utf-8", "replace") for part in match.groups())
    if hashlib.sha256(b"\0" + line[:-75]).hexdigest() != digest:
        raise Broken("edited: the hash does not fit the bytes")
    try:
        datetime.datetime.fromisoformat(ts)
        data = json.loads(match[8].decode(), object_pairs_hook=members, parse_int=integer, parse_float=integer, parse_constant=integer)
        json.dumps(data, ensure_ascii=False).encode("utf-8")
        if re.search(rb"\s", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", match[8])):
            raise ValueError("blanks between its members")
    except (ValueError, RecursionError) as error:
        raise Broken(f"not as the format has it: {error}") from error
    named = (functools.reduce(lambda at, name: at.get(name, {}), path.split("."), data) for path in KINDS.get(kind, "").split(","))
    named = "/".join([owner or "ledger", kind, attempt or "1"] + [str(value) for value in named if value != {}])
    if kind not in KINDS or (owner is None) != (kind in OWN) or key != named or ts > "9999" or (
            max(int(attempt or 1) << 21, int(seq)) >= 2**53):
        raise Broken("ts, kind, dispatch, attempt, seq or key is not as the format has it")
    return int(seq), kind, data, prev, digest


def push(stack, height, hash_):
    """Adds a perfect subtree to the roots of a tree, largest first (RFC 6962 section 2.1)."""
    while stack and stack[-1][0] == height:
        height, hash_ = height + 1, node(stack.pop()[1], hash_)
    stack.append((height, hash_))


def root(stack):
    return functools.reduce(lambda right, left: node(left[1], right), reversed(stack[:-1]), stack[-1][1])


def checkpoint(path):
    match = re.fullmatch(rb"(vnx/[0-9a-f]+)\n([1-9][0-9]{0,14})\n([A-Za-z0-9+/]{43}=)\n", pathlib.Path(path).read_bytes())
    if not match or base64.b64encode(base64.b64decode(match.group(3))) != match.group(3):
        raise ValueError(f"{path} is not a checkpoint")
    return match.group(1).decode(), int(match.group(2)), base64.b64decode(match.group(3))


def segments(path):
    if not path.is_dir():
        yield open(path, "rb")
        return
    sealed = {p.name[:-11] if p.suffix == ".zst" else p.name[:-7]: p for p in sorted(path.glob("[0-9]*.ndjson*"), reverse=True)}
    for _, file in sorted(sealed.items()):
        if file.suffix != ".zst":
            yield open(file, "rb")
            continue
        with subprocess.Popen(["zstd", "-dcq", file], stdout=subprocess.PIPE) as unpacker:
            yield unpacker.stdout
        if unpacker.returncode:
            raise OSError(f"{file} cannot be unpacked")
    last = path / "ledger.ndjson"
    if sealed and not last.exists():
        if not (path / "ledger.next").exists():
            raise Broken("the open segment is not there")
        yield io.BytesIO(b"{")  # it was about to be begun: as much as a line that was
        return
    yield open(last, "rb")


def ledger(path, checkpoints):
    head, size, stack, torn, other, origin, last, before = "0" * 64, 0, [], False, None, None, None, 0
    for file in segments(pathlib.Path(path)):
        first = True
        while line := file.readline((1 << 20) + 2):
            try:
                if torn:
                    raise Broken("after an incomplete line")
                if torn := not line.endswith(b"\n"):
                    if (more := file.readline(1 << 24)).endswith(b"\n") or before + len(line) + len(more) >= 1 << 24:
                        raise Broken("too long")
                    continue
                seq, kind, data, prev, digest = receipt(line[:-1])
                begins = kind in ("ledger.created", "ledger.opened")
                if (seq, prev, kind == "ledger.created") != (size, head, size == 0) or first != begins or (
                        (last == "ledger.sealed") != (first and size > 0)):
                    raise Broken("does not follow the line before it")
            except Broken as why:
                raise Broken(f"line {size + 1}: {why}") from why
            head, size, first, last, before, origin = digest, size + 1, False, kind, len(line), origin or f"vnx/{data.get('ledger')}"
            push(stack, 0, bytes.fromhex(digest))
            if kind == "ledger.imported" and pathlib.Path(path).is_dir():
                copy = pathlib.Path(path, "imported", f"{data['sha256']}.ndjson")
                if copy.is_symlink() or not copy.is_file() or hashlib.sha256(copy.read_bytes()).hexdigest() != data["sha256"]:
                    raise Broken(f"{copy} is gone or was edited")
            if any(covered == size and (name, expected) != (origin, root(stack)) for name, covered, expected in checkpoints):
                other = other or f"the first {size} receipts are not those of the checkpoint"
    if first and size and not torn:
        raise Broken("the open segment is empty")
    if other or any(covered > size for _, covered, _ in checkpoints):
        return 3, other or f"a checkpoint covers more than the {size} receipts that are here"
    sound = (0, f"{size} receipts are sound, head {head}") if size else (5, "the ledger is empty")
    return (4, f"line {size + 1}: the last line is incomplete") if torn else sound


def proof(given, text, origin, size, expected):
    items = {"vnx.export/1": lambda: given["receipts"], "vnx.proof/1": lambda: [given]}[given["schema"]]()
    if given["checkpoint"].encode() != text or not items or [i["seq"] for i in items] != sorted({i["seq"] for i in items}):
        return 1, "it is for another checkpoint, or its receipts are not in their order"
    for item in items:
        hidden, seq, path = item.get("redacted", 0), item["seq"], [bytes.fromhex(text) for text in item["path"]]
        real = [seq, item["hash"]] if type(hidden) is int and hidden > 0 and items != [given] else list(receipt(item["receipt"].encode())[::4])
        low, high, sides, hash_ = 0, size, [], bytes.fromhex(real[1])
        while seq < size and high - low > 1:  # RFC 9162 section 2.1.3: the sibling is the half that the leaf is not in
            middle = low + (1 << (high - low - 1).bit_length() - 1)
            sides.append(seq < middle)
            low, high = (low, middle) if seq < middle else (middle, high)
        fits = 0 <= seq < size and len(sides) == len(path) and real == [seq, item.get("hash", real[1])]
        for is_left, sibling in zip(reversed(sides), path):
            hash_ = node(hash_, sibling) if is_left else node(sibling, hash_)
        if not fits or hash_ != expected:
            return 3 if fits else 1, f"receipt {seq}: the proof leads to another root, or nowhere"
    count = sum(item.get("redacted", 0) > 0 for item in items)
    return 0, f"{len(items)} of the {size} receipts of {origin}; of {count} only the hash is proven, their texts were replaced"


def main(args):
    try:
        if len(args) == 3 and args[0] == "--proof":
            given = json.loads(pathlib.Path(args[1]).read_text("utf-8"), object_pairs_hook=members, parse_float=integer)
            return proof(given, pathlib.Path(args[2]).read_bytes(), *checkpoint(args[2]))
        usage = not args or args[0].startswith("-")
        return (2, __doc__) if usage else ledger(args[0], [checkpoint(path) for path in args[1:]])
    except (OSError, ValueError, Broken, KeyError, TypeError, AttributeError, RecursionError) as why:
        codes = [(FileNotFoundError, 5), (OSError, 74), (ValueError, 2), (Exception, 1)]
        return next(code for kind, code in codes if isinstance(why, kind)), f"{type(why).__name__}: {why}"


if __name__ == "__main__":
    sys.exit(print((result := main(sys.argv[1:]))[1]) or result[0])
