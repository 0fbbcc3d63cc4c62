//! Ledgers of the Python VNX are taken over as they are, and judged as Python would.

use std::path::PathBuf;

use vnx::ledger::older::OlderEntry;

use crate::common::World;

fn python(world: &World, args: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/older/vnx_python.py");
    let output = world.command("python3").arg(script).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A project, and beside it a ledger of nine lines: three unchained entries and two epochs.
fn older() -> (World, PathBuf) {
    let world = World::new();
    let file = world.root.join("t0_receipts.ndjson");
    python(&world, &["ledger", file.to_str().unwrap()]);
    (world, file)
}

fn import(world: &World, file: &std::path::Path) -> serde_json::Value {
    world.vnx(&["audit-chain", "import", file.to_str().unwrap(), "--json"]).expect(0).json()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

#[test]
fn entries_hash_as_python_hashes_them() {
    let world = World::bare("repo");
    let count = 20_000;
    let texts = python(&world, &["texts", "20261121", &count.to_string()]);
    let (mut hashed, mut refused) = (0, 0);
    for line in texts.lines() {
        let (hex, expected) = line.split_once(' ').unwrap();
        let text = unhex(hex);
        let found = OlderEntry::read(&text);
        let found = found.map_or("-".to_owned(), |entry| entry.hash.to_string());
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&text));
        *(if expected == "-" { &mut refused } else { &mut hashed }) += 1;
    }
    assert!(hashed > count / 2 && refused > count / 20, "{hashed} and {refused}");
}

#[test]
fn an_older_ledger_is_kept_as_it_is_and_bound_from_there_on() {
    let (world, file) = older();
    let bytes = std::fs::read(&file).unwrap();
    let said = import(&world, &file);
    let told = &said["imported"];
    assert_eq!(
        (&told["status"], &told["lines"], &told["chained"], &told["epochs"]),
        (&"segmented".into(), &9.into(), &6.into(), &2.into())
    );
    assert_eq!((&told["violations"], &told["bytes"], &said["new"]), (&0.into(), &bytes.len().into(), &true.into()));
    let copy = world.state().join(format!("receipts/imported/{}.ndjson", told["sha256"].as_str().unwrap()));
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    // The same bytes are taken over once.
    std::fs::rename(&file, world.root.join("moved.ndjson")).unwrap();
    let again = import(&world, &world.root.join("moved.ndjson"));
    assert_eq!((&again["new"], &again["seq"]), (&false.into(), &said["seq"]));
    assert_eq!(world.count("ledger.imported"), 1);
    let shown = world.vnx(&["audit-chain", "verify"]).expect(0).out;
    assert!(shown.contains("imported: t0_receipts.ndjson of 9 lines, by its own rules segmented"), "{shown}");
    assert!(world.vnx(&["receipts", "list", "--all"]).expect(0).out.contains("imported t0_receipts.ndjson, lines: 9"));
    // An edit that its own rules cannot see: the last entry.
    let text = String::from_utf8(bytes.clone()).unwrap();
    std::fs::write(&copy, text.replace("\"d5\"", "\"d6\"")).unwrap();
    let report = world.vnx(&["audit-chain", "verify", "--quick", "--json"]).expect(1).json();
    assert_eq!((&report["first_bad"]["kind"], &report["first_bad"]["line"]), (&"edited".into(), &2.into()), "{report}");
    world.vnx(&["audit-chain", "seal"]).expect(1);
    std::fs::remove_file(&copy).unwrap();
    let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(1).json();
    assert_eq!(report["first_bad"]["kind"], "deleted");
    // It is mended by the file itself, once more imported, and anchors then cover it.
    for wrong in [None, Some("edited")] {
        if let Some(text) = wrong {
            std::fs::write(&copy, text).unwrap();
        }
        assert_eq!(import(&world, &world.root.join("moved.ndjson"))["new"], false);
        assert_eq!((std::fs::read(&copy).unwrap(), world.count("ledger.imported")), (bytes.clone(), 1));
    }
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world.assert_verified();
}

#[test]
fn what_breaks_its_rules_is_taken_over_and_said() {
    let (world, file) = older();
    let text = std::fs::read_to_string(&file).unwrap();
    let cases = [
        (text.replace("\"d1\"", "\"forged\""), "broken", Some(6)),
        (text.split_inclusive('\n').take(3).collect(), "unchained", None),
        (text[..text.len() - 5].to_owned(), "broken", Some(9)),
        (text.replace("\"old-1\"", "\"old-1"), "broken", Some(2)),
        (text.replace('\n', "\r\n\n"), "segmented", None),
    ];
    for (n, (text, status, line)) in cases.into_iter().enumerate() {
        let file = world.root.join(format!("case-{n}.ndjson"));
        std::fs::write(&file, text).unwrap();
        let told = &import(&world, &file)["imported"];
        assert_eq!(told["status"], status, "{told}");
        assert_eq!(told["first_bad"]["line"].as_u64(), line, "{told}");
    }
    world.assert_verified();
    assert_eq!(world.count("ledger.imported"), 5);
    // A line that is longer than anything that is looked at is kept as well.
    let long = world.root.join("long.ndjson");
    std::fs::write(&long, format!("{{\"a\":1}}\n{{\"a\":\"{}\"}}\n{{\"a\":2}}\n", "x".repeat(17 << 20))).unwrap();
    let told = &import(&world, &long)["imported"];
    assert_eq!((&told["status"], &told["lines"], &told["first_bad"]["line"]), (&"broken".into(), &3.into(), &2.into()));
    world.assert_verified();
}

#[test]
fn what_is_no_older_ledger_is_refused_and_nothing_is_left() {
    let (world, _) = older();
    let before = std::fs::read(world.ledger()).unwrap();
    let refused = |file: &std::path::Path, says: &str| {
        let err = world.vnx(&["audit-chain", "import", file.to_str().unwrap()]).expect(2).err;
        assert!(err.contains(says), "{err}");
    };
    refused(&world.root.join("nowhere.ndjson"), "is not there");
    refused(&world.ledger(), "is a ledger of this vnx already");
    for (name, bytes) in [("empty", &b""[..]), ("binary", &[0, 159, 146, 150]), ("text", b"hello\nworld\n")] {
        let file = world.root.join(name);
        std::fs::write(&file, bytes).unwrap();
        refused(&file, "no line that is a JSON object");
    }
    world.vnx(&["audit-chain", "import", world.root.to_str().unwrap()]).expect(74);
    assert_eq!(std::fs::read(world.ledger()).unwrap(), before);
    let left = crate::common::names(&world.state().join("receipts/imported"));
    assert_eq!(left, ["LOCK"]);
    // The ledger of another project takes over nothing.
    let other = World::bare("other");
    other.vnx(&["init"]).expect(0);
    std::fs::copy(other.ledger(), world.ledger()).unwrap();
    let file = world.root.join("x.ndjson");
    std::fs::write(&file, "{\"a\":1}\n").unwrap();
    assert!(
        world.vnx(&["audit-chain", "import", file.to_str().unwrap()]).expect(3).err.contains("belongs to the project")
    );
    let nobody = World::bare("repo");
    assert!(!nobody.vnx(&["audit-chain", "import", "x.ndjson"]).expect(5).err.is_empty());
}
