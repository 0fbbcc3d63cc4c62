//! The Debian package: built from this very binary, installed below a root of its own, used, and removed without a rest.

use std::path::{Path, PathBuf};

use crate::common::World;

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_package_installs_works_and_goes() {
    let mut world = World::bare("repo");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/package-deb");
    // A debug binary is large, and compressing it proves nothing.
    let made = world
        .command(tools)
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .arg(World::binary())
        .arg(world.root.join("out"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let package = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let root = world.root.join("root");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let path = format!("{}:/usr/sbin:/sbin", world.env["PATH"]);
    world.set("PATH", path);
    let dpkg = |args: &[&str]| {
        // What it depends on is not below this root, and only root may own files.
        let options = [&format!("--root={}", root.display()), "--force-depends", "--force-not-root"];
        let output = world.command("dpkg").args(options).args(args).output().unwrap();
        assert!(output.status.success(), "dpkg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    dpkg(&["-i", &package]);
    let installed = files(&root.join("usr"));
    let has = |end: &str| installed.iter().any(|path| path.ends_with(end));
    for end in [
        "usr/bin/vnx",
        "man1/vnx.1.gz",
        "man1/vnx-gate-run.1.gz",
        "bash-completion/completions/vnx",
        "zsh/vendor-completions/_vnx",
        "fish/vendor_completions.d/vnx.fish",
        "doc/vnx/copyright",
    ] {
        assert!(has(end), "{end}: {installed:?}");
    }
    let vnx = root.join("usr/bin/vnx");
    assert!(world.command(&vnx).arg("init").output().unwrap().status.success());
    let script = ["dispatch-agent", "--provider", "shell", "--agent", "hello-world", "--no-pane", "-i"];
    let work = "echo 1 > f; git add f; git commit -qm f";
    assert_eq!(world.command(&vnx).args(script).arg(work).output().unwrap().status.code(), Some(0));
    world.until("its supervisor to end", || world.processes().is_empty());
    dpkg(&["-r", "vnx"]);
    assert_eq!(files(&root.join("usr")), Vec::<PathBuf>::new());
}

#[test]
fn cargo_installs_it() {
    let world = World::bare("repo");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What the tests were built from is there already. In a copy of links, without vnx itself: cargo would build it
    // anew, and take the binary away for a moment that the other tests run.
    let built = Path::new(World::binary()).parent().unwrap();
    let target = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = r#"mkdir "$1/debug"; cp -al deps build .fingerprint "$1/debug"; cd "$1/debug"; rm -rf deps/*vnx* build/vnx-* .fingerprint/vnx-*"#;
    let mut sh = std::process::Command::new("sh");
    assert!(sh.args(["-euc", copy, "sh"]).arg(target.path()).current_dir(built).status().unwrap().success());
    let output = std::process::Command::new(env!("CARGO"))
        .args(["install", "--quiet", "--locked", "--offline", "--debug", "--path", ".", "--root"])
        .arg(world.root.join("place"))
        .env("CARGO_TARGET_DIR", target.path())
        .current_dir(source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let vnx = world.root.join("place/bin/vnx");
    assert!(world.command(&vnx).arg("init").output().unwrap().status.success());
    // Without what the tests bring along, the patterns of every manifest are read all the same.
    assert!(world.command(&vnx).args(["provider", "list"]).output().unwrap().status.success());
    assert_eq!(
        world.command(&vnx).args(["dispatch-agent", "--agent", "hello-world", "--no-pane"]).status().unwrap().code(),
        Some(0)
    );
    world.until("its supervisor to end", || world.processes().is_empty());
}
