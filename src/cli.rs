//! The program's rooms: what was typed, what it means, and how it ends.

pub(crate) mod arguments; // the command line, as a whole
pub(crate) mod exit_code; // how the program ends, as a number
pub(crate) mod failure; // and in words
pub(crate) mod log; // what is said on standard error

// The commands. Here only it is known which of them this build has.
#[cfg(feature = "bench")]
mod bench;
#[cfg(not(feature = "bench"))]
#[path = "cli/no_bench.rs"]
mod bench;
mod decode;
mod encode;
mod send;
mod serve;

// What several of them need.
mod flags; // which option mends an error
mod grouped; // long numbers that people can read
mod help; // how options are listed
mod input; // files, and the frames of the messages in them
mod process; // open files, and threads
#[cfg(not(feature = "progress"))]
#[path = "cli/no_progress.rs"]
mod progress;
#[cfg(feature = "progress")]
mod progress; // a line on a terminal
mod signals; // that end the program, or have it do something else
mod suggestion; // what somebody meant who mistyped a word
mod values; // of options, from text
