//! A small world around the real `wharf`: a daemon with directories of its own, containers, a LAN.
//! Everything in it lives in the namespaces of its test and ends with them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::{Process, prepare_network};
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, configure};

/// Both families, since everything holds for both.
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The two subnets of [`World::network`]'s first network.
pub(crate) const BLUE: &str = "--subnet 10.20.0.0/24 --subnet fd20::/64";
/// Those of a second one.
pub(crate) const RED: &str = "--subnet 10.30.0.0/24 --subnet fd30::/64";

/// Where a daemon's things are and how commands find it.
pub(crate) struct World {
    dir: PathBuf,
    /// Commands that `wharf` is started by, such as `setpriv` with its options.
    starter: Vec<String>,
}

/// How a command ended that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its exit code.
    pub(crate) code: i32,
    /// All of standard error.
    pub(crate) text: String,
}

impl Refused {
    /// Fails unless the message has all of these words, is one line and, it may be, a hint, and the
    /// exit code is this one.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.text.contains(word), "`{word}` is missing: {self:?}");
        }
        let lines: Vec<&str> = self.text.lines().collect();
        assert!(lines[0].starts_with("wharf: "), "{self:?}");
        let hint_only = lines[1..].iter().all(|line| line.starts_with("hint: "));
        assert!(lines.len() <= 2 && hint_only, "more than a line and a hint: {self:?}");
    }
}

/// The real program, as cargo has built it for this test.
pub(crate) fn wharf_binary() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_wharf").map_or_else(
        || {
            // Started without cargo: target/debug/deps/e2e-… stands beside target/debug/wharf.
            let exe = std::env::current_exe().unwrap();
            exe.parent().and_then(Path::parent).unwrap().join("wharf")
        },
        PathBuf::from,
    )
}

impl World {
    /// Directories without a daemon.
    pub(crate) fn without_daemon(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), starter: Vec::new() }
    }

    /// A daemon with an empty store and no uplink.
    pub(crate) fn new(dir: &Path) -> Self {
        let world = Self::without_daemon(dir);
        world.start("");
        world
    }

    /// What takes every privilege away. The one exception: the test's only user is number 0, which the
    /// kernel refuses to map into a further user namespace without it. An ordinary user maps another
    /// number.
    pub(crate) const UNPRIVILEGED: [&str; 3] =
        ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+setfcap"];

    /// Directories without a daemon, and what starts `wharf`.
    pub(crate) fn started_by(dir: &Path, starter: &[&str]) -> Self {
        let starter = starter.iter().map(|word| (*word).to_owned()).collect();
        Self { dir: dir.to_owned(), starter }
    }

    /// The same as a user without any privilege sees it, whoever runs the test.
    pub(crate) fn unprivileged(dir: &Path) -> Self {
        let world = Self::started_by(dir, &Self::UNPRIVILEGED);
        world.start("");
        world
    }

    /// Starts the daemon, a fresh one without an uplink if none is named; returns when it answers.
    #[track_caller]
    pub(crate) fn start(&self, options: &str) {
        let settled = options.contains("--uplink") || self.state_dir().exists();
        let uplink = if settled { "" } else { "--uplink none" };
        self.ok(&format!("daemon --background {uplink} {options}"));
    }

    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A file beside the daemon's directories.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `wharf` with these arguments, not yet started.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = match self.starter.split_first() {
            Some((starter, options)) => {
                let mut command = Command::new(starter);
                command.args(options).arg(wharf_binary());
                command
            }
            None => Command::new(wharf_binary()),
        };
        command.args(args).stdin(Stdio::null());
        command.env("WHARF_RUNTIME_DIR", self.runtime_dir());
        // A daemon that `wharf run` starts by itself has its state here, too.
        command.env("WHARF_STATE_DIR", self.state_dir());
        // The user's own configuration is none of the tests' business.
        command.env("XDG_CONFIG_HOME", self.dir.join("config"));
        command
    }

    /// Runs `wharf`; what came of it.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("wharf can be run")
    }

    /// Runs `wharf` with words; its standard output without the last line's end.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.output(&line.split_whitespace().collect::<Vec<_>>());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "wharf {line}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs `wharf`, which must refuse.
    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> Refused {
        let output = self.output(&line.split_whitespace().collect::<Vec<_>>());
        let code = output.status.code().expect("no signal ended it");
        assert_ne!(code, 0, "wharf {line} was not refused");
        Refused { code, text: String::from_utf8(output.stderr).unwrap() }
    }

    /// What `wharf` prints as JSON.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).expect("JSON")
    }

    /// A running container that does nothing: `options` go to `wharf run`.
    #[track_caller]
    pub(crate) fn container(&self, name: &str, options: &str) -> Container {
        let ran = self.ok(&format!("run --detach --name {name} {options} -- sleep infinity"));
        assert_eq!(ran, name);
        self.running(name)
    }

    /// A container that is there, by its first endpoint.
    #[track_caller]
    pub(crate) fn running(&self, name: &str) -> Container {
        let found = &self.json(&format!("inspect {name}"))[0];
        let addrs = found["addresses"].as_array().unwrap().iter().map(|net| {
            let (addr, _) = net.as_str().unwrap().split_once('/').unwrap();
            addr.parse::<IpAddr>().unwrap()
        });
        let addrs: Vec<IpAddr> = addrs.collect();
        Container {
            name: name.to_owned(),
            pid: found["pid"].as_u64().unwrap().try_into().unwrap(),
            mac: found["mac"].as_str().unwrap().to_owned(),
            addrs,
        }
    }

    /// The names in `wharf ps`.
    pub(crate) fn names(&self) -> Vec<String> {
        let endpoints = self.json("ps --json");
        let names = endpoints.as_array().unwrap().iter();
        names.map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How often frames of a port were dropped for a reason.
    pub(crate) fn drops(&self, port: &str, reason: &str) -> u64 {
        let ports = self.json("stats --json");
        let port = ports.as_array().unwrap().iter().find(|p| p["name"] == port);
        let drops = port.expect("the port is listed")["drops"].as_array().unwrap();
        drops.iter().find(|d| d[0] == reason).map_or(0, |d| d[1].as_u64().unwrap())
    }

    /// The daemon's process.
    pub(crate) fn daemon(&self) -> Process {
        let pid = self.json("status --json")["pid"].as_u64().unwrap();
        Process::open(pid.try_into().unwrap()).unwrap()
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill_daemon(&self) {
        let daemon = self.daemon();
        daemon.signal(Signal::KILL).unwrap();
        assert!(daemon.ended_within(PATIENCE).unwrap());
    }
}

/// A container: the process it was started with, and its first endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) mac: String,
    pub(crate) addrs: Vec<IpAddr>,
}

impl Container {
    /// Its namespace, held open, and so alive, as long as the caller keeps it.
    pub(crate) fn ns(&self) -> NetNs {
        NetNs::of_pid(self.pid).unwrap()
    }

    pub(crate) fn addr(&self, family: Family) -> IpAddr {
        *self.addrs.iter().find(|a| a.is_ipv4() == (family == Family::V4)).unwrap()
    }

    /// Ends its process at once.
    pub(crate) fn kill(&self) {
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}

/// A cable from the test's own namespace, where the daemon's `packet` uplink plugs in as `nic0`, to a
/// host of its own.
pub(crate) struct Lan {
    /// The namespace of the remote host, whose interface is `lan0`.
    pub(crate) remote: NetNs,
}

impl Lan {
    /// What `uplink create` needs to plug in with [`Lan::ours`].
    pub(crate) const UPLINK: &str = "--packet nic0 --address 192.0.2.2/24 --address 2001:db8::2/64";

    /// The cable and a remote host with the addresses of [`Lan::host`].
    pub(crate) fn new() -> Self {
        Self::with_remote(&["192.0.2.9/24", "2001:db8::9/64"])
    }

    pub(crate) fn with_remote(addresses: &[&str]) -> Self {
        let remote = NetNs::staging().unwrap();
        Netlink::open().unwrap().create_veth("nic0", "lan0", Some(&remote)).unwrap();
        configure("nic0", &[]);
        in_namespace(&remote, || {
            configure("lan0", addresses);
            prepare_network().unwrap();
        })
        .unwrap();
        Self { remote }
    }

    /// The remote host's address.
    pub(crate) fn host(family: Family) -> IpAddr {
        match family {
            Family::V4 => [192, 0, 2, 9].into(),
            Family::V6 => "2001:db8::9".parse().unwrap(),
        }
    }

    /// The switch's own address on the LAN.
    pub(crate) fn ours(family: Family) -> IpAddr {
        match family {
            Family::V4 => [192, 0, 2, 2].into(),
            Family::V6 => "2001:db8::2".parse().unwrap(),
        }
    }
}

/// Asks again until it is so; fails after `patience`, saying what was waited for.
#[track_caller]
pub(crate) fn eventually(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Names of the links in the calling thread's namespace.
pub(crate) fn links() -> Vec<String> {
    Netlink::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect()
}

/// How many network namespaces the processes of this world are in.
pub(crate) fn namespaces() -> usize {
    let mut found = std::collections::BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            found.extend(fs::read_link(entry.path().join("ns/net")).ok());
        }
    }
    found.len()
}

/// The one process of this world that was started as `wharf WORD`.
#[track_caller]
pub(crate) fn process_named(word: &str) -> Process {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        if program.ends_with(b"wharf") && words.next() == Some(word.as_bytes()) {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 1, "processes of `wharf {word}`: {found:?}");
    Process::open(found[0]).unwrap()
}
