//! `wharf run` for an ordinary user on a fresh machine: subordinate ids, a terminal, a published port, and
//! a daemon that comes and goes.

use crate::world::{EVENTUALLY, Whose, World};

#[test]
fn an_ordinary_user_publishes_a_port_with_a_daemon_of_his_own_that_ends_with_the_container() {
    let world = World::new();
    let script = format!(
        r#"{EVENTUALLY}
        wharf run -q -p 28080:8000 -- socat TCP6-LISTEN:8000,reuseaddr,fork SYSTEM:'echo inside' & run=$!
        eventually says TCP:127.0.0.1:28080 inside && echo v4
        eventually says TCP:[::1]:28080 inside && echo v6
        daemon=$(wharf status --json | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*')
        kill $run; wait $run; echo "status $?"
        gone() {{ ! grep -qs '^State:.[RSD]' /proc/$daemon/status; }}
        eventually gone && echo "no daemon is left""#
    );
    let out = world.ok(Whose::Ours, "wharf", &script);
    assert_eq!(out, "v4\nv6\nstatus 143\nno daemon is left\n");
}

#[test]
fn subordinate_ids_are_mapped_where_newuidmap_is_and_one_id_where_it_is_not() {
    let world = World::new();
    let script = r#"
        [ -u /usr/bin/newuidmap ] && grep -q "^$(id -un):" /etc/subuid || echo "no subordinate ids"
        run() { wharf run -q --network none -- "$@"; }
        echo "with: $(run /bin/cat /proc/self/uid_map | wc -l) $(run /bin/cat /proc/self/gid_map | wc -l)"
        run /usr/bin/setpriv --reuid=33 --regid=33 --clear-groups /usr/bin/id -u
        mkdir -p $DIR/empty; ln -sf $BIN/wharf $DIR/empty/wharf; PATH=$DIR/empty
        echo "without: $(run /bin/cat /proc/self/uid_map | /usr/bin/tr -s ' ')""#;
    let out = world.ok(Whose::Ours, "wharf", script);
    assert!(out.starts_with("with: 2 2\n33\nwithout:  0 "), "{out}");
    assert!(out.trim_end().ends_with(" 1") && out.lines().count() == 3, "{out}");
}

#[test]
fn a_shell_has_the_terminal_for_itself() {
    let world = World::new();
    // `script` makes a terminal and types what it reads.
    let script = r#"
        printf 'stty size; test -t 0 && test -t 1 && echo terminal=$((20+1))\nexit 5\n' |
            script -qec "stty rows 33 cols 99; wharf run -q --network none -- sh -i" /dev/null
        echo "status $?""#;
    let out = world.ok(Whose::Ours, "wharf", script);
    assert!(out.contains("33 99") && out.contains("terminal=21"), "{out}");
    assert!(!out.contains("job control turned off"), "{out}");
    assert!(out.ends_with("status 5\n"), "{out}");
}

#[test]
fn detach_gives_the_prompt_back_and_stop_ends_it() {
    let world = World::new();
    let script = format!(
        r"{EVENTUALLY}
        wharf run --detach --name web -p 28080:8000 -- socat TCP-LISTEN:8000,reuseaddr,fork SYSTEM:'echo inside' 2>/dev/null
        eventually says TCP:127.0.0.1:28080 inside && echo published
        wharf stop web && wharf ps --json"
    );
    let out = world.ok(Whose::Ours, "wharf", &script);
    assert_eq!(out, "web\npublished\n[]\n");
}
