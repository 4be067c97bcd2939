//! What needs no daemon.

use serde_json::{Value, json};

use super::serve;
use super::types::{Exec, Network};
use crate::api::paths::RuntimeDir;

fn network(more: &Value) -> Network {
    let mut network = json!({
        "dns_enabled": true, "driver": "wharf", "id": "ab12", "internal": false,
        "ipv6_enabled": false, "name": "blue", "created": "2026-01-01T00:00:00Z",
    });
    for (key, value) in more.as_object().unwrap() {
        network[key] = value.clone();
    }
    serde_json::from_value(network).unwrap()
}

fn exec(mappings: &Value, options: &Value) -> Exec {
    serde_json::from_value(json!({
        "container_id": "5f2e6c0d9b1a77aa", "container_name": "web",
        "port_mappings": mappings,
        "network": network(&json!({})),
        "network_options": options,
    }))
    .unwrap()
}

fn call(words: &[&str], input: &str) -> (u8, Value) {
    let mut out = Vec::new();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let nowhere = RuntimeDir::new("/nonexistent/wharf");
    let code = serve(&words, &nowhere, input.as_bytes(), &mut out);
    (code, serde_json::from_slice(&out).unwrap_or(Value::Null))
}

#[test]
fn info_says_the_api_s_version_and_errors_are_json() {
    for words in [&["info"][..], &[]] {
        let (code, said) = call(words, "");
        assert_eq!((code, &said["api_version"]), (0, &json!("1.0.0")));
    }
    for (words, input) in [
        (&["setup"][..], ""),
        (&["setup", "/nonexistent"], "{"),
        (&["create"], "7"),
        (&["create"], r#"{"name":"x","driver":"wharf"}"#),
    ] {
        let (code, said) = call(words, input);
        assert_eq!(code, 1, "{words:?}");
        assert!(said["error"].is_string(), "{words:?}: {said}");
    }
}

#[test]
fn a_network_s_options_become_ours_and_unknown_fields_go_back() {
    let blue = network(&json!({
        "internal": true,
        "options": { "mtu": "1400", "isolate": "false", "icc": "false" },
        "subnets": [{ "subnet": "10.8.0.0/24", "gateway": "10.8.0.9" }, { "subnet": "fd08::/64" }],
        "routes": [{ "destination": "10.99.0.0/16", "gateway": "10.8.0.7", "metric": 3 }],
    }));
    let spec = blue.spec().unwrap();
    assert_eq!(
        (spec.mtu, spec.isolated, spec.icc, spec.internal),
        (Some(1400), false, false, true)
    );
    assert_eq!((spec.subnets.len(), spec.gateways.len()), (2, 1));
    assert_eq!(blue.routes()[0].dst.to_string(), "10.99.0.0/16");
    let back = serde_json::to_value(&blue).unwrap();
    assert_eq!((&back["id"], &back["driver"]), (&json!("ab12"), &json!("wharf")));
    assert_eq!(back["routes"][0]["metric"], 3);
    for (wrong, words) in [
        (json!({ "options": { "vlan": "7" } }), "vlan"),
        (json!({ "options": { "icc": "maybe" } }), "icc=maybe"),
        (json!({ "ipam_options": { "driver": "dhcp" } }), "DHCP"),
        (json!({ "network_dns_servers": ["1.1.1.1"] }), "DNS servers"),
    ] {
        let error = network(&wrong).spec().unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_container_s_wishes_become_a_request() {
    let options = json!({
        "interface_name": "eth0", "aliases": ["db"],
        "static_ips": ["10.8.0.5", "fd08::5"], "static_mac": "02:11:22:33:44:55",
    });
    let mappings = json!([
        { "container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,udp", "range": 3 },
        { "container_port": 53, "host_ip": "::1", "host_port": 53, "protocol": "udp", "range": 1 },
        { "container_port": 99, "host_ip": "127.0.0.1", "host_port": 0, "protocol": "sctp", "range": 1 },
    ]);
    let request = exec(&mappings, &options).request().unwrap();
    assert_eq!(
        request.publish,
        ["8080-8082:80-82/tcp", "8080-8082:80-82/udp", "[::1]:53:53/udp", "127.0.0.1:0:99/sctp"]
    );
    assert_eq!(request.name.as_deref(), Some("web"));
    assert_eq!(
        (request.aliases, request.ip6.unwrap().to_string()),
        (vec!["db".to_owned()], "fd08::5".to_owned())
    );
    let bare = json!({ "interface_name": "eth0" });
    for (wrong, words) in [
        (json!([{ "container_port": 65535, "host_port": 1, "range": 2 }]), "too many"),
        (json!([{ "container_port": 1, "host_port": 1, "host_ip": "x" }]), "no address"),
    ] {
        let error = exec(&wrong, &bare).request().unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let twice = json!({ "interface_name": "eth0", "static_ips": ["10.0.0.1", "10.0.0.2"] });
    assert!(exec(&json!(null), &twice).request().is_err());
}
