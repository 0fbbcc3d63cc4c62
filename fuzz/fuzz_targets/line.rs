//! Any bytes as a line of a ledger: no panic, and the two readers of a line agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::ledger::format;

fuzz_target!(|line: &[u8]| {
    let links = format::links(line);
    let receipt = format::parse(line);
    // What is only checked is checked as strictly.
    if let Ok(links) = links {
        assert_eq!(links.check().is_ok(), links.payload().is_ok());
    }
    if let Ok(receipt) = receipt {
        let links = links.expect("a receipt has links");
        assert_eq!((links.seq, links.prev), (receipt.seq, &receipt.prev.hex()[..]));
        // The hash is not part of parsing; with the right one the line is one that a writer makes.
        let json = receipt.body.to_json().expect("a payload that was read can be written");
        assert_eq!(vnx::domain::receipt::Body::from_json(receipt.body.kind(), &json).expect("and read again"), receipt.body);
    }
});
