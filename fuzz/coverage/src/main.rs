//! One target of `fuzz`, guided by coverage.  Run it here, in `fuzz/coverage`:
//!
//!     MESHWARD_FUZZ_TARGET=yaml cargo run -- -max_total_time=60 ../corpus/yaml
//!
//! New inputs go into the first directory named: give one of your own before the corpus to keep that as
//! it is.  What breaks a target is written to this directory.
#![no_main]

use std::sync::LazyLock;

use fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("MESHWARD_FUZZ_TARGET").unwrap_or_default();
    fuzz::find(&name).unwrap_or_else(|| {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("set MESHWARD_FUZZ_TARGET to one of {}", names.join(", "));
        std::process::exit(64);
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
