//! `pasta`'s command line.

use std::net::IpAddr;
use std::path::PathBuf;

use super::getopt::{self, Line, Operands, Opt, flag, value};
use super::port_spec::Forward;
use crate::wire::mac::Mac;

/// The largest packet that an Ethernet frame of 64 KiB carries, in whole words.
const MTU: u16 = 65_520;

pub(super) const HELP: &str = "\
Usage: pasta [OPTION]... [COMMAND] [ARGS]...
       pasta [OPTION]... PID
       pasta [OPTION]... --netns [PATH|NAME]

Connects a network namespace by way of the host's sockets, served by Wharf. Without PID or --netns, runs
the command, or a shell, in a new network namespace.

      --config-net           configure the namespace's interface
  -I, --ns-ifname NAME       its name; default: that of the host's interface
  -a, --address ADDR[/LEN]   its address, once for each family; default: the host's
  -n, --netmask MASK         its IPv4 netmask
  -g, --gateway ADDR         its router, once for each family; default: the host's
  -m, --mtu MTU              default: 65520
  -i, --interface NAME       interface of the host to take these from
      --ns-mac-addr MAC      its MAC address
  -4, --ipv4-only            -6, --ipv6-only
  -t, --tcp-ports SPEC       -u, --udp-ports SPEC
                             ports of the host that lead to the namespace: none, auto (default), all, or
                             a list such as 22,8080:80,127.0.0.1/5000-5010,~5005
  -T, --tcp-ns SPEC          -U, --udp-ns SPEC
                             ports of the namespace that lead to the host: none
  -D, --dns ADDR|none        resolver to ask instead of the host's
      --dns-forward ADDR     address at which names are answered
      --no-map-gw            the gateway's address is not the host's loopback
      --map-host-loopback ADDR|none
                             address that stands for the host's loopback
      --map-guest-addr ADDR|none
                             address that stands for the host
      --no-tcp, --no-udp, --no-icmp
                             nothing of this leaves
      --userns PATH, --netns PATH|NAME, --netns-only, --no-netns-quit
  -f, --foreground           stay in the foreground
  -P, --pid FILE             write the process's number here
  -l, --log-file FILE        log here
  -q, --quiet                -d, --debug
      --runas UID[:GID]      as root: become this user; default: nobody
  -h, --help                 --version
";

const KNOWN: &[Opt] = &[
    flag("debug", Some('d')),
    flag("trace", None),
    flag("quiet", Some('q')),
    flag("foreground", Some('f')),
    flag("stderr", Some('e')),
    value("log-file", Some('l')),
    value("log-size", None),
    value("runas", None),
    flag("help", Some('h')),
    flag("version", None),
    value("pcap", Some('p')),
    value("pid", Some('P')),
    value("mtu", Some('m')),
    value("address", Some('a')),
    value("netmask", Some('n')),
    value("mac-addr", Some('M')),
    value("gateway", Some('g')),
    value("interface", Some('i')),
    value("outbound", Some('o')),
    value("outbound-if4", None),
    value("outbound-if6", None),
    value("dns", Some('D')),
    value("dns-forward", None),
    value("dns-host", None),
    value("search", Some('S')),
    flag("dhcp-dns", None),
    flag("dhcp-search", None),
    flag("no-dhcp-dns", None),
    flag("no-dhcp-search", None),
    flag("no-tcp", None),
    flag("no-udp", None),
    flag("no-icmp", None),
    flag("no-dhcp", None),
    flag("no-ndp", None),
    flag("no-dhcpv6", None),
    flag("no-ra", None),
    flag("no-splice", None),
    flag("freebind", None),
    flag("no-map-gw", None),
    flag("map-gw", None),
    value("map-host-loopback", None),
    value("map-guest-addr", None),
    flag("ipv4-only", Some('4')),
    flag("ipv6-only", Some('6')),
    value("hostname", Some('H')),
    value("fqdn", None),
    value("tcp-ports", Some('t')),
    value("udp-ports", Some('u')),
    value("tcp-ns", Some('T')),
    value("udp-ns", Some('U')),
    value("ns-ifname", Some('I')),
    value("ns-mac-addr", None),
    value("userns", None),
    value("netns", None),
    flag("netns-only", None),
    flag("no-netns-quit", None),
    flag("config-net", None),
    flag("no-copy-routes", None),
    flag("no-copy-addrs", None),
    flag("host-lo-to-ns-lo", None),
    value("fd", Some('F')),
    value("socket", Some('s')),
    flag("one-off", Some('1')),
];

/// Options without which the network is what it would be with them, as far as Wharf makes one.
const WITHOUT_EFFECT: &[&str] = &[
    "mac-addr",
    "dns-host",
    "dhcp-dns",
    "dhcp-search",
    "no-dhcp",
    "no-ndp",
    "no-dhcpv6",
    "no-ra",
    "no-splice",
    "freebind",
    "hostname",
    "fqdn",
    "host-lo-to-ns-lo",
    "log-size",
    "trace",
];

/// Options that promise something which Wharf would not keep.
const REFUSED: &[(&str, &str)] = &[
    ("pcap", "`tcpdump` in the namespace sees the same packets"),
    ("outbound", "use a rule of the host's (`ip rule`) to choose a source address"),
    ("outbound-if4", "use a rule of the host's (`ip rule`) to choose an interface"),
    ("outbound-if6", "use a rule of the host's (`ip rule`) to choose an interface"),
    ("fd", "it is passt's, for virtual machines"),
    ("socket", "it is passt's, for virtual machines"),
    ("one-off", "it is passt's, for virtual machines"),
];

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// To be told about the options.
    Help,
    /// To be told the version.
    Version,
    /// To serve a namespace.
    Serve(Box<Pasta>),
}

/// Which namespace is to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// That of a process.
    Pid(u32),
    /// That of a file.
    Path(PathBuf),
    /// A new one, for a command; a shell if none is given.
    Command(Vec<String>),
}

/// An address that is given, left to be chosen, or not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mapped {
    /// As the original chooses it.
    Default,
    /// None.
    Nothing,
    /// These, one of each family at most.
    At([Option<IpAddr>; 2]),
}

/// How a namespace is to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Pasta {
    pub(super) configure: bool,
    pub(super) ifname: Option<String>,
    /// By family, IPv4 first; with the length of the prefix, if one is given.
    pub(super) address: [Option<(IpAddr, Option<u8>)>; 2],
    pub(super) gateway: [Option<IpAddr>; 2],
    pub(super) families: [bool; 2],
    pub(super) mtu: u16,
    pub(super) interface: Option<String>,
    pub(super) mac: Option<Mac>,
    pub(super) tcp: Forward,
    pub(super) udp: Forward,
    /// Whether ports of the host's loopback were asked for inside, which are not served.
    pub(super) inward: bool,
    pub(super) dns: Vec<IpAddr>,
    pub(super) dns_forward: Vec<IpAddr>,
    pub(super) host_loopback: Mapped,
    pub(super) host_address: Mapped,
    pub(super) no_tcp: bool,
    pub(super) no_udp: bool,
    pub(super) no_icmp: bool,
    pub(super) target: Target,
    pub(super) stay: bool,
    pub(super) foreground: bool,
    pub(super) quiet: bool,
    pub(super) debug: bool,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) log_file: Option<PathBuf>,
    pub(super) runas: Option<String>,
    /// What is accepted and has no effect: sentences.
    pub(super) warnings: Vec<String>,
}

/// Options as they were given.
struct Given<'a>(&'a Line);

impl<'a> Given<'a> {
    fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    fn last(&self, name: &'a str) -> Option<&'a str> {
        self.all(name).last()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let options = self.0.options.iter();
        options.filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn addresses(&self, name: &'a str) -> Result<Vec<IpAddr>, String> {
        self.all(name).filter(|text| *text != "none" && !text.is_empty()).map(address).collect()
    }

    fn mapped(&self, name: &'a str) -> Result<Mapped, String> {
        if !self.has(name) {
            return Ok(Mapped::Default);
        }
        let addrs = self.addresses(name)?;
        if addrs.is_empty() {
            return Ok(Mapped::Nothing);
        }
        Ok(Mapped::At(by_family(addrs, IpAddr::is_ipv6)))
    }
}

/// Reads the command line, without the program's name.
pub(super) fn read(words: &[String]) -> Result<Asked, String> {
    let line = getopt::read(words, KNOWN, Operands::Last)?;
    let given = Given(&line);
    if given.has("help") {
        return Ok(Asked::Help);
    }
    if given.has("version") {
        return Ok(Asked::Version);
    }
    if let Some((name, why)) = REFUSED.iter().find(|(name, _)| given.has(name)) {
        return Err(format!("--{name} is not served by Wharf: {why}"));
    }
    let number = |name| given.last(name).map(mtu).transpose();
    let netmask = given.last("netmask").map(netmask).transpose()?;
    let addresses =
        given.all("address").map(address_with_len).collect::<Result<Vec<_>, String>>()?;
    let mut address = by_family(addresses, |(addr, _)| addr.is_ipv6());
    if let Some((_, len)) = &mut address[0] {
        *len = netmask.or(*len);
    }
    let host_loopback = match given.mapped("map-host-loopback")? {
        Mapped::Default if given.has("no-map-gw") && !given.has("map-gw") => Mapped::Nothing,
        other => other,
    };
    let inward = |name| -> Result<bool, String> {
        match Forward::read(given.all(name), Forward::Auto)? {
            Forward::None => Ok(false),
            Forward::Auto => Ok(true),
            Forward::All { .. } | Forward::Ports(_) => Err(format!(
                "--{name} is not served by Wharf: the host's loopback is reached at the gateway's address \
                 or at the one of --map-host-loopback"
            )),
        }
    };
    let mut pasta = Pasta {
        configure: given.has("config-net"),
        ifname: given.last("ns-ifname").map(ToOwned::to_owned),
        address,
        gateway: by_family(given.addresses("gateway")?, IpAddr::is_ipv6),
        families: [!given.has("ipv6-only"), !given.has("ipv4-only")],
        mtu: number("mtu")?.filter(|mtu| *mtu != 0).unwrap_or(MTU),
        interface: given.last("interface").map(ToOwned::to_owned),
        mac: given.last("ns-mac-addr").map(mac).transpose()?,
        tcp: Forward::read(given.all("tcp-ports"), Forward::Auto)?,
        udp: Forward::read(given.all("udp-ports"), Forward::Auto)?,
        inward: inward("tcp-ns")? | inward("udp-ns")?,
        dns: given.addresses("dns")?,
        dns_forward: given.addresses("dns-forward")?,
        host_loopback,
        host_address: given.mapped("map-guest-addr")?,
        no_tcp: given.has("no-tcp"),
        no_udp: given.has("no-udp"),
        no_icmp: given.has("no-icmp"),
        target: target(&given)?,
        stay: given.has("no-netns-quit"),
        foreground: given.has("foreground"),
        quiet: given.has("quiet"),
        debug: given.has("debug") || given.has("trace"),
        pid_file: given.last("pid").map(PathBuf::from),
        log_file: given.last("log-file").map(PathBuf::from),
        runas: given.last("runas").map(ToOwned::to_owned),
        warnings: Vec::new(),
    };
    if pasta.families == [false, false] {
        return Err("--ipv4-only and --ipv6-only contradict each other".to_owned());
    }
    pasta.warnings = warnings(&given, &pasta);
    Ok(Asked::Serve(Box::new(pasta)))
}

fn warnings(given: &Given<'_>, pasta: &Pasta) -> Vec<String> {
    let without = WITHOUT_EFFECT.iter().filter(|name| given.has(name));
    let mut warnings: Vec<String> =
        without.map(|name| format!("--{name} has no effect with Wharf")).collect();
    if pasta.inward {
        warnings.push(
            "ports of the host's loopback do not appear on the namespace's (-T none, -U none)"
                .to_owned(),
        );
    }
    warnings
}

/// A process is a word of digits alone; anything else is a command.
fn target(given: &Given<'_>) -> Result<Target, String> {
    let operands = &given.0.operands;
    if let Some(netns) = given.last("netns") {
        if !operands.is_empty() {
            return Err("--netns and a PID or a command contradict each other".to_owned());
        }
        let named = !netns.contains('/');
        let path = if named { format!("/run/netns/{netns}") } else { netns.to_owned() };
        return Ok(Target::Path(path.into()));
    }
    match operands.as_slice() {
        [one] if one.bytes().all(|byte| byte.is_ascii_digit()) => {
            one.parse().map(Target::Pid).map_err(|_| format!("Invalid PID: {one}"))
        }
        command => Ok(Target::Command(command.to_vec())),
    }
}

/// The last of each family.
fn by_family<T>(all: Vec<T>, is_v6: impl Fn(&T) -> bool) -> [Option<T>; 2] {
    let mut pair = [None, None];
    for one in all {
        let at = usize::from(is_v6(&one));
        pair[at] = Some(one);
    }
    pair
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("Invalid address: {text}"))
}

fn address_with_len(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let Some((addr, len)) = text.split_once('/') else { return Ok((address(text)?, None)) };
    let addr = address(addr)?;
    let most = if addr.is_ipv6() { 128 } else { 32 };
    let len = len.parse().ok().filter(|len| (1..=most).contains(len));
    Ok((addr, Some(len.ok_or_else(|| format!("Invalid address: {text}"))?)))
}

/// `24` or `255.255.255.0`.
fn netmask(text: &str) -> Result<u8, String> {
    let wrong = || format!("Invalid netmask: {text}");
    if let Ok(len) = text.parse::<u8>() {
        return if (1..=32).contains(&len) { Ok(len) } else { Err(wrong()) };
    }
    let mask: std::net::Ipv4Addr = text.parse().map_err(|_| wrong())?;
    ipnet::ipv4_mask_to_prefix(mask).ok().filter(|len| *len > 0).ok_or_else(wrong)
}

fn mtu(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|mtu| *mtu == 0 || (68..=65_521).contains(mtu));
    number.ok_or_else(|| format!("Invalid MTU: {text}"))
}

fn mac(text: &str) -> Result<Mac, String> {
    text.parse().map_err(|_| format!("Invalid MAC address: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Asked, String> {
        read(&line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    fn serve(line: &str) -> Pasta {
        match ask(line) {
            Ok(Asked::Serve(pasta)) => *pasta,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_rootlesskit_passes_is_understood() {
        let pasta = serve(
            "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 \
             --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=none \
             --udp-ports=none --host-lo-to-ns-lo 4711",
        );
        assert_eq!(pasta.address, [Some((ip("10.0.2.100"), Some(24))), None]);
        assert_eq!(pasta.gateway, [Some(ip("10.0.2.2")), None]);
        assert_eq!(pasta.dns_forward, [ip("10.0.2.3")]);
        assert_eq!((pasta.tcp, pasta.udp), (Forward::None, Forward::None));
        assert_eq!((pasta.target, pasta.families), (Target::Pid(4711), [true, false]));
        assert_eq!(pasta.host_loopback, Mapped::Nothing);
        assert!(pasta.configure && !pasta.foreground);
        let implicit = serve("--config-net --tcp-ports=auto --udp-ports=auto 4711");
        assert_eq!((implicit.tcp, implicit.host_loopback), (Forward::Auto, Mapped::Default));
        // It asks whether there is the option by giving it.
        assert_eq!(ask("--host-lo-to-ns-lo --version"), Ok(Asked::Version));
    }

    #[test]
    fn what_podman_passes_is_understood() {
        let pasta = serve(
            "--config-net --pid /run/p -t 127.0.0.1/8080-8080:80-80 -u none -T none -U none --no-map-gw \
             --dns-forward 169.254.1.1 --map-guest-addr 169.254.1.2 --quiet --netns /run/netns/x",
        );
        let Forward::Ports(ports) = &pasta.tcp else { panic!("{:?}", pasta.tcp) };
        assert_eq!((ports[0].addr, ports[0].from, ports[0].to), (Some(ip("127.0.0.1")), 8080, 80));
        assert_eq!(pasta.host_address, Mapped::At([Some(ip("169.254.1.2")), None]));
        assert_eq!(pasta.target, Target::Path("/run/netns/x".into()));
        assert!(pasta.quiet && pasta.warnings.is_empty() && !pasta.inward);
        assert_eq!(serve("--dns none --netns x").target, Target::Path("/run/netns/x".into()));
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let pasta = serve("--config-net -q -- sh -c true");
        let words = ["sh", "-c", "true"].map(ToOwned::to_owned).to_vec();
        assert_eq!(pasta.target, Target::Command(words.clone()));
        assert_eq!(serve("-q sh -c true").target, Target::Command(words));
        assert_eq!(serve("").target, Target::Command(Vec::new()));
    }

    #[test]
    fn what_has_no_effect_is_told_and_what_would_not_be_kept_is_refused() {
        let pasta = serve("--no-dhcp --hostname x -T none -U none 7");
        assert_eq!(
            pasta.warnings,
            ["--no-dhcp has no effect with Wharf", "--hostname has no effect with Wharf"]
        );
        for (line, words) in [
            ("--outbound 192.0.2.1 7", "`ip rule`"),
            ("--outbound-if4 eth0 7", "`ip rule`"),
            ("--pcap /tmp/x 7", "tcpdump"),
            ("-s /tmp/x", "passt's"),
            ("-T 5432 7", "--map-host-loopback"),
            ("-4 -6 7", "contradict"),
            ("--netns x 7", "contradict"),
            ("-n 33 7", "Invalid netmask"),
            ("-n 255.0.255.0 7", "Invalid netmask"),
            ("-a x 7", "Invalid address"),
            ("-a 10.0.0.1/33 7", "Invalid address"),
            ("-m 65522 7", "Invalid MTU"),
            ("-t 80-70 7", "no specification of ports"),
            ("--bogus 7", "unrecognized option '--bogus'"),
            ("99999999999", "Invalid PID"),
        ] {
            let error = ask(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn masks_and_lengths_are_read_in_all_their_forms() {
        for line in ["-a 10.1.2.3 -n 20 7", "-a 10.1.2.3 -n 255.255.240.0 7", "-a 10.1.2.3/20 7"] {
            assert_eq!(serve(line).address[0], Some((ip("10.1.2.3"), Some(20))), "{line}");
        }
        let both = serve("-a 10.1.2.3 -a fd00::3/64 -g fe80::1 -m 0 7");
        assert_eq!(both.address[1], Some((ip("fd00::3"), Some(64))));
        assert_eq!((both.gateway[1], both.mtu), (Some(ip("fe80::1")), 65_520));
    }
}
