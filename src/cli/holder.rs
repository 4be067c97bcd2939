//! `wharf holder`: keeps the descriptors of containers' interfaces while there is no daemon.

use clap::Args;

use super::options::Global;
use super::output::{Failure, Outcome};
use crate::attach::holder::{HolderClient, HolderError, listener_from_stdin, run_holder};
use crate::base::time::Span;
use crate::io::fdpass::FdPassError;
use crate::io::process;

/// How long a holder with nothing to hold waits for a daemon.
const IDLE: Span = Span::from_secs(10);

/// `wharf holder`
#[derive(Args, Debug)]
pub(crate) struct Holder {
    /// End the holder that runs: interfaces that no daemon serves disappear
    #[arg(long)]
    quit: bool,
}

/// Runs `wharf holder`. The daemon starts it, with its socket as standard input.
pub(crate) fn run(global: &Global, args: &Holder) -> Outcome {
    if args.quit {
        return quit(global);
    }
    let listener = listener_from_stdin()
        .map_err(|error| Failure::new(error).hint("`wharf daemon` starts it when it is needed"))?;
    process::detach()?;
    run_holder(&listener, IDLE)?;
    Ok(0)
}

fn quit(global: &Global) -> Outcome {
    let socket = global.runtime_dir().holder_socket();
    match HolderClient::connect(&socket).and_then(HolderClient::quit) {
        Ok(()) => Ok(0),
        Err(HolderError::Connection(FdPassError::NotListening { .. })) => {
            global.note("no holder is running");
            Ok(0)
        }
        Err(error @ HolderError::Refused(_)) => {
            Err(Failure::new(error).hint("`wharf daemon stop --release` ends both"))
        }
        Err(error) => Err(error.into()),
    }
}
