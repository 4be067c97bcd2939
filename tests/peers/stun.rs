//! What programs that look at translation from behind it say: `turnutils_natdiscovery` (RFC 5780) and the
//! older `stun` (RFC 3489), behind a `packet` uplink and behind the kernel's masquerade on the same LAN.
//!
//! A STUN server with two addresses plays the internet. Before anybody looks, another inside host has sent
//! from the same port to one of the server's sockets: without that company a symmetric translation keeps the
//! port and looks better than it is. Everything runs in namespaces of its own.

use crate::world::run_in_namespaces;

/// The script takes half a minute, most of it the programs' waiting for what does not come.
const TIMEOUT: &str = "300";

/// `look PORT COMMAND…` runs both programs by way of `COMMAND… bash -c …` as an inside host and prints what they
/// say: mapping and filtering in either family after RFC 5780, then `stun`'s sentence, which knows IPv4 only.
/// `company PORT COMMAND…` is the other inside host.
const FUNCTIONS: &str = r#"
mount -t tmpfs none /run && mkdir -p /run/netns && export WHARF_RUNTIME_DIR=$DIR/run
ip link set lo up
for name in net a b; do ip netns add $name; ip -n $name link set lo up; done
quiet() { ip netns exec $1 sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; }
for name in net a b; do quiet $name; done
ip link add out0 type veth peer name lan0 netns net
ip addr add 192.0.2.1/24 dev out0; ip addr add 2001:db8:1::1/64 dev out0 nodad
for n in 9 10; do ip -n net addr add 192.0.2.$n/24 dev lan0; ip -n net addr add 2001:db8:1::$n/64 dev lan0; done
ip link set out0 up; ip -n net link set lan0 up
eventually() { for _ in $(seq 300); do "$@" && return; sleep 0.1; done; echo "gave up: $*" >&2; cat $DIR/*.log >&2; exit 1; }

server() { ip netns exec net turnserver -n --stun-only -L $1 -L $2 --no-cli --no-tls --no-dtls --userdb $DIR/$3.db \
  --log-file stdout --pidfile $DIR/$3.pid >$DIR/$3.log 2>&1 & }
server 192.0.2.9 192.0.2.10 v4; server 2001:db8:1::9 2001:db8:1::10 v6
answer() { for to in 192.0.2.9 192.0.2.10 2001:db8:1::9 2001:db8:1::10; do
  timeout 1 turnutils_stunclient -p 3478 $to 2>/dev/null | grep -q 'reflexive addr' || return; done; }
eventually answer

in_its_place() { case $1 in 4) ip -4 -br addr show eth0 ;; *) ip -6 -br addr show eth0 scope global ;; esac | tr -s ' ' | cut -d' ' -f3 | cut -d/ -f1; }
discover() { turnutils_natdiscovery -m -f -L $(in_its_place $1) -l $2 -p 3478 $3 | sed -n "s/^NAT with \(.*\)!.*/v$1: \1/p"; }
look() {
  local port=$1; shift
  "$@" bash -c "$(declare -f in_its_place discover)
    discover 4 $port 192.0.2.9 >$DIR/v4 & discover 6 $port 2001:db8:1::9 >$DIR/v6 &
    stun 192.0.2.9 -p $((port + 2)) 2>&1 | sed -n 's/^Primary: //p' >$DIR/stun & wait"
  cat $DIR/v4 $DIR/v6 $DIR/stun
}
company() {
  local port=$1; shift
  "$@" bash -c "for to in UDP4:192.0.2.10:3478,sourceport=$port UDP6:[2001:db8:1::10]:3478,sourceport=$port \
    UDP4:192.0.2.10:3478,sourceport=$((port + 2)); do echo company | socat -u - \$to; done"
}
"#;

fn run(script: &str) -> String {
    run_in_namespaces(&format!("{FUNCTIONS}\n{script}"), TIMEOUT)
}

/// What was said under a heading.
fn said<'a>(out: &'a str, heading: &str) -> &'a str {
    let (_, rest) = out.split_once(&format!("== {heading}\n")).expect("the heading");
    rest.split("== ").next().unwrap_or_default()
}

/// Prints each kind of filtering as a heading and what is said behind an uplink that has it. A datagram that a
/// busy machine loses makes filtering look closer than it is, so that is looked at again, from ports that have
/// met nobody.
const BEHIND_WHARF: &str = r#"
$WHARF daemon --background --state-dir $DIR/state >/dev/null || exit
behind() { # behind NAME FILTERING…: what RFC 5780's program shall call it follows
  $WHARF uplink create -q lan --packet out0 --address 192.0.2.20/24 --address 2001:db8:1::20/64 $2 >/dev/null &&
    $WHARF network create -q blue --subnet 10.20.0.0/24 --subnet fd20::/64 --uplink lan >/dev/null || exit
  for port in 5000 5010 5020; do
    company $port $WHARF run -q --network blue --
    look $port $WHARF run -q --network blue -- >$DIR/said
    [ $(grep -c ": $3 Filtering" $DIR/said) = 2 ] && grep -q ", $4 Filter," $DIR/said && break
  done
  echo "== $1"; cat $DIR/said
  $WHARF network rm blue >/dev/null; $WHARF uplink rm lan >/dev/null
}
behind default "" "Address Dependent" "Address Dependent"
behind endpoint "--filtering endpoint-independent" "Endpoint Independent" "Independent"
behind address "--filtering address-dependent" "Address Dependent" "Address Dependent"
behind port "--filtering address-and-port-dependent" "Address and Port Dependent" "Port Dependent"
"#;

/// The same two hosts behind nftables.
const BEHIND_THE_KERNEL: &str = r#"
n=0
for name in a b; do
  n=$((n + 1))
  ip link add to-$name type veth peer name eth0 netns $name
  ip addr add 10.9.$n.1/24 dev to-$name; ip addr add fd09:$n::1/64 dev to-$name nodad; ip link set to-$name up
  ip -n $name addr add 10.9.$n.2/24 dev eth0; ip -n $name addr add fd09:$n::2/64 dev eth0; ip -n $name link set eth0 up
  ip -n $name route add default via 10.9.$n.1; ip -n $name -6 route add default via fd09:$n::1
done
echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
nft -f - <<RULES
table inet nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "out0" masquerade
  }
}
RULES
company 5000 ip netns exec b
echo "== masquerade"; look 5000 ip netns exec a
"#;

#[test]
fn stun_reports_what_an_uplink_is_configured_to_and_behind_the_kernel_s_masquerade_it_does_not() {
    let out = run(&format!("{BEHIND_WHARF}\n{BEHIND_THE_KERNEL}"));
    for (heading, filtering, old) in [
        ("default", "Address Dependent", "Address Dependent"),
        ("endpoint", "Endpoint Independent", "Independent"),
        ("address", "Address Dependent", "Address Dependent"),
        ("port", "Address and Port Dependent", "Port Dependent"),
    ] {
        let said = said(&out, heading);
        for family in ["v4", "v6"] {
            for words in [
                format!("{family}: Endpoint Independent Mapping\n"),
                format!("{family}: {filtering} Filtering\n"),
            ] {
                assert!(said.contains(&words), "{heading}: {words}\n{out}");
            }
        }
        let words = format!("Independent Mapping, {old} Filter, ");
        assert!(said.lines().any(|line| line.starts_with(&words)), "{heading}: {words}\n{out}");
        assert!(said.contains("will hairpin"), "{heading}\n{out}");
    }
    let masquerade = said(&out, "masquerade");
    for family in ["v4", "v6"] {
        let mapping = format!("{family}: Endpoint Independent Mapping");
        assert!(!masquerade.contains(&mapping), "{out}");
        let mapping = masquerade
            .lines()
            .find(|line| line.starts_with(family) && line.ends_with("Dependent Mapping"));
        assert!(mapping.is_some(), "it was looked at\n{out}");
        let filtering = format!("{family}: Address and Port Dependent Filtering\n");
        assert!(masquerade.contains(&filtering), "{out}");
    }
    assert!(masquerade.contains("\nDependent Mapping"), "{out}");
    assert!(!masquerade.contains("will hairpin"), "{out}");
}
