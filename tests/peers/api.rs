//! `slirp4netns` by hand: its socket, its descriptors and its exit codes, against the original.

use crate::world::{BOTH, EVENTUALLY, Whose, World, text};

/// One request a line; answers are compared with the original's, byte for byte.
const CONVERSATION: &str = r#"
badjson
{"unexpected":1}
[1]
{"execute":"bad"}
{"execute":"list_hostfwd"}
{"execute":"add_hostfwd","arguments":{"proto":"bad"}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"x","host_port":28080,"guest_port":80}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","guest_port":80}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":28080}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":28080,"guest_addr":"x","guest_port":80}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":28080,"guest_port":80}}
{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_port":28080,"guest_port":80}}
{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":28081,"guest_addr":"10.0.2.100","guest_port":81}}
{"execute":"list_hostfwd"}
{"execute":"remove_hostfwd","arguments":{"id":42}}
{"execute":"remove_hostfwd","arguments":{"id":1}}
{"execute":"list_hostfwd"}
"#;

#[test]
fn the_socket_answers_as_the_original_s_does() {
    let world = World::new();
    let [original, ours] = BOTH.map(|whose| {
        let script = format!(
            r#"{EVENTUALLY}
            namespace
            "$PROGRAM" --configure --api-socket $DIR/{whose:?}.sock $pid tap0 >/dev/null 2>&1 & slirp=$!
            eventually test -S $DIR/{whose:?}.sock
            while read -r line; do
                [ -z "$line" ] || {{ printf '%s => ' "$line"; printf '%s' "$line" | socat -t5 - UNIX:$DIR/{whose:?}.sock; echo; }}
            done <<'END'
{CONVERSATION}
END
            kill $slirp $pid; wait"#
        );
        world.ok(whose, "slirp4netns", &script)
    });
    assert!(original.contains(r#""id":2"#), "{original}");
    assert_eq!(ours, original);
}

#[test]
fn addresses_ready_fd_and_exit_fd_are_the_original_s() {
    let world = World::new();
    let [original, ours] = BOTH.map(|whose| {
        let script = format!(
            r#"{EVENTUALLY}
            namespace
            mkfifo $DIR/{whose:?}.exit $DIR/{whose:?}.ready
            exec 7<>$DIR/{whose:?}.exit
            "$PROGRAM" -c -6 --mtu=65520 --cidr=10.9.0.0/16 --disable-host-loopback -e 8 -r 9 $pid tap0 \
                8<$DIR/{whose:?}.exit 9>$DIR/{whose:?}.ready 7>&- >/dev/null 2>&1 & slirp=$!
            echo "ready: $(cat $DIR/{whose:?}.ready)"
            in_namespace ip -4 -brief addr show tap0 | tr -s ' '
            in_namespace ip -4 route show default | cut -d' ' -f1-5
            in_namespace cat /sys/class/net/tap0/mtu 2>/dev/null; in_namespace ip link show tap0 | grep -o 'mtu [0-9]*'
            in_namespace ip -brief link show lo | grep -o LOWER_UP
            eventually eval 'in_namespace ip -6 addr show tap0 | grep -q "fd00::.*/64 scope global"' && echo v6
            in_namespace socat -T1 - TCP:10.9.0.2:22 </dev/null 2>/dev/null || echo "no loopback"
            exec 7>&-
            wait $slirp; echo "exit: $?"
            kill $pid"#
        );
        world.ok(whose, "slirp4netns", &script)
    });
    for words in ["ready: 1", "10.9.0.100/16", "via 10.9.0.2", "mtu 65520", "v6", "no loopback"] {
        assert!(original.contains(words), "{words}:\n{original}");
    }
    assert_eq!(ours, original);
}

#[test]
fn wrong_lines_fail_with_the_original_s_exit_code() {
    let world = World::new();
    for line in [
        "",
        "1",
        "--bogus 1 tap0",
        "-m 70000 1 tap0",
        "--cidr=10.0.2.0/26 1 tap0",
        "--cidr=10.0.2.1/24 1 tap0",
        "-e x 1 tap0",
        "--netns-type=path /nonexistent tap0",
        "--userns-path=/nonexistent 1 tap0",
        "--macaddress=02:00:00:00:00:01 1 tap0",
        "-c 4194303 tap0",
        "--help",
        "--version",
    ] {
        let codes = BOTH.map(|whose| {
            let output = world.script(whose, "slirp4netns", &format!("\"$PROGRAM\" {line}"));
            output.status.code()
        });
        assert_eq!(codes[1], codes[0], "{line}");
    }
}

#[test]
fn what_would_not_be_kept_is_refused_in_words() {
    let world = World::new();
    for (line, words) in [
        ("--target-type=bess /tmp/bess.sock", "not served by Wharf"),
        ("--outbound-addr=192.0.2.7 1 tap0", "not served by Wharf"),
    ] {
        let script = format!("\"$PROGRAM\" {line}");
        let output = world.script(Whose::Ours, "slirp4netns", &script);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(text(&output.stderr).contains(words), "{line}");
    }
}
