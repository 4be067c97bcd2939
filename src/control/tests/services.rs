use ErrorCode::{Conflict, Exists, Invalid, NotFound, Store as StoreFailed};

use super::*;
use crate::base::ids::ServiceId;
use crate::control::model::{
    EndpointUpdate, HealthCheck, HealthSpec, ServiceInfo, ServiceSpec, ServiceUpdate,
};
use crate::stage::service::Service;
use crate::stage::service::health::{Check, Verdict};
use crate::wire::addr::Family;
use crate::worker::command::Notice;

fn service(name: &str) -> ServiceSpec {
    let ports = vec!["http=80:8080/tcp".parse().unwrap()];
    ServiceSpec { name: name.to_owned(), ports, ..ServiceSpec::default() }
}

fn selecting(name: &str, app: &str) -> ServiceSpec {
    ServiceSpec { selector: [("app".to_owned(), app.to_owned())].into(), ..service(name) }
}

fn labelled(name: &str, app: &str) -> AttachRequest {
    AttachRequest { labels: [("app".to_owned(), app.to_owned())].into(), ..request(name) }
}

/// A service as workers have it.
fn told(daemon: &Daemon, id: u32) -> Arc<Service> {
    daemon.fake.world().tables.services().get(ServiceId(id)).unwrap().clone()
}

/// Its backends' names in a family, as workers have them.
fn backends(daemon: &Daemon, id: u32, family: Family) -> Vec<String> {
    let service = told(daemon, id);
    let pool = service.fronts[0].pool(family);
    pool.backends().iter().map(|b| format!("{}:{}", b.name, b.port)).collect()
}

fn ready(info: &ServiceInfo) -> Vec<&str> {
    info.members.iter().filter(|m| m.ready).map(|m| m.name.as_str()).collect()
}

#[test]
fn backends_join_and_leave_by_their_labels() {
    let (daemon, mut control) = running();
    let made = control.create_service(&selecting("web", "shop")).unwrap();
    assert_eq!(made.spec.vips, [ip("10.96.0.2"), ip("fd00:10:96::2")]);
    assert_eq!(made.warnings, ["no container has the labels app=shop"]);
    control.attach(&labelled("a", "shop"), Vec::new()).unwrap();
    control.attach(&labelled("b", "else"), Vec::new()).unwrap();
    control.attach(&labelled("c", "shop"), Vec::new()).unwrap();
    for family in [Family::V4, Family::V6] {
        assert_eq!(backends(&daemon, 0, family), ["a:8080", "c:8080"]);
    }
    assert!(control.service("web").unwrap().warnings.is_empty());
    control.detach("a", None, "test").unwrap();
    assert_eq!(backends(&daemon, 0, Family::V4), ["c:8080"]);
    assert_eq!(ready(&control.service("web").unwrap()), ["c"]);
}

#[test]
fn a_container_that_is_labelled_anew_joins_and_leaves() {
    let (daemon, mut control) = running();
    control.create_service(&selecting("web", "shop")).unwrap();
    attach(&mut control, "a");
    for (app, served) in [("shop", true), ("else", false)] {
        let labels = Some([("app".to_owned(), app.to_owned())].into());
        let update = EndpointUpdate { labels, ..EndpointUpdate::default() };
        control.update_endpoint("a", None, &update).unwrap();
        assert_eq!(backends(&daemon, 0, Family::V4).len(), usize::from(served));
    }
}

#[test]
fn backends_are_named_with_ports_and_weights_of_their_own() {
    let (daemon, mut control) = running();
    attach(&mut control, "a");
    let named = ServiceSpec {
        backends: ["a", "late:81", "192.0.2.9"].map(|b| b.parse().unwrap()).to_vec(),
        weights: [("late".to_owned(), 0)].into(),
        ..service("web")
    };
    let made = control.create_service(&named).unwrap();
    assert_eq!(made.warnings, ["there is no container for the backend `late:81`"]);
    attach(&mut control, "late");
    assert_eq!(backends(&daemon, 0, Family::V4), ["192.0.2.9:8080", "a:8080", "late:81"]);
    assert_eq!(backends(&daemon, 0, Family::V6), ["a:8080", "late:81"]);
    assert_eq!(ready(&control.service("web").unwrap()), ["192.0.2.9", "a"]);
    let change = ServiceUpdate {
        weights: [("late".to_owned(), 7)].into(),
        affinity: Some(60),
        ..ServiceUpdate::default()
    };
    control.update_service("web", &change).unwrap();
    let weight = |name: &str| {
        let service = told(&daemon, 0);
        let pool = service.fronts[0].pool(Family::V4);
        pool.backends().iter().find(|b| &*b.name == name).map(|b| b.weight)
    };
    assert_eq!((weight("late"), weight("a")), (Some(7), Some(1)));
    assert!(told(&daemon, 0).affinity.is_some());
}

#[test]
fn services_have_names_that_every_network_s_name_server_knows() {
    let (daemon, mut control) = running();
    control.create_service(&service("Web")).unwrap();
    attach(&mut control, "a");
    let headless =
        ServiceSpec { headless: true, backends: vec!["a".parse().unwrap()], ..service("db") };
    let made = control.create_service(&headless).unwrap();
    assert!(made.spec.vips.is_empty());
    let world = daemon.fake.world();
    let names = world.tables.service_names();
    let addrs = |name: &str| names.addrs(name).unwrap().iter().map(|a| a.ip()).collect::<Vec<_>>();
    let vips = [ip("10.96.0.2"), ip("fd00:10:96::2")];
    assert_eq!((addrs("web"), addrs("web.svc")), (vips.to_vec(), vips.to_vec()));
    assert_eq!(names.name(vips[0].into()), Some("web.svc"));
    let own = [ip("10.20.0.2"), ip("fd20::2")];
    assert_eq!((addrs("db"), addrs("a.db.svc")), (own.to_vec(), own.to_vec()));
    assert_eq!(names.name(own[0].into()), None, "the container's own name is its network's");
    let srv = |name: &str| {
        (names.services(name).unwrap()[0].port, &*names.services(name).unwrap()[0].target)
    };
    assert_eq!(srv("_http._tcp.web"), (80, "web.svc"));
    assert_eq!(srv("_http._tcp.db.svc"), (8080, "a.db.svc"));
    drop(world);
    control.remove_service("db").unwrap();
    let world = daemon.fake.world();
    let names = world.tables.service_names();
    assert!(names.addrs("db").is_none() && names.services("_http._tcp.db").is_none());
}

#[test]
fn everything_about_a_service_is_back_after_a_restart() {
    let (daemon, mut control) = running();
    control.attach(&labelled("a", "shop"), Vec::new()).unwrap();
    let spec = ServiceSpec { node_ports: vec![0], ..selecting("web", "shop") };
    let made = control.create_service(&spec).unwrap();
    assert_eq!(made.spec.node_ports, [30_000]);
    let before = (control.services(), backends(&daemon, 0, Family::V6));
    drop(control);
    let mut control = daemon.start().unwrap();
    assert_eq!((control.services(), backends(&daemon, 0, Family::V6)), before);
    // What it has is taken still, and free once it is gone.
    let second = ServiceSpec { node_ports: vec![30_000], ..service("other") };
    refused(&daemon, &mut control, Conflict, &["30000", "the service web"], |c| {
        c.create_service(&second)
    });
    refused(&daemon, &mut control, Conflict, &["30000", "the service web"], |c| {
        c.publish("a", None, &["30000:80".parse().unwrap()])
    });
    control.remove_service("web").unwrap();
    assert_eq!(control.create_service(&second).unwrap().spec.node_ports, [30_000]);
}

#[test]
fn what_a_service_cannot_have_is_refused_in_words() {
    let (daemon, mut control) = running();
    attach(&mut control, "a");
    control.publish("a", None, &["30001:80".parse().unwrap()]).unwrap();
    control.create_service(&service("web")).unwrap();
    let vip = control.service("web").unwrap().spec.vips[0];
    let with = |change: fn(&mut ServiceSpec)| {
        let mut spec = service("other");
        change(&mut spec);
        spec
    };
    for (code, words, spec) in [
        (Exists, vec!["`web` exists"], service("web")),
        (Invalid, vec!["`-x` cannot be the name"], service("-x")),
        (Invalid, vec!["has no port", "--port"], with(|s| s.ports.clear())),
        (Conflict, vec!["10.20.0.0/24", "network blue"], with(|s| s.vips = vec![ip("10.20.0.9")])),
        (Conflict, vec!["taken by the service `web`"], with(|s| s.vips = vec![ip("10.96.0.2")])),
        (Invalid, vec!["224.0.0.1 cannot be"], with(|s| s.vips = vec![ip("224.0.0.1")])),
        (Invalid, vec!["30000-32767"], with(|s| s.node_ports = vec![80])),
        (Conflict, vec!["30001", "`a` publishes"], with(|s| s.node_ports = vec![30_001])),
        (Invalid, vec!["1 ports and 2 node ports"], with(|s| s.node_ports = vec![0, 0])),
        (NotFound, vec!["network `red`"], with(|s| s.network = Some("red".to_owned()))),
        (
            Invalid,
            vec!["weight of `a`", "0 to 100"],
            with(|s| s.weights = [("a".to_owned(), 101)].into()),
        ),
        (Invalid, vec!["twice"], with(|s| s.ports.push("80:1".parse().unwrap()))),
    ] {
        refused(&daemon, &mut control, code, &words, |c| c.create_service(&spec));
    }
    // Itself, or another one, for a backend.
    let mut itself = service("other");
    itself.backends = vec![vip.to_string().parse().unwrap()];
    refused(&daemon, &mut control, Invalid, &["the service `web` itself"], |c| {
        c.create_service(&itself)
    });
    let backends = Some(itself.backends.clone());
    let change = ServiceUpdate { backends, ..ServiceUpdate::default() };
    refused(&daemon, &mut control, Invalid, &["the service `web` itself"], |c| {
        c.update_service("web", &change)
    });
    // A network where services have their addresses.
    let clash = network("red", &["10.96.4.0/24"]);
    refused(&daemon, &mut control, Conflict, &["the addresses of services"], |c| {
        c.create_network(&clash)
    });
    refused(&daemon, &mut control, NotFound, &["no service `x`", "wharf service ls"], |c| {
        c.remove_service("x")
    });
}

#[test]
fn a_pool_where_a_network_is_gives_no_addresses_and_says_why() {
    let (daemon, mut control) = running();
    control.create_network(&network("red", &["10.96.0.0/24"])).unwrap();
    refused(&daemon, &mut control, Conflict, &["10.96.0.0/16", "network red"], |c| {
        c.create_service(&service("web"))
    });
}

#[test]
fn a_full_store_leaves_nothing_of_a_service() {
    let (daemon, mut control) = running();
    daemon.store.set_full(true);
    let spec = ServiceSpec { node_ports: vec![30_000], ..service("web") };
    refused(&daemon, &mut control, StoreFailed, &[], |c| c.create_service(&spec));
    daemon.store.set_full(false);
    assert_eq!(control.create_service(&spec).unwrap().spec.node_ports, [30_000]);
}

fn with_health(service: ServiceSpec) -> ServiceSpec {
    ServiceSpec { health: Some(HealthSpec::new(HealthCheck::Http("/up".to_owned()))), ..service }
}

/// Says that a backend serves, or why not.
fn found(control: &mut Control, addr: &str, failure: Option<&str>) {
    let (service, addr) = (ServiceId(0), addr.parse().unwrap());
    let failure = failure.map(str::to_owned);
    control.notice(Notice::Health(Verdict { service, addr, port: 8080, failure }));
}

#[test]
fn only_backends_that_were_found_to_serve_are_in_the_table_and_each_change_is_an_event() {
    let (daemon, mut control) = running();
    for name in ["a", "b"] {
        control.attach(&labelled(name, "shop"), Vec::new()).unwrap();
    }
    let made = control.create_service(&with_health(selecting("web", "shop"))).unwrap();
    assert!(ready(&made).is_empty(), "nobody was asked yet");
    assert_eq!(made.members[0].unready[&ip("10.20.0.2")], "has not been asked yet");
    let (health, asked) = told(&daemon, 0).health.clone().unwrap();
    assert_eq!((&health.check, health.down), (&Check::Http("/up".into()), 3));
    assert_eq!((asked.len(), asked[0].port), (4, 8080), "at each address");
    found(&mut control, "10.20.0.2", None);
    found(&mut control, "fd20::3", None);
    assert_eq!(backends(&daemon, 0, Family::V4), ["a:8080"]);
    assert_eq!(backends(&daemon, 0, Family::V6), ["b:8080"]);
    assert_eq!(ready(&control.service("web").unwrap()), ["a", "b"]);
    assert_eq!(kinds(&control).last(), Some(&EventKind::BackendReady));
    // Those that come and go leave what is known of the others.
    control.attach(&labelled("c", "shop"), Vec::new()).unwrap();
    assert_eq!(backends(&daemon, 0, Family::V4), ["a:8080"]);
    found(&mut control, "10.20.0.2", Some("answers 503"));
    assert!(backends(&daemon, 0, Family::V4).is_empty());
    let shown = control.service("web").unwrap();
    assert_eq!(shown.members[0].unready[&ip("10.20.0.2")], "answers 503");
    let event = control.events(0).pop().unwrap();
    assert_eq!(event.kind, EventKind::BackendUnready);
    assert_eq!(event.text, "a does not serve web at 10.20.0.2:8080: answers 503");
    // Another reason is shown, and is no event.
    let events = control.events(0).len();
    found(&mut control, "10.20.0.2", Some("refused the connection"));
    let shown = control.service("web").unwrap();
    assert_eq!(shown.members[0].unready[&ip("10.20.0.2")], "refused the connection");
    assert_eq!(control.events(0).len(), events);
    // What is said of one that is gone, or of no service, is nothing.
    found(&mut control, "10.20.0.99", None);
    control
        .update_service("web", &ServiceUpdate { no_health: true, ..Default::default() })
        .unwrap();
    assert_eq!(backends(&daemon, 0, Family::V4), ["a:8080", "b:8080", "c:8080"]);
    assert!(told(&daemon, 0).health.is_none());
}

#[test]
fn backends_that_were_there_before_a_restart_serve_until_they_are_found_not_to() {
    let (daemon, mut control) = running();
    let wish = AttachRequest { netns: Some(netns(7)), ..labelled("a", "shop") };
    control.attach(&wish, Vec::new()).unwrap();
    control.create_service(&with_health(selecting("web", "shop"))).unwrap();
    drop(control);
    let mut control = daemon.start().unwrap();
    assert_eq!(backends(&daemon, 0, Family::V4), ["a:8080"]);
    assert!(told(&daemon, 0).health.as_ref().unwrap().1[0].ready);
    found(&mut control, "10.20.0.2", Some("refused the connection"));
    assert!(backends(&daemon, 0, Family::V4).is_empty());
}

#[test]
fn a_health_check_that_makes_no_sense_is_refused() {
    let (daemon, mut control) = running();
    let usual = HealthSpec::new(HealthCheck::Tcp);
    let changed = |change: fn(&mut HealthSpec)| {
        let mut health = usual.clone();
        change(&mut health);
        ServiceSpec { health: Some(health), ..service("web") }
    };
    for (spec, word) in [
        (changed(|h| h.interval = 0), "interval"),
        (changed(|h| h.interval = 4_000), "interval"),
        (changed(|h| h.timeout = 11), "timeout"),
        (changed(|h| h.up = 0), "threshold"),
        (changed(|h| h.down = 101), "threshold"),
        (changed(|h| h.port = Some(0)), "port"),
    ] {
        refused(&daemon, &mut control, Invalid, &["`web`", word], |c| c.create_service(&spec));
    }
    let udp = ServiceSpec { ports: vec!["53/udp".parse().unwrap()], ..changed(|_| {}) };
    refused(&daemon, &mut control, Invalid, &["--health-port"], |c| c.create_service(&udp));
    let health = Some(HealthSpec { port: Some(8053), ..usual });
    control.create_service(&ServiceSpec { health, ..udp }).unwrap();
}
