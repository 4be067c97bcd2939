//! `wharf daemon`: puts the switch together and serves it until it is to end.
//!
//! The order matters. The claim to the directory comes first, so that nothing of a daemon that runs is
//! touched; control restores what the store and the holder have before anybody can ask; readiness is
//! told when the sockets answer. Whatever fails before that ends the daemon with one line.
//!
//! An orderly end leaves the TAPs with the holder, just as a killed daemon does: containers are cut off
//! until the next daemon takes them back. `wharf daemon stop --release` gives them up.

pub(super) mod attaching;
mod background;
mod cluster;
mod dataplane;
mod idle;
pub(super) mod log;
mod place;
mod resolvers;

use std::ffi::OsString;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, Subcommand};

use self::attaching::lock;
pub(super) use self::background::Launch;
use self::log::LogFormat;
pub(super) use self::place::make_state_dir;
use super::human::unix_millis;
use super::options::Global;
use super::output::{Failure, Outcome, line};
use crate::api::metrics;
use crate::api::paths::RuntimeDir;
use crate::api::server::{self, Handle, Hooks};
use crate::api::types::StopRequest;
use crate::attach::server::Access;
use crate::config::Guise;
use crate::control::config::{Config, ConfigError, DefaultUplink, Paths};
use crate::control::keeper::HolderKeeper;
use crate::control::netstate::SystemHost;
use crate::control::sharing::Sharing;

use crate::control::outside::{Keeper, NoKeeper};
use crate::control::store::Store;
use crate::control::store::memory::MemoryStore;
use crate::control::store::redb::RedbStore;
use crate::control::{Control, Outside, Settings};
use crate::io::fdpass::group_id;
use crate::io::features::{self, Features};
use crate::io::{inherit, process};

/// Its members may use the daemon.
const GROUP: &str = "wharf";
/// Queues of each TAP: one for each worker.
const QUEUES: usize = 1;
/// How often, and how long after one another, it is looked whether somebody else's daemon answers.
const START_ATTEMPTS: u32 = 20;
const START_PAUSE: Duration = Duration::from_millis(50);
/// How long `wharf daemon stop` waits for the daemon's end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// `wharf daemon`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Daemon {
    #[command(subcommand)]
    action: Option<Action>,
    /// Configuration
    ///
    /// /etc/wharf/wharf.toml for root, $XDG_CONFIG_HOME/wharf/wharf.toml otherwise.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of what survives a restart
    ///
    /// /var/lib/wharf for root, $XDG_STATE_HOME/wharf otherwise.
    #[arg(long, value_name = "DIR", env = "WHARF_STATE_DIR", hide_env_values = true)]
    state_dir: Option<PathBuf>,
    /// Way out of networks that name none: sockets, packet:IFACE or none
    #[arg(long, value_name = "UPLINK", value_parser = uplink)]
    uplink: Option<String>,
    /// Worker threads
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Do without these features of the kernel: peek-offset, udp-segment, udp-gro, ping-sockets, uso, all
    ///
    /// The daemon then works as on Linux 6.1. `wharf doctor` says what the kernel has.
    #[arg(long, value_name = "FEATURE,...", env = "WHARF_WITHOUT", hide_env_values = true)]
    without: Option<Features>,
    /// Return when the daemon is ready, and log to daemon.log in the runtime directory
    #[arg(long, short)]
    background: bool,
    /// Write a line to this descriptor when the daemon is ready
    #[arg(long, value_name = "FD")]
    ready_fd: Option<i32>,
    /// Only check the configuration
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["background", "ready_fd"])]
    #[allow(clippy::option_option, reason = "with a file, without one, or not at all")]
    check: Option<Option<PathBuf>>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Leave the caller's session
    #[arg(long, hide = true)]
    new_session: bool,
    /// End when there is no container any more
    #[arg(long, hide = true)]
    until_idle: bool,
}

/// What can be done with a daemon that runs.
#[derive(Subcommand, Debug)]
enum Action {
    /// End the daemon; containers are cut off until the next one starts
    Stop {
        /// Let go of the containers' interfaces too: they disappear
        #[arg(long)]
        release: bool,
    },
}

fn uplink(text: &str) -> Result<String, String> {
    DefaultUplink::parse(text).map(|_| text.to_owned())
}

/// Runs `wharf daemon`.
pub(crate) fn run(global: &Global, args: &Daemon) -> Outcome {
    if let Some(Action::Stop { release }) = args.action {
        return stop(global, release);
    }
    if let Some(file) = &args.check {
        return check(args, file.as_deref());
    }
    if args.background {
        background::start(&global.runtime_dir(), &own_arguments())?;
        line("ready")?;
        return Ok(0);
    }
    serve(global, args)
}

/// Makes sure that a daemon is there: starts one that ends with the last container if none is. Two who
/// do this at once end up with one daemon, since only one can claim the directory.
pub(super) fn ensure(global: &Global) -> Result<(), Failure> {
    let client = global.client();
    match client.status() {
        Ok(_) => return Ok(()),
        Err(error) if error.is_no_daemon() => {}
        Err(error) => return Err(error.into()),
    }
    let dir = global.runtime_dir();
    let mut arguments = vec!["--runtime-dir".into(), dir.path().as_os_str().to_owned()];
    arguments.extend(["daemon".into(), "--until-idle".into()]);
    let started = background::start(&dir, &arguments);
    // The other one may have been faster, and be about to answer.
    for _ in 0..START_ATTEMPTS {
        if started.is_ok() || client.status().is_ok() {
            return Ok(());
        }
        std::thread::sleep(START_PAUSE);
    }
    started
}

/// What this process was started with, but for the program's name and the wish for the background.
fn own_arguments() -> Vec<OsString> {
    let wished = |argument: &OsString| argument != "--background" && argument != "-b";
    std::env::args_os().skip(1).filter(wished).collect()
}

fn check(args: &Daemon, file: Option<&Path>) -> Outcome {
    let paths = args.paths(&RuntimeDir::of_this_user())?;
    let path = file.unwrap_or(&paths.config_file);
    Config::load(path)?;
    line(&format!("{} is good", path.display()))?;
    Ok(0)
}

fn stop(global: &Global, release: bool) -> Outcome {
    let client = global.client();
    let status = client.status()?;
    let process = process::Process::open(status.pid);
    client.stop(&StopRequest { release })?;
    // One that is gone already cannot be opened.
    let Ok(process) = process else { return Ok(0) };
    if process.ended_within(STOP_PATIENCE)? {
        Ok(0)
    } else {
        let what = format!("the daemon (process {}) takes long to end", status.pid);
        Err(Failure::new(what).hint(format!("`kill -9 {}` loses nothing", status.pid)))
    }
}

impl Daemon {
    /// Absolute, since the daemon leaves the directory it was started in.
    fn paths(&self, dir: &RuntimeDir) -> Result<Paths, Failure> {
        let defaults = Paths::of_this_user();
        let absolute = |path: Option<&PathBuf>, default: PathBuf| {
            path.map_or(Ok(default), std::path::absolute)
        };
        Ok(Paths {
            runtime_dir: std::path::absolute(dir.path())?,
            state_dir: absolute(self.state_dir.as_ref(), defaults.state_dir)?,
            config_file: absolute(self.config.as_ref(), defaults.config_file)?,
        })
    }

    fn source(&self, paths: &Paths) -> ConfigSource {
        ConfigSource {
            file: paths.config_file.clone(),
            must_exist: self.config.is_some(),
            uplink: self.uplink.clone(),
            workers: self.workers,
        }
    }
}

/// Where settings come from: the file, and over it the command line.
#[derive(Clone, Debug)]
struct ConfigSource {
    file: PathBuf,
    must_exist: bool,
    uplink: Option<String>,
    workers: Option<usize>,
}

impl ConfigSource {
    fn read(&self) -> Result<Config, ConfigError> {
        let mut config = if self.must_exist {
            Config::load(&self.file)?
        } else {
            Config::load_default(&self.file)?
        };
        if let Some(uplink) = &self.uplink {
            config.default_uplink = Some(uplink.clone());
        }
        config.workers = self.workers.or(config.workers);
        Ok(config)
    }

    /// SIGHUP: what can be changed while the daemon runs is changed; a file that is wrong changes
    /// nothing.
    fn reload(&self, control: &mut Control) {
        let read = self.read().map_err(|error| error.to_string());
        let read = read.and_then(|new| control.reload(new).map_err(|error| error.to_string()));
        control.config_read(&self.file, read);
    }
}

/// The daemon itself, in the foreground.
fn serve(global: &Global, args: &Daemon) -> Outcome {
    let ready_fd = args.ready_fd.map(inherit::take).transpose().map_err(|error| {
        Failure::usage(format!("--ready-fd is not an open descriptor: {error}"))
    })?;
    let paths = args.paths(&global.runtime_dir())?;
    let dir = RuntimeDir::new(&paths.runtime_dir);
    let source = args.source(&paths);
    let config = source.read()?;
    let without = args.without.clone().unwrap_or_default();
    features::force_off(without.clone());
    if args.new_session {
        rustix::process::setsid()?;
    }
    std::env::set_current_dir("/")?;
    log::start(args.log_format, global.verbose, global.quiet);

    if without != Features::default() {
        tracing::info!(%without, "features of the kernel are not used");
    }
    place::make_runtime_dir(&dir)?;
    let _claim = place::claim(&dir)?;
    make_state_dir(&paths.state_dir)?;
    // Without it a thousand containers are the end.
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let metrics = config.metrics.map(listen_for_metrics).transpose()?;
    let control = start_control(config, paths, &dir)?;
    cluster::join(&control)?;

    let group = group_id(GROUP);
    let access = Access { owner: rustix::process::geteuid().as_raw(), group };
    attaching::start(&dir.attach_socket(), access, Arc::clone(&control))?;
    let listener = server::bind(&dir.api_socket(), group)?;
    let place = dir.clone();
    let hooks = Hooks {
        ready: Box::new(move || ready(&place, ready_fd)),
        reload: Arc::new(move |control| source.reload(control)),
        metrics,
    };
    let handle = Handle::new();
    if args.until_idle {
        idle::watch(&control, handle.clone())?;
    }
    let stopped = server::serve(listener, access, Arc::clone(&control), handle, hooks)?;
    end(&dir, stopped, &control);
    Ok(0)
}

fn listen_for_metrics(addr: SocketAddr) -> Result<TcpListener, Failure> {
    metrics::bind(addr).map_err(|error| {
        let what = format!("cannot answer for metrics at {addr}: {error}");
        Failure::new(what).hint("give another address at `metrics` in the config file")
    })
}

/// Control with the real outside: the store on disk, workers, the host, the holder.
fn start_control(
    config: Config,
    paths: Paths,
    dir: &RuntimeDir,
) -> Result<Arc<Mutex<Control>>, Failure> {
    let store = Box::new(RedbStore::open(&paths.state_dir)?);
    let keeper = Box::new(HolderKeeper::new(dir.holder_socket(), holder_command));
    assemble(config, paths, Guise::default(), store, keeper)
}

/// A switch without a daemon around it: nothing on disk, no sockets, no holder. It ends with the process.
pub(super) fn private(config: Config, guise: Guise) -> Result<Arc<Mutex<Control>>, Failure> {
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let nowhere = Paths {
        runtime_dir: PathBuf::new(),
        state_dir: PathBuf::new(),
        config_file: PathBuf::new(),
    };
    assemble(config, nowhere, guise, Box::<MemoryStore>::default(), Box::new(NoKeeper))
}

/// Puts control, workers and the real host together.
fn assemble(
    config: Config,
    paths: Paths,
    guise: Guise,
    store: Box<dyn Store>,
    keeper: Box<dyn Keeper>,
) -> Result<Arc<Mutex<Control>>, Failure> {
    let (dataplane, notice, notices) = dataplane::start(config.workers.unwrap_or(1))?;
    let sharing = Sharing::new(paths.runtime_dir.clone(), notice);
    let host = Box::new(SystemHost { queues: QUEUES, sharing });
    let outside = Outside { store, dataplane: Box::new(dataplane), keeper, host };
    let settings = Settings { config, paths, clock: unix_millis, queues: QUEUES, guise };
    let control = Arc::new(Mutex::new(Control::new(settings, outside)?));
    dataplane::listen(notices, &control)?;
    resolvers::follow(&control)?;
    Ok(control)
}

/// The same program under another command.
fn holder_command() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("holder");
    Ok(command)
}

/// Tells everybody who waits for it that requests are answered.
fn ready(dir: &RuntimeDir, ready_fd: Option<OwnedFd>) {
    tracing::info!(dir = %dir.path().display(), "ready");
    if let Some(fd) = ready_fd {
        // Nobody may be waiting any more.
        let _ = writeln!(std::fs::File::from(fd), "ready");
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// Removes the sockets, so that clients hear at once that nobody is there.
fn end(dir: &RuntimeDir, request: StopRequest, control: &Mutex<Control>) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // Held to the end: no attacher is left half done, and nothing changes any more.
    let mut control = lock(control);
    for socket in [dir.api_socket(), dir.attach_socket()] {
        let _ = std::fs::remove_file(socket);
    }
    if request.release
        && let Err(error) = control.release()
    {
        tracing::error!(%error, "the containers' interfaces stay");
    }
    control.leave_host();
    tracing::info!("ended");
}
