//! Commands in namespaces of their own.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use wharf::io::netlink::Netlink;
use wharf::io::netns::NetNs;
use wharf::io::process::{
    Isolation, Network, Process, SignalFd, SpawnError, overlay_file, prepare_network, spawn,
};

use crate::support::{PATIENCE, give_up_capabilities, in_one_thread, isolated};

const ALONE: Isolation =
    Isolation { network: Network::New, die_with_parent: true, new_session: false };

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

/// Runs a script to its end; its exit code and what it printed.
fn run(
    isolation: Isolation,
    script: &str,
    prepare: impl FnOnce() -> Result<(), String>,
) -> (i32, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = shell(script);
    command.stdout(writer);
    let child = spawn(&mut command, isolation, || prepare().map(|()| Vec::new())).unwrap();
    drop(command);
    let mut text = String::new();
    { reader }.read_to_string(&mut text).unwrap();
    (child.process().wait().unwrap(), text)
}

fn furnish() -> Result<(), String> {
    prepare_network().map_err(|e| e.to_string())
}

#[test]
fn a_command_has_a_network_of_its_own_with_a_working_loopback() {
    isolated("processes::a_command_has_a_network_of_its_own_with_a_working_loopback", || {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let script = "readlink /proc/self/ns/net; cat /sys/class/net/lo/operstate >/dev/null; \
                      cat /proc/sys/net/ipv4/ping_group_range; \
                      cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        let (code, text) = run(ALONE, script, || {
            furnish()?;
            let up = Netlink::open().unwrap().link("lo").unwrap().up;
            if up { Ok(()) } else { Err("lo is down".to_owned()) }
        });
        assert_eq!(code, 0);
        let lines: Vec<_> = text.lines().collect();
        assert_ne!(Path::new(lines[0]), own);
        assert!(lines[1].starts_with('0') && lines[2] == "0", "{text}");
    });
}

#[test]
fn the_exit_code_is_the_command_s_own() {
    isolated("processes::the_exit_code_is_the_command_s_own", || {
        assert_eq!(run(ALONE, "exit 7", || Ok(())).0, 7);
        assert_eq!(run(ALONE, "kill -9 $$", || Ok(())).0, 128 + 9);
        let host = Isolation { network: Network::Host, ..ALONE };
        assert_eq!(run(host, "exit 3", || Ok(())).0, 3);
    });
}

#[test]
fn what_cannot_be_started_has_the_exit_codes_of_docker() {
    isolated("processes::what_cannot_be_started_has_the_exit_codes_of_docker", || {
        let code = |program: &str, prepare: Result<Vec<u8>, String>| {
            let error = spawn(&mut Command::new(program), ALONE, || prepare).unwrap_err();
            (error.exit_code(), error.to_string())
        };
        assert_eq!(code("no-such-command", Ok(vec![])).0, 127);
        assert_eq!(code("/etc/passwd", Ok(vec![])).0, 126);
        let (ours, text) = code("true", Err("no address left".to_owned()));
        assert_eq!((ours, text.as_str()), (125, "no address left"));
        let gone = Isolation { network: Network::Of(u32::MAX >> 1), ..ALONE };
        let error = spawn(&mut Command::new("true"), gone, || Ok(vec![])).unwrap_err();
        assert!(matches!(error, SpawnError::Join { .. }), "{error}");
    });
}

#[test]
fn a_panic_in_the_preparation_is_an_error_and_no_second_copy_of_the_caller() {
    isolated(
        "processes::a_panic_in_the_preparation_is_an_error_and_no_second_copy_of_the_caller",
        || {
            let error = spawn(&mut Command::new("true"), ALONE, || panic!("oops")).unwrap_err();
            assert_eq!(error.exit_code(), 125);
        },
    );
}

#[test]
fn a_file_is_laid_over_another_one_inside_only() {
    isolated("processes::a_file_is_laid_over_another_one_inside_only", || {
        let target = Path::new("/etc/passwd");
        let before = fs::read(target).unwrap();
        let (_, text) =
            run(ALONE, "cat /etc/passwd; echo more >> /etc/passwd; cat /etc/passwd", || {
                overlay_file(target, b"nameserver 10.0.0.1\n").map_err(|e| e.to_string())
            });
        assert_eq!(text, "nameserver 10.0.0.1\nnameserver 10.0.0.1\nmore\n");
        assert_eq!(fs::read(target).unwrap(), before);
    });
}

#[test]
fn another_command_joins_the_namespaces_of_a_running_one() {
    isolated("processes::another_command_joins_the_namespaces_of_a_running_one", || {
        for drop_rights in [false, true] {
            let report = || {
                if drop_rights {
                    give_up_capabilities();
                }
                let first = spawn(&mut shell("exec sleep 30"), ALONE, || {
                    furnish()?;
                    overlay_file(Path::new("/etc/passwd"), b"inside\n")
                        .map_err(|e| e.to_string())?;
                    Ok(Vec::new())
                })
                .unwrap();
                let network = Network::Of(first.process().pid());
                let joined = Isolation { network, ..ALONE };
                let (code, text) =
                    run(joined, "readlink /proc/self/ns/net; cat /etc/passwd; id -u", || Ok(()));
                let link = format!("/proc/{}/ns/net", first.process().pid());
                let theirs = fs::read_link(link).unwrap();
                assert_eq!(text, format!("{}\ninside\n0\n", theirs.display()));
                assert_eq!(code, 0);
                assert_eq!(first.network().unwrap().id().unwrap().ino, inode(&theirs));
                first.process().signal(Signal::KILL).unwrap();
                assert_eq!(first.process().wait().unwrap(), 128 + 9);
                Ok(Vec::new())
            };
            in_one_thread(report);
        }
    });
}

fn inode(link: &Path) -> u64 {
    let text = link.to_str().unwrap();
    text.trim_start_matches("net:[").trim_end_matches(']').parse().unwrap()
}

#[test]
fn an_ordinary_user_is_root_in_a_user_namespace_of_its_own() {
    isolated("processes::an_ordinary_user_is_root_in_a_user_namespace_of_its_own", || {
        let report = in_one_thread(|| {
            give_up_capabilities();
            let own = fs::read_link("/proc/self/ns/user").unwrap();
            let (code, text) = run(ALONE, "readlink /proc/self/ns/user; id -u; id -g", || {
                furnish()?;
                // What an attacher does.
                let staging = NetNs::staging().map_err(|e| e.to_string())?;
                drop(staging);
                wharf::io::tap::Tap::open("t0", 1).map(drop).map_err(|e| e.to_string())
            });
            assert_ne!(text.lines().next().unwrap(), own.to_str().unwrap());
            Ok(format!("{code} {}", text.lines().skip(1).collect::<Vec<_>>().join(" ")).into())
        });
        assert_eq!(String::from_utf8(report).unwrap(), "0 0 0");
    });
}

#[test]
fn a_command_dies_with_its_parent() {
    isolated("processes::a_command_dies_with_its_parent", || {
        let host = Isolation { network: Network::Host, ..ALONE };
        let parent = spawn(&mut shell("exec sleep 30"), host, || {
            let inner = spawn(&mut shell("exec sleep 30"), ALONE, || Ok(Vec::new()));
            let inner = inner.map_err(|e| e.to_string())?;
            Ok(inner.process().pid().to_string().into())
        })
        .unwrap();
        let pid = String::from_utf8(parent.report.clone()).unwrap().parse().unwrap();
        let inner = Process::open(pid).unwrap();
        assert!(!inner.ended_within(std::time::Duration::ZERO).unwrap());
        parent.process().signal(Signal::KILL).unwrap();
        parent.process().wait().unwrap();
        assert!(inner.ended_within(PATIENCE).unwrap());
    });
}

#[test]
fn signals_are_passed_on_to_the_command() {
    isolated("processes::signals_are_passed_on_to_the_command", || {
        let report = in_one_thread(|| {
            let signals = SignalFd::new(&SignalFd::FORWARDED).unwrap();
            let (reader, writer) = std::io::pipe().unwrap();
            let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done";
            let mut command = shell(script);
            command.stdout(writer);
            let child = spawn(&mut command, ALONE, || Ok(Vec::new())).unwrap();
            { reader }.read_exact(&mut [0; 6]).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
            Ok(child.wait_forwarding(&signals).unwrap().to_string().into())
        });
        assert_eq!(report, b"42");
    });
}

#[test]
fn a_session_of_its_own_has_no_terminal_to_lose() {
    isolated("processes::a_session_of_its_own_has_no_terminal_to_lose", || {
        let alone = Isolation { new_session: true, die_with_parent: false, ..ALONE };
        let script = "cut -d ' ' -f 6 /proc/self/stat; echo $$";
        let (_, text) = run(alone, script, || Ok(()));
        let numbers: Vec<_> = text.lines().collect();
        assert_eq!(numbers[0], numbers[1], "the command leads its session");
    });
}

/// Not in a namespace of the test's own: the command makes its own, which is what is tested.
#[test]
fn whoever_runs_the_tests_can_start_a_command_in_a_network_of_its_own() {
    let script = "id -u; readlink /proc/self/ns/net";
    let (code, text) = run(ALONE, script, furnish);
    assert_eq!(code, 0);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "0", "root inside, whoever it is outside");
    assert_ne!(lines[1], own.to_str().unwrap());
}
