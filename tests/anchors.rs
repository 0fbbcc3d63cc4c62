//! Anchors: what a chain alone cannot show.

use std::path::Path;

use crate::common::World;

/// A world with two closed dispatches and an anchor over them.
fn anchored() -> World {
    let world = World::new();
    world.script("echo x > x; git add x; git commit -qm x").expect(0);
    world.script("true").expect(4);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world
}

fn python(world: &World, args: &[&str]) -> (i32, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receipts/verify.py");
    let output = world.command("python3").arg(script).args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All later lines with their links and hashes made anew, as somebody with the source could.
fn rewrite(text: &str, old: &str, new: &str) -> String {
    use vnx::domain::Digest;
    let mut prev = Digest::ZERO;
    let mut out = String::new();
    for line in text.replace(old, new).lines() {
        let body = line.rsplit_once(",\"hash\":\"").unwrap().0;
        let body = format!("{}{prev}{}", &body[..15], &body[79..]);
        prev = Digest::leaf(body.as_bytes());
        out.push_str(&[body.as_str(), ",\"hash\":\"", &prev.to_string(), "\"}\n"].concat());
    }
    out
}

#[test]
fn an_anchor_shows_truncation_rewriting_rollback_and_replacement() {
    let world = anchored();
    let sound = std::fs::read_to_string(world.ledger()).unwrap();
    let verify = |code: i32| {
        let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(code).json();
        report["first_bad"]["kind"].as_str().unwrap_or("nothing").to_owned()
    };
    assert_eq!(verify(0), "nothing");
    // Cut after every line that the anchor covers.
    let lines: Vec<&str> = sound.lines().collect();
    for keep in 1..lines.len() - 1 {
        std::fs::write(world.ledger(), lines[..keep].join("\n") + "\n").unwrap();
        assert_eq!(verify(3), "truncated", "{keep} of {}", lines.len());
    }
    std::fs::write(world.ledger(), rewrite(&sound, "\"investigate\"", "\"accept\"")).unwrap();
    assert_eq!(verify(3), "rewritten");
    std::fs::write(world.ledger(), "").unwrap();
    assert_eq!(verify(3), "truncated");
    std::fs::remove_file(world.ledger()).unwrap();
    assert_eq!(verify(3), "truncated");
    // A fresh ledger in its place.
    let other = World::new();
    other.script("true").expect(4);
    let theirs = std::fs::read_to_string(other.ledger()).unwrap();
    std::fs::write(world.ledger(), theirs).unwrap();
    assert_eq!(verify(3), "rewritten");
    std::fs::write(world.ledger(), &sound).unwrap();
    assert_eq!(verify(0), "nothing");
    // The anchors themselves.
    let anchor = world.git(&["rev-parse", "refs/vnx/anchors"]);
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    assert_eq!(verify(3), "bad_anchor", "the ledger tells of it");
    let text = lines[..lines.len() - 1].join("\n") + "\n";
    std::fs::write(world.ledger(), rewrite(&text, "\"investigate\"", "\"accept\"")).unwrap();
    assert_eq!(verify(3), "rewritten", "the witness outside of the repository remembers");
    std::fs::write(world.ledger(), &sound).unwrap();
    world.git(&["update-ref", "refs/vnx/anchors", "HEAD"]);
    assert_eq!(verify(3), "bad_anchor", "a commit without a checkpoint");
    world.git(&["update-ref", "refs/vnx/anchors", anchor.trim()]);
    assert_eq!(verify(0), "nothing");
}

#[test]
fn the_gate_wants_everything_anchored_and_from_where_others_can_see_it() {
    let world = World::new();
    world.script("true").expect(4);
    world.vnx(&["audit-chain", "verify"]).expect(0);
    let require = |code: i32| world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(code);
    assert!(require(5).out.contains("no anchor"));
    let sealed = world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json();
    assert_eq!((sealed["new"].as_bool(), sealed["signed"].as_bool()), (Some(true), Some(false)));
    require(0);
    let again = world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json();
    assert_eq!((&again["new"], &again["commit"]), (&false.into(), &sealed["commit"]), "nothing new, nothing written");
    world.script("true").expect(4);
    assert!(require(5).out.contains("receipts lie after the last anchor"));
    world.vnx(&["audit-chain", "seal"]).expect(0);
    require(0);
    // A plain push carries them; a clone that fetched them can be asked about.
    let remote = world.root.join("remote.git");
    world.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
    world.git(&["push", "-q", remote.to_str().unwrap(), "refs/vnx/anchors"]);
    world.git(&["fetch", "-q", remote.to_str().unwrap(), "refs/vnx/anchors:refs/remotes/origin/vnx/anchors"]);
    let at = ["audit-chain", "verify", "--require-anchor", "--anchor-ref", "origin/vnx/anchors"];
    world.vnx(&at).expect(0);
    world.script("true").expect(4);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world.vnx(&at).expect(5);
    world.vnx(&["audit-chain", "verify", "--anchor-ref", "--upload-pack=x"]).expect(2);
    world.vnx(&["audit-chain", "verify", "--anchor-ref", "a b"]).expect(2);
    // Nothing is sealed that does not verify.
    let mut bytes = std::fs::read(world.ledger()).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(world.ledger(), bytes).unwrap();
    let before = world.git(&["rev-parse", "refs/vnx/anchors"]);
    world.vnx(&["audit-chain", "seal"]).expect(1);
    assert_eq!(world.git(&["rev-parse", "refs/vnx/anchors"]), before);
}

#[test]
fn signed_anchors_are_checked_against_the_project_s_signers() {
    let world = anchored();
    let since = |code: i32| world.vnx(&["audit-chain", "verify", "--since-anchor"]).expect(code);
    assert!(since(5).out.contains("not signed"), "nothing is built on an unsigned anchor");
    let key = |name: &str| {
        let path = world.root.join(name);
        let made = world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    };
    let signers = world.repo.join(".vnx/allowed_signers");
    std::fs::write(&signers, format!("me@vnx.invalid {}", key("mine"))).unwrap();
    let verify = |code: i32| world.vnx(&["audit-chain", "verify"]).expect(code);
    assert!(verify(5).out.contains("not signed by anybody"), "a signature can be stripped");
    assert!(world.vnx(&["audit-chain", "seal"]).expect(3).err.contains("user.signingkey"));
    world.git(&["config", "gpg.format", "ssh"]);
    world.git(&["config", "user.signingkey", world.root.join("mine.pub").to_str().unwrap()]);
    // What a worker left in the configuration does not run.
    let evil = world.root.join("evil");
    std::fs::write(&evil, "#!/bin/sh\ntouch \"$0.ran\"\n").unwrap();
    std::fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.git(&["config", "gpg.ssh.program", evil.to_str().unwrap()]);
    assert_eq!(world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json()["signed"], true);
    assert!(verify(0).out.contains("signed by me@vnx.invalid"));
    since(0);
    assert!(!world.root.join("evil.ran").exists());
    // Going on from it reads only what came after, and still finds what is wrong there.
    world.script("true").expect(4);
    since(0);
    let sound = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), sound.replace("\"code\":0", "\"code\":1")).unwrap();
    assert_eq!(
        world.vnx(&["audit-chain", "verify", "--since-anchor", "--json"]).expect(1).json()["first_bad"]["kind"],
        "edited"
    );
    std::fs::write(world.ledger(), &sound[..sound.len() / 3]).unwrap();
    since(3);
    std::fs::write(world.ledger(), &sound).unwrap();
    // Somebody else's key.
    key("theirs");
    world.git(&["config", "user.signingkey", world.root.join("theirs.pub").to_str().unwrap()]);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    assert!(verify(5).out.contains("not signed by anybody"));
}

#[test]
fn a_proof_convinces_somebody_without_the_ledger() {
    let world = anchored();
    let count = world.receipts().len();
    for seq in 0..count {
        let proof = world.vnx(&["audit-chain", "prove", &seq.to_string()]).expect(0);
        let file = world.root.join("proof.json");
        std::fs::write(&file, &proof.out).unwrap();
        let (code, said) = python(&world, &["--proof", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{seq}: {said}");
        std::fs::write(&file, proof.out.replacen("\\\"ts\\\":\\\"2", "\\\"ts\\\":\\\"3", 1)).unwrap();
        assert_ne!(python(&world, &["--proof", file.to_str().unwrap()]).0, 0);
        assert_eq!(proof.json()["anchor"].is_null(), seq + 1 == count, "the last receipt tells of the anchor");
    }
    assert!(world.vnx(&["audit-chain", "prove", "999"]).expect(2).err.contains("there is no receipt 999"));
}

#[test]
fn two_verifiers_find_the_same_in_every_golden_ledger() {
    let world = World::bare("repo");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("receipts/golden");
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden.join("expected.json")).unwrap()).unwrap();
    let cases = expected.as_array().unwrap();
    let script = include_str!("../receipts/verify.py");
    assert!(script.lines().count() < 150, "it stays short enough to be read");
    assert!(cases.len() > 20);
    let checkpoint = golden.join("checkpoint.txt");
    let checkpoint = checkpoint.to_str().unwrap();
    for case in cases {
        let file = golden.join(format!("{}.ndjson", case["file"].as_str().unwrap()));
        let file = file.to_str().unwrap();
        let against: &[&str] = if case["checkpoint"] == true { &["--against", checkpoint] } else { &[] };
        let code = i32::try_from(case["exit"].as_i64().unwrap()).unwrap();
        let report =
            world.vnx(&[&["audit-chain", "verify", "--json", "--file", file], against].concat()).expect(code).json();
        assert_eq!(
            (&report["first_bad"]["kind"], &report["first_bad"]["line"]),
            (&case["kind"], &case["line"]),
            "{case}"
        );
        let theirs = python(&world, &[&[file], &against[against.len().min(1)..]].concat());
        assert_eq!(theirs.0, code, "{case}: {}", theirs.1);
    }
    let sound = golden.join("sound.ndjson");
    let gate = ["audit-chain", "verify", "--require-anchor", "--file", sound.to_str().unwrap()];
    world.vnx(&gate).expect(5);
    world.vnx(&[&gate[..], &["--against", checkpoint]].concat()).expect(0);
    assert!(
        world.vnx(&[&gate[..], &["--against", sound.to_str().unwrap()]].concat()).expect(2).err.contains("checkpoint")
    );
    // They are what their maker makes.
    let made = world.root.join("made");
    std::fs::create_dir(&made).unwrap();
    assert!(world.command("python3").arg(golden.join("make.py")).arg(&made).status().unwrap().success());
    for name in crate::common::names(&made) {
        assert_eq!(std::fs::read(made.join(&name)).unwrap(), std::fs::read(golden.join(&name)).unwrap(), "{name}");
    }
}
