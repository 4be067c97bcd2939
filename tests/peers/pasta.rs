//! `pasta` with the argument lists of its callers, against the original.

use crate::world::{BOTH, EVENTUALLY, Whose, World};

/// Serves a namespace with these options, asks a few things of it, and lets the namespace go.
fn run(options: &str, asked: &str) -> String {
    format!(
        r#"{EVENTUALLY}
        serve TCP4-LISTEN:28082,bind=127.0.0.1 host-v4
        namespace
        "$PROGRAM" --pid $DIR/pid {options} $pid >$DIR/log 2>&1 || {{ cat $DIR/log >&2; exit 1; }}
        pasta=$(cat $DIR/pid)
        nsenter --target $pid --user --preserve-credentials --net socat TCP-LISTEN:8080,reuseaddr,fork 'SYSTEM:echo inside' & server=$!
        {asked}
        kill $server $pid; wait $pid $server
        gone() {{ ! grep -qs '^State:.[RSD]' /proc/$pasta/status; }}
        # The original of Debian 12 stays where it was given a process.
        case $PROGRAM in /usr/bin/*) ;; *) eventually gone && echo "gone with the namespace" ;; esac
        kill $(jobs -p) $pasta 2>/dev/null; true"#
    )
}

/// RootlessKit's list since version 2, but for an option that the original of Debian 12 does not know, and
/// without ports of the host inside, which Wharf does not serve.
const ROOTLESSKIT: &str = "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
    --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --ipv4-only --udp-ports=none --tcp-ns=none --udp-ns=none";

const ASKED: &str = r#"
    in_namespace ip -4 -brief addr show tap0 | tr -s ' '
    in_namespace ip -4 route show default | cut -d' ' -f1-5
    in_namespace ip link show tap0 | grep -o 'mtu [0-9]*'
    eventually says TCP:127.0.0.1:28080 inside && echo published
    answer=$(in_namespace socat -T3 - TCP:10.0.2.2:28082 </dev/null 2>/dev/null | head -n 1)
    echo "${answer:-no loopback}"
"#;

#[test]
fn rootlesskit_s_arguments_give_the_network_that_the_original_gives() {
    let world = World::new();
    let script = run(&format!("{ROOTLESSKIT} --tcp-ports=28080:8080"), ASKED);
    let [original, ours] = BOTH.map(|whose| world.ok(whose, "pasta", &script));
    for words in ["10.0.2.100/24", "via 10.0.2.2", "mtu 65520", "published", "host-v4"] {
        assert!(original.contains(words), "{words}:\n{original}");
    }
    assert_eq!(ours, original + "gone with the namespace\n");
    let script = run(&format!("{ROOTLESSKIT} --tcp-ports=28080:8080 --no-map-gw"), ASKED);
    let kept = world.ok(Whose::Ours, "pasta", &script);
    assert!(kept.contains("no loopback") && !kept.contains("host-v4"), "{kept}");
}

#[test]
fn implicit_ports_follow_what_is_listened_for() {
    let world = World::new();
    let asked = "eventually says TCP:127.0.0.1:8080 inside && echo published";
    let script = run(&format!("{ROOTLESSKIT} --tcp-ports=auto --host-lo-to-ns-lo"), asked);
    let out = world.ok(Whose::Ours, "pasta", &script);
    assert_eq!(out, "published\ngone with the namespace\n");
}

#[test]
fn the_host_s_own_address_is_copied_in_both_families() {
    let world = World::new();
    let asked = r"
        own() { ip -brief $1 addr show $(ip $1 route show default | grep -o 'dev [^ ]*' | cut -d' ' -f2) |
            grep -o '[^ ]*/[0-9]*' | grep -v fe80; }
        inner() { in_namespace ip -brief $1 addr show scope global | grep -o '[^ ]*/[0-9]*' | head -1; }
        [ $(own -4 | head -1) = $(inner -4) ] && echo v4
        [ $(own -6 | head -1) = $(inner -6) ] && echo v6
        in_namespace ip -4 route show default | grep -o 'via [^ ]*' >$DIR/in
        ip -4 route show default | grep -o 'via [^ ]*' | cmp - $DIR/in && echo router
        eventually says TCP:127.0.0.1:28080 inside && echo published";
    let script = run("--config-net -q -t 127.0.0.1/28080:8080 -u none -T none -U none", asked);
    let ours = world.ok(Whose::Ours, "pasta", &script);
    let expected = "v4\nv6\nrouter\npublished\ngone with the namespace\n";
    assert_eq!(ours, expected);
}

#[test]
fn podman_s_arguments_for_a_file_and_a_command_of_its_own_work() {
    let world = World::new();
    let script = format!(
        r#"{EVENTUALLY}
        serve TCP4-LISTEN:28082,bind=127.0.0.1 host-v4
        namespace
        exec 9</proc/$pid/ns/net
        "$PROGRAM" --config-net --pid $DIR/pid -a 10.7.0.2 -n 24 -g 10.7.0.1 -4 -I eth0 \
            -t 127.0.0.1/28080-28080:8080-8080 -u none -T none -U none --no-map-gw \
            --dns-forward 169.254.1.1 --map-host-loopback 169.254.1.3 --quiet --netns /proc/$$/fd/9
        exec 9<&-
        in_namespace socat -T3 - TCP:169.254.1.3:28082 </dev/null
        kill $pid
        "$PROGRAM" --config-net -q -f -a 10.7.0.2 -n 24 -g 10.7.0.1 -4 -I eth0 -t none -u none -T none -U none \
            -- sh -c 'socat -T3 - TCP:10.7.0.1:28082 </dev/null; exit 7'
        echo "status $?"; kill $(cat $DIR/pid) $(jobs -p) 2>/dev/null; true"#
    );
    let out = world.ok(Whose::Ours, "pasta", &script);
    assert_eq!(out, "host-v4\nhost-v4\nstatus 7\n");
}

#[test]
fn wrong_lines_fail() {
    let world = World::new();
    for line in ["--bogus", "4194303", "--netns /nonexistent", "-4 -6 1", "-t 80-70 1", "-n 99 1"] {
        let codes = BOTH.map(|whose| {
            let script = format!("\"$PROGRAM\" {line} </dev/null");
            world.script(whose, "pasta", &script).status.code()
        });
        assert_eq!(codes[1], codes[0], "{line}");
    }
}
