//! What each verb says in each version, as far as no daemon is needed.

use serde_json::{Value, json};

use super::conf::{self, Conf};
use super::request;
use super::result;
use super::{Environment, serve};
use crate::attach::protocol::{AttachRequest, Attached};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::read(|name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn pod() -> Environment {
    environment(&[
        ("CNI_CONTAINERID", "5f2e6c0d9b1a77aa"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ])
}

fn parse(value: &Value) -> Result<Conf, Value> {
    let mut version = "1.1.0".to_owned();
    conf::parse(value.to_string().as_bytes(), &mut version).map_err(|e| e.to_json(&version))
}

fn with(version: &str, more: &Value) -> Conf {
    let mut conf = json!({ "cniVersion": version, "name": "net", "type": "wharf" });
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    parse(&conf).unwrap()
}

fn runtime(more: &Value) -> Result<AttachRequest, String> {
    let conf = with("1.0.0", &json!({ "runtimeConfig": more }));
    request::attach(&conf, &pod()).map_err(|error| format!("{} {}", error.code, error.msg))
}

fn call(pairs: &[(&str, &str)], input: &str) -> (u8, Value) {
    let mut out = Vec::new();
    let code = serve(&environment(pairs), input.as_bytes(), &mut out);
    (code, serde_json::from_slice(&out).unwrap_or(Value::Null))
}

fn attached() -> Attached {
    serde_json::from_value(json!({
        "endpoint": "e1", "name": "web", "mac": "02:42:0a:00:00:02",
        "addresses": ["10.0.0.2/24", "fd00::2/64"], "gateways": ["10.0.0.1", "fd00::1"],
        "dns": ["10.0.0.1"], "mtu": 1500, "txqueuelen": 2000,
    }))
    .unwrap()
}

#[test]
fn a_result_has_the_shape_of_its_version() {
    for (version, family, mtu) in [
        ("0.3.1", json!("4"), Value::Null),
        ("0.4.0", json!("4"), Value::Null),
        ("1.0.0", Value::Null, Value::Null),
        ("1.1.0", Value::Null, json!(1500)),
    ] {
        let conf = with(version, &json!({}));
        let said = result::of_attachment(&conf, "eth0", "/run/netns/x", &attached()).unwrap();
        assert_eq!(said["cniVersion"], version);
        assert_eq!(said["ips"][0]["version"], family, "{version}");
        assert_eq!(said["interfaces"][0]["mtu"], mtu, "{version}");
        assert_eq!(said["ips"][1]["address"], "fd00::2/64");
        assert_eq!(said["ips"][1]["gateway"], "fd00::1");
        assert_eq!(said["ips"][1]["interface"], 0);
        assert_eq!(said["routes"][1], json!({ "dst": "::/0", "gw": "fd00::1" }));
        let back = result::previous(&said, "eth0").unwrap().unwrap();
        assert_eq!((back.addresses, back.routes.len()), (attached().addresses, 2));
        assert_eq!(result::previous(&said, "eth1").unwrap(), None);
    }
}

#[test]
fn what_an_earlier_plugin_said_goes_on_unknown_fields_and_all() {
    let earlier = json!({
        "cniVersion": "1.0.0", "new": 1,
        "interfaces": [{ "name": "br0" }], "ips": null,
        "dns": { "nameservers": ["192.0.2.1"] },
    });
    let conf = with("1.0.0", &json!({ "prevResult": earlier }));
    let said = result::of_attachment(&conf, "eth0", "/x", &attached()).unwrap();
    assert_eq!(said["new"], 1);
    assert_eq!(said["interfaces"][0], json!({ "name": "br0" }));
    assert_eq!(said["ips"][0]["interface"], 1);
    assert_eq!(said["dns"]["nameservers"], json!(["192.0.2.1"]));
    let wrong = with("1.0.0", &json!({ "prevResult": { "ips": 7 } }));
    assert!(result::of_attachment(&wrong, "eth0", "/x", &attached()).is_err());
}

#[test]
fn each_verb_names_the_variables_that_it_misses() {
    for (verb, missing) in [
        ("ADD", "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"),
        ("CHECK", "[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME]"),
        ("DEL", "[CNI_CONTAINERID,CNI_IFNAME]"),
        ("GC", "[CNI_PATH]"),
    ] {
        let (code, said) = call(&[("CNI_COMMAND", verb)], "{}");
        assert_eq!((code, &said["code"]), (1, &json!(4)), "{verb}");
        let msg = said["msg"].as_str().unwrap();
        assert_eq!(msg, format!("required env variables {missing} missing"));
    }
    let (_, said) = call(&[("CNI_COMMAND", "EAT")], "{}");
    assert_eq!(said["msg"], "unknown CNI_COMMAND: EAT");
    for (name, value) in [("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "..")]
    {
        let pairs =
            [("CNI_COMMAND", "DEL"), (name, value), ("CNI_CONTAINERID", "x"), ("CNI_IFNAME", "e")];
        let (_, said) = call(&pairs, "{}");
        assert_eq!(said["code"], 4, "{name}={value}");
    }
}

#[test]
fn versions_are_negotiated_and_verbs_belong_to_versions() {
    let version = [("CNI_COMMAND", "VERSION")];
    for (input, answer) in [
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"9.9.9"}"#, "1.1.0"),
        ("", "1.1.0"),
    ] {
        let (code, said) = call(&version, input);
        assert_eq!((code, &said["cniVersion"]), (0, &json!(answer)));
        let supported = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        assert_eq!(said["supportedVersions"], supported);
    }
    for version in [json!("0.2.0"), json!("2.0.0"), json!(null), json!("")] {
        let error = parse(&json!({ "cniVersion": version, "name": "net" })).unwrap_err();
        assert_eq!((&error["code"], &error["cniVersion"]), (&json!(1), &json!("1.1.0")));
    }
    for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let pairs = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "x"),
            ("CNI_NETNS", "/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/x"),
        ];
        let (code, said) = call(&pairs, &json!({ "cniVersion": version, "name": "n" }).to_string());
        assert_eq!((code, &said["code"]), (1, &json!(1)), "{verb}");
        assert_eq!(said["cniVersion"], version);
        assert!(said["msg"].as_str().unwrap().contains(verb));
    }
}

#[test]
fn bad_configurations_are_told_by_their_kind() {
    for (input, code) in [
        ("{", 6),
        ("7", 6),
        (r#"{"cniVersion":"1.0.0","name":"n","mtu":"big"}"#, 6),
        (r#"{"cniVersion":"1.0.0"}"#, 7),
        (r#"{"cniVersion":"1.0.0","name":"-n"}"#, 7),
        (r#"{"cniVersion":"1.0.0","name":"a b"}"#, 7),
    ] {
        let pairs = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "x"), ("CNI_IFNAME", "eth0")];
        assert_eq!(call(&pairs, input).1["code"], code, "{input}");
    }
    assert!(
        parse(&json!({ "cniVersion": "1.0.0", "name": "n", "ipam": null, "isGateway": true }))
            .is_ok()
    );
}

#[test]
fn neighbouring_ports_become_one_publication() {
    let port = |host: i64, container: i64, proto: &str, ip: &str| json!({ "hostPort": host, "containerPort": container, "protocol": proto, "hostIP": ip });
    let ports = json!([
        port(8082, 82, "tcp", ""),
        port(8080, 80, "TCP", ""),
        port(8081, 81, "tcp", ""),
        port(8081, 81, "tcp", ""),
        port(8083, 90, "tcp", ""),
        port(53, 53, "udp", "127.0.0.1"),
        port(54, 54, "udp", "::1"),
        port(0, 99, "sctp", ""),
    ]);
    assert_eq!(
        runtime(&json!({ "portMappings": ports })).unwrap().publish,
        [
            "0:99/sctp",
            "8080-8082:80-82/tcp",
            "8083:90/tcp",
            "127.0.0.1:53:53/udp",
            "[::1]:54:54/udp"
        ]
    );
    for (wrong, code) in [
        (port(80, 80, "dccp", ""), "2 "),
        (port(80, 0, "tcp", ""), "7 "),
        (port(-1, 80, "tcp", ""), "7 "),
        (port(65_536, 80, "tcp", ""), "7 "),
        (port(80, 80, "tcp", "host"), "7 "),
    ] {
        let error = runtime(&json!({ "portMappings": [wrong] })).unwrap_err();
        assert!(error.starts_with(code), "{error}");
    }
    let last = json!([port(65_534, 1, "tcp", ""), port(65_535, 2, "tcp", "")]);
    assert_eq!(runtime(&json!({ "portMappings": last })).unwrap().publish, ["65534-65535:1-2/tcp"]);
}

#[test]
fn addresses_ranges_and_aliases_are_asked_for() {
    let request = runtime(&json!({
        "ips": ["10.1.1.2/24", "2001:db8::2"],
        "mac": "c2:11:22:33:44:55",
        "aliases": ["db", "not a name"],
        "ipRanges": [[{ "subnet": "10.1.1.0/24", "rangeStart": "10.1.1.9", "rangeEnd": "10.1.1.19" }]],
    }))
    .unwrap();
    assert_eq!(request.ip.unwrap().to_string(), "10.1.1.2");
    assert_eq!(request.ip6.unwrap().to_string(), "2001:db8::2");
    assert_eq!(request.mac.unwrap().to_string(), "c2:11:22:33:44:55");
    assert_eq!(request.aliases, ["db"]);
    assert_eq!(request.within.len(), 1);
    assert_eq!(request.name.as_deref(), Some("5f2e6c0d9b1a"));
    let range = |more: Value| runtime(&json!({ "ipRanges": more })).unwrap_err();
    for (wrong, words) in [
        (json!([[{ "subnet": "10.1.1.0/24", "rangeStart": "10.2.0.1" }]]), "does not lie in"),
        (
            json!([[{ "subnet": "10.1.1.0/24", "rangeStart": "10.1.1.9", "rangeEnd": "10.1.1.8" }]]),
            "ends before",
        ),
        (json!([[{ "subnet": "10.1.1.0/24" }, { "subnet": "10.1.2.0/24" }]]), "one subnet"),
        (json!([[{ "subnet": "fd01::/64" }], [{ "subnet": "fd02::/64" }]]), "one family"),
    ] {
        let error = range(wrong);
        assert!(error.starts_with("7 ") && error.contains(words), "{error}");
    }
    let twice = runtime(&json!({ "ips": ["10.0.0.2", "10.0.0.3"] })).unwrap_err();
    assert!(twice.contains("second address"), "{twice}");
}

#[test]
fn the_network_is_made_as_the_configuration_says() {
    let conf = with(
        "1.0.0",
        &json!({
            "mtu": 1400, "internal": true, "icc": false, "uplink": "lan",
            "ipam": { "subnet": "10.7.0.0/24", "gateway": "10.7.0.9", "ranges": [[{ "subnet": "fd07::/64" }]] },
        }),
    );
    let spec = request::network(&conf, &[]).unwrap();
    assert_eq!(spec.name, "net");
    assert_eq!(spec.subnets, ["10.7.0.0/24".parse().unwrap(), "fd07::/64".parse().unwrap()]);
    assert_eq!(spec.gateways, ["10.7.0.9".parse::<std::net::IpAddr>().unwrap()]);
    assert!(spec.internal && !spec.icc && spec.isolated);
    assert_eq!((spec.mtu, spec.uplink.as_deref()), (Some(1400), Some("lan")));
    let delegated = with("1.0.0", &json!({ "mtu": 0, "ipam": { "type": "host-local" } }));
    let leased = [("10.9.0.5/24".parse().unwrap(), "10.9.0.1".parse().ok())];
    let spec = request::network(&delegated, &leased).unwrap();
    assert_eq!(spec.subnets, ["10.9.0.0/24".parse().unwrap()]);
    assert_eq!(spec.mtu, None);
}
