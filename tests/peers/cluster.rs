//! Nodes of one cluster with a real etcd: members that are killed, forget and are cut off, certificates,
//! passwords, and nodes that come and go.
//!
//! Everything runs in user, network and process namespaces of its own: etcd's members on loopback addresses,
//! a daemon with directories of its own for each node. What a test starts ends with its namespaces.

use crate::world::run_in_namespaces;

/// No script takes so many seconds unless it hangs, even on a busy machine.
const TIMEOUT: &str = "120";

/// Functions of the scripts. `member N` starts member N of three, `alone` a cluster of one; `node NAME [LINES]`
/// starts a daemon whose `[cluster]` has these lines besides, `at NAME …` is `wharf` there.
const FUNCTIONS: &str = r#"
ip link set lo up
members=http://127.0.0.1:2379,http://127.0.0.2:2379,http://127.0.0.3:2379
etcd_at() {
  local n=$1 all=$2; shift 2
  etcd --name m$n --data-dir $DIR/m$n --initial-cluster "$all" --initial-cluster-state new \
    --listen-peer-urls http://127.0.0.$n:2380 --initial-advertise-peer-urls http://127.0.0.$n:2380 \
    --heartbeat-interval 50 --election-timeout 500 "$@" >>$DIR/m$n.log 2>&1 &
  pids[$n]=$!
}
plain() { echo --listen-client-urls http://127.0.0.$1:2379 --advertise-client-urls http://127.0.0.$1:2379; }
member() { etcd_at $1 m1=http://127.0.0.1:2380,m2=http://127.0.0.2:2380,m3=http://127.0.0.3:2380 $(plain $1); }
alone() { members=http://127.0.0.1:2379; etcd_at 1 m1=http://127.0.0.1:2380 $(plain 1); eventually healthy; }
ctl() { ETCDCTL_API=3 etcdctl --endpoints "$members" "$@"; }
healthy() { ctl endpoint health >/dev/null 2>&1; }
configure() {
  mkdir -p $DIR/$1
  local quoted=\"${members//,/\",\"}\"
  # All are on one host here, so each has a port of its own for its tunnels.
  printf 'default_uplink = "none"\n[cluster]\nendpoints = [%s]\nnode = "%s"\nnetwork = ["10.244.0.0/16", "fd10:244::/48"]\nport = %s\n%s\n' \
    "$quoted" "$1" $((5000 + $(printf %d "'$1"))) "${2:-}" >$DIR/$1/wharf.toml
}
start() { at $1 daemon --background --state-dir $DIR/$1/state --config $DIR/$1/wharf.toml; }
node() { configure "$@"; start $1 >/dev/null; }
at() { local name=$1; shift; $WHARF --runtime-dir $DIR/$name/run "$@"; }
pid() { at $1 status --json | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*'; }
nodes() { at $1 node ls --json | jq -r ".[] | select(.state == \"${2:-alive}\") | .name" | sort | paste -sd' '; }
knows() { [ "$(nodes $1)" = "$2" ]; }
says() { at $1 status | grep -q "$2"; }
subnet() { at $1 node inspect $1 | jq -r '.[0].subnets[0]'; }
eventually() { for _ in $(seq 300); do "$@" && return; sleep 0.05; done; echo "gave up: $*" >&2; tail -n 5 $DIR/*.log $DIR/*/run/daemon.log >&2; exit 1; }
"#;

/// Runs a script; what it printed.
fn run(script: &str) -> String {
    run_in_namespaces(&format!("{FUNCTIONS}\n{script}"), TIMEOUT)
}

#[test]
fn five_nodes_own_a_subnet_each_and_the_last_is_known_to_all_within_half_a_second() {
    let out = run(r#"
        ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.7/24 dev eth0; ip link set eth0 up; ip link set eth1 up
        alone
        for n in a b c d; do node $n; done
        for n in a b c d; do eventually knows $n "a b c d"; done
        node e
        for n in a b c d e; do eventually knows $n "a b c d e"; done
        began=$(at e status --json | jq .started_ms)
        for n in a b c d; do
          told=$(at $n events --json | jq 'select(.kind == "node-joined" and (.text | startswith("node e "))) | .time_ms')
          echo "$n after $((told - began)) ms" >&2
          [ $((told - began)) -lt 500 ] && echo "$n in time"
        done
        for n in a b c d e; do subnet $n; done | sort -u | wc -l
        routes() { [ "$(at $1 routes --json | jq '[.[] | select(.dst | startswith("10.244."))] | length')" = 5 ]; }
        for n in a b c d e; do eventually routes $n; done; echo "routes to all"
        at a node inspect a | jq -r '.[0].subnets | length'"#);
    assert_eq!(out, "a in time\nb in time\nc in time\nd in time\n5\nroutes to all\n2\n");
}

#[test]
fn a_member_of_three_may_be_killed_and_the_store_be_away_for_a_while() {
    let out = run(r#"
        not_away() { ! says a "store is away" && ! says b "store is away"; }
        for n in 1 2 3; do member $n; done; eventually healthy
        for n in a b; do node $n "liveness = 3"; done
        for n in a b; do eventually knows $n "a b"; done
        kill -9 ${pids[1]}; sleep 4; eventually not_away
        knows a "a b" && knows b "a b" && echo "one member is enough to lose"
        kill -9 ${pids[2]} ${pids[3]}; eventually says a "store is away"
        sleep 4; knows a "a b" && echo "what was known stays"
        at a network create mine --internal >/dev/null && echo "and the daemon serves"
        for n in 1 2 3; do member $n; done
        eventually not_away; sleep 4; knows a "a b" && knows b "a b" && echo "all are back""#);
    let all =
        "one member is enough to lose\nwhat was known stays\nand the daemon serves\nall are back\n";
    assert_eq!(out, all);
}

#[test]
fn what_happened_while_the_store_forgot_and_the_network_was_cut_is_known_afterwards() {
    let out = run(r#"
        alone
        for n in a b; do node $n; done
        for n in a b; do eventually knows $n "a b"; done
        ctl put /wharf/endpoints/b/old '{"name":"old","network":"cluster","addresses":["10.244.9.9"],"mac":"02:42:0a:f4:09:09"}' >/dev/null
        # All of what a says and hears is dropped, and nobody tells it: its sockets have a port of their own.
        cut=$(ss -tnpH dst 127.0.0.1:2379 | grep "pid=$(pid a)," | awk '{print $4}' | sed 's/.*://')
        nft add table ip t; nft 'add chain ip t o { type filter hook output priority 0; }'
        for port in $cut; do nft add rule ip t o tcp sport $port drop; nft add rule ip t o tcp dport $port drop; done
        node c; eventually knows b "a b c"
        for n in $(seq 20); do ctl put /other $n >/dev/null; done
        ctl compact $(ctl endpoint status --write-out=json | jq '.[0].Status.header.revision') >/dev/null
        eventually knows a "a b c" && echo "a knows c""#);
    assert_eq!(out, "a knows c\n");
}

#[test]
fn a_silent_node_keeps_its_subnet_until_it_is_removed_and_the_quarantine_is_over() {
    let out = run(r#"
        alone
        for n in a b; do node $n 'liveness = 3
quarantine = 3'; done
        for n in a b; do eventually knows $n "a b"; done
        was=$(subnet b)
        at a node rm b 2>&1 | head -1
        kill -9 $(pid b); eventually knows a a; nodes a silent
        [ "$(at a node inspect b | jq -r '.[0].subnets[0]')" = $was ] && echo "its subnet is its own"
        start b >/dev/null; eventually knows a "a b"; [ "$(subnet b)" = $was ] && echo "back with the same"
        kill -9 $(pid b); eventually knows a a
        at a node rm b | sed "s|$was|SUBNET|; s|, fd.* is| is|"
        node c "quarantine = 3
subnet = \"$was\""
        has() { [ "$(subnet c)" = "$was" ]; }; eventually has; echo "c has it after the quarantine"
        start b >/dev/null; eventually knows a "a b c"; [ "$(subnet b)" != $was ] && echo "b joined anew""#);
    let all = "wharf: the node `b` is in use by its own daemon: it is alive\nb\nits subnet is its own\n\
               back with the same\nb removed; SUBNET is given to nobody for 3s\n\
               c has it after the quarantine\nb joined anew\n";
    assert_eq!(out, all);
}

#[test]
fn the_store_wants_a_certificate_and_a_password() {
    let out = run(r#"
        cd $DIR; x() { openssl "$@" 2>/dev/null; }
        x req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2
        sign() {
          x req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj $3
          x x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $1.pem -days 2 -extfile <(echo "$2")
        }
        sign etcd "subjectAltName=IP:127.0.0.1,DNS:etcd.test" /CN=etcd
        sign node "extendedKeyUsage=clientAuth" /O=node; sign named "extendedKeyUsage=clientAuth" /CN=named
        members=https://127.0.0.1:2379
        etcd_at 1 m1=http://127.0.0.1:2380 --listen-client-urls $members --advertise-client-urls $members \
          --cert-file etcd.pem --key-file etcd.key --trusted-ca-file ca.pem --client-cert-auth
        ctl() { ETCDCTL_API=3 etcdctl --endpoints $members --cacert ca.pem --cert node.pem --key node.key "$@"; }
        eventually healthy
        ctl user add root:top >/dev/null; ctl user add wharf:secret >/dev/null; ctl role add wharf >/dev/null
        ctl role grant-permission wharf readwrite --prefix /w/ >/dev/null; ctl user grant-role wharf wharf >/dev/null
        ctl user grant-role root root >/dev/null; ctl auth enable >/dev/null
        echo secret >password; echo wrong >wrong
        keys="tls = { ca = \"$DIR/ca.pem\", cert = \"$DIR/node.pem\", key = \"$DIR/node.key\" }"
        user="prefix = \"/w\"
user = \"wharf\""
        node a "$keys
$user
password_file = \"$DIR/password\""; eventually knows a a && echo "a is in"
        node b "$keys
$user
password_file = \"$DIR/wrong\""; eventually says b "authentication failed, invalid user ID or password" && echo "b has a wrong password"
        node c "tls = { ca = \"$DIR/ca.pem\" }
$user
password_file = \"$DIR/password\""; eventually says c "BadCertificate" && echo "c has no certificate"
        node d "tls = { ca = \"$DIR/etcd.pem\", cert = \"$DIR/node.pem\", key = \"$DIR/node.key\" }
$user
password_file = \"$DIR/password\""; eventually says d "do not agree about TLS" && echo "d trusts somebody else"
        node e "tls = { ca = \"$DIR/ca.pem\", cert = \"$DIR/named.pem\", key = \"$DIR/named.key\" }
$user
password_file = \"$DIR/password\""; eventually says e "CommonName of client" && echo "e has a common name""#);
    assert_eq!(
        out,
        "a is in\nb has a wrong password\nc has no certificate\nd trusts somebody else\ne has a common name\n"
    );
}

#[test]
fn a_node_takes_a_lease_among_flannel_s_and_keeps_to_its_format() {
    let out = run(r#"
        alone; at=/coreos.com/network
        ip link add eth0 type veth peer name eth1; ip addr add 192.0.2.7/24 dev eth0; ip link set eth0 up; ip link set eth1 up
        ctl put $at/config '{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}' >/dev/null
        ctl put $at/subnets/10.42.5.0-24 '{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:00:00:00:01"}}' >/dev/null
        mkdir -p $DIR/a
        printf 'default_uplink = "none"\n[cluster]\nendpoints = ["%s"]\nlayout = "flannel"\nsubnet_env = "%s"\naddresses = ["192.0.2.7"]\n' $members $DIR/a/env/subnet.env >$DIR/a/wharf.toml
        start a >/dev/null; eventually knows a "192.0.2.7 192.0.2.9"
        mine=$(at a node inspect 192.0.2.7 | jq -r '.[0].subnets[0]'); key=$at/subnets/${mine/\//-}
        ctl get $key --print-value-only | jq -cS '{PublicIP, PublicIPv6, BackendType, VNI: .BackendData.VNI}'
        ctl get $key --write-out=json | jq '.kvs[0].lease > 0'
        [ "$(at a network inspect cluster | jq -r '.[0].subnets[0].subnet')" = $mine ] && echo "its network"
        grep -c . $DIR/a/env/subnet.env; grep -o "FLANNEL_SUBNET=10.42" $DIR/a/env/subnet.env
        was=$(ctl get $key --write-out=json | jq .kvs[0].create_revision); ctl del $key >/dev/null
        back() { [ "$(ctl get $key --write-out=json | jq .kvs[0].create_revision)" -gt $was ]; }; eventually back 2>/dev/null && echo "taken back""#);
    let all = "{\"BackendType\":\"vxlan\",\"PublicIP\":\"192.0.2.7\",\"PublicIPv6\":null,\"VNI\":1}\ntrue\n\
               its network\n4\nFLANNEL_SUBNET=10.42\ntaken back\n";
    assert_eq!(out, all);
}

/// Two nodes, each with such a `backend`, find each other in etcd, and a container of one the other's.
fn two_nodes(backend: &str) -> String {
    let script = r#"
        unshare --net sleep 100 & other=$!; sleep 0.3
        ip link add eth0 type veth peer name eth1; ip link set eth1 netns $other
        ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up
        inside() { nsenter --target $other --net "$@"; }
        inside ip link set lo up; inside ip addr add 192.0.2.2/24 dev eth1; inside ip link set eth1 up
        members=http://192.0.2.1:2379
        etcd_at 1 m1=http://127.0.0.1:2380 --listen-client-urls $members --advertise-client-urls $members; eventually healthy
        node a 'backend = "BACKEND"'; configure b 'backend = "BACKEND"'
        inside $WHARF --runtime-dir $DIR/b/run daemon --background --state-dir $DIR/b/state --config $DIR/b/wharf.toml >/dev/null
        for n in a b; do eventually knows $n "a b"; done
        at a run -q --detach --name one --network cluster -- sleep 60 >/dev/null
        inside $WHARF --runtime-dir $DIR/b/run run -q --detach --name two --network cluster -- sleep 60 >/dev/null
        both() { [ "$(at a ps --all-nodes --json | jq -r '.[] | "\(.node) \(.name)"' | sort | paste -sd, )" = "a one,b two" ]; }
        eventually both && echo "a knows both containers"
        for family in 0 1; do
          to=$(at a ps --all-nodes --json | jq -r ".[] | select(.name == \"two\") | .addresses[$family]")
          at a exec one -- ping -c 2 -W 2 $to | grep -o "2 received"
        done
        ctl get /wharf/alive/a --print-value-only | jq -r ".backend | .kind, (.key // \"\" | length)""#;
    run(&script.replace("BACKEND", backend))
}

#[test]
fn containers_of_two_nodes_reach_each_other_in_both_families() {
    let out = two_nodes("vxlan");
    assert_eq!(out, "a knows both containers\n2 received\n2 received\nvxlan\n0\n");
}

#[test]
fn nodes_that_encrypt_learn_each_other_s_keys_from_the_store() {
    let out = two_nodes("wireguard");
    assert_eq!(out, "a knows both containers\n2 received\n2 received\nwireguard\n44\n");
}
