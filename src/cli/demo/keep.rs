//! `--keep`: the world stays, with something to look at in it, until somebody wants it to end.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::check::Family;
use super::probe::inside;
use super::world::{PUBLISHED, World};
use crate::cli::output::{Failure, facts};
use crate::io::process::{SignalFd, may_make_namespaces};

/// How long a caller may take to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says how to enter, and waits for Enter, a signal, or the daemon's end.
pub(super) fn wait(world: &World, signals: &SignalFd) -> Result<(), Failure> {
    for family in Family::BOTH {
        let listener = inside(&world.web.ns, || TcpListener::bind(world.web.server(family)))?;
        thread::Builder::new().spawn(move || greet(&listener))?;
    }
    eprintln!("\n{}", how_to_enter(world));
    let stdin = io::stdin();
    let mut listens = true;
    loop {
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(world.daemon.process().as_fd(), PollFlags::IN),
        ];
        if listens {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if ready(1) {
            return Err(Failure::new("the daemon has ended"));
        }
        if ready(0) && signals.read()?.is_some() {
            return Ok(());
        }
        if ready(2) {
            let mut typed = String::new();
            // Without anybody to press Enter, signals remain.
            listens = stdin.read_line(&mut typed)? > 0;
            if listens {
                return Ok(());
            }
        }
    }
}

/// A web server of one sentence.
fn greet(listener: &TcpListener) {
    while let Ok((stream, peer)) = listener.accept() {
        // One caller after the other; who does not take the answer is left.
        let _ = answer(stream, peer);
    }
}

fn answer(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // What is left unread would make the kernel answer with a reset.
    let _ = io::Read::read(&mut stream, &mut [0; 4096])?;
    let text = format!("web greets {peer}\n");
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

fn how_to_enter(world: &World) -> String {
    let exe = std::env::current_exe().unwrap_or_else(|_| "wharf".into());
    let wharf = format!("{} --runtime-dir {}", exe.display(), world.daemon.dir.path().display());
    let (web, public) = (world.web.server(Family::V4), world.uplink(Family::V4));
    let ways = facts(&[
        ("look around", format!("{wharf} ps")),
        ("be in app", format!("{wharf} exec app sh")),
        ("be on the remote host", nsenter(world.remote.pid())),
        ("be where the daemon is", nsenter(world.daemon.process().pid())),
    ]);
    format!(
        "The world stays. In another terminal, as the same user:\n{ways}\n\
         Who comes is greeted by web, from app at http://{web}/, from the remote host at \
         http://{public}:{PUBLISHED}/.\n\
         Enter or Ctrl-C ends it, and leaves nothing behind."
    )
}

/// Entering as util-linux does it. Root has not made a user namespace.
fn nsenter(pid: u32) -> String {
    let user = if is_initial_user_namespace() { "" } else { "-U --preserve-credentials " };
    format!("nsenter -t {pid} {user}-n")
}

/// Whether we are in the user namespace that every process is in by default.
fn is_initial_user_namespace() -> bool {
    // It maps all numbers to themselves; one of our own maps few.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    may_make_namespaces() && map.split_whitespace().eq(["0", "0", "4294967295"])
}
