use super::*;
use crate::control::model::{PolicyTest, PolicyVerdict};
use crate::datapath::Denied;
use crate::datapath::inspect::PolicySaid;
use crate::packet::DropReason;
use crate::stage::policy::{Action, Direction};
use crate::worker::command::Notice;

const FILE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    - namespaceSelector: {matchLabels: {team: a}}
---
policy: office
rules:
- deny: {to: 10.0.0.0/8}
";

fn labelled(control: &mut Control, name: &str, app: &str) -> PortId {
    let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    let wish = AttachRequest { labels, ..request(name) };
    control.attach(&wish, Vec::new()).unwrap();
    control.endpoint(name).unwrap()[0].port
}

fn is_subject(daemon: &Daemon, port: PortId, direction: Direction) -> bool {
    let world = daemon.fake.world();
    world.tables.policy().subject(port).is_some_and(|subject| subject.is_subject(direction))
}

#[test]
fn policies_reach_endpoints_that_are_there_and_those_that_come() {
    let (daemon, mut control) = running();
    let db = labelled(&mut control, "db", "db");
    assert!(!is_subject(&daemon, db, Direction::Ingress));
    control.apply_policies(FILE).unwrap();
    let web = labelled(&mut control, "web", "web");
    for (port, ingress) in [(db, true), (web, false)] {
        assert_eq!(is_subject(&daemon, port, Direction::Ingress), ingress);
        assert!(is_subject(&daemon, port, Direction::Egress), "office is about everybody");
    }
    control.remove_policy("office").unwrap();
    assert!(!is_subject(&daemon, web, Direction::Egress));
    control.detach("db", None, "test").unwrap();
    assert!(!is_subject(&daemon, db, Direction::Ingress), "the number is free for another");
    control.remove_policy("default/db").unwrap();
    assert!(daemon.fake.world().tables.policy().policy.is_empty());
    refused(&daemon, &mut control, ErrorCode::NotFound, &["there is no policy `db`"], |c| {
        c.remove_policy("db")
    });
}

#[test]
fn policies_are_there_after_a_restart_before_the_endpoints() {
    let (daemon, mut control) = running();
    let db = labelled(&mut control, "db", "db");
    control.apply_policies(FILE).unwrap();
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: a}}\n";
    control.apply_policies(namespace).unwrap();
    let before = control.policies();
    drop(control);
    daemon.fake.world().tables = Tables::default();
    let control = daemon.start().unwrap();
    assert_eq!(control.policies(), before);
    assert!(is_subject(&daemon, db, Direction::Ingress));
}

#[test]
fn a_file_is_taken_whole_or_not_at_all() {
    let (daemon, mut control) = running();
    let broken = format!("{FILE}---\npolicy: x\nruls: []\n");
    refused(&daemon, &mut control, ErrorCode::Invalid, &["line 17", "ruls"], |c| {
        c.apply_policies(&broken)
    });
    daemon.store.set_full(true);
    assert_eq!(control.apply_policies(FILE).unwrap_err().code(), ErrorCode::Store);
    assert!(control.policies().is_empty());
}

#[test]
fn a_selector_that_matches_nothing_is_a_warning() {
    let (_daemon, mut control) = running();
    labelled(&mut control, "db", "db");
    let applied = control.apply_policies(FILE).unwrap();
    let [db, office] = applied.policies.as_slice() else { panic!("{applied:?}") };
    assert_eq!((db.endpoints, office.endpoints), (1, 1));
    assert_eq!(
        db.warnings,
        [
            "default/db ingress[0]: no endpoint is app=web in namespace default",
            "default/db ingress[0]: no endpoint is all endpoints in namespaces with team=a"
        ]
    );
    labelled(&mut control, "web", "web");
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: a}}\n";
    control.apply_policies(namespace).unwrap();
    assert!(control.policies().iter().all(|policy| policy.warnings.is_empty()));
}

#[test]
fn a_policy_of_the_same_name_is_replaced() {
    let (_daemon, mut control) = running();
    control.apply_policies(FILE).unwrap();
    control.apply_policies("policy: office\nrules: [{allow: {from: any}}]\n").unwrap();
    let all = control.policies();
    assert_eq!(all.len(), 2);
    assert_eq!(
        all[0].rules[0].action,
        Action::Allow,
        "a native policy has no namespace, and stands first"
    );
}

#[test]
fn a_test_names_the_rules_of_both_ends() {
    let (daemon, mut control) = running();
    let (db, web) = (labelled(&mut control, "db", "db"), labelled(&mut control, "web", "web"));
    let said = |direction, rule: Option<&str>| PolicySaid {
        direction,
        action: Action::Allow,
        rule: rule.map(ToOwned::to_owned),
    };
    let answer = vec![
        said(Direction::Egress, None),
        said(Direction::Ingress, Some("default/db ingress[0]")),
    ];
    daemon.fake.world().answers = vec![Answer::Policy(answer)];
    let mut test = PolicyTest {
        from: "web".into(),
        to: "db".into(),
        port: Some(5432),
        proto: Some("tcp".into()),
    };
    let report = control.test_policy(&test).unwrap();
    let asked = daemon.fake.world().asked.pop();
    let Some(Query::Policy(question)) = asked else { panic!("{asked:?}") };
    assert_eq!((question.from, question.to, question.dst.1), (Some(web), Some(db), 5432));
    assert!(report.allowed);
    let verdict = |endpoint: &str, direction, rule: Option<&str>| PolicyVerdict {
        endpoint: endpoint.into(),
        direction,
        action: Action::Allow,
        rule: rule.map(ToOwned::to_owned),
    };
    assert_eq!(
        report.verdicts,
        [
            verdict("web", Direction::Egress, None),
            verdict("db", Direction::Ingress, Some("default/db ingress[0]"))
        ]
    );
    test.to = "192.0.2.9".into();
    control.test_policy(&test).unwrap();
    let asked = daemon.fake.world().asked.pop();
    assert!(matches!(asked, Some(Query::Policy(q)) if q.to.is_none() && q.from == Some(web)));
    test.to = "nobody".into();
    assert_eq!(control.test_policy(&test).unwrap_err().code(), ErrorCode::NotFound);
}

#[test]
fn a_denied_flow_is_an_event_with_rule_endpoints_and_labels() {
    let (_daemon, mut control) = running();
    let (db, web) = (labelled(&mut control, "db", "db"), labelled(&mut control, "web", "web"));
    control.notice(Notice::Denied(Box::new(Denied {
        from: web,
        to: db,
        src: (ip("10.20.0.3").into(), 40_000),
        dst: (ip("10.20.0.2").into(), 22),
        proto: 6,
        reason: DropReason::PolicyIngress,
        rule: "default/db, which allows no such ingress".into(),
        untold: 3,
    })));
    let event = control.events(0).pop().unwrap();
    assert_eq!((event.kind, event.endpoint.as_deref()), (EventKind::FlowDenied, Some("db")));
    assert_eq!(
        event.text,
        "tcp from web (app=web) at 10.20.0.3:40000 to db (app=db) at 10.20.0.2:22 denied \
         (policy-ingress) by default/db, which allows no such ingress; 3 more of the former were not told"
    );
}
