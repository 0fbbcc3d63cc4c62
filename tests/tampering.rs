//! A ledger that nobody sealed: what is done to it without a trace in its chain is found all the same.

use std::fmt::Write;
use std::path::Path;

use crate::common::{Run, World, names, rechained};

/// Where the page has the table that this file makes.
const TABLE: (&str, &str) = ("<!-- made by tests/tampering.rs -->\n", "<!-- to here -->");

/// `one` and `two` have committed, `three` has failed. Nothing was sealed.
fn three() -> World {
    let world = World::new();
    dispatch(&world, "one", "echo 1 > f1; git add f1; git commit -qm 1").expect(0);
    dispatch(&world, "two", "echo 2 > f2; git add f2; git commit -qm 2").expect(0);
    dispatch(&world, "three", "exit 3").expect(1);
    world
}

const DISPATCH: [&str; 7] = ["-q", "dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane"];

const ACCEPT: [&str; 4] = ["audit-chain", "accept", "--reason", "the disk lost it"];

fn dispatch(world: &World, id: &str, script: &str) -> Run {
    world.vnx(&[&DISPATCH[..], &["--id", id, "-i", script]].concat())
}

/// One that is left alone with its supervisor.
fn detached(world: &World, script: &str) {
    world.vnx(&[&DISPATCH[..], &["--detach", "--id", "work", "-i", script]].concat()).expect(0);
}

fn sound(world: &World) -> String {
    std::fs::read_to_string(world.ledger()).unwrap()
}

fn put(world: &World, text: &str) {
    std::fs::write(world.ledger(), text).unwrap();
}

/// The first lines.
fn cut(text: &str, lines: usize) -> String {
    text.split_inclusive('\n').take(lines).collect()
}

/// Up to and with the receipt that closed this dispatch.
fn until_closed(text: &str, id: &str) -> String {
    let closes = |line: &&str| line.contains("\"kind\":\"dispatch.closed\"") && line.contains(&of(id));
    cut(text, 1 + text.lines().position(|line| closes(&line)).unwrap())
}

fn of(id: &str) -> String {
    format!("\"dispatch\":\"{id}\"")
}

/// The exit code of a verification, and the word for the fault.
fn verify(world: &World) -> (i32, String) {
    let run = world.vnx(&["audit-chain", "verify", "--json"]);
    let kind = run.json()["first_bad"]["kind"].as_str().unwrap_or_default().to_owned();
    (run.code, kind)
}

/// Somebody who knows the format adds a receipt: what `three` was judged, once more and better, or a dispatch of its own.
fn forged(text: &str) -> String {
    let last = text.lines().rfind(|line| line.contains("\"kind\":\"dispatch.closed\"")).unwrap();
    let better = last.replace("three", "four").replace("\"decision\":\"reject\"", "\"decision\":\"accept\"");
    rechained(text.lines().chain([better.as_str()]))
}

type Tamper = fn(&World, &str);

/// What is done, and how.
const ROWS: [(&str, Tamper); 10] = [
    ("cuts off the last receipt", |world, text| put(world, &cut(text, text.lines().count() - 1))),
    ("cuts off the last dispatch", |world, text| put(world, &until_closed(text, "two"))),
    ("cuts off everything but the first receipt", |world, text| put(world, &cut(text, 1))),
    ("cuts a dispatch out of the middle, and chains the rest anew", |world, text| {
        put(world, &rechained(text.lines().filter(|line| !line.contains(&of("two")))));
    }),
    ("rewrites a verdict, and chains the rest anew", |world, text| {
        let better = text.replace("\"decision\":\"reject\"", "\"decision\":\"accept\"");
        assert_ne!(better, text);
        put(world, &rechained(better.lines()));
    }),
    ("puts an older copy in its place", |world, text| put(world, &until_closed(text, "one"))),
    ("puts another ledger of the project in its place", |world, _| {
        let other = World::new();
        for id in ["a", "b", "c", "d"] {
            dispatch(&other, id, "true").expect(4);
        }
        std::fs::copy(other.ledger(), world.ledger()).unwrap();
    }),
    ("puts an empty file in its place", |world, _| put(world, "")),
    ("deletes it", |world, _| std::fs::remove_file(world.ledger()).unwrap()),
    ("adds a receipt that is chained as it should be", |world, text| put(world, &forged(text))),
];

/// The table of the page, and every row of it.
#[test]
fn what_is_done_to_a_ledger_that_nobody_sealed_is_found() {
    let world = three();
    let text = sound(&world);
    let mut table = String::from(
        "| if somebody, where nobody sealed, | `audit-chain verify` | and where what vnx noted of it is gone too |\n|---|---|---|\n",
    );
    let told =
        |(code, kind): &(i32, String)| if *code == 0 { "0, not found".to_owned() } else { format!("{code} `{kind}`") };
    for (what, tamper) in ROWS {
        tamper(&world, &text);
        let noted = verify(&world);
        assert_eq!(noted.0, 3, "{what}: {noted:?}");
        stops_everything(&world, what);
        let kept: Vec<_> = world.marks().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
        world.forget_marks();
        let forgotten = verify(&world);
        for (bytes, path) in kept {
            std::fs::write(path, bytes).unwrap();
        }
        writeln!(table, "| {what} | {} | {} |", told(&noted), told(&forgotten)).unwrap();
        put(&world, &text);
        assert_eq!(verify(&world).0, 0, "{what}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ledger.md");
    let written = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = written.split_once(TABLE.0).unwrap();
    let (old, after) = rest.split_once(TABLE.1).unwrap();
    if std::env::var_os("VNX_BLESS").is_some() {
        std::fs::write(&page, [before, TABLE.0, &table, TABLE.1, after].concat()).unwrap();
        return;
    }
    assert_eq!(old, table, "VNX_BLESS=1 writes it");
}

/// Nothing is appended, nothing is claimed, and everybody who is asked says so.
fn stops_everything(world: &World, what: &str) {
    let before = std::fs::read(world.ledger()).ok();
    let run = dispatch(world, "later", "true");
    // A ledger that is gone has its own words, and cannot be read at all.
    assert!([3, 5].contains(&run.code), "{what}: {run:?}");
    assert!(!world.state().join("dispatches/later").exists(), "{what}");
    assert_eq!(names(&world.state().join("open")), Vec::<String>::new(), "{what}");
    world.vnx(&["doctor"]).expect(1);
    let status = world.vnx(&["status"]);
    assert!([1, 5].contains(&status.code), "{what}: {status:?}");
    world.vnx(&["audit-chain", "seal"]);
    assert_eq!(std::fs::read(world.ledger()).ok(), before, "{what}");
}

/// A dispatch without its receipts is broken, wherever somebody looks.
#[test]
fn a_dispatch_whose_receipts_are_missing_is_broken() {
    let world = three();
    let text = sound(&world);
    put(&world, &until_closed(&text, "two"));
    for noted in [true, false] {
        if !noted {
            world.forget_marks();
        }
        let shown = world.vnx(&["show", "three"]).expect(1);
        assert!(shown.out.contains("broken: receipts of it are missing"), "{}", shown.out);
        assert_eq!(world.vnx(&["show", "three", "--json"]).expect(1).json()["state"], "broken");
        assert!(world.vnx(&["show", "two"]).expect(0).out.contains("accept"));
        let status = world.vnx(&["status", "--json"]).expect(1).json();
        assert_eq!(status["ledger"]["broken"], serde_json::json!(["three"]), "{status}");
        assert!(world.vnx(&["status"]).expect(1).out.contains("three: receipts are missing"));
        let report = world.vnx(&["audit-chain", "verify", "--json"]).expect(3).json();
        assert_eq!(report["missing"], serde_json::json!(["three"]), "{report}");
        let doctor = world.vnx(&["doctor"]).expect(1).out;
        assert!(doctor.contains("receipts of dispatch three are missing") || noted, "{doctor}");
    }
    put(&world, &text);
    assert_eq!(verify(&world).0, 0);
    assert!(world.vnx(&["show", "three"]).expect(0).out.contains("reject"));
}

/// Each thing that names a dispatch is enough, and none of them is needed.
#[test]
fn a_folder_or_a_branch_or_a_rescue_alone_names_a_dispatch() {
    let world = World::new();
    dispatch(&world, "one", "true").expect(4);
    dispatch(&world, "work", "echo 1 > f; git add f; git commit -qm 1").expect(0);
    let text = sound(&world);
    world.forget_marks();
    let older = until_closed(&text, "one");
    let folder = world.state().join("dispatches/work");
    let aside = world.root.join("aside");
    // Its folder alone.
    world.git(&["update-ref", "refs/heads/kept", "refs/heads/vnx/work"]);
    world.git(&["branch", "-q", "-D", "vnx/work"]);
    put(&world, &older);
    assert_eq!(verify(&world), (3, "missing".to_owned()));
    // Nothing: a person may take everything away.
    std::fs::rename(&folder, &aside).unwrap();
    assert_eq!(verify(&world).0, 0);
    // Branches that came from elsewhere, or have their name from a person, name no dispatch of this ledger.
    world.git(&["branch", "-q", "vnx/theirs", "kept"]);
    world.git(&["update-ref", "-m", "fetch", "--create-reflog", "refs/heads/vnx/fetched", "kept"]);
    assert_eq!(verify(&world).0, 0);
    put(&world, &text);
    std::fs::rename(&aside, &folder).unwrap();
    // The branch alone, which a person has not renamed.
    dispatch(&world, "more", "echo 2 > g; git add g; git commit -qm 2").expect(0);
    let text = sound(&world);
    world.forget_marks();
    std::fs::remove_dir_all(world.state().join("dispatches/more")).unwrap();
    put(&world, &until_closed(&text, "work"));
    assert_eq!(verify(&world), (3, "missing".to_owned()));
    world.git(&["branch", "-m", "vnx/more", "vnx/other-name"]);
    assert_eq!(verify(&world).0, 0);
    // A rescue alone, also one that git has packed.
    put(&world, &text);
    dispatch(&world, "left", "echo 3 > h").expect(4);
    let text = sound(&world);
    assert!(world.git(&["for-each-ref", "refs/vnx/rescue"]).contains("refs/vnx/rescue/left"));
    world.forget_marks();
    std::fs::remove_dir_all(world.state().join("dispatches/left")).unwrap();
    world.git(&["update-ref", "-d", "refs/heads/vnx/left"]);
    let older = cut(&text, text.lines().position(|line| line.contains(&of("left"))).unwrap());
    for packed in [false, true] {
        if packed {
            world.git(&["pack-refs", "--all"]);
        }
        put(&world, &older);
        assert_eq!(verify(&world), (3, "missing".to_owned()), "packed: {packed}");
    }
    // Rescues of another name or of another making.
    world.git(&["update-ref", "refs/vnx/rescue/left-stash", "refs/vnx/rescue/left"]);
    world.git(&["update-ref", "-d", "refs/vnx/rescue/left"]);
    world.git(&["update-ref", "refs/vnx/rescue/mine", "kept"]);
    assert_eq!(verify(&world).0, 0);
}

/// The ledger of a worker that runs is cut, everything is killed, and no command takes away what there is.
#[test]
fn recovery_leaves_a_broken_dispatch_alone() {
    let world = World::new();
    dispatch(&world, "one", "true").expect(4);
    let tree = world.worktrees().join("work");
    detached(&world, "echo x > n; git add n; git commit -qm n; echo precious > u1; sleep 1000");
    world.until("the worker to have worked", || tree.join("u1").exists());
    world.kill_supervisor();
    let text = sound(&world);
    let at = |kind: &str| text.lines().position(|line| line.contains(kind) && line.contains(&of("work"))).unwrap();
    let cuts = [
        cut(&text, at("dispatch.requested")),
        cut(&text, at("dispatch.requested") + 1),
        cut(&text, at("dispatch.claimed") + 1),
    ];
    for noted in [true, false] {
        if !noted {
            world.forget_marks();
        }
        for text in &cuts {
            put(&world, text);
            let ps = world.vnx(&["ps", "--json"]).expect(0).json();
            assert_eq!(ps["dispatches"].as_array().map_or(0, Vec::len), usize::from(!text.is_empty()), "{ps}");
            assert_eq!(ps["dispatches"][0]["state"], "broken", "{ps}");
            assert!(world.vnx(&["ps"]).out.contains("broken: receipts of it are missing"));
            assert_eq!(verify(&world).0, 3);
            assert!(tree.join("u1").exists() && world.state().join("open/work").exists());
            assert!(!world.git(&["for-each-ref", "refs/heads/vnx/work"]).is_empty());
            assert_eq!(&sound(&world), text);
        }
    }
    // The rest comes back, and the story is finished.
    put(&world, &text);
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.last("dispatch.closed")["verdict"]["outcome"], "supervisor_lost");
    world.assert_verified();
}

/// A person accepts what is gone for good: one command, a receipt, and the work goes on.
#[test]
fn a_loss_is_accepted_by_a_person_and_told_by_a_receipt() {
    let mut world = three();
    let text = sound(&world);
    let (known, kept) = (text.lines().count(), until_closed(&text, "one"));
    put(&world, &kept);
    let said = world.vnx(&["audit-chain", "verify"]).expect(3).out;
    assert!(said.contains("vnx audit-chain accept --reason WHY"), "{said}");
    world.vnx(&["audit-chain", "seal"]).expect(3);
    world.set("VNX_DISPATCH_ID", "one");
    world.vnx(&ACCEPT).expect(3);
    world.unset("VNX_DISPATCH_ID");
    world.vnx(&[&ACCEPT[..3], &[" "]].concat()).expect(2);
    assert_eq!(sound(&world), kept);
    world.person(&ACCEPT).expect(0);
    // There is nothing more.
    assert!(world.person(&ACCEPT).expect(0).err.contains("nothing was accepted"));
    let lost = world.last("ledger.lost");
    assert_eq!((&lost["size"], &lost["known"]), (&kept.lines().count().into(), &known.into()), "{lost}");
    assert_eq!(lost["dispatches"], serde_json::json!(["three", "two"]));
    assert_eq!((&lost["by"]["name"], &lost["reason"]), (&"Test".into(), &"the disk lost it".into()));
    world.assert_verified();
    dispatch(&world, "later", "true").expect(4);
    world.assert_verified();
    world.vnx(&["doctor"]).expect(0);
    // They are gone all the same.
    assert!(world.vnx(&["show", "three"]).expect(1).out.contains("broken: receipts of it are missing"));
    // The rest is held as before.
    let text = sound(&world);
    put(&world, &cut(&text, text.lines().count() - 1));
    assert_eq!(verify(&world), (3, "truncated".to_owned()));
    put(&world, &text);
    // A ledger that is gone altogether begins anew.
    std::fs::remove_file(world.ledger()).unwrap();
    world.vnx(&["init"]).expect(5);
    world.person(&ACCEPT).expect(0);
    dispatch(&world, "last", "true").expect(4);
    world.assert_verified();
}

/// The same where anchors know of more: they are put aside, and those that are still true stay.
#[test]
fn a_loss_of_what_was_anchored_is_accepted_too() {
    let world = World::new();
    let mut texts = Vec::new();
    for id in ["one", "two", "three"] {
        dispatch(&world, id, "true").expect(4);
        world.vnx(&["audit-chain", "seal"]).expect(0);
        texts.push(sound(&world));
    }
    let anchors = || world.vnx(&["audit-chain", "verify", "--json"]).json()["anchors"]["count"].as_u64().unwrap();
    assert_eq!(anchors(), 3);
    put(&world, &texts[0]);
    assert_eq!(verify(&world), (3, "truncated".to_owned()));
    world.vnx(&["audit-chain", "seal"]).expect(3);
    world.person(&ACCEPT).expect(0);
    world.assert_verified();
    assert_eq!((anchors(), world.last("ledger.lost")["dispatches"].as_array().unwrap().len()), (2, 2));
    assert_eq!(world.git(&["for-each-ref", "--format=%(refname)", "refs/vnx/lost-anchors"]).lines().count(), 1);
    dispatch(&world, "four", "true").expect(4);
    // Before any anchor.
    put(&world, &cut(&texts[0], 3));
    world.person(&ACCEPT).expect(0);
    world.assert_verified();
    assert_eq!(anchors(), 1);
}

/// A dispatch that was open when its receipts went is closed as it stands.
#[test]
fn an_open_dispatch_whose_receipts_are_given_up_keeps_its_tree() {
    let world = World::new();
    dispatch(&world, "one", "true").expect(4);
    let tree = world.worktrees().join("work");
    detached(&world, "echo precious > u1; sleep 1000");
    world.until("the worker to have worked", || tree.join("u1").exists());
    world.kill_supervisor();
    let text = sound(&world);
    put(&world, &until_closed(&text, "one"));
    world.person(&ACCEPT).expect(0);
    world.vnx(&["ps"]).expect(0);
    assert_eq!(world.last("dispatch.closed")["teardown"]["tree"], "kept");
    assert!(tree.join("u1").exists());
    assert_eq!(names(&world.state().join("open")), Vec::<String>::new());
    world.assert_verified();
}

/// Marks are of one repository at one place; without a home those beside the ledger are enough.
#[test]
fn what_is_noted_is_of_this_ledger_and_of_no_copy() {
    let mut world = three();
    let text = sound(&world);
    // A copy goes on by itself, and so does its original.
    let copy = world.root.join("copy");
    assert!(world.command("cp").arg("-a").arg(&world.repo).arg(&copy).status().unwrap().success());
    let arguments =
        ["-q", "dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i", "true"];
    for folder in [&copy, &world.repo, &copy] {
        world.vnx_in(folder, &arguments).expect(4);
        world.vnx_in(folder, &["audit-chain", "verify"]).expect(0);
    }
    // What was put back in its place is held against the witness, which knew more.
    std::fs::remove_dir_all(&world.repo).unwrap();
    assert!(
        world.command("cp").current_dir(&world.root).arg("-a").arg(&copy).arg(&world.repo).status().unwrap().success()
    );
    world.vnx(&["audit-chain", "verify"]).expect(3);
    // Another repository that is made in its place is not.
    std::fs::remove_dir_all(&world.repo).unwrap();
    std::fs::create_dir(&world.repo).unwrap();
    world.git(&["init", "--quiet"]);
    world.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    world.vnx(&["init"]).expect(0);
    dispatch(&world, "one", "true").expect(4);
    world.vnx(&["audit-chain", "verify"]).expect(0);
    // Without a home.
    world.set("XDG_STATE_HOME", "/dev/null");
    dispatch(&world, "two", "true").expect(4);
    let longer = sound(&world);
    put(&world, &until_closed(&longer, "one"));
    assert_eq!(verify(&world), (3, "truncated".to_owned()));
    dispatch(&world, "three", "true").expect(3);
    drop(text);
}

/// Only the witness knows: the whole state folder is an older one, and the branch is gone.
#[test]
fn an_older_state_folder_is_found_by_the_witness() {
    let world = three();
    let aside = world.root.join("older");
    let copy = |from: &Path, to: &Path| {
        assert!(world.command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&world.state(), &aside);
    dispatch(&world, "four", "true").expect(4);
    std::fs::remove_dir_all(world.state()).unwrap();
    copy(&aside, &world.state());
    let (code, kind) = verify(&world);
    assert_eq!((code, kind.as_str()), (3, "truncated"));
    dispatch(&world, "five", "true").expect(3);
    world.person(&ACCEPT).expect(0);
    dispatch(&world, "five", "true").expect(4);
    world.assert_verified();
}

/// Segments that are sealed do not hide what is missing after them.
#[test]
fn a_ledger_of_several_segments_is_held_at_its_end() {
    use vnx::ledger::Limit;
    let world = three();
    let ledger = world.ledger_as_vnx().with_limit(Limit { receipts: 10, ..Limit::default() });
    ledger.settle().unwrap();
    let sealed = std::fs::read_to_string(world.state().join("receipts/0001.ndjson")).unwrap();
    dispatch(&world, "four", "true").expect(4);
    world.vnx(&["audit-chain", "verify"]).expect(0);
    let open = sound(&world);
    put(&world, &until_closed(&open, "four").replace(&open.lines().last().map(|l| format!("{l}\n")).unwrap(), ""));
    assert_eq!(verify(&world), (3, "truncated".to_owned()));
    // The segment before takes the open one's place.
    let packed = world.state().join("receipts/0001.ndjson.zst");
    world.until("it to be packed", || packed.exists());
    let bytes = std::fs::read(&packed).unwrap();
    std::fs::remove_file(&packed).unwrap();
    put(&world, &sealed);
    assert_eq!(verify(&world), (3, "truncated".to_owned()));
    dispatch(&world, "five", "true").expect(3);
    std::fs::write(&packed, bytes).unwrap();
    put(&world, &open);
    dispatch(&world, "five", "true").expect(4);
    world.vnx(&["audit-chain", "verify"]).expect(0);
}
