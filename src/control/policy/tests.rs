//! Files, and what they mean: cases generated from all elements of a NetworkPolicy, as cyclonus does, each
//! against a model that knows nothing of tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use super::*;
use crate::stage::policy::{Party, Policy};
use crate::wire::addr::{Addr, Family};

const PROTOS: [(&str, u8); 3] = [("TCP", ipv6::TCP), ("UDP", ipv6::UDP), ("SCTP", ipv6::SCTP)];
const PORTS: [u16; 3] = [80, 81, 8080];

/// Nine pods, a to c in each of x, y and z.
#[derive(Clone, Copy)]
struct Pod {
    ns: &'static str,
    name: &'static str,
    number: u8,
}

fn pods() -> impl Iterator<Item = Pod> {
    let names = ["x", "y", "z"].into_iter().flat_map(|ns| ["a", "b", "c"].map(|pod| (ns, pod)));
    names.enumerate().map(|(n, (ns, pod))| Pod { ns, name: pod, number: n as u8 })
}

impl Pod {
    /// Namespaces are subnets: `10.0.N.M`, `fd00:0:0:N::M`.
    fn addr(self, family: Family) -> Addr {
        let (ns, pod) = (self.number / 3, self.number % 3 + 1);
        match family {
            Family::V4 => Addr::from_v4_bytes([10, 0, ns, pod]),
            Family::V6 => {
                Addr::from_prefix_and_id(0xfd00_0000_0000_0000 | u64::from(ns), pod.into())
            }
        }
    }

    fn facts(self) -> Facts {
        let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let named = [label("port/serve-80-tcp", "80"), label("port/serve-81-udp", "81/udp")];
        Facts {
            namespace: self.ns.to_owned(),
            namespace_labels: BTreeMap::from([
                label("ns", self.ns),
                label(NAMESPACE_NAME, self.ns),
            ]),
            labels: named.into_iter().chain([label("pod", self.name)]).collect(),
        }
    }
}

/// An element of a policy: as YAML, and what it means.
type PeerCase = (&'static str, fn(Pod) -> bool);
type PortCase = (&'static str, fn(u8, u16) -> bool);

const PEERS: &[PeerCase] = &[
    ("[]", |_| true),
    ("[{podSelector: {}}]", |p| p.ns == "x"),
    ("[{podSelector: {matchLabels: {pod: b}}}]", |p| p.ns == "x" && p.name == "b"),
    ("[{namespaceSelector: {}}]", |_| true),
    ("[{namespaceSelector: {matchLabels: {ns: y}}}]", |p| p.ns == "y"),
    ("[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]", |p| p.ns == "z"),
    ("[{namespaceSelector: {}, podSelector: {matchLabels: {pod: c}}}]", |p| p.name == "c"),
    ("[{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: c}}}]", |p| {
        p.ns == "y" && p.name == "c"
    }),
    ("[{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}}]", |p| {
        p.ns == "x" && p.name != "c"
    }),
    (
        "[{namespaceSelector: {}, podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}}]",
        |p| p.name != "a",
    ),
    ("[{podSelector: {matchExpressions: [{key: pod, operator: Exists}]}}]", |p| p.ns == "x"),
    ("[{podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}}]", |_| false),
    (
        "[{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x, y]}]}}]",
        |p| p.ns == "z",
    ),
    ("[{ipBlock: {cidr: 10.0.1.0/24}}, {ipBlock: {cidr: 'fd00:0:0:1::/64'}}]", |p| p.ns == "y"),
    (
        "[{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.1.0/24, 10.0.2.1/32]}}, {ipBlock: {cidr: '::/0', except: ['fd00:0:0:1::/64', 'fd00:0:0:2::1/128']}}]",
        |p| p.ns != "y" && !(p.ns == "z" && p.name == "a"),
    ),
    (
        "[{ipBlock: {cidr: 10.0.0.2/32}}, {ipBlock: {cidr: 'fd00::2/128'}}, {namespaceSelector: {matchLabels: {ns: z}}}]",
        |p| p.ns == "z" || (p.ns == "x" && p.name == "b"),
    ),
];

const PORT_CASES: &[PortCase] = &[
    ("[]", |_, _| true),
    ("[{port: 80}]", |proto, port| proto == ipv6::TCP && port == 80),
    ("[{protocol: UDP, port: 81}]", |proto, port| proto == ipv6::UDP && port == 81),
    ("[{protocol: SCTP}]", |proto, _| proto == ipv6::SCTP),
    ("[{port: serve-80-tcp}]", |proto, port| proto == ipv6::TCP && port == 80),
    ("[{protocol: UDP, port: serve-81-udp}]", |proto, port| proto == ipv6::UDP && port == 81),
    ("[{protocol: UDP, port: serve-80-tcp}]", |_, _| false),
    ("[{port: 79, endPort: 81}]", |proto, port| proto == ipv6::TCP && port <= 81),
    ("[{port: 80}, {protocol: UDP, port: 81, endPort: 9000}]", |proto, port| {
        proto == ipv6::TCP && port == 80 || proto == ipv6::UDP && port >= 81
    }),
];

const TARGETS: &[PeerCase] = &[
    ("{}", |p| p.ns == "x"),
    ("{matchLabels: {pod: a}}", |p| p.ns == "x" && p.name == "a"),
    ("{matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}", |p| {
        p.ns == "x" && p.name != "a"
    }),
];

/// One policy of namespace x.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    target: PeerCase,
    peers: PeerCase,
    ports: PortCase,
    /// Ingress, egress.
    directions: [bool; 2],
}

impl Case {
    fn yaml(&self) -> String {
        let [ingress, egress] = self.directions;
        let types = [ingress.then_some("Ingress"), egress.then_some("Egress")];
        let types: Vec<&str> = types.into_iter().flatten().collect();
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {}, namespace: x}}\n\
             spec:\n  podSelector: {}\n  policyTypes: [{}]\n",
            self.name,
            self.target.0,
            types.join(", ")
        );
        if ingress {
            let _ =
                writeln!(text, "  ingress: [{{from: {}, ports: {}}}]", self.peers.0, self.ports.0);
        }
        if egress {
            let _ = writeln!(text, "  egress: [{{to: {}, ports: {}}}]", self.peers.0, self.ports.0);
        }
        text
    }
}

/// Kubernetes' words: whoever is selected in a direction by any policy is denied there what none allows.
fn model(cases: &[Case], from: Pod, to: Pod, proto: u8, port: u16) -> [bool; 2] {
    [(1, from, to), (0, to, from)].map(|(direction, own, peer)| {
        let mut selecting =
            cases.iter().filter(|c| c.directions[direction] && (c.target.1)(own)).peekable();
        selecting.peek().is_none()
            || selecting.any(|c| (c.peers.1)(peer) && (c.ports.1)(proto, port))
    })
}

fn records(yaml: &str) -> Vec<PolicyRecord> {
    let documents = read(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let policy = |document| match document {
        Document::Policy(policy) => policy,
        Document::Namespace(other) => panic!("{other:?}"),
    };
    documents.into_iter().map(policy).collect()
}

fn compile(yaml: &str) -> Compiled {
    Compiled::new(&in_order(records(yaml).iter()))
}

fn allowed(
    policy: &Policy,
    direction: Direction,
    own: (&Subject, Addr),
    peer: (&Subject, Addr),
    to: (u8, u16),
) -> bool {
    let party = Party { subject: Some(peer.0), addr: peer.1 };
    let judged = policy.judge(direction, own.0, &party, to, &std::iter::empty());
    judged.is_none_or(|judged| judged.action == Action::Allow)
}

fn check(cases: &[Case]) {
    let yaml = cases.iter().map(Case::yaml).collect::<Vec<_>>().join("---\n");
    let compiled = compile(&yaml);
    let policy = compiled.policy();
    let all: Vec<(Pod, Subject)> = pods().map(|p| (p, compiled.subject(&p.facts()))).collect();
    for family in [Family::V4, Family::V6] {
        for ((from, a), (to, b)) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
            let (source, destination) = ((a, from.addr(family)), (b, to.addr(family)));
            for (proto, port) in PROTOS.iter().flat_map(|(_, p)| PORTS.map(|port| (*p, port))) {
                let [egress, ingress] = model(cases, *from, *to, proto, port);
                let at = (proto, port);
                let out = allowed(policy, Direction::Egress, source, destination, at);
                let inn = allowed(policy, Direction::Ingress, destination, source, at);
                assert_eq!(
                    (out, inn),
                    (egress, ingress),
                    "{}/{} to {}/{} {proto}:{port} under\n{yaml}",
                    from.ns,
                    from.name,
                    to.ns,
                    to.name
                );
            }
        }
    }
}

fn all_cases() -> impl Iterator<Item = Case> {
    let directions = [[true, false], [false, true], [true, true]];
    directions.into_iter().flat_map(|directions| {
        TARGETS.iter().flat_map(move |target| {
            PEERS.iter().flat_map(move |peers| {
                PORT_CASES.iter().map(move |ports| Case {
                    name: "one",
                    target: *target,
                    peers: *peers,
                    ports: *ports,
                    directions,
                })
            })
        })
    })
}

#[test]
fn every_combination_of_the_elements_means_what_kubernetes_says() {
    assert!(all_cases().count() > 1_000);
    for case in all_cases() {
        check(&[case]);
    }
}

#[test]
fn several_policies_are_the_union_of_what_they_allow() {
    let all: Vec<Case> = all_cases().collect();
    // Steps without a common divisor pair every kind with every other.
    for n in 0..300 {
        let pick = |step: usize, name| Case { name, ..all[n * step % all.len()] };
        check(&[pick(7, "one"), pick(131, "two"), pick(397, "three")]);
    }
}

/// The recipes of Kubernetes' documentation.
#[test]
fn the_default_policies_of_the_documentation() {
    let text = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: x}}\nspec:\n{spec}"
        )
    };
    for (spec, isolates, egress, ingress) in [
        ("  podSelector: {}\n  policyTypes:\n  - Ingress\n", "ingress", true, false),
        (
            "  podSelector: {}\n  ingress:\n  - {}\n  policyTypes:\n  - Ingress\n",
            "ingress",
            true,
            true,
        ),
        ("  podSelector: {}\n  policyTypes:\n  - Egress\n", "egress", false, true),
        (
            "  podSelector: {}\n  egress:\n  - {}\n  policyTypes:\n  - Egress\n",
            "egress",
            true,
            true,
        ),
        (
            "  podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress\n",
            "ingress egress",
            false,
            false,
        ),
        ("  podSelector: {}\n", "ingress", true, false),
        ("  podSelector: {}\n  egress:\n  - {}\n", "ingress egress", true, false),
        ("  podSelector: {}\n  ingress: []\n", "ingress", true, false),
    ] {
        let yaml = text(spec);
        let record = &records(&yaml)[0];
        let names = record.isolates.iter().map(|d| d.name()).collect::<Vec<_>>().join(" ");
        assert_eq!(names, isolates, "{spec}");
        let compiled = compile(&yaml);
        let mut all = pods();
        let (x, y) = (all.next().unwrap(), all.nth(4).unwrap());
        let (own, other) = (compiled.subject(&x.facts()), compiled.subject(&y.facts()));
        let ends = ((&own, x.addr(Family::V4)), (&other, y.addr(Family::V4)));
        let says =
            |direction| allowed(compiled.policy(), direction, ends.0, ends.1, (ipv6::TCP, 80));
        assert_eq!(
            (says(Direction::Egress), says(Direction::Ingress)),
            (egress, ingress),
            "{spec}"
        );
        let foreign =
            allowed(compiled.policy(), Direction::Ingress, ends.1, ends.0, (ipv6::TCP, 80));
        assert!(foreign, "another namespace is not concerned");
    }
}

/// The first example of the documentation, with everything that it has.
const DOCUMENTED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: test-network-policy
  namespace: default
  annotations: {note: anything}
spec:
  podSelector:
    matchLabels:
      role: db
  policyTypes:
  - Ingress
  - Egress
  ingress:
  - from:
    - ipBlock:
        cidr: 172.17.0.0/16
        except:
        - 172.17.1.0/24
    - namespaceSelector:
        matchLabels:
          project: myproject
    - podSelector:
        matchLabels:
          role: frontend
    ports:
    - protocol: TCP
      port: 6379
  egress:
  - to:
    - ipBlock:
        cidr: 10.0.0.0/24
    ports:
    - protocol: TCP
      port: 5978
---
apiVersion: v1
kind: Namespace
metadata:
  name: other
  labels: {project: myproject}
";

#[test]
fn the_documented_example_is_read_as_it_is() {
    let documents = read(DOCUMENTED).unwrap();
    let [Document::Policy(policy), Document::Namespace(namespace)] = documents.as_slice() else {
        panic!("{documents:?}")
    };
    assert_eq!(namespace.labels["project"], "myproject");
    let compiled = Compiled::new(&in_order([policy].into_iter()));
    let facts = |ns: &str, project: bool, role: &str| Facts {
        namespace: ns.into(),
        namespace_labels: if project { namespace.labels.clone() } else { BTreeMap::new() },
        labels: BTreeMap::from([("role".to_owned(), role.to_owned())]),
    };
    let db = compiled.subject(&facts("default", false, "db"));
    let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
    let from = |facts: &Facts, at: &str, port| {
        let peer = compiled.subject(facts);
        let at = addr(at);
        allowed(
            compiled.policy(),
            Direction::Ingress,
            (&db, addr("192.0.2.1")),
            (&peer, at),
            (ipv6::TCP, port),
        )
    };
    let nobody = facts("elsewhere", false, "none");
    assert!(from(&facts("default", false, "frontend"), "192.0.2.2", 6379));
    assert!(!from(&facts("default", false, "frontend"), "192.0.2.2", 6380));
    assert!(!from(&facts("elsewhere", false, "frontend"), "192.0.2.2", 6379));
    assert!(from(&facts("other", true, "none"), "192.0.2.2", 6379));
    assert!(from(&nobody, "172.17.0.9", 6379));
    assert!(!from(&nobody, "172.17.1.9", 6379));
    assert!(!from(&nobody, "fd00::9", 6379));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let head =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n";
    let kubernetes = |rest: &str| format!("{head}{rest}");
    for (yaml, line, words) in [
        (kubernetes("  podSelektor: {}\n"), 5, "podSelektor"),
        (kubernetes("  podSelector: {}\n  ingress:\n  - form: []\n"), 7, "form"),
        (kubernetes("  podSelector: {}\n  ingress:\n  - from:\n    - {}\n"), 8, "needs `podSelector`"),
        (kubernetes("  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/33}\n"), 7, "10.0.0.0/33"),
        (kubernetes("  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except: [11.0.0.0/9]\n"), 9, "no part"),
        (kubernetes("  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8}\n      podSelector: {}\n"), 7, "cannot stand beside"),
        (kubernetes("  policyTypes: [Ingres]\n"), 5, "Ingres"),
        (kubernetes("  ingress:\n  - ports:\n    - {protocol: ICMP}\n"), 7, "ICMP"),
        (kubernetes("  ingress:\n  - ports:\n    - {port: 80, endPort: 79}\n"), 7, "before"),
        (kubernetes("  ingress:\n  - ports:\n    - {port: http, endPort: 79}\n"), 7, "number"),
        (kubernetes("  ingress:\n  - ports:\n    - {port: 65536}\n"), 7, "65535"),
        (kubernetes("  podSelector:\n    matchExpressions:\n    - {key: a, operator: in, values: [b]}\n"), 7, "operator"),
        (kubernetes("  podSelector:\n    matchExpressions:\n    - {key: a, operator: In}\n"), 7, "values"),
        ("kind: NetworkPolicy\nmetadata: {name: p}\nspec: {}\n".to_owned(), 1, "apiVersion"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: p}\n".to_owned(), 2, "Deployment"),
        ("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: P_}\nspec: {}\n".to_owned(), 3, "P_"),
        ("---\nfoo: 1\n".to_owned(), 2, "foo"),
        ("policy: p\nselect: 'a=('\nrules: [{deny: {from: any}}]\n".to_owned(), 2, "parentheses"),
        ("policy: p\nrules:\n- deny: {from: any}\n- deny: {from: web}\n".to_owned(), 4, "wharf/name"),
        ("policy: p\nrules:\n- {deny: {from: any}, allow: {from: any}}\n".to_owned(), 3, "either"),
        ("policy: p\nrules:\n- deny: {from: '*.example.org'}\n".to_owned(), 3, "only be gone `to`"),
        ("policy: p\nrules:\n- deny: {to: any, ports: [80/icmp]}\n".to_owned(), 3, "no port"),
        ("policy: p\npriority: 1000\nrules:\n- deny: {to: any}\n".to_owned(), 2, "1000"),
        ("policy: p\nkind: Namespace\nrules: []\n".to_owned(), 1, "either a Kubernetes object"),
        ("select: a=b\n".to_owned(), 1, "policy: NAME"),
    ] {
        let error = read(&yaml).expect_err(&yaml);
        assert_eq!(error.line, line, "{error}\n{yaml}");
        assert!(error.message.contains(words), "{error}\n{yaml}");
        assert!(!error.message.contains('\n'), "{error}");
    }
    assert!(read("policy: [1\n").is_err() && read("\u{1}").is_err());
}
