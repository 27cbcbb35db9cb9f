//! Inputs that fuzzers have found worth keeping. `tests/corpus.rs` includes this file, too.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Checks a claim for each input of its fuzz target.
pub(crate) fn replay(target: &str, claim: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs = 0;
    for file in fs::read_dir(corpus.join(target)).expect(target) {
        let path = file.expect(target).path();
        let input = fs::read(&path).expect(target);
        let held = catch_unwind(|| claim(&input)).is_ok();
        assert!(held, "{target} fails for {}", path.display());
        inputs += 1;
    }
    assert!(inputs > 0, "{target} has no inputs");
}
