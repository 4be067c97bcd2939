//! Starting a command in namespaces of its own, and looking after it.
//!
//! [`spawn`] forks. The child takes the namespaces it is to have, runs `prepare` inside them (attach
//! to networks, write resolv.conf), and becomes the command. Parent and child talk over a sequenced
//! socket that closes by itself when the command starts:
//!
//! ```text
//! parent                                child
//!   │ ◀─── user namespace made ─────────── │ unshare(user)
//!   │ ──── id maps written ──────────────▶ │ unshare(net, mount)
//!   │ ◀─── prepared: what it says ──────── │ prepare()
//!   │ ◀─── (closed by exec) or: failed ─── │ exec
//! ```
//!
//! A user namespace is only made for a caller without CAP_SYS_ADMIN; root, also a namespace's own,
//! needs none. The forked child has one thread, as entering a user namespace demands, and may start
//! more in `prepare`. Fork from a thread that lives on: with [`Isolation::die_with_parent`] the
//! kernel kills the command when the *thread* that forked it ends.
#![allow(unsafe_code, reason = "fork and _exit have no safe form")]

mod background;
mod child;
mod idmap;
mod namespaces;
mod setup;
mod signals;

use std::io;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::fdpass::{Connection, FdPassError};
use super::netns::NetNs;
use namespaces::{Joined, enter_user_namespace, unshare};

pub use background::{Background, into_background};
pub use child::{Child, Process};
pub use namespaces::{has_capability, may_make_namespaces};
pub use setup::{SetupError, overlay_file, prepare_network};
pub use signals::{Received, SignalFd};

/// The exit code for our own failures, as Docker has it.
pub const EXIT_OURS: i32 = 125;
/// The command is there but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// There is no such command.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Which network the command has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// A new, empty namespace.
    New,
    /// The caller's.
    Host,
    /// That of another process, with its mounts and its user namespace: `exec`, `container:NAME`.
    Of(u32),
}

/// How the command is set apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// Its network.
    pub network: Network,
    /// Killed when the caller's thread ends.
    pub die_with_parent: bool,
    /// In a session of its own, without a terminal.
    pub new_session: bool,
}

/// Where starting a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Stage {
    UserNamespace,
    Namespaces,
    Join,
    Session,
    Prepare,
    Exec,
}

#[derive(Serialize, Deserialize)]
enum FromChild {
    MapMe,
    Prepared(Vec<u8>),
    Failed { stage: Stage, errno: Option<i32>, message: String },
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// User namespaces are not to be had.
    #[error(
        "cannot make a user namespace: {0}; allow it with `sysctl user.max_user_namespaces=15000`, \
         on Debian also `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root"
    )]
    UserNamespace(#[source] io::Error),
    /// The other namespaces are not to be had.
    #[error(
        "cannot make a network namespace: {0}; as an ordinary user this is what Ubuntu's \
         restriction of user namespaces looks like \
         (`sysctl kernel.apparmor_restrict_unprivileged_userns=0`), or run as root"
    )]
    Namespaces(#[source] io::Error),
    /// The process to join is gone or not ours.
    #[error("cannot enter the namespaces of process {pid}: {source}")]
    Join {
        /// The process.
        pid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The id maps could not be written.
    #[error("cannot set up the user namespace: {0}")]
    IdMap(String),
    /// What had to be done before the command starts failed.
    #[error("{0}")]
    Prepare(String),
    /// The command does not exist.
    #[error("{program}: command not found")]
    NotFound {
        /// Its name.
        program: String,
    },
    /// The command exists and cannot be started.
    #[error("cannot execute {program}: {source}")]
    NotExecutable {
        /// Its name.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something went wrong between us and the child.
    #[error("cannot start a process: {0}")]
    System(#[from] io::Error),
    /// The child died before it became the command.
    #[error("the process ended before the command started ({0})")]
    Died(String),
}

impl SpawnError {
    /// The exit code that a shell or Docker would give.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => EXIT_NOT_FOUND,
            Self::NotExecutable { .. } => EXIT_NOT_EXECUTABLE,
            _ => EXIT_OURS,
        }
    }
}

/// Starts a command. `prepare` runs inside the namespaces; what it returns is handed to the caller,
/// and if it fails its text is the error.
pub fn spawn(
    command: &mut Command,
    isolation: Isolation,
    prepare: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Child, SpawnError> {
    start(Some(command), isolation, prepare, || ())
}

/// The same; `meanwhile` runs here as soon as the other process exists. It may start threads, on which
/// `prepare` can count.
pub fn spawn_beside(
    command: &mut Command,
    isolation: Isolation,
    prepare: impl FnOnce() -> Result<Vec<u8>, String>,
    meanwhile: impl FnOnce(),
) -> Result<Child, SpawnError> {
    start(Some(command), isolation, prepare, meanwhile)
}

/// Runs `work` in a forked process inside the namespaces, without a command: what only a process with
/// one thread can do, such as entering another user namespace. What it returns; nothing of it is left
/// over.
pub fn run_isolated(
    isolation: Isolation,
    work: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, SpawnError> {
    let child = start(None, isolation, work, || ())?;
    child.process().wait()?;
    Ok(child.report)
}

/// Runs `work` in a forked process in the user namespace that owns `ns`, as its root: with this, an
/// ordinary user attaches a network namespace of which only the path is known.
pub fn run_as_owner_of(
    ns: &NetNs,
    work: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, SpawnError> {
    let child = spawn_as_owner_of(ns, work, || ())?;
    child.process().wait()?;
    Ok(child.report)
}

/// The same, while `meanwhile` runs here. The process is still there when this returns: it ends when
/// `work` has returned, or with the calling thread.
pub fn spawn_as_owner_of(
    ns: &NetNs,
    work: impl FnOnce() -> Result<Vec<u8>, String>,
    meanwhile: impl FnOnce(),
) -> Result<Child, SpawnError> {
    let isolation = Isolation { network: Network::Host, die_with_parent: true, new_session: false };
    let owner = ns.owner()?;
    let work = || {
        enter_user_namespace(&owner)
            .map_err(|e| format!("cannot enter the user namespace that owns the network: {e}"))?;
        work()
    };
    start(None, isolation, work, meanwhile)
}

fn start(
    command: Option<&mut Command>,
    isolation: Isolation,
    prepare: impl FnOnce() -> Result<Vec<u8>, String>,
    meanwhile: impl FnOnce(),
) -> Result<Child, SpawnError> {
    let program =
        command.as_ref().map(|command| command.get_program().to_string_lossy().into_owned());
    let target = match isolation.network {
        Network::Of(pid) => Some(Joined::open(pid)?),
        Network::New | Network::Host => None,
    };
    let plan = Plan { isolation, target, parent: std::process::id() };
    let (ours, theirs) = Connection::pair()?;
    // SAFETY: the child has a copy of this thread alone. It uses the allocator, which the C library
    // keeps usable across fork, no lock that another thread may hold, and never returns from here.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error().into());
    }
    if pid == 0 {
        drop(ours);
        run_child(&theirs, command, &plan, prepare);
    }
    drop(theirs);
    let process = Process::open(pid.cast_unsigned())?;
    meanwhile();
    match supervise(&ours, &process, &program.unwrap_or_default(), isolation) {
        Ok(report) => Ok(Child::new(process, report)),
        Err(error) => {
            let _ = process.signal(Signal::KILL);
            let _ = process.wait();
            Err(error)
        }
    }
}

/// The parent's side, up to the moment at which the command runs.
fn supervise(
    connection: &Connection,
    process: &Process,
    program: &str,
    isolation: Isolation,
) -> Result<Vec<u8>, SpawnError> {
    let mut report = None;
    loop {
        let bytes = match connection.recv() {
            Ok(message) => message.bytes,
            Err(FdPassError::Closed) => break,
            Err(error) => return Err(SpawnError::System(io::Error::other(error))),
        };
        match serde_json::from_slice(&bytes).map_err(io::Error::other)? {
            FromChild::MapMe => {
                idmap::write(process.pid()).map_err(SpawnError::IdMap)?;
                connection.send(b"mapped", &[]).map_err(io::Error::other)?;
            }
            FromChild::Prepared(bytes) => report = Some(bytes),
            FromChild::Failed { stage, errno, message } => {
                return Err(failure(stage, errno, message, program, isolation));
            }
        }
    }
    match report {
        Some(report) => Ok(report),
        None => Err(SpawnError::Died(format!("exit code {}", process.wait()?))),
    }
}

fn failure(
    stage: Stage,
    errno: Option<i32>,
    message: String,
    program: &str,
    isolation: Isolation,
) -> SpawnError {
    let source = match errno {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(message.clone()),
    };
    let program = program.to_owned();
    match stage {
        Stage::UserNamespace => SpawnError::UserNamespace(source),
        Stage::Namespaces => SpawnError::Namespaces(source),
        Stage::Join => match isolation.network {
            Network::Of(pid) => SpawnError::Join { pid, source },
            Network::New | Network::Host => SpawnError::System(source),
        },
        Stage::Session => SpawnError::System(source),
        Stage::Prepare => SpawnError::Prepare(message),
        Stage::Exec if source.kind() == io::ErrorKind::NotFound || !is_there(&program) => {
            SpawnError::NotFound { program }
        }
        Stage::Exec => SpawnError::NotExecutable { program, source },
    }
}

/// Whether a file of that name exists where commands are looked for. A directory in `PATH` that may
/// not be read makes the kernel's last answer "permission denied" for a command that is nowhere.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.contains('/')
        || std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// What the child needs to know.
struct Plan {
    isolation: Isolation,
    target: Option<Joined>,
    parent: u32,
}

/// The child's side. Becomes the command or ends.
fn run_child(
    connection: &Connection,
    command: Option<&mut Command>,
    plan: &Plan,
    prepare: impl FnOnce() -> Result<Vec<u8>, String>,
) -> ! {
    let outcome =
        catch_unwind(AssertUnwindSafe(|| become_command(connection, command, plan, prepare)))
            .unwrap_or_else(|_| {
                Err(Failure::new(Stage::Prepare, "a bug: the preparation panicked"))
            });
    let code = match outcome {
        Ok(()) => 0,
        Err(Failure { stage, errno, message }) => {
            let _ = send(connection, &FromChild::Failed { stage, errno, message });
            EXIT_OURS
        }
    };
    // SAFETY: ends the process at once, without running anything that belongs to the parent.
    unsafe { libc::_exit(code) }
}

struct Failure {
    stage: Stage,
    errno: Option<i32>,
    message: String,
}

impl Failure {
    fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, errno: None, message: message.into() }
    }

    fn io(stage: Stage, error: &io::Error) -> Self {
        Self { stage, errno: error.raw_os_error(), message: error.to_string() }
    }
}

/// Returns only if there is no command or something went wrong.
fn become_command(
    connection: &Connection,
    command: Option<&mut Command>,
    plan: &Plan,
    prepare: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<(), Failure> {
    match &plan.target {
        Some(joined) => joined.enter().map_err(|e| Failure::io(Stage::Join, &e))?,
        None if plan.isolation.network == Network::New => take_namespaces(connection)?,
        None => {}
    }
    if plan.isolation.new_session {
        rustix::process::setsid().map_err(|e| Failure::io(Stage::Session, &e.into()))?;
    }
    let report = prepare().map_err(|message| Failure::new(Stage::Prepare, message))?;
    if plan.isolation.die_with_parent {
        bind_to_parent(plan.parent).map_err(|e| Failure::io(Stage::Session, &e))?;
    }
    send(connection, &FromChild::Prepared(report))
        .map_err(|e| Failure::new(Stage::Prepare, e.to_string()))?;
    match command {
        Some(command) => {
            // A mask outlives exec, and a signal descriptor in the parent has filled it.
            signals::unblock_all().map_err(|e| Failure::io(Stage::Exec, &e))?;
            Err(Failure::io(Stage::Exec, &command.exec()))
        }
        None => Ok(()),
    }
}

fn take_namespaces(connection: &Connection) -> Result<(), Failure> {
    if !may_make_namespaces() {
        let stage = Stage::UserNamespace;
        unshare(UnshareFlags::NEWUSER).map_err(|e| Failure::io(stage, &e))?;
        let ask = send(connection, &FromChild::MapMe).and_then(|()| connection.recv());
        ask.map_err(|e| Failure::new(stage, e.to_string()))?;
        setup::become_root().map_err(|e| Failure::io(stage, &e))?;
    }
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)
        .and_then(|()| setup::separate_mounts())
        .map_err(|e| Failure::io(Stage::Namespaces, &e))
}

/// Whether the kernel lets this user make a user namespace and be somebody in it. Some systems allow
/// the first and not the second.
pub fn try_user_namespace() -> Result<(), SpawnError> {
    let isolation = Isolation { network: Network::Host, die_with_parent: true, new_session: false };
    run_isolated(isolation, || {
        unshare(UnshareFlags::NEWUSER).map_err(|e| format!("making one fails: {e}"))?;
        unshare(UnshareFlags::NEWNET).map_err(|e| format!("it has no rights inside: {e}"))?;
        Ok(Vec::new())
    })
    .map(drop)
}

/// Goes on as a process of its own: no child of the caller any more, in a session without a terminal.
/// The caller's process ends with exit code 0. Only while there is one thread.
pub fn detach() -> io::Result<()> {
    // SAFETY: there is one thread, so the child's copy of the process is whole.
    match unsafe { libc::fork() } {
        0 => rustix::process::setsid().map(drop).map_err(Into::into),
        pid if pid > 0 => {
            // SAFETY: ends the process at once; what runs at exit is the child's business.
            unsafe { libc::_exit(0) }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit of open files as far as it goes without rights, and says how far that is.
pub fn raise_open_files() -> io::Result<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn bind_to_parent(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above took effect.
    let present = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    if present == Some(parent) { Ok(()) } else { Err(io::Error::other("orphaned")) }
}

fn send(connection: &Connection, message: &FromChild) -> Result<(), FdPassError> {
    connection.send(&serde_json::to_vec(message).unwrap_or_default(), &[])
}
