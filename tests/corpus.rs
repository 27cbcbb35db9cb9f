//! What the fuzz targets claim holds for every input that they have found worth keeping.

#[path = "../fuzz/src/lib.rs"]
mod claims;
#[path = "../src/runtime/corpus.rs"]
mod corpus;

/// P11, as far as it was found.
#[test]
fn every_claim_holds_for_each_input_of_its_corpus() {
    for (target, claim) in claims::TARGETS {
        corpus::replay(target, claim);
    }
}
