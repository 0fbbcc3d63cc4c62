"""What the Python VNX did with its ledger, as far as its documentation says, for comparison.

    vnx_python.py texts SEED COUNT   random JSON texts as hex, each with the hash of its entry, or "-" if it has none
    vnx_python.py ledger FILE        a ledger of unchained entries, a marker, and chained ones
"""
import hashlib
import json
import random
import sys

GENESIS = "0" * 64


def entry_hash(entry):
    body = {name: value for name, value in entry.items() if name != "prev_hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(line):
    try:
        entry = json.loads(line.decode("utf-8"))
        return entry_hash(entry) if isinstance(entry, dict) else "-"
    except (ValueError, RecursionError):
        return "-"


def blank(rng):
    return rng.choice(["", "", "", "", " ", "\t", "\r", " \n"])


def text(rng):
    pieces = ["a", "prev_hash", "type", "é", "\u2028", "😀", "ￜ", "\x7f", "/", r"\/", r"\"", r"\\", r"\n", r"\b", r"\f", r"\t", r"\r",
              r"\u0000", r"\u00e9", r"\uD83D\uDE00", r"\ud83d", r"\ude00", r"\ud83d\ud83d", r"\u001F", "𝄞", "ÿ", r"\uFFFF"]
    return '"' + "".join(rng.choice(pieces) for _ in range(rng.randrange(4))) + '"'


def number(rng):
    whole = rng.choice(["0", "-0", "1", "-1", "10", "9007199254740993", "123456789012345678901234567890",
                        str(rng.getrandbits(64)), str(rng.randrange(10**rng.randrange(1, 25)))])
    fraction = rng.choice(["", "", ".0", ".5", ".000001", "." + str(rng.getrandbits(60))])
    exponent = rng.choice(["", "", "e3", "E+16", "e-7", "e-4", "e-5", "e15", "e16", "e400", "e-400", f"e{rng.randrange(-330, 320)}"])
    return whole + fraction + exponent


def value(rng, depth):
    kind = rng.randrange(8 if depth < 4 else 6)
    if kind == 6:
        return "[" + blank(rng) + ",".join(blank(rng) + value(rng, depth + 1) for _ in range(rng.randrange(4))) + blank(rng) + "]"
    if kind == 7:
        return an_object(rng, depth + 1)
    return [text, number, number][kind](rng) if kind < 3 else rng.choice(["true", "false", "null", "NaN", "Infinity", "-Infinity"])


def an_object(rng, depth):
    member = lambda: blank(rng) + text(rng) + blank(rng) + ":" + blank(rng) + value(rng, depth) + blank(rng)
    return "{" + ",".join(member() for _ in range(rng.randrange(5))) + "}"


def texts(seed, count):
    rng = random.Random(seed)
    for n in range(count):
        line = (blank(rng) + an_object(rng, 0) + blank(rng)).encode("utf-8")
        if n % 3 == 0:  # a byte more, less or other
            at = rng.randrange(len(line) + 1)
            line = line[:at] + rng.choice([b"", bytes([rng.randrange(256)]), b'"', b",", b"0", b"-", b"."]) + line[at + rng.randrange(2):]
        print(line.hex(), read(line))
    for depth in (100, 800):
        line = b'{"a":' * depth + b"1" + b"}" * depth
        print(line.hex(), read(line))


def ledger(path):
    lines = [json.dumps({"dispatch_id": f"old-{n}", "cost": 0.1 * n, "note": "ü"}, separators=(",", ":")) for n in range(3)]
    previous = None
    for n in range(6):
        entry = {"dispatch_id": f"d{n}", "duration": n / 3, "status": "done"}
        if n % 3 == 0:
            entry, previous = {"type": "chain_epoch_start", "epoch": n // 3 + 1, "epoch_ts": "2026-01-01T00:00:00+00:00"}, GENESIS
        entry["prev_hash"] = previous
        previous = entry_hash(entry)
        lines.append(json.dumps(entry) if n % 3 == 0 else json.dumps(entry, separators=(",", ":")))
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    texts(int(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "texts" else ledger(sys.argv[2])
