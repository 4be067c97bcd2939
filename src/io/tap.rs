//! TAP devices with the virtio-net header: the ports of containers.
//!
//! A `Tap` is one queue of one device. It carries super-frames: `read` gives ten bytes of
//! [`crate::wire::vnet`] header and then the frame, up to 64 KiB of it, checksum unfinished when the
//! header says so; `write` takes the same. One system call moves one frame; there is no batching in
//! the kernel's interface.
//!
//! **Life of a device.** It is opened in an empty staging namespace and moved into the container's
//! (see [`super::netns`]): the descriptor pins the namespace it was *opened* in, so one opened inside
//! the container would keep the container's namespace alive for ever. All queues must be open before
//! the move: afterwards the same name silently makes a new device. The device lives as long as any
//! descriptor of it *and* its namespace live.
//!
//! **Death.** When the namespace goes, the device goes with it, and the descriptor says so at once:
//! `read` and `write` fail with EBADFD ([`Tap::is_dead_error`]), `poll` and epoll report an error
//! condition. It never comes back. `write` failing with EIO only means that somebody set the link
//! down ([`Tap::is_link_down_error`]); `write` never blocks, and `read` gives EAGAIN when empty.
//!
//! `TUNSETSNDBUF` is never called: the kernel's fast path for small frames needs the default.
#![allow(
    unsafe_code,
    reason = "TUN ioctls have no safe wrapper, and read/write stay bare for speed"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::features::Feature;
use crate::wire::vnet;

/// Queues one device can have in the kernel (`MAX_TAP_QUEUES`).
pub const QUEUES_MAX: usize = 256;

/// Interface names are fifteen bytes and a terminator.
const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// The header's length as the kernel takes it.
const HEADER_LEN: libc::c_int = 10;
const _: () = assert!(HEADER_LEN as usize == vnet::HEADER_LEN);

/// What every kernel since 2.6.27 can do; TSO without checksum offload is refused.
const OFFLOAD_BASE: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// Linux 6.2 and later; one of the two alone is refused.
const OFFLOAD_USO: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// `/dev/net/tun`'s number: a character device of the misc driver.
const TUN_DEVICE: (u32, u32) = (10, 200);

/// Which super-frames the device may be given and gives. TCP's are a matter of course.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapOffload {
    /// UDP super-frames (USO, Linux 6.2 and later).
    pub uso: bool,
}

/// One queue of a TAP device.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    offload: TapOffload,
}

/// Why a TAP could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The driver is missing.
    #[error(
        "there is no /dev/net/tun: load the driver (`modprobe tun`); in a container, pass the \
         device in (`--device /dev/net/tun`)"
    )]
    NoDriver,
    /// Something else lies there.
    #[error(
        "/dev/net/tun is not the TUN device: make it anew (`rm /dev/net/tun; mknod -m 0666 /dev/net/tun \
         c 10 200`); in a container, pass the device in (`--device /dev/net/tun`)"
    )]
    NotTheDriver,
    /// The device node is closed to this user.
    #[error(
        "may not open /dev/net/tun: {0}; its mode should be 0666, which is safe, as making an \
         interface takes a right of its own (`chmod 0666 /dev/net/tun`, or a udev rule)"
    )]
    DeviceClosed(#[source] io::Error),
    /// Making the interface was refused.
    #[error(
        "not allowed to make a TAP interface: {0}; that takes CAP_NET_ADMIN in the network namespace's \
         owner, which root has, or an ordinary user inside an own user namespace; Ubuntu forbids \
         the latter unless `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    )]
    NotPermitted(#[source] io::Error),
    /// The name is in use by a device that is not ours to join.
    #[error("the interface name `{0}` is taken: remove that interface or choose another name")]
    NameTaken(String),
    /// The name cannot be an interface's.
    #[error("`{0}` cannot be an interface name: 1 to 15 bytes, without `/`, `:` and blanks")]
    BadName(String),
    /// The number of queues cannot be had.
    #[error("a TAP has 1 to {QUEUES_MAX} queues, not {0}")]
    BadQueues(usize),
    /// A descriptor from outside is something else than what we asked for.
    #[error("the descriptor is not a TAP as it was asked for: {0}")]
    Unfit(String),
    /// The kernel refused one of the requests.
    #[error("the kernel refused {request} on a TAP: {source}")]
    Refused {
        /// Which one.
        request: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl Tap {
    /// Makes the interface `name`, link down, in the calling thread's network namespace, and opens
    /// so many queues of it.
    pub fn open(name: &str, queues: usize) -> Result<Vec<Self>, TapError> {
        if !is_interface_name(name) {
            return Err(TapError::BadName(name.to_owned()));
        }
        if !(1..=QUEUES_MAX).contains(&queues) {
            return Err(TapError::BadQueues(queues));
        }
        (0..queues).map(|_| Self::open_queue(name, queues > 1)).collect()
    }

    fn open_queue(name: &str, multi: bool) -> Result<Self, TapError> {
        let fd = open_driver()?;
        if !Self::is_tun_descriptor(&fd) {
            return Err(TapError::NotTheDriver);
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if multi {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut request = empty_request();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives across the call.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if done != 0 {
            return Err(refused_interface(name, io::Error::last_os_error()));
        }
        let mut tap = Self { fd, offload: TapOffload { uso: false } };
        tap.configure()?;
        Ok(tap)
    }

    /// Takes a descriptor that somebody else opened, after checking that it is what we would have
    /// opened ourselves: the frames on it could not be understood otherwise. Offload is device-wide
    /// and is set again here, so that it does not depend on who opened the device.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, TapError> {
        if !Self::is_tun_descriptor(&fd) {
            return Err(TapError::Unfit("it was not opened from /dev/net/tun".to_owned()));
        }
        let mut tap = Self { fd, offload: TapOffload { uso: false } };
        let flags = tap.interface()?.flags;
        for (flag, name) in [
            (libc::IFF_TAP, "IFF_TAP"),
            (libc::IFF_NO_PI, "IFF_NO_PI"),
            (libc::IFF_VNET_HDR, "IFF_VNET_HDR"),
        ] {
            if flags & flag == 0 {
                return Err(TapError::Unfit(format!("it lacks the flag {name}")));
            }
        }
        let header = tap.get_int("TUNGETVNETHDRSZ", libc::TUNGETVNETHDRSZ)?;
        if header != HEADER_LEN {
            return Err(TapError::Unfit(format!(
                "its virtio-net header has {header} bytes instead of {HEADER_LEN}"
            )));
        }
        rustix::fs::fcntl_setfl(&tap.fd, rustix::fs::OFlags::NONBLOCK)
            .map_err(|e| refused("O_NONBLOCK", e.into()))?;
        tap.configure()?;
        Ok(tap)
    }

    /// Whether a descriptor comes from `/dev/net/tun`: the requests below mean other things on other
    /// devices.
    pub fn is_tun_descriptor(fd: impl AsFd) -> bool {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            kind == rustix::fs::FileType::CharacterDevice && device == TUN_DEVICE
        })
    }

    /// Header size and offloads. The mask of offloads outlives descriptors on a persistent device.
    fn configure(&mut self) -> Result<(), TapError> {
        let size = HEADER_LEN;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives across the call.
        let done =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) };
        if done != 0 {
            return Err(refused("TUNSETVNETHDRSZ", io::Error::last_os_error()));
        }
        if Feature::Uso.is_allowed() && self.set_offload(OFFLOAD_BASE | OFFLOAD_USO).is_ok() {
            self.offload = TapOffload { uso: true };
            return Ok(());
        }
        self.set_offload(OFFLOAD_BASE).map_err(|e| refused("TUNSETOFFLOAD", e))
    }

    fn set_offload(&self, mask: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its mask by value and touches no memory of ours.
        let done = unsafe {
            libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(mask))
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn get_int(&self, request: &'static str, number: libc::Ioctl) -> Result<i32, TapError> {
        let mut value: libc::c_int = 0;
        // SAFETY: the TUNGET… requests passed here write one int, which lives across the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), number, &raw mut value) };
        if done == 0 { Ok(value) } else { Err(refused(request, io::Error::last_os_error())) }
    }

    /// The name the interface has now, wherever it is, and whether it has several queues.
    pub fn interface(&self) -> Result<TapInterface, TapError> {
        let mut request = empty_request();
        // SAFETY: TUNGETIFF writes one `ifreq`, which lives across the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        if done != 0 {
            let error = io::Error::last_os_error();
            if Self::is_dead_error(&error) {
                return Err(TapError::Unfit("its interface is gone".to_owned()));
            }
            return Err(refused("TUNGETIFF", error));
        }
        let name: Vec<u8> = request
            .ifr_name
            .iter()
            .map(|&c| c.cast_unsigned())
            .take_while(|&byte| byte != 0)
            .collect();
        // SAFETY: the kernel filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let flags = libc::c_int::from(flags.cast_unsigned());
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(TapInterface { name, flags })
    }

    /// Reads one frame with its header. EAGAIN: none is there.
    #[inline]
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is ours for the call, and the kernel writes at most its length.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Writes one frame with its header. The kernel runs the receiver's stack before this returns.
    #[inline]
    pub fn write(&self, buf: &[u8]) -> io::Result<usize> {
        // SAFETY: the kernel reads at most the buffer's length.
        let n = unsafe { libc::write(self.fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Which super-frames the device takes.
    pub fn offload(&self) -> TapOffload {
        self.offload
    }

    /// Another descriptor of the same queue, for the holder.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whether an error of `read` or `write` means that the interface is gone for ever.
    #[inline]
    pub fn is_dead_error(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EBADFD)
    }

    /// Whether an error of `write` means that the link is set down; it may come up again.
    #[inline]
    pub fn is_link_down_error(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EIO)
    }
}

/// What a TAP descriptor says about its interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapInterface {
    /// Its present name, in whatever namespace it is.
    pub name: String,
    flags: libc::c_int,
}

impl TapInterface {
    /// Whether several queues may be open.
    pub fn is_multi_queue(&self) -> bool {
        self.flags & libc::IFF_MULTI_QUEUE != 0
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.fd
    }
}

/// Whether the kernel takes this as an interface's name (`dev_valid_name`).
pub fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != "."
        && name != ".."
        && !name.contains('%')
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

fn open_driver() -> Result<OwnedFd, TapError> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: the path is a terminated string.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
    if fd >= 0 {
        // SAFETY: the descriptor was just opened and is owned by nobody else.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
        Some(libc::EACCES | libc::EPERM) => TapError::DeviceClosed(error),
        _ => refused("opening /dev/net/tun", error),
    })
}

fn empty_request() -> libc::ifreq {
    // SAFETY: all zeros is a valid `ifreq`: plain integers and a union of them.
    unsafe { std::mem::zeroed() }
}

fn refused(request: &'static str, source: io::Error) -> TapError {
    TapError::Refused { request, source }
}

fn refused_interface(name: &str, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EPERM) => TapError::NotPermitted(error),
        // EINVAL: a device of that name exists and is no TAP with these flags.
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => TapError::NameTaken(name.to_owned()),
        _ => refused("TUNSETIFF", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused_before() {
        for good in ["eth0", "wharf-0", "a", "fifteen-bytes-x"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xy", "tap%d", "äth0"] {
            assert!(matches!(Tap::open(bad, 1), Err(TapError::BadName(_))), "{bad}");
        }
    }

    #[test]
    fn a_number_of_queues_out_of_bounds_is_refused() {
        for queues in [0, QUEUES_MAX + 1] {
            assert!(matches!(Tap::open("t0", queues), Err(TapError::BadQueues(_))));
        }
    }

    #[test]
    fn a_descriptor_of_something_else_is_no_tap() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Tap::from_fd(null.into()), Err(TapError::Unfit(_))));
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(matches!(Tap::from_fd(pipe), Err(TapError::Unfit(_))));
        if let Ok(unbound) = open_driver() {
            assert!(matches!(Tap::from_fd(unbound), Err(TapError::Unfit(_))));
        }
    }
}
