//! Anything as `.vnx/config.yaml`: what is refused names the file and a way out.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vnx::project::config::Config;
use vnx::project::yaml;

fuzz_target!(|bytes: &[u8]| {
    let file = Path::new("config.yaml");
    if let Err(fault) = yaml::parse::<Config>(file, bytes).and_then(|config| config.check(file)) {
        assert!(fault.what.contains("config.yaml") && !fault.fix.is_empty(), "{fault:?}");
    }
});
