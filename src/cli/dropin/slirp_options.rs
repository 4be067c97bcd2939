//! `slirp4netns`' command line, as far as its callers use it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};

use super::getopt::{self, Operands, Opt, flag, value};
use crate::wire::mac::Mac;

/// The largest MTU that it takes.
const MTU_MAX: u16 = 65_521;
const CIDR: &str = "10.0.2.0/24";

/// IPv6's addresses, which cannot be chosen.
pub(super) const PREFIX_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64);
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(super) const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

/// What callers look for in the help is what they then pass: RootlessKit and Podman read it to find out
/// which options there are. So it names none that is refused.
pub(super) const HELP: &str = "\
Usage: slirp4netns [OPTION]... PID|PATH [TAPNAME]
User-mode networking for unprivileged network namespaces, served by Wharf.

-c, --configure          bring up the interface
-e, --exit-fd=FD         specify the FD for terminating slirp4netns
-r, --ready-fd=FD        specify the FD to write to when the network is configured
-m, --mtu=MTU            specify MTU (default=1500, max=65521)
-6, --enable-ipv6        enable IPv6
-a, --api-socket=PATH    specify API socket path
--cidr=CIDR              specify network address CIDR (default=10.0.2.0/24)
--disable-host-loopback  prohibit connecting to 127.0.0.1:* on the host namespace
--netns-type=TYPE        specify network namespace type ([path|pid], default=pid)
--userns-path=PATH       specify user namespace path
--enable-sandbox         give up the file system and all rights that are not needed
--enable-seccomp         give up the system calls that are not needed
--disable-dns            disable the name server
--macaddress=MAC         specify the MAC address of the TAP (only valid with -c)
--target-type=TYPE       specify the target type ([netns], default=netns)
-h, --help               show this help and exit
-v, --version            show version and exit
";

const KNOWN: &[Opt] = &[
    flag("configure", Some('c')),
    value("exit-fd", Some('e')),
    value("ready-fd", Some('r')),
    value("mtu", Some('m')),
    value("cidr", None),
    flag("disable-host-loopback", None),
    flag("no-host-loopback", None),
    value("netns-type", None),
    value("userns-path", None),
    value("api-socket", Some('a')),
    flag("enable-ipv6", Some('6')),
    flag("enable-sandbox", None),
    flag("create-sandbox", None),
    flag("enable-seccomp", None),
    flag("help", Some('h')),
    flag("version", Some('v')),
    value("outbound-addr", None),
    value("outbound-addr6", None),
    flag("disable-dns", None),
    value("macaddress", None),
    value("target-type", None),
];

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// To be told about the options.
    Help,
    /// To be told the version.
    Version,
    /// To serve a namespace.
    Serve(Box<Slirp>),
}

/// Which namespace is to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// That of a process.
    Pid(u32),
    /// That of a file.
    Path(PathBuf),
}

/// How a namespace is to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Slirp {
    pub(super) configure: bool,
    pub(super) exit_fd: Option<i32>,
    pub(super) ready_fd: Option<i32>,
    pub(super) mtu: u16,
    pub(super) cidr: Ipv4Net,
    pub(super) host_loopback: bool,
    pub(super) ipv6: bool,
    pub(super) dns: bool,
    pub(super) sandbox: bool,
    pub(super) seccomp: bool,
    pub(super) api_socket: Option<PathBuf>,
    pub(super) mac: Option<Mac>,
    pub(super) target: Target,
    pub(super) tap: String,
}

impl Slirp {
    /// The gateway: the second address of the network.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.nth(2)
    }

    /// The name server: the third.
    pub(super) fn name_server(&self) -> Ipv4Addr {
        self.nth(3)
    }

    /// The container: the hundredth.
    pub(super) fn guest(&self) -> Ipv4Addr {
        self.nth(100)
    }

    /// An address of the network by its number; the network has at least 128.
    pub(super) fn nth(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + number)
    }
}

/// Reads the command line, without the program's name.
pub(super) fn read(words: &[String]) -> Result<Asked, String> {
    let line = getopt::read(words, KNOWN, Operands::Anywhere)?;
    let has = |name: &str| line.options.iter().any(|(known, _)| *known == name);
    let last = |name: &str| line.options.iter().rev().find(|(known, _)| *known == name);
    let given = |name: &str| last(name).map(|(_, value)| value.as_str());
    if has("help") {
        return Ok(Asked::Help);
    }
    if has("version") {
        return Ok(Asked::Version);
    }
    refuse(&given)?;
    let configure = has("configure");
    let mac = given("macaddress");
    if mac.is_some() && !configure {
        let what = "--macaddr cannot be specified when --configure or -c is not specified";
        return Err(what.to_owned());
    }
    let (target, tap) = operands(&line.operands, given("netns-type").unwrap_or("pid"))?;
    let userns = given("userns-path").filter(|path| !std::path::Path::new(path).exists());
    if let Some(path) = userns {
        return Err(format!("userns path doesn't exist: {path}"));
    }
    Ok(Asked::Serve(Box::new(Slirp {
        configure,
        exit_fd: given("exit-fd").map(|text| descriptor(text, "exit-fd")).transpose()?,
        ready_fd: given("ready-fd").map(|text| descriptor(text, "ready-fd")).transpose()?,
        mtu: mtu(given("mtu").unwrap_or("1500"))?,
        cidr: cidr(given("cidr").unwrap_or(CIDR))?,
        host_loopback: !has("disable-host-loopback") && !has("no-host-loopback"),
        ipv6: has("enable-ipv6"),
        dns: !has("disable-dns"),
        sandbox: has("enable-sandbox") || has("create-sandbox"),
        seccomp: has("enable-seccomp"),
        api_socket: given("api-socket").map(PathBuf::from),
        mac: mac.map(|text| text.parse().map_err(|_| bad_mac(text))).transpose()?,
        target,
        tap,
    })))
}

/// What would silently be something else than what was asked for.
fn refuse<'a>(given: &impl Fn(&str) -> Option<&'a str>) -> Result<(), String> {
    match given("target-type") {
        None | Some("netns") => {}
        Some("bess") => {
            return Err(
                "--target-type=bess is not served by Wharf: it connects virtual machines of User \
                        Mode Linux, and Wharf containers; use slirp4netns itself for these"
                    .to_owned(),
            );
        }
        Some(_) => return Err("--target-type must be \"netns\"".to_owned()),
    }
    match given("outbound-addr").or(given("outbound-addr6")) {
        None => Ok(()),
        Some(_) => Err("--outbound-addr is not served by Wharf: connections leave by the address that \
                        the host's routes say; use a rule of the host's (`ip rule`) to choose another"
            .to_owned()),
    }
}

fn operands(words: &[String], kind: &str) -> Result<(Target, String), String> {
    let [target, tap, ..] = words else {
        return Err("a namespace and the name of an interface are needed".to_owned());
    };
    let target = match kind {
        "pid" => {
            let pid = target.parse().ok().filter(|pid| *pid > 0);
            Target::Pid(pid.ok_or("PID must be a positive integer")?)
        }
        "path" => Target::Path(target.into()),
        "tapfd" => {
            return Err(
                "--netns-type=tapfd is not served by Wharf: it needs a TAP with a virtio-net \
                        header, which it opens itself"
                    .to_owned(),
            );
        }
        _ => return Err("--netns-type must be \"path\" or \"pid\"".to_owned()),
    };
    Ok((target, tap.clone()))
}

fn descriptor(text: &str, option: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| format!("{option} must be a non-negative integer"))
}

fn mtu(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=MTU_MAX).contains(number));
    number.ok_or_else(|| "MTU must be a positive integer (< 65522)".to_owned())
}

fn cidr(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_| format!("invalid CIDR: {text}"))?;
    // Smaller ones have no hundredth address, which is the container's.
    if !(1..=25).contains(&net.prefix_len()) {
        return Err("prefix length needs to be 1-25".to_owned());
    }
    if net.addr() != net.network() {
        return Err("CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24"
            .to_owned());
    }
    Ok(net)
}

fn bad_mac(text: &str) -> String {
    format!(
        "\"{text}\" is an invalid MAC address: macaddress has to be a hex string, 6 bytes, each byte \
         separated by a ':'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Asked, String> {
        read(&line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    fn serve(line: &str) -> Slirp {
        match ask(line) {
            Ok(Asked::Serve(slirp)) => *slirp,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_rootlesskit_passes_is_understood() {
        let slirp = serve(
            "--mtu 65520 -r 3 --disable-host-loopback --cidr 10.0.2.0/24 --api-socket /run/api.sock \
             --enable-sandbox --enable-seccomp --enable-ipv6 4711 tap0",
        );
        assert_eq!((slirp.mtu, slirp.ready_fd, slirp.exit_fd), (65520, Some(3), None));
        assert!(!slirp.configure && !slirp.host_loopback && slirp.ipv6 && slirp.dns);
        assert!(slirp.sandbox && slirp.seccomp);
        assert_eq!(slirp.api_socket.as_deref(), Some("/run/api.sock".as_ref()));
        assert_eq!((slirp.target, slirp.tap.as_str()), (Target::Pid(4711), "tap0"));
        let detached = serve(
            "--mtu 65520 -r 3 --userns-path=/proc/self/ns/user --netns-type=path /proc/self/ns/net tap0",
        );
        assert_eq!(detached.target, Target::Path("/proc/self/ns/net".into()));
    }

    #[test]
    fn what_podman_passes_is_understood() {
        let slirp = serve(
            "--disable-host-loopback --mtu=65520 --enable-sandbox --enable-seccomp --enable-ipv6 \
             --cidr=10.9.0.0/16 -c -r 3 --netns-type=path /run/user/1000/netns/netns-1 tap0",
        );
        assert!(slirp.configure && slirp.ipv6 && slirp.host_loopback.eq(&false));
        assert_eq!(slirp.guest(), Ipv4Addr::new(10, 9, 0, 100));
        let with_exit = serve("--disable-host-loopback --mtu=65520 -c -e 3 -r 4 815 tap0");
        assert_eq!((with_exit.exit_fd, with_exit.ready_fd), (Some(3), Some(4)));
    }

    #[test]
    fn addresses_are_numbered_as_the_original_numbers_them() {
        let slirp = serve("-c 1 tap0");
        assert_eq!(slirp.gateway(), Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(slirp.name_server(), Ipv4Addr::new(10, 0, 2, 3));
        assert_eq!(slirp.guest(), Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!((slirp.mtu, slirp.host_loopback), (1500, true));
    }

    #[test]
    fn help_names_every_option_that_callers_look_for_and_none_that_is_refused() {
        for option in ["--netns-type", "--enable-ipv6", "--cidr", "--disable-host-loopback"] {
            assert!(HELP.contains(option), "{option}");
        }
        for option in ["--api-socket", "--enable-sandbox", "--enable-seccomp", "--mtu"] {
            assert!(HELP.contains(option), "{option}");
        }
        assert!(!HELP.contains("outbound") && !HELP.contains("bess"));
        for opt in KNOWN {
            let hidden = ["outbound-addr", "outbound-addr6", "no-host-loopback", "create-sandbox"];
            let shown = HELP.contains(&format!("--{}", opt.long));
            assert_eq!(shown, !hidden.contains(&opt.long), "{}", opt.long);
        }
        assert_eq!(ask("--help"), Ok(Asked::Help));
        assert_eq!(ask("-v"), Ok(Asked::Version));
    }

    #[test]
    fn what_is_refused_is_refused_in_words() {
        for (line, words) in [
            ("--target-type=bess /tmp/bess.sock", "not served by Wharf"),
            ("--target-type=vhost 1 tap0", "must be"),
            ("--outbound-addr=10.2.2.10 1 tap0", "`ip rule`"),
            ("--outbound-addr6=fe80::10 1 tap0", "`ip rule`"),
            ("--netns-type=tapfd 4", "are needed"),
            ("--netns-type=tapfd 4 tap0", "which it opens itself"),
            ("-m 65522 1 tap0", "MTU must be a positive integer (< 65522)"),
            ("-m 0 1 tap0", "MTU must be"),
            ("--cidr=10.0.2.0/26 1 tap0", "prefix length needs to be 1-25"),
            ("--cidr=10.0.2.100/24 1 tap0", "needs to be a network address"),
            ("--cidr=10.0.2.0 1 tap0", "invalid CIDR: 10.0.2.0"),
            ("-e x 1 tap0", "exit-fd must be a non-negative integer"),
            ("-r -1 1 tap0", "ready-fd must be a non-negative integer"),
            ("0 tap0", "PID must be a positive integer"),
            ("--macaddress=02:00:00:00:00:01 1 tap0", "--configure or -c is not specified"),
            ("-c --macaddress=02:00 1 tap0", "invalid MAC address"),
            ("--userns-path=/nonexistent 1 tap0", "userns path doesn't exist: /nonexistent"),
            ("1", "are needed"),
            ("--bogus 1 tap0", "unrecognized option '--bogus'"),
        ] {
            let error = ask(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
