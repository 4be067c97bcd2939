//! Scenarios of Docker's own tests of its bridge and its published ports, under their names: first as
//! Docker's kernel bridge answers them (20.10: IPv6 only by docker-proxy, and unfiltered), then Wharf.
//! `docs/engines.md` has the table.

use super::world::host;

/// A server published for TCP and UDP, and clients on its network and on another one.
const PUBLISHED: &str = r#"
start() { net blue; net red
  run $kind-web --network $kind-blue -p 8080:80 -p 8053:53/udp -- bash -c "$(server TCP:80 UDP:53)"
  run $kind-near --network $kind-blue -- sleep 1000; run $kind-far --network $kind-red -- sleep 1000
  eventually answers TCP4:127.0.0.1:8080; }
both() { echo "$1: ${2:-nothing} ${3:-nothing}"; }
# The first datagram to a new place may be lost.
first() { local said; for _ in 1 2 3 4; do said=$("$@") && [ -n "$said" ] && break; done; echo "$said"; }
remote_asks() { echo | remote socat -T1 - "$1"; }
of() { local gateway; gateway=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' $kind-blue)
  sed -u "s/^$gateway\$/gateway/; s/^fd00:[0-9]*::1\$/gateway/; s/^172[0-9.]*\$/itself/; s/^fd00:.*/itself/"; }
"#;

#[test]
fn access_published_port_from_host() {
    let out = host(&format!(
        r"{PUBLISHED}
        scenario() {{ start; for at in 4:127.0.0.1 4:192.0.2.7 6:[::1] 6:[2001:db8::7]; do
            both $at $(tells TCP$at:8080 | of) $(asks UDP$at:8053 | of); done; docker rm -f $kind-web >/dev/null; }}
        each scenario"
    ));
    // The kernel's NAT keeps the host's own address; the container could answer it, too.
    let bridge = "4:127.0.0.1: gateway gateway\n4:192.0.2.7: 192.0.2.7 192.0.2.7\n\
        6:[::1]: gateway gateway\n6:[2001:db8::7]: gateway gateway\n";
    let wharf = "4:127.0.0.1: gateway gateway\n4:192.0.2.7: gateway gateway\n\
        6:[::1]: gateway gateway\n6:[2001:db8::7]: gateway gateway\n";
    assert_eq!(out, format!("== bridge\n{bridge}== wharf\n{wharf}"));
}

#[test]
fn access_published_port_from_remote_host() {
    let out = host(&format!(
        r"{PUBLISHED}
        scenario() {{ start; for at in 4:192.0.2.7 6:[2001:db8::7]; do
            both $at $(first remote socat -T3 - TCP$at:8080 </dev/null | of) $(first remote_asks UDP$at:8053 | of)
            done; docker rm -f $kind-web >/dev/null; }}
        each scenario"
    ));
    let bridge = "4:192.0.2.7: 192.0.2.1 192.0.2.1\n6:[2001:db8::7]: gateway gateway\n";
    let wharf = "4:192.0.2.7: 192.0.2.1 192.0.2.1\n6:[2001:db8::7]: 2001:db8::1 2001:db8::1\n";
    assert_eq!(out, format!("== bridge\n{bridge}== wharf\n{wharf}"));
}

/// From the published container itself, from its network, from another network.
#[test]
fn port_mapped_hairpin_tcp_and_udp_and_access_from_another_network() {
    let out = host(&format!(
        r#"{PUBLISHED}
        scenario() {{ start; for who in web near far; do for at in 4:192.0.2.7 6:[2001:db8::7]; do
            tcp=$(inside $kind-$who socat -T3 - TCP$at:8080,connect-timeout=3 | of)
            udp=$(inside $kind-$who bash -c "echo | socat -T1 - UDP$at:8053" | of)
            echo "$who $at: $tcp ${{udp:-nothing}}"; done; done; docker rm -f $kind-web >/dev/null; }}
        each scenario"#
    ));
    let all = |who: &str, tcp: &str, udp: &str| {
        format!("{who} 4:192.0.2.7: {tcp} {udp}\n{who} 6:[2001:db8::7]: {tcp} {udp}\n")
    };
    // docker-proxy answers a container's datagram from another address than it was sent to.
    let bridge: String = ["web", "near", "far"].map(|who| all(who, "gateway", "nothing")).concat();
    // A container on another network is seen as itself.
    let wharf = [("web", "gateway"), ("near", "gateway"), ("far", "itself")];
    let wharf = wharf.map(|(who, seen)| all(who, seen, seen)).concat();
    assert_eq!(out, format!("== bridge\n{bridge}== wharf\n{wharf}"));
}

/// What containers are called, and whether one reaches another's port 80.
const REACH: &str = r#"
addr() { docker inspect -f "{{with index .NetworkSettings.Networks \"$kind-$2\"}}{{.$3}}{{end}}" $kind-$1; }
reach() { echo "$1 to $2: $(try $1 4:$(addr $2 $3 IPAddress)) $(try $1 6:[$(addr $2 $3 GlobalIPv6Address)])"; }
try() { yes_or_no inside $kind-$1 socat -u OPEN:/dev/null TCP$2:80,connect-timeout=2; }
serves() { eventually quietly docker exec $kind-$1 socat -u OPEN:/dev/null TCP:127.0.0.1:80; }
pair() { local name=$1; shift; net $name "$@"
  run $kind-$name-a --network $kind-$name -- bash -c "$(server TCP:80)"
  run $kind-$name-b --network $kind-$name -- sleep 1000; serves $name-a; }
"#;

#[test]
fn bridge_icc_and_bridge_inc() {
    let out = host(&format!(
        r"{REACH}
        scenario() {{ pair open; pair shut -o com.docker.network.bridge.enable_icc=false
            reach open-b open-a open; reach shut-b shut-a shut; reach shut-b open-a open; reach open-b shut-a shut; }}
        each scenario"
    ));
    let bridge = "open-b to open-a: yes yes\nshut-b to shut-a: no yes\n\
        shut-b to open-a: no yes\nopen-b to shut-a: no yes\n";
    let wharf = "open-b to open-a: yes yes\nshut-b to shut-a: no no\n\
        shut-b to open-a: no no\nopen-b to shut-a: no no\n";
    assert_eq!(out, format!("== bridge\n{bridge}== wharf\n{wharf}"));
}

#[test]
fn internal_network_connectivity() {
    let out = host(&format!(
        r#"{REACH}
        ping() {{ yes_or_no inside $kind-in-b ping -c1 -W1 $1; }}
        scenario() {{ pair in --internal; reach in-b in-a in
            echo "out: $(ping 192.0.2.1) $(ping 2001:db8::1), host: $(ping 192.0.2.7)"
            echo "interfaces: $(inside $kind-in-b ip -o link | wc -l)"; }}
        each scenario"#
    ));
    // Docker's bridge has the host on it, and 20.10 a default route to it.
    let bridge = "in-b to in-a: yes yes\nout: no no, host: yes\ninterfaces: 2\n";
    let wharf = "in-b to in-a: yes yes\nout: no no, host: no\ninterfaces: 2\n";
    assert_eq!(out, format!("== bridge\n{bridge}== wharf\n{wharf}"));
}

#[test]
fn gateway_selection_and_a_network_that_is_connected_and_disconnected_on_a_live_container() {
    let out = host(&format!(
        r#"{REACH}
        gateway() {{ docker network inspect -f '{{{{(index .IPAM.Config 0).Gateway}}}}' $kind-$1; }}
        state() {{ for name in one two; do
            inside $kind-web ip route show default | grep -qF "via $(gateway $name) " && echo -n "by $name, "; done
            echo "$(inside $kind-web ip -o -4 addr show scope global | wc -l) networks, $(yes_or_no eventually answers TCP4:192.0.2.7:8080)"; }}
        scenario() {{ net one; net two
            run $kind-web --network $kind-one -p 8080:80 -- bash -c "$(server TCP:80)"; state
            docker network connect $kind-two $kind-web; state
            docker network disconnect $kind-one $kind-web; state
            docker rm -f $kind-web >/dev/null; }}
        each scenario"#
    ));
    let wanted = "by one, 1 networks, yes\nby one, 2 networks, yes\nby two, 1 networks, yes\n";
    assert_eq!(out, format!("== bridge\n{wanted}== wharf\n{wanted}"));
}

/// Another container with the same address and a MAC of its own. Neither this Docker nor Wharf tells the
/// neighbours unasked; they find out by themselves when the old MAC answers no more.
#[test]
fn advertise_addresses() {
    let out = host(&format!(
        r#"{REACH}
        scenario() {{ count=$((count + 1)); net x --subnet 10.$((76 + count)).0.0/24; at=10.$((75 + count)).0.77
            run $kind-a --network $kind-x --ip $at --mac-address 02:00:00:00:00:aa -- sleep 1000
            run $kind-c --network $kind-x -- sleep 1000
            echo "first: $(yes_or_no inside $kind-c ping -c1 -W2 $at)"; docker rm -f $kind-a >/dev/null
            run $kind-b --network $kind-x --ip $at --mac-address 02:00:00:00:00:bb -- sleep 1000
            echo "second: $(yes_or_no eventually inside $kind-c ping -c1 -W1 $at)"; }}
        count=0; each scenario"#
    ));
    let wanted = "first: yes\nsecond: yes\n";
    assert_eq!(out, format!("== bridge\n{wanted}== wharf\n{wanted}"));
}
