//! The exit codes of the program.

use framelet::wire::EncodeError;

/// The exit codes that scripts can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The network: refused, reset, closed early, not acknowledged.
    Network = 1,
    /// The command line, a local file, or input that is not in its format.
    Usage = 2,
    /// The protocol: too long, truncated, malformed, no acknowledgements.
    Protocol = 3,
    /// It took too long, or there were fewer replies than expected.
    Timeout = 4,
    /// Standard output was closed by its reader: what a shell shows for a program ended by SIGPIPE.
    ClosedOutput = 141,
}

impl Exit {
    /// Returns the exit code for a message of the input that cannot be framed.
    pub(crate) fn of_encoding(error: &EncodeError) -> Exit {
        match error {
            // The input does not fit the layout, whatever a peer would accept.
            EncodeError::Header { .. } => Exit::Usage,
            _ => Exit::Protocol,
        }
    }
}
