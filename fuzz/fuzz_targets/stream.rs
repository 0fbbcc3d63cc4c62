//! Anything that a worker says, to the parser of each provider and lane: no panic, and an end of it.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vnx::domain::Name;
use vnx::domain::event::Listener;
use vnx::domain::plan::Lane;
use vnx::domain::verdict::End;
use vnx::provider::{Manifest, Stream, load};

static ALL: LazyLock<Vec<(Manifest, Lane)>> = LazyLock::new(|| {
    let names = ["claude", "codex", "gemini", "kimi"];
    let lanes = [Lane::Headless, Lane::Interactive];
    let manifest = |name| load(Path::new("/nonexistent"), &Name::parse("provider", name).expect("a name")).expect("shipped");
    names.into_iter().flat_map(|name| lanes.map(|lane| (manifest(name), lane))).collect()
});

// The first byte says whose.
fuzz_target!(|bytes: &[u8]| {
    let Some((whose, bytes)) = bytes.split_first() else { return };
    let (manifest, lane) = &ALL[usize::from(*whose) % ALL.len()];
    let mut stream = Stream::new(manifest.lanes[lane].parser, &manifest.failures);
    for line in String::from_utf8_lossy(bytes).lines() {
        stream.stdout_line(line);
        stream.stderr_line(line);
    }
    stream.offer();
    stream.finish(&End::Exited { code: 0 });
});
