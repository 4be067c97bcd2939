//! `wharf docker-plugin`: Docker's networks of the driver `wharf`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::daemon::log::{self, LogFormat};
use super::options::Global;
use super::output::{Failure, Outcome};
use crate::adapters::docker::{Plugin, server};
use crate::api::server::bind;
use crate::control::config::Paths;

/// `wharf docker-plugin`
#[derive(Args, Debug)]
pub(crate) struct DockerPlugin {
    /// Socket at which Docker finds the plugin; its name is the driver's
    #[arg(long, value_name = "PATH", default_value = "/run/docker/plugins/wharf.sock")]
    socket: PathBuf,
    /// File that remembers Docker's networks; docker.json in the state directory if not given
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Docker's socket, to learn names and labels of containers from; nothing but `GET` is sent there
    #[arg(long, value_name = "PATH")]
    watch: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", default_value = "text")]
    log: LogFormat,
}

/// Runs `wharf docker-plugin`.
pub(crate) fn run(global: &Global, args: &DockerPlugin) -> Outcome {
    log::start(args.log, global.verbose, global.quiet);
    let state = args.state.clone();
    let state = state.unwrap_or_else(|| Paths::of_this_user().state_dir.join("docker.json"));
    let plugin = Plugin::open(&global.runtime_dir(), &state)
        .map_err(|error| Failure::new(format!("cannot use {}: {error}", state.display())))?;
    let plugin = Arc::new(plugin);
    if let Some(docker) = &args.watch {
        plugin.watch(docker.clone())?;
    }
    if let Some(dir) = args.socket.parent() {
        std::fs::create_dir_all(dir)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
    }
    let listener = bind(&args.socket, None)?;
    let ready = || {
        tracing::info!(socket = %args.socket.display(), "ready");
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(%error, "cannot tell systemd");
        }
    };
    let served = server::serve(listener, plugin, ready);
    let _ = std::fs::remove_file(&args.socket);
    served?;
    Ok(0)
}
