//! What this kernel and this user can do, tried rather than guessed: for `wharf doctor` and for the
//! choices at start. Nothing is left behind: interfaces are made in a namespace of a forked process.
#![allow(unsafe_code, reason = "these socket options have no safe wrapper")]

use std::io;
use std::mem::size_of;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::features::{Feature, VARIABLE};
use super::netlink::Netlink;
use super::packet::PacketSocket;
use super::process::{
    Isolation, Network, has_capability, may_make_namespaces, run_isolated, try_user_namespace,
};
use super::sysctl;
use super::tap::Tap;

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (6, 1);
/// Open files for a thousand containers with a dozen sockets each.
const FILES_WANTED: u64 = 16_384;
/// Receive buffer with which a burst of super-frames is not lost.
const RMEM_WANTED: u64 = 4 * 1024 * 1024;

/// The answer to one question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// It could not be tried.
    Unknown,
}

/// One question, its answer, and what follows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was asked, in few words.
    pub name: String,
    /// The answer.
    pub answer: Answer,
    /// What was seen.
    pub found: String,
    /// What it means for the user, for this answer.
    pub meaning: String,
    /// What to do to change it; empty if there is nothing to do.
    pub advice: String,
}

/// What one question is about: its name, what follows from yes and from no, and what to do about no.
struct Question {
    name: &'static str,
    yes: &'static str,
    no: &'static str,
    advice: &'static str,
}

impl Question {
    fn answer(&self, answer: Answer, found: impl Into<String>) -> Finding {
        let (meaning, advice) = match answer {
            Answer::Yes => (self.yes, ""),
            Answer::No => (self.no, self.advice),
            Answer::Unknown => ("it could not be tried", self.advice),
        };
        Finding {
            name: self.name.to_owned(),
            answer,
            found: found.into(),
            meaning: meaning.to_owned(),
            advice: advice.to_owned(),
        }
    }

    /// The kernel's answer, unless the user has forced the feature off.
    fn about(&self, features: &[Feature], answer: impl FnOnce() -> Finding) -> Finding {
        let off: Vec<_> = features.iter().filter(|f| !f.is_allowed()).map(|f| f.name()).collect();
        if off.is_empty() {
            return answer();
        }
        let mut finding = self.answer(Answer::No, format!("forced off ({})", off.join(", ")));
        finding.advice = format!("take {} out of {VARIABLE}", off.join(" and "));
        finding
    }

    fn judge(&self, result: Result<String, String>) -> Finding {
        match result {
            Ok(found) => self.answer(Answer::Yes, found),
            Err(found) => self.answer(Answer::No, found),
        }
    }

    fn is(&self, yes: bool, found: impl Into<String>) -> Finding {
        self.answer(if yes { Answer::Yes } else { Answer::No }, found)
    }
}

/// All questions, in the order in which a person would ask them.
pub fn probe() -> Vec<Finding> {
    let mut findings = vec![kernel(), tun_device(), user_namespaces()];
    findings.extend(in_a_namespace());
    findings.extend(capabilities());
    findings.extend([ping(), peek_offset(), udp_trains(), open_files(), receive_buffer()]);
    findings
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let question = Question {
        name: "kernel",
        yes: "supported",
        no: "too old: parts may not work",
        advice: "Linux 6.1 or later is needed",
    };
    match parse_release(&release) {
        Some(version) => question.is(version >= OLDEST, format!("Linux {release}")),
        None => question.answer(Answer::Unknown, format!("Linux {release}")),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn tun_device() -> Finding {
    let question = Question {
        name: "/dev/net/tun",
        yes: "containers can get interfaces",
        no: "no container can be attached",
        advice: "`modprobe tun`; `chmod 0666 /dev/net/tun`; in a container `--device /dev/net/tun`",
    };
    let path = "/dev/net/tun";
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
    question.judge(opened.map(|_| "opens".to_owned()).map_err(|e| e.to_string()))
}

fn user_namespaces() -> Finding {
    let question = Question {
        name: "user namespaces",
        yes: "`wharf run` works without root",
        no: "only root can attach containers",
        advice: "`sysctl user.max_user_namespaces=15000`; Debian: `sysctl \
                 kernel.unprivileged_userns_clone=1`; Ubuntu: `sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0`",
    };
    let restricted =
        std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
            .is_ok_and(|text| text.trim() == "1");
    let note = if restricted { "; restricted by AppArmor for ordinary users" } else { "" };
    match try_user_namespace() {
        Ok(()) => question.answer(Answer::Yes, format!("allowed{note}")),
        Err(error) => question.answer(Answer::No, format!("{error}{note}")),
    }
}

/// What is tried inside: each answer, or why there is none.
#[derive(Serialize, Deserialize)]
struct Inside {
    tap: Result<String, String>,
    uso: Result<String, String>,
    packet: Result<String, String>,
}

fn in_a_namespace() -> [Finding; 3] {
    let tap = Question {
        name: "TAP with offload",
        yes: "super-frames pass whole",
        no: "no container can be attached",
        advice: "see /dev/net/tun and user namespaces above",
    };
    let uso = Question {
        name: "UDP super-frames on a TAP",
        yes: "bulk UDP and QUIC pass whole",
        no: "bulk UDP is slower",
        advice: "Linux 6.2 or later has it",
    };
    let packet = Question {
        name: "packet sockets with offload",
        yes: "the `packet` uplink takes super-frames",
        no: "there is no `packet` uplink",
        advice: "the kernel needs CONFIG_PACKET",
    };
    let isolation = Isolation { network: Network::New, die_with_parent: true, new_session: false };
    let inside =
        run_isolated(isolation, || serde_json::to_vec(&try_inside()).map_err(|e| e.to_string()))
            .map_err(|e| e.to_string())
            .and_then(|report| {
                serde_json::from_slice::<Inside>(&report).map_err(|e| e.to_string())
            });
    match inside {
        Ok(inside) => [
            tap.judge(inside.tap),
            uso.about(&[Feature::Uso], || uso.judge(inside.uso)),
            packet.judge(inside.packet),
        ],
        Err(why) => [&tap, &uso, &packet].map(|q| q.answer(Answer::Unknown, why.clone())),
    }
}

fn try_inside() -> Inside {
    let taps = match Tap::open("probe0", 1) {
        Ok(taps) => taps,
        Err(error) => {
            let why = || Err(error.to_string());
            return Inside { tap: why(), uso: why(), packet: why() };
        }
    };
    let uso = taps.iter().all(|tap| tap.offload().uso);
    let packet = || -> Result<String, String> {
        let mac = Netlink::open()
            .and_then(|mut netlink| netlink.link("probe0"))
            .map_err(|e| e.to_string())?
            .mac
            .unwrap_or_default();
        let socket = PacketSocket::open("probe0", mac).map_err(|e| e.to_string())?;
        Ok(format!("works, receive buffer {} KiB", socket.receive_bytes() / 1024))
    };
    Inside {
        tap: Ok("works".to_owned()),
        uso: if uso { Ok("works".to_owned()) } else { Err("refused".to_owned()) },
        packet: packet(),
    }
}

fn capabilities() -> [Finding; 3] {
    let root = may_make_namespaces();
    let admin = Question {
        name: "CAP_NET_ADMIN here",
        yes: "the host itself can be a port (`network create --host`)",
        no: "the host cannot be a port; containers are not concerned",
        advice: "run the daemon as root for that",
    };
    let raw = Question {
        name: "CAP_NET_RAW here",
        yes: "the `packet` uplink can use this machine's cards",
        no: "the `packet` uplink is not available",
        advice: "run the daemon as root, or `setcap cap_net_raw+ep` the program",
    };
    let bpf = Question {
        name: "CAP_BPF",
        yes: "the kernel can be used as an accelerator",
        no: "nothing is lost but speed",
        advice: "run the daemon as root for that",
    };
    let found = |has| match (has, root) {
        (true, _) => "in effect",
        (false, true) => "not in effect, though root",
        (false, false) => "not in effect",
    };
    [(admin, CapabilitySet::NET_ADMIN), (raw, CapabilitySet::NET_RAW), (bpf, CapabilitySet::BPF)]
        .map(|(question, capability)| {
            let has = has_capability(capability);
            question.is(has, found(has))
        })
}

fn ping() -> Finding {
    let allowed = Feature::PingSockets.is_allowed();
    let question = Question {
        name: "echo requests",
        yes: "containers can ping through the `sockets` uplink",
        no: "pings through the `sockets` uplink are answered with an error",
        advice: if allowed {
            "`sysctl net.ipv4.ping_group_range='0 2147483647'`"
        } else {
            "take ping-sockets out of WHARF_WITHOUT"
        },
    };
    let Ok(range) = sysctl::get(Path::new("ipv4/ping_group_range")) else {
        return question.answer(Answer::Unknown, "the parameter cannot be read");
    };
    let mut groups = vec![rustix::process::getegid().as_raw()];
    let others = rustix::process::getgroups().unwrap_or_default();
    groups.extend(others.iter().map(|gid| gid.as_raw()));
    let shown = range.replace('\t', " ");
    if allowed && groups.iter().any(|&gid| in_range(&range, gid)) {
        return question.answer(Answer::Yes, format!("ping sockets for groups {shown}"));
    }
    let raw = has_capability(CapabilitySet::NET_RAW);
    let found = if raw { "raw sockets (CAP_NET_RAW)" } else { "neither ping nor raw sockets" };
    let why = if allowed { format!("are for groups {shown}") } else { "are forced off".to_owned() };
    question.is(raw, format!("{found}; ping sockets {why}"))
}

fn in_range(range: &str, gid: u32) -> bool {
    let mut ends = range.split_whitespace().map(|end| end.parse::<u32>().ok());
    matches!((ends.next(), ends.next()), (Some(Some(low)), Some(Some(high))) if low <= gid && gid <= high)
}

fn peek_offset() -> Finding {
    let question = Question {
        name: "SO_PEEK_OFF on TCP",
        yes: "TCP through the `sockets` uplink needs no second copy",
        no: "TCP through the `sockets` uplink is somewhat slower",
        advice: "Linux 6.9 or later has it, for IPv6 6.12",
    };
    let works = |address: &str| -> io::Result<()> {
        let socket = TcpListener::bind((address, 0))?;
        set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0)
    };
    let (v4, v6) = (works("127.0.0.1"), works("::1"));
    let text = |result: &io::Result<()>| match result {
        Ok(()) => "works".to_owned(),
        Err(error) => error.to_string(),
    };
    let found = format!("IPv4: {}; IPv6: {}", text(&v4), text(&v6));
    question.about(&[Feature::PeekOffset], || question.is(v4.is_ok() && v6.is_ok(), found))
}

fn udp_trains() -> Finding {
    let question = Question {
        name: "UDP_SEGMENT and UDP_GRO",
        yes: "tunnels and bulk UDP send and receive trains of datagrams",
        no: "every datagram is a system call of its own",
        advice: "any kernel that is supported has it; a sandbox may forbid it",
    };
    let works = || -> io::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1_400)?;
        set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
    };
    question.about(&[Feature::UdpSegment, Feature::UdpGro], || {
        question.judge(works().map(|()| "work".to_owned()).map_err(|e| e.to_string()))
    })
}

fn open_files() -> Finding {
    let question = Question {
        name: "open files",
        yes: "enough for thousands of flows through sockets",
        no: "flows through the `sockets` uplink are few",
        advice: "raise the hard limit: LimitNOFILE= of the service, or /etc/security/limits.conf",
    };
    let hard = getrlimit(Resource::Nofile).maximum;
    let found = hard.map_or("no limit".to_owned(), |limit| format!("hard limit {limit}"));
    question.is(hard.is_none_or(|limit| limit >= FILES_WANTED), found)
}

fn receive_buffer() -> Finding {
    let question = Question {
        name: "net.core.rmem_max",
        yes: "bursts of super-frames fit",
        no: "an unprivileged `packet` uplink and tunnels may lose bursts",
        advice: "`sysctl net.core.rmem_max=4194304`",
    };
    // Only the first network namespace shows it.
    let text = sysctl::get(Path::new("core/rmem_max")).ok();
    let value: Option<u64> = text.and_then(|text| text.parse().ok());
    match value {
        Some(bytes) => question.is(bytes >= RMEM_WANTED, format!("{} KiB", bytes / 1024)),
        None => question.answer(Answer::Unknown, "the parameter cannot be read here"),
    }
}

fn set_int(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option takes one int, which lives across the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(parse_release("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(parse_release("6.1.0-21-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.15"), Some((5, 15)));
        assert_eq!(parse_release("weird"), None);
        assert!((6, 18) >= OLDEST && (5, 15) < OLDEST);
    }

    #[test]
    fn the_default_ping_range_holds_nobody() {
        assert!(!in_range("1\t0", 0) && !in_range("1\t0", 1));
        assert!(in_range("0 2147483647", 1000) && in_range("5 5", 5) && !in_range("5 5", 6));
        assert!(!in_range("rubbish", 0));
    }

    #[test]
    fn an_answer_of_no_always_says_what_to_do() {
        let before = Netlink::open().unwrap().links().unwrap().len();
        let findings = probe();
        assert!(findings.len() >= 10);
        for finding in &findings {
            assert!(!finding.found.is_empty() && !finding.meaning.is_empty(), "{finding:?}");
            assert_eq!(finding.answer == Answer::Yes, finding.advice.is_empty(), "{finding:?}");
        }
        let after = Netlink::open().unwrap().links().unwrap().len();
        assert_eq!(before, after, "something was left behind");
    }
}
