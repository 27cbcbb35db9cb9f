//! The program: its command line, its commands, and its exit codes.

pub(crate) mod arguments; // the parsed command line
pub(crate) mod exit_code; // exit codes
pub(crate) mod failure; // final error messages
pub(crate) mod log; // lines on standard error

// The commands. The only place that checks which of them this build has.
#[cfg(feature = "bench")]
mod bench;
#[cfg(not(feature = "bench"))]
#[path = "cli/no_bench.rs"]
mod bench;
mod decode;
#[cfg(feature = "detect")]
mod detect;
#[cfg(not(feature = "detect"))]
#[path = "cli/no_detect.rs"]
mod detect;
mod encode;
#[cfg(feature = "generate")]
mod generate;
#[cfg(not(feature = "generate"))]
#[path = "cli/no_generate.rs"]
mod generate;
mod layouts;
mod ping;
mod send;
mod serve;

// Shared by several commands.
mod connect; // to a server
mod flags; // the option that fixes an error
mod grouped; // digit grouping
mod help; // help texts
mod input; // input files and their frames
#[cfg(feature = "metrics")]
mod metrics; // figures for Prometheus
#[cfg(not(feature = "metrics"))]
#[path = "cli/no_metrics.rs"]
mod metrics;
#[cfg(not(all(feature = "bench", feature = "detect", feature = "generate")))]
mod missing; // commands that this build lacks
mod process; // open files, and threads
#[cfg(not(feature = "progress"))]
#[path = "cli/no_progress.rs"]
mod progress;
#[cfg(feature = "progress")]
mod progress; // the progress line
mod signals; // signals to stop or reopen
mod suggestion; // suggestions for mistyped words
mod tls; // options for TLS
mod values; // values of options
