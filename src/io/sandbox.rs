//! Giving up rights that a running switch does not need, for good.
//!
//! [`give_up_files`] is for the moment when everything is open that needs a right. What remains: sockets, the
//! descriptors that are open, and reading what the resolver and the kernel tell in files. It holds for the
//! calling thread and those it starts later, so it is called before any is started.
//!
//! Two independent walls, each of which an attacker who has taken over the process would have to get
//! through: Landlock (Linux 5.13) keeps files out of reach, and a seccomp filter the system calls by which
//! one escapes: starting programs, entering or making namespaces, mounting, tracing others. Both are
//! inherited and cannot be taken back.
#![allow(unsafe_code, reason = "Landlock and seccomp have no safe wrapper here")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What a switch reads while it runs: the resolver's configuration, which may be a link into `/run`, and
/// what the kernel tells.
const READABLE: [&str; 4] = ["/etc", "/run", "/proc", "/sys"];

/// Rights of Landlock by the version that brought them (`linux/landlock.h`).
const ACCESS_V1: u64 = (1 << 13) - 1;
const ACCESS_V2: u64 = 1 << 13;
const ACCESS_V3: u64 = 1 << 14;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const VERSION: libc::c_ulong = 1;
const RULE_PATH_BENEATH: libc::c_ulong = 1;

#[repr(C)]
struct Ruleset {
    handled: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: RawFd,
}

/// Makes the calling thread another user's, for root. Its capabilities stay until they are given up.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    use rustix::thread::{
        Gid, Uid, set_keep_capabilities, set_thread_gid, set_thread_groups, set_thread_uid,
    };
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_gid(Gid::from_raw(gid))?;
    Ok(set_thread_uid(Uid::from_raw(uid))?)
}

/// Leaves the calling thread no capability but those for low ports and for pings, and no way to get any.
pub fn give_up_capabilities() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let keep = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW;
    let now = rustix::thread::capabilities(None)?;
    let sets = CapabilitySets {
        effective: now.permitted & keep,
        permitted: now.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Keeps files out of reach, but for reading a few directories and for removing files in `own`. An error of
/// kind `Unsupported` means that the kernel has no Landlock.
pub fn give_up_files(own: Option<&Path>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let version = landlock(libc::SYS_landlock_create_ruleset, [0, 0, VERSION, 0])
        .map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
    let mut handled = ACCESS_V1;
    handled |= if version >= 2 { ACCESS_V2 } else { 0 };
    handled |= if version >= 3 { ACCESS_V3 } else { 0 };
    let ruleset = Ruleset { handled };
    let (at, size) = (std::ptr::from_ref(&ruleset) as libc::c_ulong, size_of::<Ruleset>() as u64);
    let raw = landlock(libc::SYS_landlock_create_ruleset, [at, size, 0, 0])?;
    // SAFETY: the descriptor was just opened and is owned by nobody else.
    let rules = unsafe { OwnedFd::from_raw_fd(raw) };
    for directory in READABLE {
        allow(&rules, Path::new(directory), READ_FILE | READ_DIR)?;
    }
    if let Some(own) = own {
        allow(&rules, own, REMOVE_FILE)?;
    }
    let rules = rules.as_raw_fd() as libc::c_ulong;
    landlock(libc::SYS_landlock_restrict_self, [rules, 0, 0, 0]).map(drop)
}

/// Allows this beneath a directory, if it is there.
fn allow(rules: &OwnedFd, directory: &Path, allowed: u64) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(parent) = rustix::fs::open(directory, flags, Mode::empty()) else { return Ok(()) };
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    let rule = std::ptr::from_ref(&rule) as libc::c_ulong;
    let rules = rules.as_raw_fd() as libc::c_ulong;
    landlock(libc::SYS_landlock_add_rule, [rules, RULE_PATH_BENEATH, rule, 0]).map(drop)
}

fn landlock(call: libc::c_long, arguments: [libc::c_ulong; 4]) -> io::Result<i32> {
    let [a, b, c, d] = arguments;
    // SAFETY: what is passed is numbers, descriptors, and addresses of structures that live across the call
    // and that the kernel only reads.
    let result = unsafe { libc::syscall(call, a, b, c, d) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// From here on numbers are those of x86-64's second, 32-bit interface.
const X32: u32 = 0x4000_0000;

/// System calls that a switch never makes and an intruder would want.
const DENIED: [libc::c_long; 30] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_swapon,
    libc::SYS_reboot,
];

/// Makes those system calls fail with EPERM.
pub fn give_up_system_calls() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let mut filter = program();
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives across the call.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A program of the kernel's packet filter over `struct seccomp_data`: number at 0, architecture at 4.
fn program() -> Vec<libc::sock_filter> {
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![
        step(load, 0, 0, 4),
        step(equal, 1, 0, ARCHITECTURE),
        step(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(load, 0, 0, 0),
        // Jumps count the steps left out: to the last one, past the other tests and the permission.
        step(at_least, DENIED.len() as u8 + 1, 0, X32),
    ];
    for (at, call) in DENIED.iter().enumerate() {
        let left = (DENIED.len() - at) as u8;
        program.push(step(equal, left, 0, *call as u32));
    }
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one does on a thread that ends with it.
    fn confined<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn programs_cannot_be_started_and_namespaces_not_made_any_more() {
        let (exec, unshare, socket) = confined(|| {
            give_up_system_calls().unwrap();
            let exec = std::process::Command::new("true").status();
            let unshare = crate::io::netns::NetNs::staging();
            (exec, unshare.is_err(), std::net::UdpSocket::bind("127.0.0.1:0").is_ok())
        });
        assert_eq!(exec.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(unshare && socket);
    }

    #[test]
    fn files_are_out_of_reach_but_for_what_a_switch_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        std::fs::write(&kept, "secret").unwrap();
        std::fs::write(&gone, "").unwrap();
        let confinement = confined(|| {
            give_up_files(Some(dir.path()))?;
            assert!(std::fs::read_to_string(&kept).is_err(), "a file elsewhere can be read");
            assert!(std::fs::write(&kept, "").is_err(), "a file elsewhere can be written");
            assert!(std::fs::read_to_string("/proc/self/status").is_ok());
            std::fs::remove_file(&gone)
        });
        match confinement {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => {
                other.unwrap();
                assert!(!gone.exists());
            }
        }
    }

    #[test]
    fn no_capability_is_left_that_is_not_needed() {
        let left = confined(|| {
            give_up_capabilities().unwrap();
            rustix::thread::capabilities(None).unwrap().permitted
        });
        assert!((CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW).contains(left));
    }
}
