//! RootlessKit, unmodified, as Debian has it. Docker's rootless mode and others stand on it.

use crate::world::{BOTH, EVENTUALLY, Whose, World};

/// Inside: a server for the published port, and calls to the host's loopback by the gateway's address. The
/// answers of both go to standard output.
fn run(options: &str, inside: &str) -> String {
    format!(
        r#"{EVENTUALLY}
        export -f eventually serve says
        serve TCP4-LISTEN:28082,bind=127.0.0.1 host-v4; serve TCP6-LISTEN:28082,bind=::1 host-v6
        rootlesskit --net=slirp4netns --slirp4netns-binary="$PROGRAM" --copy-up=/etc --ipv6 {options} \
            bash -c '{inside}' 2>$DIR/log & kit=$!
        eventually says TCP:127.0.0.1:28080 inside && echo published
        touch $DIR/done; wait $kit || {{ cat $DIR/log >&2; exit 1; }}
        rm $DIR/done; kill $(jobs -p)"#
    )
}

const INSIDE: &str = r#"
    serve TCP-LISTEN:8080 inside
    ip -4 -brief addr show tap0 | tr -s " "; ip -4 route show default
    ip link show tap0 | grep -o "mtu [0-9]*"; cat /etc/resolv.conf
    eventually eval "ip -6 addr show tap0 | grep -q fd00::.*/64.scope.global.dynamic" && echo v6
    says TCP:10.0.2.2:28082 host-v4 && echo "loopback v4"
    eventually says TCP:[fd00::2]:28082 host-v6 && echo "loopback v6"
    eventually test -e $DIR/done
    kill $(jobs -p)"#;

#[test]
fn rootlesskit_runs_unmodified_with_published_ports_and_the_host_s_loopback() {
    let world = World::new();
    let options = "--mtu=65520 --port-driver=slirp4netns -p 127.0.0.1:28080:8080/tcp \
                   --slirp4netns-sandbox=false --slirp4netns-seccomp=false";
    let script = run(options, INSIDE);
    let [original, ours] = BOTH.map(|whose| world.ok(whose, "slirp4netns", &script));
    for words in ["published", "10.0.2.100/24", "via 10.0.2.2", "nameserver 10.0.2.3", "v6"] {
        assert!(original.contains(words), "{words}:\n{original}");
    }
    assert!(original.contains("mtu 65520") && original.contains("loopback v4"), "{original}");
    assert!(ours.contains("loopback v6"), "{ours}");
    let without_v6 = |text: &str| text.replace("loopback v6\n", "");
    assert_eq!(sorted(&without_v6(&ours)), sorted(&without_v6(&original)));
}

#[test]
fn it_keeps_the_container_from_the_host_s_loopback_when_told_so_in_a_sandbox_as_well() {
    let world = World::new();
    let options = "--disable-host-loopback --port-driver=slirp4netns -p 127.0.0.1:28080:8080/tcp \
                   --slirp4netns-sandbox=true --slirp4netns-seccomp=true";
    let inside = r#"
        serve TCP-LISTEN:8080 inside
        says TCP:10.0.2.2:28082 host-v4 && echo "loopback v4"
        says TCP:[fd00::2]:28082 host-v6 && echo "loopback v6"
        eventually test -e $DIR/done
        kill $(jobs -p)"#;
    let out = world.ok(Whose::Ours, "slirp4netns", &run(options, inside));
    assert_eq!(out, "published\n");
}

#[test]
fn its_own_port_driver_works_beside_it() {
    let world = World::new();
    let options = "--disable-host-loopback --port-driver=builtin -p 127.0.0.1:28080:8080/tcp";
    let inside = r"
        serve TCP-LISTEN:8080 inside
        eventually test -e $DIR/done
        kill $(jobs -p)";
    let out = world.ok(Whose::Ours, "slirp4netns", &run(options, inside));
    assert_eq!(out, "published\n");
}

/// Version 2 brought the driver; Debian 12 has 1.1. Its argument list is tried in `pasta.rs`.
#[test]
fn debian_s_rootlesskit_1_1_has_no_pasta_driver() {
    let world = World::new();
    let out = world.ok(Whose::Ours, "pasta", "rootlesskit --version; rootlesskit --help");
    assert!(out.contains("rootlesskit version 1.1."), "{out}");
    assert!(!out.contains("pasta"), "this rootlesskit has pasta: run it with --net=pasta\n{out}");
}

/// Both processes write to one pipe: the order of their lines says nothing.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines
}
