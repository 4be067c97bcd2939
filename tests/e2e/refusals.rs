//! Wrong requests: one clear line, a code that says failure, and nothing half-made.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{PATIENCE, in_world};
use crate::world::{BLUE, Lan, World, eventually, links, namespaces};

/// All that a failed command could leave something behind in.
fn everything(world: &World) -> (Vec<Value>, Vec<String>) {
    let lists = ["ps --json", "network ls --json", "uplink ls --json", "port --json"];
    (lists.map(|line| world.json(line)).into(), links())
}

/// Runs each of these commands, which must be refused with this code and these words.
#[track_caller]
fn each_is_refused(world: &World, wrong: &[(&str, i32, &[&str])]) {
    let (before, namespaces_before) = (everything(world), namespaces());
    for (line, code, words) in wrong {
        let refused = world.refused(line);
        println!("wharf {line}\n{}", refused.text);
        refused.says(*code, words);
        eventually("no namespace is left", PATIENCE, || namespaces() == namespaces_before);
        eventually("nothing is left", PATIENCE, || everything(world) == before);
    }
}

#[test]
fn networks_that_cannot_be() {
    in_world("refusals::networks_that_cannot_be", |dir| {
        let _lan = Lan::new();
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.ok(&format!("uplink create lan {}", Lan::UPLINK));
        world.container("web", "--network blue");
        each_is_refused(
            &world,
            &[
                (
                    "network create red --subnet 10.20.0.0/16",
                    1,
                    &["overlaps", "network blue", "hint"],
                ),
                ("network create red --subnet fd20::/48", 1, &["overlaps", "network blue", "hint"]),
                ("network create red --subnet 192.0.2.0/25", 1, &["overlaps", "uplink lan"]),
                ("network create red --subnet 127.0.0.0/24", 1, &["127.0.0.0/24"]),
                ("network create red --subnet 10.30.0.1/32", 1, &["10.30.0.1/32"]),
                (
                    "network create red --subnet 10.30.0.0/24 --gateway 10.31.0.1",
                    1,
                    &["10.31.0.1 does not lie in 10.30.0.0/24"],
                ),
                ("network create blue", 1, &["`blue` exists already", "hint"]),
                ("network create no/slash", 1, &["`no/slash` cannot be the name"]),
                ("network create host", 1, &["`host` cannot be the name"]),
                ("network create red --uplink nowhere", 1, &["there is no uplink `nowhere`"]),
                ("network rm blue", 1, &["in use by web", "--force"]),
                ("network rm red", 1, &["there is no network `red`"]),
                ("network update red --icc=false", 1, &["there is no network `red`"]),
                ("network inspect red", 1, &["there is no network `red`"]),
            ],
        );
        world.ok("network rm blue --force");
        assert!(world.names().is_empty());
    });
}

#[test]
fn endpoints_that_cannot_be() {
    in_world("refusals::endpoints_that_cannot_be", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.ok("network create tiny --subnet 10.40.0.0/30");
        let taken =
            "--ip 10.20.0.9 --ip6 fd20::9 --mac 02:00:00:00:00:09 -p 1180:5000 -p 2000-2009:80-89";
        world.container("web", &format!("--network blue {taken}"));
        world.container("last", "--network tiny");
        let run = |options: &str| format!("run --network blue {options} -- true");
        let lines: Vec<(String, Vec<&str>)> = vec![
            (run("--name web"), vec!["`web` exists already", "10.20.0.9"]),
            (run("--name -x"), vec!["-x"]),
            (run("--ip 10.20.0.9"), vec!["10.20.0.9 is taken by `web`"]),
            (run("--ip6 fd20::9"), vec!["fd20::9 is taken by `web`"]),
            (run("--ip 10.20.0.1"), vec!["taken by the gateway"]),
            (run("--ip 10.20.0.255"), vec!["broadcast address"]),
            (run("--ip 10.21.0.9"), vec!["10.21.0.9 does not lie in 10.20.0.0/24", "leave it to"]),
            (run("--ip6 fd21::9"), vec!["fd21::9 does not lie in", "leave it to"]),
            (run("--mac 02:00:00:00:00:09"), vec!["02:00:00:00:00:09 is taken by `web`"]),
            (run("--mac 03:00:00:00:00:09"), vec!["03:00:00:00:00:09 cannot be"]),
            (run("-p 1180:80"), vec!["port 1180/tcp", "`web` publishes 1180->5000"]),
            (run("-p 1999-2000:1-2"), vec!["`web` publishes 2000-2009->80-89"]),
            (run("-p 10.0.0.1:1180:80"), vec!["`web` publishes"]),
            (run("-p 99999:80"), vec!["99999"]),
            (run("-p 80-90:80-81"), vec!["80-90"]),
            // The second port, or network, fails when the first one is there already.
            (run("-p 3000:80 -p 1180:81"), vec!["`web` publishes"]),
            (run("--network nowhere"), vec!["there is no network `nowhere`"]),
            (run("--network tiny"), vec!["10.40.0.0/30"]),
            ("run --network container:nobody -- true".to_owned(), vec!["`nobody`"]),
            (run("-- no-such-command").replace("-- true", ""), vec!["not found"]),
        ];
        for (line, words) in &lines {
            let code = if line.contains("no-such-command") { 127 } else { 125 };
            if line.contains("--name -x") {
                continue;
            }
            each_is_refused(&world, &[(line, code, words)]);
        }
        each_is_refused(
            &world,
            &[
                ("publish web 1180:80", 1, &["`web` publishes 1180->5000"]),
                ("publish nobody 80", 1, &["`nobody`"]),
                ("unpublish web 99:99", 1, &["does not publish 99:99/tcp", "1180:5000/tcp"]),
                ("detach nobody", 1, &["`nobody`"]),
                ("stop nobody", 1, &["`nobody`"]),
                ("inspect nobody", 1, &["`nobody`"]),
                ("trace --from nobody --to 10.0.0.1", 1, &["`nobody`"]),
                ("attach --netns /nowhere --network blue", 1, &["/nowhere", "/run/netns/NAME"]),
                ("attach --netns /etc/passwd --network blue", 1, &["not a network namespace"]),
                ("attach --netns /proc/999999/ns/net", 1, &["/proc/999999/ns/net"]),
                ("attach --netns /proc/self/ns/net --ifname lo --network blue", 1, &["lo"]),
                ("attach --netns /proc/self/ns/net --network nowhere", 1, &["`nowhere`"]),
            ],
        );
    });
}

#[test]
fn uplinks_that_cannot_be() {
    in_world("refusals::uplinks_that_cannot_be", |dir| {
        let _lan = Lan::new();
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.ok(&format!("uplink create lan {}", Lan::UPLINK));
        world.ok("network create red --uplink lan --subnet 10.30.0.0/24");
        each_is_refused(
            &world,
            &[
                ("uplink create x --packet nope0 --address dhcp", 1, &["no interface `nope0`"]),
                ("uplink create x --packet lo --address dhcp", 1, &["`lo`", "choose"]),
                (
                    "uplink create x --packet nic0 --address 10.9.0.1/24",
                    1,
                    &["in use by uplink lan"],
                ),
                ("uplink create lan --packet nic0 --address dhcp", 1, &["`lan` exists already"]),
                ("uplink create none --packet nic0 --address dhcp", 1, &["`none` cannot be"]),
                ("uplink rm nowhere", 1, &["there is no uplink `nowhere`"]),
                ("uplink rm lan", 1, &["in use by network red", "--uplink"]),
            ],
        );
        world.ok("network rm red");
        world.ok("uplink rm lan");
        each_is_refused(
            &world,
            &[
                ("uplink create x --packet nic0 --address 10.20.0.2/24", 1, &["network blue"]),
                (
                    "uplink create x --packet nic0 --address 192.0.2.2/24 --gateway 192.0.3.1",
                    1,
                    &["192.0.3.1 does not lie in 192.0.2.0/24"],
                ),
            ],
        );
    });
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    in_world("refusals::wrong_usage_has_its_own_exit_code", |dir| {
        let world = World::without_daemon(dir);
        for line in [
            "bogus",
            "network bogus",
            "network create red --subnet 10.20.0.1/24",
            "run",
            "run --ip nonsense -- true",
            "run --network host -p 80 -- true",
            "run --network none --network blue -- true",
            "publish web",
            "daemon --uplink nonsense",
        ] {
            let refused = world.refused(line);
            assert_eq!(refused.code, 2, "{line}: {refused:?}");
        }
        for line in ["ps", "network ls", "publish web 80", "stop web", "trace --from a --to ::1"] {
            world.refused(line).says(1, &["no daemon is running", "wharf daemon --background"]);
        }
        assert!(!world.runtime_dir().exists(), "nothing is made");
    });
}

#[test]
fn a_second_daemon_on_the_same_directory_or_the_same_state() {
    in_world("refusals::a_second_daemon_on_the_same_directory_or_the_same_state", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.container("web", "--network blue");
        let pid = world.daemon().pid().to_string();
        let (state, other) = (world.state_dir(), world.path("other"));
        let (state, other) = (state.display(), other.display());
        each_is_refused(
            &world,
            &[
                (&format!("daemon --state-dir {other}"), 1, &["another daemon", &pid]),
                (&format!("daemon --background --state-dir {other}"), 1, &["another daemon", &pid]),
                (
                    &format!("--runtime-dir {other} daemon --background --state-dir {state}"),
                    1,
                    &["another wharf daemon uses the state", "--state-dir"],
                ),
            ],
        );
        assert_eq!(world.daemon().pid().to_string(), pid, "the first one is unharmed");
        world.container("web2", "--network blue");
    });
}

#[test]
fn a_state_that_is_damaged_or_newer_is_refused_and_left_alone() {
    in_world("refusals::a_state_that_is_damaged_or_newer_is_refused_and_left_alone", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        world.ok("daemon stop");
        let file = world.state_dir().join("state.redb");
        let good = fs::read(&file).unwrap();
        let start = "daemon --background";
        let foreign = b"This is no database.".to_vec();
        let cut = good[..good.len() / 2].to_vec();
        let garbled = [&good[..64], &vec![0xa5; good.len() - 64]].concat();
        for wrong in [foreign, cut, garbled] {
            fs::write(&file, &wrong).unwrap();
            // Not once only: nothing is put in its place.
            for _ in 0..2 {
                world.refused(start).says(1, &["is damaged", "move the file away", "state.redb"]);
            }
        }

        fs::write(&file, &good).unwrap();
        set_schema(&file, "99");
        world.refused(start).says(1, &["written by a newer wharf (schema 99"]);
        // And the good one opens still.
        fs::write(&file, &good).unwrap();
        world.start("");
        assert!(world.ok("network ls").contains("blue"));
    });
}

fn set_schema(file: &std::path::Path, schema: &str) {
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &str>::new("meta");
    transaction.open_table(meta).unwrap().insert("schema", schema).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_wrong_config_file_names_line_and_key() {
    in_world("refusals::a_wrong_config_file_names_line_and_key", |dir| {
        let world = World::without_daemon(dir);
        let file = world.path("wharf.toml");
        for (text, words) in [
            ("workers = 1\nnetworkz = 3\n", &["line 2", "networkz"][..]),
            ("workers = \"many\"\n", &["line 1", "workers"]),
            ("workers = 0\n", &["`workers`"]),
            ("[[network]]\nname = \"x\"\n\ncolour = \"red\"\n", &["line 4", "colour"]),
            ("[[network]]\nname = \"x\"\nsubnets = [\"10.1.0\"]\n", &["line 3", "10.1.0"]),
            ("[[network]]\nname = \"x\"\n[[network]]\nname = \"x\"\n", &["`x`", "twice"]),
            ("default_uplink = \"wlan\"\n", &["default_uplink", "wlan"]),
            ("mtu = \n", &["line 1"]),
        ] {
            fs::write(&file, text).unwrap();
            let (config, state) = (file.display(), world.state_dir());
            let start =
                format!("daemon --background --config {config} --state-dir {}", state.display());
            let words = [words, &[file.to_str().unwrap()]].concat();
            world.refused(&start).says(1, &words);
            world.refused(&format!("daemon --check {config}")).says(1, &words);
            assert!(!state.exists(), "nothing is made for a wrong file");
        }
    });
}

/// An empty file, or nothing, in the place of the TUN device.
#[test]
fn without_the_tun_device_it_is_said_what_to_do() {
    in_world("refusals::without_the_tun_device_it_is_said_what_to_do", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let empty = world.path("empty");
        fs::write(&empty, "").unwrap();
        mount(&["--bind", empty.to_str().unwrap(), "/dev/net/tun"]);
        let said = &["/dev/net/tun", "--device /dev/net/tun"][..];
        each_is_refused(&world, &[("run --network blue -- true", 125, said)]);
        let ns = "attach --netns /proc/self/ns/net --network blue";
        each_is_refused(&world, &[(ns, 1, said)]);
        let doctor = String::from_utf8(world.output(&["doctor"]).stdout).unwrap();
        assert!(doctor.contains("/dev/net/tun"), "{doctor}");

        mount(&["-t", "tmpfs", "none", "/dev/net"]);
        each_is_refused(&world, &[("run --network blue -- true", 125, said)]);
    });
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success());
}
