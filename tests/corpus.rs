//! What the fuzz targets claim holds for every input that they have found worth keeping.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod claims;

/// P11, as far as it was found.
#[test]
fn every_claim_holds_for_each_input_of_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, claim) in claims::TARGETS {
        let mut inputs = 0;
        for file in fs::read_dir(corpus.join(target)).expect(target) {
            let path = file.unwrap().path();
            let input = fs::read(&path).unwrap();
            let held = catch_unwind(|| claim(&input)).is_ok();
            assert!(held, "{target} fails for {}", path.display());
            inputs += 1;
        }
        assert!(inputs > 0, "{target} has no inputs");
    }
}
