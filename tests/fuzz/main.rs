//! Runs libFuzzer on one of the gateway's parsers of untrusted bytes: the one that `PART` names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Part = fn(&[u8]);

fuzz_target!(|data: &[u8]| {
    static PART: OnceLock<Part> = OnceLock::new();
    let part = PART.get_or_init(|| {
        let name = std::env::var("PART").expect("PART names a part");
        let parts = simplechat_gateway::fuzzing::PARTS;
        let found = parts.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("there is no part {name}: {parts:?}")).1
    });
    part(data);
});
