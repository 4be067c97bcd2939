//! Where the daemon's log goes: standard error, as text for people or JSON for machines.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::FormatTime;

use crate::cli::human;

/// The form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging. `WHARF_LOG` (such as `wharf=debug`) says more precisely what `-v` and `-q` say.
pub(in crate::cli) fn start(format: LogFormat, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (_, 0) => "info",
        _ => "debug",
    };
    // The WireGuard library calls it an error that a peer is silent; what is one we say ourselves.
    let usual = || EnvFilter::new(format!("{level},boringtun=off"));
    let filter = EnvFilter::try_from_env("WHARF_LOG").unwrap_or_else(|_| usual());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(Utc);
    let builder = builder.with_target(verbose > 0).with_ansi(false);
    // A second start, in a test say, changes nothing.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// RFC 3339 in UTC.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut format::Writer<'_>) -> std::fmt::Result {
        w.write_str(&human::timestamp(human::unix_millis()))
    }
}
