//! Anchors: what a chain alone cannot show.

use std::path::Path;

use crate::common::{Run, World, rechained};

/// A world with two closed dispatches and an anchor over them.
fn anchored() -> World {
    let world = World::new();
    world.script("echo x > x; git add x; git commit -qm x").expect(0);
    world.script("true").expect(4);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    world
}

/// What was written otherwise, with all links and hashes made anew.
fn rewrite(text: &str, old: &str, new: &str) -> String {
    rechained(text.replace(old, new).lines())
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
    std::fs::write(world.ledger(), rewrite(&sound, "\"unproven\"", "\"accept\"")).unwrap();
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
    std::fs::write(world.ledger(), rewrite(&text, "\"unproven\"", "\"accept\"")).unwrap();
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
    assert!(since(5).out.contains("no signed anchor"), "nothing is built on an unsigned anchor");
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
    assert!(since(0).out.contains("were not read again"), "it says what it did not look at");
    world.vnx(&["audit-chain", "verify", "--since-anchor", "--require-anchor"]).expect(2);
    // Somebody else's key signs nothing, and moves nothing.
    key("theirs");
    world.git(&["config", "user.signingkey", world.root.join("theirs.pub").to_str().unwrap()]);
    let before = world.git(&["rev-parse", "refs/vnx/anchors"]);
    assert!(world.vnx(&["audit-chain", "seal"]).expect(3).err.contains("allowed_signers"));
    assert_eq!(world.git(&["rev-parse", "refs/vnx/anchors"]), before);
    // Whoever takes the list away has not made it good.
    for deed in [
        "rm -f .vnx/allowed_signers",
        ": > .vnx/allowed_signers",
        "mkdir .vnx/allowed_signers",
        "mkfifo .vnx/allowed_signers",
    ] {
        let _ = std::fs::remove_file(&signers);
        let _ = std::fs::remove_dir(&signers);
        assert!(world.command("sh").args(["-c", deed]).status().is_ok());
        verify(5);
    }
    let _ = std::fs::remove_file(&signers);
    let named = world.root.join("signers");
    std::fs::write(&named, format!("me@vnx.invalid {}", std::fs::read_to_string(world.root.join("mine.pub")).unwrap()))
        .unwrap();
    world.vnx(&["audit-chain", "verify", "--allowed-signers", named.to_str().unwrap()]).expect(0);
}

/// Overwrites a loose object; git does not notice when it reads it.
fn poison(world: &World, id: &str, old: &str, new: &str) {
    let path = world.repo.join(format!(".git/objects/{}/{}", &id[..2], &id[2..]));
    let script = "import sys, zlib, os\np, a, b = sys.argv[1:]\nd = zlib.decompress(open(p, 'rb').read()).split(b'\\0', 1)\n\
        body = d[1].replace(a.encode(), b.encode())\nassert body != d[1]\nos.chmod(p, 0o644)\n\
        open(p, 'wb').write(zlib.compress(d[0].split(b' ')[0] + b' %d\\0' % len(body) + body))";
    let status = world.command("python3").args(["-c", script]).arg(path).args([old, new]).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_git_would_believe_is_not_believed() {
    let world = anchored();
    let report = |code: i32| {
        let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(code).json();
        report["first_bad"]["kind"].as_str().unwrap_or("nothing").to_owned()
    };
    let sound = std::fs::read_to_string(world.ledger()).unwrap();
    let anchor = world.git(&["rev-parse", "refs/vnx/anchors"]).trim().to_owned();
    let blob = world.git(&["rev-parse", "refs/vnx/anchors:checkpoint"]).trim().to_owned();
    let checkpoint = world.git(&["cat-file", "-p", &blob]);
    let root = checkpoint.lines().nth(2).unwrap().to_owned();
    // Another root, for the ledger as somebody would like it.
    let forged = rewrite(&sound, "\"unproven\"", "\"accept\"");
    let other = "A".repeat(43) + "=";
    // The file in the tree is for people; the commit's own message counts.
    poison(&world, &blob, &root, &other);
    assert_eq!(report(0), "nothing");
    poison(&world, &blob, &other, &root);
    // A commit that is not what its id says.
    poison(&world, &anchor, &root, &other);
    assert_eq!(world.vnx(&["audit-chain", "verify"]).code, 5, "git has lost the anchor: nothing can be decided");
    poison(&world, &anchor, &other, &root);
    assert_eq!(report(0), "nothing");
    // Something that stands in for it.
    let message = world.git(&["log", "-1", "--format=%B", &anchor]).replace(&root, &other);
    let tree = world.git(&["rev-parse", &format!("{anchor}^{{tree}}")]);
    let replaced = world.git(&["commit-tree", tree.trim(), "-m", &message]);
    world.git(&["replace", &anchor, replaced.trim()]);
    assert_eq!(report(0), "nothing", "refs/replace does not count");
    world.git(&["replace", "-d", &anchor]);
    // A whole other ledger, with anchors of its own, as somebody with another home would make it.
    std::fs::write(world.ledger(), &forged).unwrap();
    assert_eq!(report(3), "rewritten");
    std::fs::remove_dir_all(world.state()).unwrap();
    for name in world.git(&["for-each-ref", "--format=%(refname)", "refs/vnx", "refs/heads/vnx"]).lines() {
        world.git(&["update-ref", "-d", name]);
    }
    let elsewhere = world.root.join("elsewhere");
    let as_another =
        |args: &[&str]| world.command(World::binary()).env("HOME", &elsewhere).args(args).output().unwrap().status;
    assert!(as_another(&["init"]).success());
    assert!(as_another(&["audit-chain", "seal"]).success());
    assert_eq!(report(3), "rewritten", "the witness knows which ledger this repository has");
}

#[test]
fn only_a_signature_of_ssh_counts() {
    let world = World::new();
    world.script("true").expect(4);
    // A program that says yes to whatever it is asked.
    let yes = world.root.join("yes");
    let says = "#!/bin/sh\ntouch \"$0.ran\"\necho 'Good \"git\" signature for me@vnx.invalid with ED25519 key SHA256:x'\nexit 0\n";
    std::fs::write(&yes, says).unwrap();
    std::fs::set_permissions(&yes, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["gpg.program", "gpg.x509.program", "gpg.openpgp.program", "gpg.ssh.program"] {
        world.git(&["config", name, yes.to_str().unwrap()]);
    }
    world.vnx(&["audit-chain", "seal"]).expect(0);
    let made =
        world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(world.root.join("mine")).status();
    assert!(made.unwrap().success());
    let key = std::fs::read_to_string(world.root.join("mine.pub")).unwrap();
    std::fs::write(world.repo.join(".vnx/allowed_signers"), format!("me@vnx.invalid {key}")).unwrap();
    let raw = world.git(&["cat-file", "commit", "refs/vnx/anchors"]);
    for kind in ["PGP MESSAGE", "PGP SIGNATURE", "SIGNED MESSAGE", "SSH SIGNATURE"] {
        let signature = format!("gpgsig -----BEGIN {kind}-----\n \n AAAA\n -----END {kind}-----\n\n");
        let signed = raw.replacen("\n\n", &format!("\n{signature}"), 1);
        std::fs::write(world.root.join("commit"), signed).unwrap();
        let id = world.git(&["hash-object", "-t", "commit", "-w", world.root.join("commit").to_str().unwrap()]);
        world.git(&["update-ref", "refs/vnx/anchors", id.trim()]);
        let verify = world.vnx(&["audit-chain", "verify"]);
        assert!([3, 5].contains(&verify.code), "{kind}: {}", verify.out);
        assert!(!verify.out.contains("signed by me"), "{kind}: {}", verify.out);
    }
    assert!(!world.root.join("yes.ran").exists(), "a program of the repository's configuration was run");
}

#[test]
fn a_seal_that_was_cut_off_is_told_by_the_next_one_and_two_at_once_are_one() {
    let world = anchored();
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(world.ledger(), lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    world.forget_marks();
    assert_eq!(world.vnx(&["audit-chain", "seal", "--json"]).expect(0).json()["new"], false);
    assert_eq!(world.count("anchor.written"), 1, "the ledger tells of each");
    world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
    world.script("true").expect(4);
    let both = [world.start(&["audit-chain", "seal", "--json"]), world.start(&["audit-chain", "seal", "--json"])];
    let new = both.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["new"] == true
    });
    assert!(new[0] != new[1], "{new:?}");
    assert_eq!(world.count("anchor.written"), 2);
}

#[test]
fn an_anchor_that_git_lost_comes_back_or_is_made_again_where_the_witness_remembers_it() {
    let world = anchored();
    let anchor = world.git(&["rev-parse", "refs/vnx/anchors"]).trim().to_owned();
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    let verify = world.vnx(&["audit-chain", "verify"]).expect(3);
    let command = format!("git update-ref refs/vnx/anchors {anchor}");
    assert!(verify.out.contains(&command) && !verify.out.contains("find the one that was anchored"), "{}", verify.out);
    world.git(&["update-ref", "refs/vnx/anchors", &anchor]);
    world.vnx(&["audit-chain", "verify"]).expect(0);

    // Its commit is gone, and the ref is not.
    let object = world.repo.join(".git/objects").join(&anchor[..2]).join(&anchor[2..]);
    let lost = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let verify = world.vnx(&["audit-chain", "verify"]).expect(3);
    assert!(verify.out.contains("which git has lost: `git update-ref -d refs/vnx/anchors`"), "{}", verify.out);
    world.vnx(&["audit-chain", "seal"]).expect(3);
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    assert!(world.vnx(&["audit-chain", "verify"]).expect(3).out.contains("vnx audit-chain seal --lost"));
    std::fs::write(&object, lost).unwrap();
    world.git(&["update-ref", "refs/vnx/anchors", &anchor]);
    world.vnx(&["audit-chain", "verify"]).expect(0);

    // An older one is gone.
    world.script("true").expect(4);
    world.vnx(&["audit-chain", "seal"]).expect(0);
    let lost = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let verify = world.vnx(&["audit-chain", "verify"]).expect(3);
    assert!(verify.out.contains(&format!("leads to {anchor}, which git has lost")), "{}", verify.out);
    // What is said then does not lead back here: the newest one alone cannot be read.
    let newest = world.git(&["rev-parse", "refs/vnx/anchors"]).trim().to_owned();
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    let verify = world.vnx(&["audit-chain", "verify"]).expect(3);
    assert!(verify.out.contains("seal --lost") && !verify.out.contains("still here"), "{}", verify.out);
    world.git(&["update-ref", "refs/vnx/anchors", &newest]);
    std::fs::write(&object, lost).unwrap();
    world.vnx(&["audit-chain", "verify"]).expect(0);
    let sealed = std::fs::read_to_string(world.ledger()).unwrap();

    // For good, as after a mirror's `fetch --prune` and a collection of git's own.
    world.git(&["update-ref", "-d", "refs/vnx/anchors"]);
    world.git(&["-c", "gc.reflogExpire=now", "reflog", "expire", "--expire=now", "--all"]);
    world.git(&["prune", "--expire=now"]);
    let verify = world.vnx(&["audit-chain", "verify"]).expect(3);
    assert!(verify.out.contains("vnx audit-chain seal --lost"), "{}", verify.out);
    world.vnx(&["audit-chain", "seal"]).expect(3);
    // The file is no other than the witness has seen, or nothing is written.
    std::fs::write(world.ledger(), rewrite(&sealed, "\"unproven\"", "\"accept\"")).unwrap();
    world.vnx(&["audit-chain", "seal", "--lost"]).expect(3);
    std::fs::write(world.ledger(), &sealed).unwrap();
    // Nor without a witness.
    let nobody = world
        .command(World::binary())
        .env("XDG_STATE_HOME", &world.root)
        .args(["audit-chain", "seal", "--lost"])
        .output()
        .unwrap();
    assert!(nobody.status.code() == Some(3) && !String::from_utf8_lossy(&nobody.stdout).contains("--lost"));
    assert_eq!(world.vnx(&["audit-chain", "seal", "--lost", "--json"]).expect(0).json()["new"], true);
    assert_eq!(world.count("anchor.written"), 3);
    world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(0);
    assert_eq!(world.vnx(&["audit-chain", "seal", "--lost", "--json"]).expect(0).json()["new"], false);
}

#[test]
fn a_proof_convinces_somebody_without_the_ledger() {
    let world = anchored();
    let count = world.receipts().len();
    let trusted = world.root.join("trusted");
    let trusted = trusted.to_str().unwrap();
    std::fs::write(trusted, world.git(&["show", "refs/vnx/anchors:checkpoint"]) + "\n").unwrap();
    for seq in 0..count {
        let proof = world.vnx(&["audit-chain", "prove", &seq.to_string()]).expect(0);
        let file = world.root.join("proof.json");
        std::fs::write(&file, &proof.out).unwrap();
        let (code, said) = world.second_verifier(&["--proof", file.to_str().unwrap(), trusted]);
        // The last receipt tells of the anchor; what it proves is only this ledger's word.
        assert_eq!(code, i32::from(seq + 1 == count), "{seq}: {said}");
        std::fs::write(&file, proof.out.replacen("\\\"ts\\\":\\\"2", "\\\"ts\\\":\\\"3", 1)).unwrap();
        assert_ne!(world.second_verifier(&["--proof", file.to_str().unwrap(), trusted]).0, 0);
        assert_eq!(proof.json()["anchor"].is_null(), seq + 1 == count, "the last receipt tells of the anchor");
    }
    assert!(world.vnx(&["audit-chain", "prove", "999"]).expect(2).err.contains("there is no receipt 999"));
}

#[test]
fn an_export_shows_what_it_may_and_proves_what_it_shows() {
    let world = anchored();
    let id = world.last_id();
    let trusted = world.root.join("trusted");
    std::fs::write(&trusted, world.git(&["show", "refs/vnx/anchors:checkpoint"]) + "\n").unwrap();
    let check = |text: &str| {
        let file = world.root.join("export.json");
        std::fs::write(&file, text).unwrap();
        world.second_verifier(&["--proof", file.to_str().unwrap(), trusted.to_str().unwrap()])
    };
    let export = |args: &[&str]| world.vnx(&[&["receipts", "export"], args].concat());
    let whole = export(&["--dispatch", &id]).expect(0);
    let json = whole.json();
    let receipts = json["receipts"].as_array().unwrap();
    assert!(receipts.len() > 8 && receipts.iter().all(|r| r["redacted"] == 0), "{json}");
    let lines = std::fs::read_to_string(world.ledger()).unwrap();
    assert!(receipts.iter().all(|r| lines.contains(r["receipt"].as_str().unwrap())));
    assert_eq!(check(&whole.out).0, 0);
    // Another text, another place, another path.
    assert_eq!(check(&whole.out.replacen("dispatch.closed", "dispatch.clozed", 1)).0, 1);
    let path = receipts[0]["path"][0].as_str().unwrap();
    assert_eq!(check(&whole.out.replacen(path, &"0".repeat(64), 1)).0, 3);
    // What is not for others.
    let home = world.root.to_str().unwrap();
    assert!(whole.out.contains(home), "the plan's worktree is a path");
    let hidden = export(&["--dispatch", &id, "--redact", home, "--redact", "worker: exit [0-9]+"]).expect(0);
    assert!(!hidden.out.contains(home) && !hidden.out.contains("worker: exit"), "{}", hidden.out);
    let count = hidden.json()["receipts"].as_array().unwrap().iter().filter(|r| r["redacted"] != 0).count();
    assert!(count > 0 && count < receipts.len());
    assert_eq!(check(&hidden.out).0, 0, "their hashes are proven all the same");
    let markdown = export(&["--kind", "dispatch.closed", "--markdown"]).expect(0).out;
    assert!(markdown.contains(&format!("| {id} | ")), "{markdown}");
    let json = markdown.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
    let (code, said) = check(json);
    assert!(
        code == 0 && said.contains(&format!("2 of the {} receipts of {}", lines.lines().count() - 1, origin(&world))),
        "{said}"
    );
    // What does not come from the ledger is not said to.
    let proof = world.vnx(&["audit-chain", "prove", "9"]).expect(0).out;
    assert_eq!(check(&proof).0, 0);
    for (from, to) in [
        ("\"seq\":9,", "\"seq\":9,\"redacted\":1,"),
        ("\"seq\":9,", "\"seq\":8,"),
        ("vnx.proof/1", "x"),
        ("\"checkpoint\":\"vnx/", "\"checkpoint\":\"vnx/0"),
    ] {
        assert!(proof.contains(from), "{proof}");
        let forged = proof.replacen(from, to, 1).replacen("accept", "reject", usize::from(to.contains("redacted")));
        assert_ne!(check(&forged).0, 0, "{from} {to}");
    }
    for (from, to) in [
        ("\"redacted\":0", "\"redacted\":true"),
        ("\"redacted\":0", "\"redacted\":\"0\""),
        ("\"redacted\":0", "\"redacted\":-1"),
        ("\"receipt\":", "\"receipt\":\"LIE\",\"receipt\":"),
        ("\"seq\":", "\"seq\":1"),
        ("\"hash\":\"", "\"hash\":\"0"),
    ] {
        assert!(whole.out.contains(from), "{from}");
        let forged = whole.out.replacen(from, to, 1).replacen("dispatch.requested", "dispatch.imagined", 1);
        assert_ne!(check(&forged).0, 0, "{from} {to}");
    }
    // The newest receipt is younger than the anchor.
    let all = export(&[]).expect(0);
    assert!(all.err.contains("1 younger than the last anchor left out"), "{}", all.err);
    assert_eq!(check(&all.out).0, 0);
    let younger = export(&["--kind", "anchor.written"]).expect(0);
    assert!(younger.err.contains("vnx audit-chain seal") && younger.json()["anchor"].is_null(), "{}", younger.err);
    assert!(!export(&["--redact", "repo"]).expect(0).out.contains("\"project\":\"repo\""));
    assert!(export(&["--redact", "("]).expect(2).err.contains("--redact"));
    assert!(export(&["--redact", "x*"]).expect(2).err.contains("empty text"));
    assert!(export(&["--agent", "nobody"]).expect(2).err.contains("nothing to export"));
}

fn origin(world: &World) -> String {
    world.git(&["show", "refs/vnx/anchors:checkpoint"]).lines().next().unwrap().to_owned()
}

/// Threat T-02: an anchored ledger that ends anywhere else, within a line or between two.
#[test]
fn every_length_but_its_own_is_not_what_was_anchored() {
    let world = anchored();
    let sound = std::fs::read(world.ledger()).unwrap();
    let covered = sound[..sound.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let text = world.git(&["show", "refs/vnx/anchors:checkpoint"]) + "\n";
    let checkpoint = vnx::domain::checkpoint::Checkpoint::parse(&text).unwrap();
    let file = world.root.join("cut.ndjson");
    for length in 0..covered {
        std::fs::write(&file, &sound[..length]).unwrap();
        let report =
            vnx::anchor::audit_file(&file, std::slice::from_ref(&checkpoint), &vnx::anchor::Options::default());
        assert_eq!(report.status.exit_code(), 3, "{length} bytes: {report:?}");
    }
    std::fs::write(&file, &sound[..covered]).unwrap();
    let report = vnx::anchor::audit_file(&file, std::slice::from_ref(&checkpoint), &vnx::anchor::Options::default());
    assert_eq!(report.status.exit_code(), 0, "{report:?}");
}

/// A bit that is other than it was when the ledger was verified, at whichever moment of a seal: what is
/// anchored is never of such bytes.
#[test]
fn a_bit_that_flips_while_it_is_sealed_is_not_signed() {
    let mut world = anchored();
    world.script("true").expect(4);
    let path = std::env::var("PATH").unwrap();
    let (bin, count, flipped) = (world.root.join("bin"), world.root.join("count"), world.root.join("flipped"));
    std::fs::create_dir(&bin).unwrap();
    let program = bin.join("git");
    let with_path = format!("{}:{path}", bin.display());
    let mut refused = 0;
    for call in 1..100 {
        let sound = std::fs::read(world.ledger()).unwrap();
        let (good, bad) = (world.root.join("good"), world.root.join("bad"));
        let text = String::from_utf8(sound.clone()).unwrap();
        std::fs::write(&good, &sound).unwrap();
        // A whole and sound line, with its links and all after it: only the tree differs.
        std::fs::write(&bad, rewrite(&text, "\"repo\"", "\"repp\"")).unwrap();
        let script = format!(
            "#!/bin/sh\nPATH='{path}'\necho >> '{0}'\nif [ \"$(wc -l < '{0}')\" = {call} ]; then cat '{1}' > '{2}'; : > '{3}'; fi\nexec git \"$@\"\n",
            count.display(),
            bad.display(),
            world.ledger().display(),
            flipped.display(),
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let anchors = world.git(&["rev-list", "refs/vnx/anchors"]);
        world.set("PATH", &with_path);
        let seal = world.vnx(&["audit-chain", "seal"]);
        world.set("PATH", &path);
        let came = flipped.exists();
        // The bytes as they were, and what the seal may have added.
        let now = std::fs::read(world.ledger()).unwrap();
        std::fs::write(world.ledger(), &sound).unwrap();
        world.forget_marks();
        let after = world.git(&["rev-list", "refs/vnx/anchors"]);
        if seal.code != 0 {
            assert!(came, "{}", seal.err);
            refused += usize::from(seal.err.contains("two readings of the ledger differ"));
            // It stands for the bytes that were read; only the receipt of it was not chained to others.
            let is_told_later = seal.err.contains("the ledger is not what it was");
            assert!(is_told_later || after == anchors, "call {call}: refused and written");
        }
        world.vnx(&["audit-chain", "verify"]).expect(0);
        if !came {
            assert_eq!(seal.code, 0, "{}", seal.err);
            std::fs::write(world.ledger(), now).unwrap();
            world.assert_verified();
            break;
        }
        let _ = std::fs::remove_file(&flipped);
        std::fs::remove_file(&count).unwrap();
        world.vnx(&["audit-chain", "seal"]).expect(0);
        world.script("true").expect(4);
    }
    assert!(refused > 0, "no moment was between the two readings");
}

/// Threat T-26: something changes between what was verified and the ref that says so.
#[test]
fn what_changes_between_the_check_and_the_ref_is_not_anchored_as_checked() {
    let mutated = |mutation: &str| {
        let mut world = anchored();
        world.script("true").expect(4);
        world.vnx(&["audit-chain", "seal"]).expect(0);
        world.script("true").expect(4);
        let path = std::env::var("PATH").unwrap();
        let (bin, once) = (world.root.join("bin"), world.root.join("once"));
        std::fs::create_dir(&bin).unwrap();
        let script = format!(
            "#!/bin/sh\nPATH='{path}'\ncase \" $* \" in *\" update-ref \"*\" refs/vnx/anchors \"*)\n  if mkdir '{}' 2>/dev/null; then {mutation}; fi;; esac\nexec git \"$@\"\n",
            once.display()
        );
        std::fs::write(bin.join("git"), script).unwrap();
        std::fs::set_permissions(bin.join("git"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        world.set("PATH", format!("{}:{path}", bin.display()));
        let seal = world.start(&["audit-chain", "seal"]);
        world.until("the mutation", || once.is_dir());
        world.set("PATH", &path);
        // What runs below a seal may not dispatch, so it waits for who may.
        if mutation.contains("grown") {
            world.vnx(&["dispatch-agent", "--agent", "hello-world", "--no-pane"]).expect(0);
            std::fs::write(world.repo.join(".git/grown"), "").unwrap();
        }
        let seal = Run::of(seal.wait_with_output().unwrap());
        (world, seal)
    };
    // The ref is moved back by somebody else: theirs stands, and the ledger tells of it.
    let (world, seal) = mutated("git -C \"$PWD\" update-ref refs/vnx/anchors refs/vnx/anchors~1");
    assert!(seal.code == 75 && seal.err.contains("moved meanwhile"), "{}", seal.err);
    assert_eq!(world.git(&["rev-list", "--count", "refs/vnx/anchors"]).trim(), "1");
    assert_eq!(world.vnx(&["audit-chain", "verify", "--json"]).expect(3).json()["first_bad"]["kind"], "bad_anchor");
    // The ledger loses its end: the anchor is of what was read, so what is left does not fit it.
    let there = "cd \"$(git rev-parse --git-common-dir)\"";
    let cut = "head -n 12 vnx/receipts/ledger.ndjson > cut; cat cut > vnx/receipts/ledger.ndjson; rm cut";
    let (world, _) = mutated(&format!("({there}; {cut})"));
    let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(3).json();
    assert!(["truncated", "rewritten"].contains(&report["first_bad"]["kind"].as_str().unwrap()), "{report}");
    // It grows: the anchor covers what was checked, and what came since counts as uncovered.
    let grown = format!("while [ ! -e \"$({there}; pwd)/grown\" ]; do sleep 0.01; done");
    let (world, seal) = mutated(&grown);
    assert_eq!(seal.code, 0, "{}", seal.err);
    let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(0).json();
    assert!(report["anchors"]["unanchored"].as_u64().unwrap() > 5, "{report}");
    world.vnx(&["audit-chain", "verify", "--require-anchor"]).expect(5);
}

#[test]
fn two_verifiers_find_the_same_in_every_golden_ledger() {
    let world = World::bare("repo");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("receipts/golden");
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(golden.join("expected.json")).unwrap()).unwrap();
    let cases = expected.as_array().unwrap();
    let script = include_str!("../receipts/verify.py");
    assert!(script.lines().count() < 170, "it stays short enough to be read");
    assert!(cases.len() > 20);
    let checkpoint = golden.join("checkpoint.txt");
    let checkpoint = checkpoint.to_str().unwrap();
    for case in cases {
        let name = case["file"].as_str().unwrap();
        let folder = golden.join(name);
        let file = if folder.is_dir() { folder } else { golden.join(format!("{name}.ndjson")) };
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
        let theirs = world.second_verifier(&[&[file], &against[against.len().min(1)..]].concat());
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
    // Git keeps no empty folder.
    let _ = std::fs::remove_dir(made.join("imported-gone/imported"));
    let mut diff = world.command("diff");
    diff.args(["-r", "-x", "sound.ndjson", "-x", "make.py", "-x", "checkpoint.txt"]).arg(&made).arg(&golden);
    assert!(diff.status().unwrap().success());
}
