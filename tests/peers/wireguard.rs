//! A node whose peer is the reference implementation in user space, wireguard-go, with `wg` of the same people.
//!
//! Everything runs in user, mount, network and process namespaces of its own, which end with the test: the
//! daemon in one, wireguard-go in another at the other end of a cable.

use crate::world::run_in_namespaces;

/// No script takes so many seconds unless it hangs, even on a busy machine.
const TIMEOUT: &str = "120";

/// Functions of the scripts: `wharf …` is ours, `there …` runs in the peer's namespace, `peer ADDRESS KEY` makes
/// the peer, which knows us by that key, and `node KEY [LINES]` starts the daemon, which knows it by that one.
const FUNCTIONS: &str = r#"
mount -t tmpfs run /run && mkdir -p /run/wireguard
ip link set lo up; ip netns add there
ip link add nic0 type veth peer name lan0 netns there
there() { ip netns exec there "$@"; }
ip addr add 192.0.2.2/24 dev nic0; ip addr add 2001:db8::2/64 dev nic0 nodad; ip link set nic0 up
there ip addr add 192.0.2.9/24 dev lan0; there ip addr add 2001:db8::9/64 dev lan0 nodad; there ip link set lan0 up
there ip link set lo up
wharf() { "$WHARF" --runtime-dir $DIR/run "$@"; }
eventually() { for _ in $(seq 300); do "$@" && return; sleep 0.1; done; echo "gave up: $*" >&2; tail -n 20 $DIR/*.log $DIR/run/daemon.log >&2; there wg >&2; wharf stats --json >&2; exit 1; }
wg genkey >$DIR/private; theirs=$(wg pubkey <$DIR/private); ours=$(wharf node key --state-dir $DIR/state)
peer() {
  LOG_LEVEL=error there wireguard-go -f wg0 >$DIR/wireguard-go.log 2>&1 &
  eventually there wg show wg0 >/dev/null 2>&1
  there wg set wg0 listen-port 51820 private-key $DIR/private peer $2 endpoint "$1" allowed-ips 10.244.2.0/24,fd24:2::/64
  there ip addr add 10.244.9.1/32 dev wg0; there ip addr add fd24:9::1/128 dev wg0 nodad
  there ip link set wg0 mtu 1420 up
  there ip route add 10.244.2.0/24 dev wg0; there ip route add fd24:2::/64 dev wg0
}
node() {
  cat >$DIR/wharf.toml <<END
default_uplink = "none"
[node]
subnets = ["10.244.2.0/24", "fd24:2::/64"]
backend = "wireguard"
${3:-}
[[peer]]
name = "go"
address = "$2"
key = "$1"
subnets = ["10.244.9.0/24", "fd24:9::/64"]
[[network]]
name = "pods"
subnets = ["10.244.2.0/24", "fd24:2::/64"]
END
  wharf daemon --background --state-dir $DIR/state --config $DIR/wharf.toml >/dev/null
  wharf run -q --detach --name c --network pods -- sleep 120 >/dev/null
  four=$(wharf inspect c | jq -r '.[0].addresses[0]' | sed 's,/.*,,'); six=$(wharf inspect c | jq -r '.[0].addresses[1]' | sed 's,/.*,,')
}
c() { wharf exec c -- "$@"; }
pings() { "$@" -c 1 -W 1 >/dev/null 2>&1; }
drops() { wharf stats --json | jq -r --arg p "$1" '[.[] | select(.name == $p) | .drops[] | .[0]] | sort | join(" ")'; }
dropped() { [[ " $(drops $1) " == *" $2 "* ]]; }
"#;

fn run(script: &str) -> String {
    run_in_namespaces(&format!("{FUNCTIONS}\n{script}"), TIMEOUT)
}

/// Ping and a megabyte of TCP, both ways and in both families.
const TRAFFIC: &str = r#"
head -c 8000000 /dev/urandom >$DIR/bytes; sum=$(md5sum <$DIR/bytes)
serve() { "$@" & }
carries() {
  local listen=$1 connect=$2 from=$3 to=$4; shift 4
  serve $from socat -u OPEN:$DIR/bytes $listen,reuseaddr
  for _ in $(seq 100); do $to socat -u $connect STDOUT >$DIR/got 2>/dev/null && break; sleep 0.1; done
  [ "$(md5sum <$DIR/got)" = "$sum" ] || { echo "what came is not what was sent" >&2; exit 1; }
}
all() {
  eventually pings c ping 10.244.9.1; eventually pings c ping fd24:9::1
  eventually pings there ping $four; eventually pings there ping $six
  carries TCP4-LISTEN:7000 TCP4:$four:7000 c there; carries TCP6-LISTEN:7000 TCP6:[$six]:7000 c there
  carries TCP4-LISTEN:7000 TCP4:10.244.9.1:7000 there c; carries TCP6-LISTEN:7000 TCP6:[fd24:9::1]:7000 there c
}
"#;

#[test]
fn wireguard_go_is_a_peer_in_both_directions_and_families() {
    for (here, there) in [("192.0.2.2", "192.0.2.9"), ("[2001:db8::2]", "2001:db8::9")] {
        let out = run(&format!(
            r#"{TRAFFIC}
            peer {here}:51820 $ours; node $theirs {there}; all
            [ -n "$(there wg show wg0 latest-handshakes | awk '$2 > 0')" ] && echo "shaken hands"
            echo "drops: $(drops go)$(drops tunnel)""#
        ));
        assert_eq!(out, "shaken hands\ndrops: \n", "{there}");
    }
}

#[test]
fn a_peer_that_moves_to_another_port_is_followed() {
    let out = run(r#"
        # The peer does not know where we are, and is behind a port that nobody was told.
        peer 192.0.2.2:51820 $ours; node $theirs 192.0.2.9
        eventually pings c ping 10.244.9.1; echo "reached"
        there wg set wg0 listen-port 40000
        eventually pings there ping $four; echo "it speaks from elsewhere"
        c ping -c 1 -W 5 fd24:9::1 | grep -o "1 received""#);
    assert_eq!(out, "reached\nit speaks from elsewhere\n1 received\n");
}

#[test]
fn a_node_that_keeps_itself_alive_is_reached_by_one_who_was_not_told_where_it_is() {
    let out = run(r#"
        peer 192.0.2.77:1 $ours; node $theirs 192.0.2.9 "keep_alive = 1"
        eventually pings there ping $four; echo "reached""#);
    assert_eq!(out, "reached\n");
}

#[test]
fn a_wrong_key_is_counted_and_lets_nothing_through() {
    let out = run(r#"
        # We know the peer by another key than it has: it is a stranger to us, and does not answer us.
        peer 192.0.2.2:51820 $ours; node $(wg genkey | wg pubkey) 192.0.2.9
        there ping -c 1 -W 1 $four >/dev/null; c ping -c 70 -i 0.01 -W 1 10.244.9.1 | grep -o "0 received"
        eventually dropped tunnel wireguard-key; echo "a stranger is counted"
        eventually dropped go wireguard-unanswered; echo "and what nobody answers""#);
    assert_eq!(out, "0 received\na stranger is counted\nand what nobody answers\n");
}
