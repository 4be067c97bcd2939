use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> PublishSpec {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn spec(
    addr: Option<&str>,
    host: Option<(u16, u16)>,
    ports: (u16, u16),
    proto: Proto,
) -> PublishSpec {
    let range = |(first, last)| PortRange::new(first, last).unwrap();
    PublishSpec {
        host_addr: addr.map(|a| a.parse().unwrap()),
        host_ports: host.map(range),
        ports: range(ports),
        proto,
    }
}

#[test]
fn every_form_that_docker_documents_is_understood() {
    use Proto::{Sctp, Tcp, Udp};
    let one = |p| (p, p);
    for (text, wanted) in [
        ("80", spec(None, None, one(80), Tcp)),
        ("80/udp", spec(None, None, one(80), Udp)),
        ("80/TCP", spec(None, None, one(80), Tcp)),
        ("8080:80", spec(None, Some(one(8080)), one(80), Tcp)),
        ("8080:80/sctp", spec(None, Some(one(8080)), one(80), Sctp)),
        ("0:80", spec(None, None, one(80), Tcp)),
        (":80", spec(None, None, one(80), Tcp)),
        ("127.0.0.1:8080:80", spec(Some("127.0.0.1"), Some(one(8080)), one(80), Tcp)),
        ("127.0.0.1::80", spec(Some("127.0.0.1"), None, one(80), Tcp)),
        ("127.0.0.1:0:80", spec(Some("127.0.0.1"), None, one(80), Tcp)),
        ("0.0.0.0:8080:80", spec(Some("0.0.0.0"), Some(one(8080)), one(80), Tcp)),
        ("[::1]:8080:80/udp", spec(Some("::1"), Some(one(8080)), one(80), Udp)),
        ("[::]::80", spec(Some("::"), None, one(80), Tcp)),
        ("[2001:db8::7]:53:53/udp", spec(Some("2001:db8::7"), Some(one(53)), one(53), Udp)),
        ("8000-8010:9000-9010", spec(None, Some((8000, 8010)), (9000, 9010), Tcp)),
        (
            "10.0.0.1:8000-8010:9000-9010/udp",
            spec(Some("10.0.0.1"), Some((8000, 8010)), (9000, 9010), Udp),
        ),
        ("8000-8010:80", spec(None, Some((8000, 8010)), one(80), Tcp)),
        ("9000-9010", spec(None, None, (9000, 9010), Tcp)),
        ("1-65535:1-65535", spec(None, Some((1, 65535)), (1, 65535), Tcp)),
    ] {
        assert_eq!(parse(text), wanted, "{text}");
    }
}

#[test]
fn what_is_no_publication_is_refused_with_the_part_that_is_wrong() {
    for (text, words) in [
        ("", "names no container port"),
        ("8080:", "names no container port"),
        ("/tcp", "names no container port"),
        ("0", "`0` in `0` is not a port"),
        ("8080:0", "`0` in `8080:0`"),
        ("65536", "`65536` in"),
        ("8080:+80", "`+80` in"),
        ("http:80", "`http` in `http:80`"),
        ("0-5:80", "`0-5` in"),
        ("80-:80", "`80-` in"),
        ("90-80", "`90-80` ends before it starts"),
        ("80/icmp", "`icmp` is not a protocol"),
        ("80/", "`` is not a protocol"),
        ("127.0.0.1:80", "write `ADDRESS::PORT`"),
        ("[::1]:80", "write `ADDRESS::PORT`"),
        ("::1:8080:80", "`::1` is not a host address"),
        ("[127.0.0.1]:8080:80", "`[127.0.0.1]` is not a host address"),
        ("1.2.3:80:80", "`1.2.3` is not a host address"),
        ("1-3:1-2", "pairs 3 host ports with 2 container ports"),
        ("80:81-82", "pairs 1 host ports with 2 container ports"),
    ] {
        let error = text.parse::<PublishSpec>().expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn in_json_a_publication_is_its_text() {
    let spec: PublishSpec = serde_json::from_str("\"[::1]:8080:80\"").unwrap();
    assert_eq!(serde_json::to_string(&spec).unwrap(), "\"[::1]:8080:80/tcp\"");
    assert!(serde_json::from_str::<PublishSpec>("\"80/gre\"").is_err());
}

fn any_spec() -> impl Strategy<Value = PublishSpec> {
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)];
    let ports = (1_u16.., 0_u16..200).prop_map(|(first, n)| (first, first.saturating_add(n)));
    let host = (proptest::option::of(1_u16..), any::<bool>());
    (proptest::option::of(any::<IpAddr>()), host, ports, proto).prop_filter_map(
        "the host's range must fit",
        |(host_addr, (host, as_range), (first, last), proto)| {
            let last = if as_range { last } else { first };
            let length = last - first;
            let host_ports = match host {
                Some(h) => Some(PortRange::new(h, h.checked_add(length)?)?),
                None => None,
            };
            Some(PublishSpec { host_addr, host_ports, ports: PortRange::new(first, last)?, proto })
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[0-9a-f:.\\[\\]/\\-tcpud]{0,40}") {
        if let Ok(spec) = text.parse::<PublishSpec>() {
            prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
        }
    }
}
