//! What the threads that share a connection's notes need for it. The model checker in `tests/model`
//! puts its own in place of these.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
