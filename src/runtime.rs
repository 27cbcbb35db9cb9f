//! Tasks and time: those of smol, or those of a claim, which runs connections step by step. It imports nothing else of
//! this crate.

pub(crate) mod clock; // the time, and waiting
#[cfg(test)]
pub(crate) mod corpus; // inputs that fuzzers have found
#[cfg(any(test, fuzzing))]
pub(crate) mod pipe; // a stream in memory
#[cfg(any(test, fuzzing))]
pub(crate) mod script; // what happens, as bytes
#[cfg(any(test, fuzzing))]
pub(crate) mod steps; // tasks and time without threads
pub(crate) mod tasks; // starts tasks
