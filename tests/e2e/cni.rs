//! CNI against a living daemon, called as a runtime calls it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world, listener_in};
use crate::world::{FAMILIES, World, eventually};

/// A runtime: it keeps what it asked for, as libcni does.
struct Runtime<'a> {
    world: &'a World,
    conf: Value,
}

/// A container of the runtime's: a namespace, kept alive by this.
struct Pod {
    id: String,
    ns: NetNs,
}

impl Pod {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ns: NetNs::staging().unwrap() }
    }

    fn path(&self) -> String {
        use std::os::fd::{AsFd, AsRawFd};
        format!("/proc/{}/fd/{}", std::process::id(), self.ns.as_fd().as_raw_fd())
    }

    fn links(&self) -> Vec<String> {
        in_namespace(&self.ns, crate::world::links).unwrap()
    }
}

type Answer = Result<Value, Value>;

impl<'a> Runtime<'a> {
    fn new(world: &'a World, conf: Value) -> Self {
        Self { world, conf }
    }

    fn with(&self, more: &Value) -> Self {
        let mut conf = self.conf.clone();
        for (key, value) in more.as_object().unwrap() {
            conf[key] = value.clone();
        }
        Self { world: self.world, conf }
    }

    fn call(&self, verb: &str, env: &[(&str, &str)]) -> Answer {
        let none: [&str; 0] = [];
        let mut command = self.world.command(&none);
        command.env("CNI_COMMAND", verb).env("CNI_PATH", "/usr/lib/cni").envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let text = self.conf.to_string();
        // A plugin whose environment is wrong ends before it reads anything; runtimes do not mind.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said = if said.is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() };
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn pod(&self, verb: &str, pod: &Pod) -> Answer {
        let env = [
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_NETNS", &pod.path()),
            ("CNI_IFNAME", "eth0"),
        ];
        self.call(verb, &env)
    }
}

fn conf() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "wharf",
        "ipam": { "ranges": [
            [{ "subnet": "10.40.0.0/24", "rangeStart": "10.40.0.50", "rangeEnd": "10.40.0.52" }],
            [{ "subnet": "fd40::/64" }],
        ] },
    })
}

#[track_caller]
fn code(answer: &Answer, code: u64, words: &str) {
    let error = answer.as_ref().expect_err("an error");
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(words), "{error}");
}

#[track_caller]
fn reach(from: &Pod, to: &Pod, result: &Value) {
    for (at, _) in FAMILIES.iter().enumerate() {
        let net: ipnet::IpNet = result["ips"][at]["address"].as_str().unwrap().parse().unwrap();
        let (listener, address) = listener_in(&to.ns, net.addr());
        drop(crate::support::connect_in(&from.ns, address));
        drop(listener);
    }
}

#[test]
fn a_pod_is_added_checked_and_deleted_and_the_network_is_made_at_first_use() {
    in_world(
        "cni::a_pod_is_added_checked_and_deleted_and_the_network_is_made_at_first_use",
        |dir| {
            let world = World::new(dir);
            let runtime = Runtime::new(&world, conf());
            let (a, b) = (Pod::new("aaaa"), Pod::new("bbbb"));
            let first = runtime.pod("ADD", &a).unwrap();
            assert_eq!(first["cniVersion"], "1.1.0");
            assert_eq!(first["ips"][0]["address"], "10.40.0.50/24");
            assert_eq!(first["ips"][0]["gateway"], "10.40.0.1");
            assert_eq!(first["interfaces"][0]["name"], "eth0");
            assert_eq!(first["interfaces"][0]["sandbox"], a.path());
            assert_eq!(first["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "10.40.0.1" }));
            assert_eq!(first["dns"]["nameservers"][0], "10.40.0.1");
            let second = runtime.pod("ADD", &b).unwrap();
            reach(&a, &b, &second);

            let checked = runtime.with(&json!({ "prevResult": first }));
            checked.pod("CHECK", &a).unwrap();
            in_namespace(&a.ns, || {
                let mut netlink = Netlink::open().unwrap();
                let index = netlink.link("eth0").unwrap().index;
                netlink.delete_address(index, "10.40.0.50/24".parse().unwrap()).unwrap();
            })
            .unwrap();
            code(&checked.pod("CHECK", &a), 104, "lost the address 10.40.0.50/24");

            for _ in 0..2 {
                assert_eq!(checked.pod("DEL", &a).unwrap(), Value::Null);
                assert_eq!(a.links(), ["lo"]);
            }
            code(&checked.pod("CHECK", &a), 104, "no endpoint");
            assert_eq!(world.names(), ["bbbb"]);
            // The same interface can be made again at once.
            runtime.pod("ADD", &a).unwrap();
        },
    );
}

#[test]
fn a_failed_add_leaves_nothing_and_a_second_one_is_refused() {
    in_world("cni::a_failed_add_leaves_nothing_and_a_second_one_is_refused", |dir| {
        let world = World::new(dir);
        let runtime = Runtime::new(&world, conf());
        let a = Pod::new("aaaa");
        runtime.pod("ADD", &a).unwrap();
        code(&runtime.pod("ADD", &a), 4, "CNI_IFNAME=eth0");
        let taken = runtime.with(&json!({ "runtimeConfig": { "ips": ["10.40.0.50/24"] } }));
        let b = Pod::new("bbbb");
        code(&taken.pod("ADD", &b), 102, "10.40.0.50 is taken by `aaaa`");
        assert_eq!(b.links(), ["lo"]);
        let foreign = runtime.with(&json!({ "ipam": { "subnet": "10.41.0.0/24" } }));
        code(&foreign.pod("ADD", &b), 7, "does not lie in");
        let named = runtime.with(&json!({ "network": "nowhere" }));
        code(&named.pod("ADD", &b), 7, "nowhere");
        let gone = [
            ("CNI_CONTAINERID", "x"),
            ("CNI_NETNS", "/run/netns/not-there"),
            ("CNI_IFNAME", "eth0"),
        ];
        code(&runtime.call("ADD", &gone), 3, "CNI_NETNS");
        let own =
            [("CNI_CONTAINERID", "x"), ("CNI_NETNS", "/proc/self/ns/net"), ("CNI_IFNAME", "eth0")];
        code(&runtime.call("ADD", &own), 8, "same");
        code(&runtime.call("ADD", &[]), 4, "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]");
        code(&runtime.with(&json!({ "cniVersion": "0.2.0" })).pod("ADD", &b), 1, "incompatible");
        assert_eq!(world.names(), ["aaaa"]);
    });
}

#[test]
fn addresses_of_a_range_come_back_by_del_by_gc_and_by_the_end_of_the_namespace() {
    in_world(
        "cni::addresses_of_a_range_come_back_by_del_by_gc_and_by_the_end_of_the_namespace",
        |dir| {
            let world = World::new(dir);
            let runtime = Runtime::new(&world, conf());
            let mut pods: Vec<Pod> =
                ["p1", "p2", "p3"].iter().map(|id| Pod::new(&format!("{id}-{id}"))).collect();
            for pod in &pods {
                runtime.pod("ADD", pod).unwrap();
            }
            let late = Pod::new("late");
            code(&runtime.pod("ADD", &late), 101, "no address is left");
            // By its namespace's end.
            let ended = pods.pop().unwrap();
            let (id, path) = (ended.id.clone(), ended.path());
            drop(ended);
            eventually("the daemon sees it", PATIENCE, || world.names().len() == 2);
            let env =
                [("CNI_CONTAINERID", id.as_str()), ("CNI_NETNS", &path), ("CNI_IFNAME", "eth0")];
            runtime.call("DEL", &env).unwrap();
            runtime.call("DEL", &[("CNI_CONTAINERID", &id), ("CNI_IFNAME", "eth0")]).unwrap();
            runtime.pod("ADD", &late).unwrap();
            // By GC.
            let valid = json!([{ "containerID": "late", "ifname": "eth0" }]);
            runtime.with(&json!({ "cni.dev/valid-attachments": valid })).call("GC", &[]).unwrap();
            assert_eq!(world.names(), ["late"]);
            let none = json!({ "cni.dev/attachments": [] });
            let other = runtime.with(&json!({ "name": "other", "cni.dev/attachments": [] }));
            other.call("GC", &[]).unwrap();
            assert_eq!(world.names(), ["late"]);
            runtime.with(&none).call("GC", &[]).unwrap();
            assert_eq!(world.names(), Vec::<String>::new());
            code(&runtime.call("GC", &[]), 7, "valid-attachments");
        },
    );
}

#[test]
fn status_says_whether_an_add_could_succeed_and_a_dead_daemon_keeps_no_address() {
    in_world(
        "cni::status_says_whether_an_add_could_succeed_and_a_dead_daemon_keeps_no_address",
        |dir| {
            let world = World::without_daemon(dir);
            let tiny = json!({ "subnet": "10.42.0.0/30" });
            let runtime =
                Runtime::new(&world, conf()).with(&json!({ "name": "tiny", "ipam": tiny }));
            code(&runtime.call("STATUS", &[]), 50, "does not serve");
            let a = Pod::new("aaaa");
            code(&runtime.pod("ADD", &a), 11, "is it running");
            runtime.pod("DEL", &a).unwrap();
            world.start("");
            runtime.call("STATUS", &[]).unwrap();
            let result = runtime.pod("ADD", &a).unwrap();
            code(&runtime.call("STATUS", &[]), 50, "no address is left");

            world.kill_daemon();
            code(&runtime.call("STATUS", &[]), 51, "does not serve");
            let remembered = runtime.with(&json!({ "prevResult": result }));
            remembered.pod("DEL", &a).unwrap();
            assert_eq!(a.links(), ["lo"]);
            world.start("");
            assert_eq!(world.names(), Vec::<String>::new());
            runtime.call("STATUS", &[]).unwrap();
            runtime.pod("ADD", &Pod::new("bbbb")).unwrap();
        },
    );
}

#[test]
fn a_reboot_frees_every_address() {
    in_world("cni::a_reboot_frees_every_address", |dir| {
        let world = World::new(dir);
        let runtime = Runtime::new(&world, conf());
        for id in ["p1", "p2", "p3"] {
            // The namespaces end with the machine; the store on disk does not.
            let pod = Pod::new(id);
            runtime.pod("ADD", &pod).unwrap();
            if id == "p3" {
                let daemon = world.daemon();
                let holder = crate::world::process_named("holder");
                for process in [&daemon, &holder] {
                    process.signal(rustix::process::Signal::KILL).unwrap();
                    assert!(process.ended_within(PATIENCE).unwrap());
                }
            }
        }
        world.start("");
        for id in ["q1", "q2", "q3"] {
            runtime.pod("ADD", &Pod::new(id)).unwrap();
        }
    });
}

#[test]
fn capabilities_reach_the_daemon() {
    in_world("cni::capabilities_reach_the_daemon", |dir| {
        let world = World::new(dir);
        let ports: Vec<Value> = (0..8)
            .map(|n| json!({ "hostPort": 18000 + n, "containerPort": 8000 + n, "protocol": "TCP" }))
            .collect();
        let runtime = Runtime::new(&world, conf()).with(&json!({
            "runtimeConfig": {
                "portMappings": ports,
                "mac": "02:11:22:33:44:55",
                "ips": ["10.40.0.77/24", "fd40::77"],
                "aliases": { "pods": ["db"], "other": ["no"] },
                "dns": { "servers": ["192.0.2.53"], "searches": ["example.org"] },
            },
        }));
        let pod = Pod::new("aaaa");
        let env = [
            ("CNI_CONTAINERID", pod.id.as_str()),
            ("CNI_NETNS", &pod.path()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
        ];
        let result = runtime.call("ADD", &env).unwrap();
        assert_eq!(result["interfaces"][0]["mac"], "02:11:22:33:44:55");
        assert_eq!(result["ips"][1]["address"], "fd40::77/64");
        assert_eq!(
            result["dns"],
            json!({ "nameservers": ["192.0.2.53"], "search": ["example.org"] })
        );
        let seen = &world.json("inspect web")[0];
        assert_eq!(seen["aliases"], json!(["db"]));
        assert_eq!(seen["labels"]["io.kubernetes.pod.namespace"], "shop");
        assert_eq!(seen["published"].as_array().unwrap().len(), 1, "a range is one publication");
        assert_eq!(seen["published"][0]["host_ports"], "18000-18007");
        let (_listener, _) = {
            let address = pod_address(&result, Family::V4);
            let listener =
                in_namespace(&pod.ns, || std::net::TcpListener::bind((address, 8003))).unwrap();
            (listener.unwrap(), address)
        };
        std::net::TcpStream::connect(("127.0.0.1", 18003)).unwrap();
        // A pod of another namespace may have the same name.
        let other = Pod::new("other-container");
        let env = [
            ("CNI_CONTAINERID", other.id.as_str()),
            ("CNI_NETNS", &other.path()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "K8S_POD_NAME=web"),
        ];
        Runtime::new(&world, conf()).call("ADD", &env).unwrap();
        assert_eq!(world.names(), ["other-contai", "web"]);
    });
}

fn pod_address(result: &Value, family: Family) -> std::net::IpAddr {
    let at = usize::from(family == Family::V6);
    let net: ipnet::IpNet = result["ips"][at]["address"].as_str().unwrap().parse().unwrap();
    net.addr()
}

#[test]
fn many_containers_are_added_at_once() {
    in_world("cni::many_containers_are_added_at_once", |dir| {
        let world = World::new(dir);
        let plain = json!({ "name": "wide", "ipam": { "subnet": "10.43.0.0/24" } });
        let runtime = Runtime::new(&world, conf()).with(&plain);
        let pods: Vec<Pod> = (0..24).map(|n| Pod::new(&format!("pod-{n}"))).collect();
        let mut addresses: Vec<String> = std::thread::scope(|scope| {
            let adds: Vec<_> =
                pods.iter().map(|pod| scope.spawn(|| runtime.pod("ADD", pod).unwrap())).collect();
            let results = adds.into_iter().map(|add| add.join().unwrap());
            results.map(|r| r["ips"][0]["address"].as_str().unwrap().to_owned()).collect()
        });
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), pods.len());
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| runtime.pod("DEL", pod).unwrap());
            }
        });
        assert_eq!(world.names(), Vec::<String>::new());
    });
}

#[test]
fn a_later_link_of_a_chain_adds_to_what_the_first_one_said() {
    in_world("cni::a_later_link_of_a_chain_adds_to_what_the_first_one_said", |dir| {
        let world = World::new(dir);
        let first = Runtime::new(&world, conf());
        let pod = Pod::new("aaaa");
        let result = first.pod("ADD", &pod).unwrap();
        let second = first.with(&json!({
            "name": "back",
            "interfaceName": "net1",
            "cniVersion": "0.4.0",
            "ipam": { "subnet": "10.44.0.0/24" },
            "prevResult": result,
        }));
        let both = second.pod("ADD", &pod).unwrap();
        assert_eq!(both["interfaces"].as_array().unwrap().len(), 2);
        assert_eq!(both["ips"][2]["interface"], 1);
        assert_eq!(both["ips"][2]["version"], "4");
        let mut links = pod.links();
        links.sort();
        assert_eq!(links, ["eth0", "lo", "net1"]);
        second.with(&json!({ "prevResult": both })).pod("CHECK", &pod).unwrap();
        second.pod("DEL", &pod).unwrap();
        first.pod("DEL", &pod).unwrap();
        assert_eq!(pod.links(), ["lo"]);
    });
}

/// A plugin for addresses: notes each call, and answers ADD.
fn ipam_plugin(dir: &Path, answer: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\ncat > {0}/conf\necho $CNI_COMMAND >> {0}/calls\n\
         case $CNI_COMMAND in ADD) echo '{answer}';; esac\n",
        dir.display()
    );
    std::fs::write(bin.join("fixed"), script).unwrap();
    std::fs::set_permissions(bin.join("fixed"), PermissionsExt::from_mode(0o755)).unwrap();
    bin
}

#[test]
fn a_delegated_plugin_is_called_for_every_verb_and_its_word_holds() {
    in_world("cni::a_delegated_plugin_is_called_for_every_verb_and_its_word_holds", |dir| {
        let world = World::new(dir);
        let answer = json!({
            "cniVersion": "1.1.0",
            "ips": [{ "address": "10.45.0.9/24", "gateway": "10.45.0.254" }],
            "routes": [{ "dst": "10.99.0.0/16" }],
        });
        let bin = ipam_plugin(dir, &answer.to_string());
        let runtime =
            Runtime::new(&world, conf()).with(&json!({ "ipam": { "type": "fixed" }, "mine": 7 }));
        let pod = Pod::new("aaaa");
        let path = pod.path();
        let env = [
            ("CNI_CONTAINERID", "aaaa"),
            ("CNI_NETNS", path.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", bin.to_str().unwrap()),
        ];
        let result = runtime.call("ADD", &env).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.45.0.9/24");
        // No default route, since the plugin gave none.
        assert_eq!(result["routes"], json!([{ "dst": "10.99.0.0/16" }]));
        let conf: Value =
            serde_json::from_slice(&std::fs::read(dir.join("conf")).unwrap()).unwrap();
        assert_eq!(conf["mine"], 7, "the whole configuration is handed on");
        let later = runtime.with(&json!({ "prevResult": result, "cni.dev/valid-attachments": [] }));
        for verb in ["CHECK", "STATUS", "DEL", "GC"] {
            later.call(verb, &env).unwrap();
        }
        // Somebody else has the address: what was leased is given back.
        let calls = || std::fs::read_to_string(dir.join("calls")).unwrap();
        assert_eq!(
            calls().split_whitespace().collect::<Vec<_>>(),
            ["ADD", "CHECK", "STATUS", "DEL", "GC"]
        );
        world.container("squatter", "--network pods --ip 10.45.0.9");
        code(&runtime.call("ADD", &env), 102, "taken");
        assert!(calls().ends_with("ADD\nDEL\n"), "{}", calls());
        let missing = runtime.with(&json!({ "ipam": { "type": "nowhere" } }));
        code(&missing.call("ADD", &env), 7, "failed to find plugin \"nowhere\"");
    });
}

#[test]
fn version_and_the_name_of_the_plugin_need_no_daemon() {
    in_world("cni::version_and_the_name_of_the_plugin_need_no_daemon", |dir| {
        let world = World::without_daemon(dir);
        let runtime = Runtime::new(&world, json!({ "cniVersion": "0.4.0" }));
        let said = runtime.call("VERSION", &[]).unwrap();
        assert_eq!(said["cniVersion"], "0.4.0");
        assert_eq!(said["supportedVersions"].as_array().unwrap().last().unwrap(), "1.1.0");
        // With words on the command line it is the command that is meant, whatever the environment says.
        let output = world.command(&["version"]).env("CNI_COMMAND", "ADD").output().unwrap();
        assert!(output.status.success());
    });
}
