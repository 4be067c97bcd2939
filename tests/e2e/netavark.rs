//! netavark's plugin API against a living daemon: the calls of netavark's own `500-plugin.bats`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use wharf::io::netns::{NetNs, in_namespace};

use crate::support::{connect_in, in_world, listener_in};
use crate::world::{World, links};

/// The program under the name of a network driver, as netavark starts it.
fn call(world: &World, words: &[&str], input: &Value) -> Result<Value, String> {
    let mut child = world
        .command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // What is refused at once is not read.
    let _ = child.stdin.take().unwrap().write_all(input.to_string().as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Value =
        if said.is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() };
    if output.status.success() {
        return Ok(said);
    }
    Err(said["error"].as_str().expect("an error in words").to_owned())
}

fn network(more: &Value) -> Value {
    let mut network = json!({
        "name": "test", "id": "00aa", "driver": "wharf", "dns_enabled": true,
        "internal": false, "ipv6_enabled": false,
    });
    for (key, value) in more.as_object().unwrap() {
        network[key] = value.clone();
    }
    network
}

fn exec(network: &Value, name: &str, options: &Value) -> Value {
    json!({
        "container_id": format!("{name}-0123456789abcdef"), "container_name": name,
        "port_mappings": null, "network": network, "network_options": options,
    })
}

fn path(ns: &NetNs) -> String {
    use std::os::fd::{AsFd, AsRawFd};
    format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd())
}

fn run(dir: &Path) {
    let world = World::new(dir);
    let info = call(&world, &["info"], &json!(null)).unwrap();
    assert_eq!(info["api_version"], "1.0.0");

    let wanted = network(&json!({
        "subnets": [{ "subnet": "10.60.0.0/24", "gateway": "10.60.0.1" }],
    }));
    let made = call(&world, &["create"], &wanted).unwrap();
    assert_eq!(made, wanted, "nothing needs a change");
    // Removed networks are not told: one that nobody is on is made anew.
    call(&world, &["create"], &wanted).unwrap();

    let (a, b) = (NetNs::staging().unwrap(), NetNs::staging().unwrap());
    let options = json!({
        "interface_name": "eth0", "static_ips": ["10.60.0.7"], "aliases": ["db"],
        "static_mac": "02:11:22:33:44:55",
    });
    let first = exec(&made, "web", &options);
    let status = call(&world, &["setup", &path(&a)], &first).unwrap();
    assert_eq!(
        status,
        json!({
            "dns_server_ips": ["10.60.0.1"], "dns_search_domains": status["dns_search_domains"],
            "interfaces": { "eth0": {
                "mac_address": "02:11:22:33:44:55",
                "subnets": [{ "ipnet": "10.60.0.7/24", "gateway": "10.60.0.1" }],
            } },
        })
    );
    let mut second = exec(&made, "other", &json!({ "interface_name": "net0" }));
    second["port_mappings"] = json!([{
        "container_port": 80, "host_ip": "127.0.0.1", "host_port": 18080,
        "protocol": "tcp", "range": 2,
    }]);
    let status = call(&world, &["setup", &path(&b)], &second).unwrap();
    let own = status["interfaces"]["net0"]["subnets"][0]["ipnet"].as_str().unwrap();
    assert!(own.starts_with("10.60.0."), "{own}");
    let (_listener, address) = listener_in(&a, "10.60.0.7".parse().unwrap());
    drop(connect_in(&b, address));
    assert_eq!(world.json("inspect web")[0]["aliases"], json!(["db"]));
    assert_eq!(world.json("inspect other")[0]["published"][0]["host_ports"], "18080-18081");

    let used = call(&world, &["create"], &network(&json!({ "internal": true }))).unwrap_err();
    assert!(used.contains("in use by"), "{used}");
    let twice = call(&world, &["setup", &path(&a)], &first).unwrap_err();
    assert!(twice.contains("`eth0` already"), "{twice}");
    for _ in 0..2 {
        assert_eq!(call(&world, &["teardown", &path(&a)], &first).unwrap(), Value::Null);
        assert_eq!(in_namespace(&a, links).unwrap(), ["lo"]);
    }
    let gone = path(&b);
    drop(b);
    call(&world, &["teardown", &gone], &second).unwrap();
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn a_network_is_created_and_containers_are_set_up_and_torn_down() {
    in_world("netavark::a_network_is_created_and_containers_are_set_up_and_torn_down", run);
}

#[test]
fn a_network_without_subnets_gets_some_and_setup_makes_what_is_not_there() {
    in_world(
        "netavark::a_network_without_subnets_gets_some_and_setup_makes_what_is_not_there",
        |dir| {
            let world = World::new(dir);
            let made = call(&world, &["create"], &network(&json!({}))).unwrap();
            assert_eq!(made["subnets"].as_array().unwrap().len(), 2);
            assert!(made["subnets"][0]["gateway"].is_string());
            world.ok("network rm test");
            let ns = NetNs::staging().unwrap();
            let exec = exec(&made, "web", &json!({ "interface_name": "eth0" }));
            call(&world, &["setup", &path(&ns)], &exec).unwrap();
            assert_eq!(world.names(), ["web"]);
            let missing = call(&world, &["setup", "/run/netns/none"], &exec).unwrap_err();
            assert!(missing.contains("/run/netns/none"), "{missing}");
            world.ok("detach web");
            world.kill_daemon();
            let dead = call(&world, &["setup", &path(&ns)], &exec).unwrap_err();
            assert!(dead.contains("is it running"), "{dead}");
        },
    );
}
