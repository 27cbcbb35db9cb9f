//! `serve --metrics` in a build without it.

use framelet::server::Monitor;

use super::exit_code::Exit;
use super::failure::Failure;

/// Fails, because this build cannot serve figures.
pub(crate) async fn serve(_: &str, _: Monitor) -> Result<(), Failure> {
    Err(Failure::new(
        Exit::Usage,
        "this build has no metrics; build framelet with its default features to get them, as in \
         cargo install --locked --path .",
    ))
}
