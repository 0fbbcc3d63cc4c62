//! The projections are made from the ledger, say what it says, and may be lost at any moment.

use std::path::PathBuf;

use crate::common::World;

fn database(world: &World) -> PathBuf {
    world.state().join("state.db")
}

/// What the tables hold, as SQL.
fn dump(world: &World) -> String {
    let script = "import sqlite3,sys; print('\\n'.join(sqlite3.connect(sys.argv[1]).iterdump()))";
    let output = world.command("python3").args(["-c", script]).arg(database(world)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn story(world: &World, id: &str) -> Vec<String> {
    let run = world.vnx(&["receipts", "query", "--dispatch", id, "--json"]).expect(0);
    run.out.lines().map(str::to_owned).collect()
}

/// The lines of a dispatch as they stand in the ledger.
fn written(world: &World, id: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    let needle = format!("\"dispatch\":\"{id}\"");
    text.lines().filter(|l| l.contains(&needle)).map(str::to_owned).collect()
}

#[test]
fn what_is_brought_up_to_date_is_what_a_rebuild_makes() {
    let world = World::new();
    world.script("echo x > x; git add x; git commit -qm x").expect(0);
    let first = world.last_id();
    assert_eq!(story(&world, &first), written(&world, &first));
    for script in ["true", "exit 3", "echo y > y"] {
        world.script(script);
        let id = world.last_id();
        assert_eq!(story(&world, &id), written(&world, &id));
    }
    // A prefix that only one has, and a dispatch without a folder.
    std::fs::remove_dir_all(world.state().join("dispatches").join(&first)).unwrap();
    assert_eq!(story(&world, &first), written(&world, &first));
    world.vnx(&["receipts", "query", "--dispatch", "2"]).expect(2);
    let live = dump(&world);
    assert!(live.contains("'no_change") || live.contains("'empty'"), "{live}");
    let rebuilt = world.vnx(&["rebuild", "--json"]).expect(0).json();
    assert_eq!(rebuilt["receipts"], world.receipts().len());
    assert_eq!(rebuilt["dispatches"], 4);
    assert_eq!(dump(&world), live);
}

#[test]
fn a_database_that_is_gone_or_damaged_or_of_another_ledger_is_made_anew() {
    let world = World::new();
    world.script("true").expect(4);
    let id = world.last_id();
    let lines = written(&world, &id);
    assert_eq!(story(&world, &id), lines);
    let sound = std::fs::read(database(&world)).unwrap();
    let half = sound[..sound.len() / 2].to_vec();
    let mut scrambled = sound.clone();
    scrambled[4096..].iter_mut().for_each(|b| *b ^= 0x55);
    for damage in [Vec::new(), b"not a database, but long enough to look at".repeat(100), half, scrambled] {
        std::fs::write(database(&world), damage).unwrap();
        assert_eq!(story(&world, &id), lines);
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(world.state().join(format!("state.db{suffix}")));
    }
    assert_eq!(story(&world, &id), lines);
    // Rows that are gone are not receipts that are gone.
    for deed in ["DELETE FROM receipts WHERE dispatch = 1", "DELETE FROM receipts WHERE seq = 1"] {
        let script = format!("import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(\"{deed}\"); c.commit()");
        assert!(world.command("python3").args(["-c", &script]).arg(database(&world)).status().unwrap().success());
        assert_eq!(story(&world, &id), lines);
        world.vnx(&["receipts", "show", "1"]).expect(0);
    }
    // A line that was edited is not shown as if it were sound; one that stands twice is the ledger's fault.
    let text = std::fs::read_to_string(world.ledger()).unwrap();
    std::fs::write(world.ledger(), text.replace("\"unproven\"", "\"accept\"")).unwrap();
    for args in [&["receipts", "list"][..], &["receipts", "list", "--json"], &["receipts", "query", "--dispatch", &id]]
    {
        let err = world.vnx(args).expect(5).err;
        assert!(err.contains("was edited") || err.contains("does not verify"), "{args:?}: {err}");
    }
    let twice = text.lines().nth(3).unwrap();
    std::fs::write(world.ledger(), format!("{text}{twice}\n")).unwrap();
    assert!(world.vnx(&["rebuild"]).expect(5).err.contains("audit-chain verify"));
    std::fs::write(world.ledger(), text).unwrap();
    // Another ledger: the same places hold other receipts.
    let other = World::new();
    other.script("exit 3").expect(1);
    let theirs = other.last_id();
    std::fs::copy(other.ledger(), world.ledger()).unwrap();
    world.forget_marks();
    assert_eq!(story(&world, &theirs), written(&other, &theirs));
    world.vnx(&["receipts", "query", "--dispatch", &id]).expect(0).out.is_empty().then_some(()).unwrap();
    // Words that nobody knows get into no table.
    let script = "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute(\"UPDATE dispatches SET outcome='BOGUS'\")";
    let output = world.command("python3").args(["-c", script]).arg(database(&world)).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("CHECK constraint"), "{output:?}");
}

#[test]
fn where_no_database_can_be_the_ledger_itself_is_read() {
    let world = World::new();
    world.script("true").expect(4);
    let id = world.last_id();
    std::fs::create_dir(database(&world)).unwrap();
    assert_eq!(story(&world, &id), written(&world, &id));
    world.vnx(&["show", &id]).expect(0);
    assert!(world.vnx(&["rebuild"]).expect(74).err.contains("state.db"));
    std::fs::remove_dir(database(&world)).unwrap();
    // A link would be written through.
    let elsewhere = world.root.join("elsewhere");
    std::fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, database(&world)).unwrap();
    assert_eq!(story(&world, &id), written(&world, &id));
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "mine");
}

#[test]
fn many_ask_at_once_while_receipts_come() {
    let world = World::new();
    world.script("true").expect(4);
    let id = world.last_id();
    let lines = written(&world, &id);
    std::fs::remove_file(database(&world)).ok();
    let children: Vec<_> = (0..8)
        .map(|n| {
            if n % 4 == 0 {
                world.start_script("true")
            } else {
                world.start(&["receipts", "query", "--json", "--dispatch", &id])
            }
        })
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        if n % 4 != 0 {
            let told: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
            assert_eq!(told, lines, "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let live = {
        story(&world, &id);
        dump(&world)
    };
    world.vnx(&["rebuild"]).expect(0);
    assert_eq!(dump(&world), live);
}
