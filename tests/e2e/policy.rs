//! Policies between real containers.

use std::fs;

use crate::support::{PATIENCE, in_world, udp_in};
use crate::traffic::{NEVER, ask_udp, ping, serve_whoami, whoami_tcp, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, World};

const WEB: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: front}}}]
    ports: [{port: 5000}, {protocol: UDP, port: whoami}]
";

#[track_caller]
fn reaches(from: &Container, to: &Container, expected: bool) {
    for address in to.addrs.iter().map(|addr| (*addr, 5000).into()) {
        for ask in [whoami_tcp, whoami_udp] {
            let patience = if expected { PATIENCE } else { NEVER };
            let seen = ask(&from.ns(), address, patience);
            assert_eq!(seen.is_ok(), expected, "{} -> {}: {seen:?}", from.name, to.name);
        }
    }
}

#[test]
fn a_kubernetes_policy_lets_in_whom_it_names_and_nobody_else() {
    in_world("policy::a_kubernetes_policy_lets_in_whom_it_names_and_nobody_else", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let web = world.container("web", "--network blue -l app=web -l port/whoami=5000/udp");
        let front = world.container("front", "--network blue -l app=front");
        let other = world.container("other", "--network blue -l app=other");
        serve_whoami(&web.ns(), 5000);
        serve_whoami(&front.ns(), 5000);
        reaches(&other, &web, true);
        let sockets = FAMILIES.map(|family| {
            let socket = udp_in(&other.ns(), other.addr(family), 0);
            socket.connect((web.addr(family), 5000)).unwrap();
            ask_udp(&socket, PATIENCE).unwrap();
            socket
        });

        let file = dir.join("web.yaml");
        fs::write(&file, WEB).unwrap();
        let apply = format!("policy apply {}", file.display());
        assert_eq!(world.ok(&apply), "default/web");
        for socket in sockets {
            assert!(ask_udp(&socket, NEVER).is_err(), "a flow outlived the permission");
        }
        reaches(&front, &web, true);
        reaches(&other, &web, false);
        reaches(&web, &front, true);
        assert!(ping(&other.ns(), web.addr(FAMILIES[0]), NEVER).is_err());
        assert!(world.drops("other", "policy-ingress") > 0);
        let events = world.ok("events");
        assert!(events.contains("flow-denied") && events.contains("other (app=other)"), "{events}");
        assert!(events.contains("default/web, which allows no such ingress"), "{events}");

        // Who decided is said, and scripts can ask.
        assert!(
            world.ok("policy test --from front --to web:5000").contains("default/web ingress[0]")
        );
        let denied = world.output(&["policy", "test", "--from", "other", "--to", "web:5000"]);
        assert_eq!(denied.status.code(), Some(1));
        let to = format!("{}:5000", web.addrs[0]);
        let trace = world.output(&["trace", "--from", "other", "--to", &to]);
        let trace = String::from_utf8(trace.stdout).unwrap();
        assert!(
            trace.contains("default/web, which") && trace.contains("policy-ingress"),
            "{trace}"
        );
        assert!(world.ok("policy ls").contains("default/web"));

        // A file with a mistake changes nothing.
        fs::write(&file, WEB.replace("ingress:", "ingres:")).unwrap();
        world.refused(&apply).says(1, &["line 7", "ingres"]);
        reaches(&other, &web, false);
        world.ok("policy rm default/web");
        reaches(&other, &web, true);
    });
}

#[test]
fn clients_of_a_private_network_see_the_server_and_not_each_other() {
    in_world("policy::clients_of_a_private_network_see_the_server_and_not_each_other", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue --icc=false --icc-except role=server {BLUE}"));
        let server = world.container("server", "--network blue -l role=server");
        let (a, b) =
            (world.container("a", "--network blue"), world.container("b", "--network blue"));
        for container in [&server, &a, &b] {
            serve_whoami(&container.ns(), 5000);
        }
        reaches(&a, &server, true);
        reaches(&server, &b, true);
        reaches(&a, &b, false);
        assert!(world.drops("a", "port-isolated") > 0);
    });
}
