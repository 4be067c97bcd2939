//! `wharf completions`, `wharf man`, `wharf version`: what the program tells about itself.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::options::Global;
use super::output::{Failure, Outcome, line};

/// `wharf completions`
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// `wharf man`
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Directory for the pages, one a command
    dir: PathBuf,
}

/// Runs `wharf completions`.
pub(crate) fn completions(args: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wharf", &mut script);
    line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}

/// Runs `wharf man`.
pub(crate) fn man(global: &Global, args: &Man) -> Outcome {
    let failed = |error: io::Error| {
        Failure::new(format!("cannot write the pages to {}: {error}", args.dir.display()))
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    global.note(format_args!("`man -l {}` shows the first", args.dir.join("wharf.1").display()));
    Ok(0)
}

/// Runs `wharf version`. With a daemon running its version is told too, since the two may differ.
pub(crate) fn version(global: &Global) -> Outcome {
    line(&format!("wharf {}", env!("CARGO_PKG_VERSION")))?;
    if let Ok(status) = global.client().status() {
        line(&format!("daemon {} (process {})", status.version, status.pid))?;
    }
    Ok(0)
}
