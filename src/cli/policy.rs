//! `wharf policy`: apply, ls, rm, test.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::options::{Destination, Format, Global};
use super::output::{Failure, Outcome, line, listing, table};
use crate::control::model::{PolicyFile, PolicyInfo, PolicyTest, PolicyTestReport, RuleView};
use crate::stage::policy::Action;

/// What can be done with policies.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Apply the policies of a YAML file; those of the same names are replaced
    Apply(Apply),
    /// List the policies and their rules
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Remove policies
    #[command(visible_alias = "remove")]
    Rm {
        /// Policies: NAME or NAMESPACE/NAME
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show which rules decide about a flow
    Test(Test),
}

/// `wharf policy apply`
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// Kubernetes NetworkPolicies, or policies of the native form; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// `wharf policy test`
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Who would begin: a container or an address
    #[arg(long, value_name = "NAME")]
    from: String,
    /// Towards whom: `NAME|ADDR[:PORT][/tcp|udp|sctp|icmp]`
    #[arg(long, value_name = "DEST")]
    to: Target,
    #[command(flatten)]
    format: Format,
}

/// A container or an address, with a port.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    name: String,
    port: Option<u16>,
    proto: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, proto) = text.split_once('/').map_or((text, None), |(r, p)| (r, Some(p)));
        let is_address = rest.starts_with('[')
            || rest.parse::<std::net::IpAddr>().is_ok()
            || rest.parse::<std::net::SocketAddr>().is_ok();
        if is_address {
            let Destination { addr, port, proto } = text.parse()?;
            return Ok(Self { name: addr.to_string(), port, proto });
        }
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => {
                (name, Some(port.parse().map_err(|_| format!("`{port}` is no port"))?))
            }
            None => (rest, None),
        };
        let default = if port.is_some() { "tcp" } else { "icmp" };
        let proto = proto.unwrap_or(default).to_ascii_lowercase();
        match (proto.as_str(), port) {
            _ if name.is_empty() => Err("a destination is NAME[:PORT][/PROTO]".to_owned()),
            ("tcp" | "udp" | "sctp", Some(_)) | ("icmp", None) => {
                Ok(Self { name: name.to_owned(), port, proto })
            }
            ("icmp", Some(_)) => Err("icmp has no ports".to_owned()),
            ("tcp" | "udp" | "sctp", None) => {
                Err(format!("{proto} needs a port: NAME:PORT/{proto}"))
            }
            _ => Err("the protocol is tcp, udp, sctp or icmp".to_owned()),
        }
    }
}

/// Runs `wharf policy …`.
pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    match command {
        Command::Apply(args) => apply(global, &args),
        Command::Ls(format) => {
            let policies = global.client().policies()?;
            listing(format.json, &policies, || policies_table(&policies))
        }
        Command::Rm { names } => {
            let client = global.client();
            for name in &names {
                client.remove_policy(name)?;
                line(name)?;
            }
            Ok(0)
        }
        Command::Test(args) => test(global, args),
    }
}

fn apply(global: &Global, args: &Apply) -> Outcome {
    let yaml = read(&args.file)?;
    let applied = global.client().apply_policies(&PolicyFile { yaml })?;
    for warning in applied.policies.iter().flat_map(|policy| &policy.warnings) {
        global.note(format_args!("warning: {warning}"));
    }
    if applied.policies.is_empty() {
        global.note("warning: the file has no policy");
    }
    listing(args.format.json, &applied.policies, || {
        let titles = applied.policies.iter().map(PolicyInfo::title);
        titles.collect::<Vec<_>>().join("\n")
    })
}

fn read(file: &std::path::Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map(|_| text)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))
}

/// Runs `wharf policy test`. A flow that would be denied is a good answer, but exit code 1 lets scripts
/// ask.
fn test(global: &Global, args: Test) -> Outcome {
    let Target { name, port, proto } = args.to;
    let test = PolicyTest { from: args.from, to: name, port, proto: Some(proto) };
    let report = global.client().test_policy(&test)?;
    listing(args.format.json, &report, || verdicts(&report))?;
    Ok(u8::from(!report.allowed))
}

fn verdicts(report: &PolicyTestReport) -> String {
    let lines = report.verdicts.iter().map(|said| {
        let what = match (&said.rule, said.action) {
            (None, _) => "allowed, since no rule is about it".to_owned(),
            (Some(rule), Action::Allow) => format!("allowed by {rule}"),
            (Some(rule), Action::Deny) => format!("denied by {rule}"),
        };
        format!("{} of {}: {what}", said.direction.name(), said.endpoint)
    });
    let end = if report.allowed { "=> allowed" } else { "=> denied" };
    lines.chain([end.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn policies_table(policies: &[PolicyInfo]) -> String {
    let mut rows = Vec::new();
    for policy in policies {
        let mut first = [policy.title(), policy.select.clone(), policy.endpoints.to_string()];
        let isolates = policy.isolates.iter().map(|direction| {
            [direction.name().to_owned(), "deny".to_owned(), "any other".to_owned(), String::new()]
        });
        for rest in policy.rules.iter().map(rule_cells).chain(isolates) {
            // What is the policy's stands in its first line.
            let [name, select, endpoints] = std::mem::take(&mut first);
            let [direction, action, peers, ports] = rest;
            rows.push([name, select, endpoints, direction, action, peers, ports]);
        }
    }
    table(["NAME", "SELECTS", ">ENDPOINTS", "DIRECTION", "ACTION", "PEERS", "PORTS"], rows)
}

fn rule_cells(rule: &RuleView) -> [String; 4] {
    let action = if rule.action == Action::Allow { "allow" } else { "deny" };
    let or_any = |words: &[String]| {
        if words.is_empty() { "any".to_owned() } else { words.join(", ") }
    };
    [rule.direction.name().to_owned(), action.to_owned(), or_any(&rule.peers), or_any(&rule.ports)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::PolicyVerdict;
    use crate::control::policy::Form;
    use crate::stage::policy::Direction;

    #[test]
    fn a_destination_is_a_name_or_an_address() {
        let read = |text: &str| text.parse::<Target>().map(|t| (t.name, t.port, t.proto));
        let is = |name: &str, port, proto: &str| Ok((name.to_owned(), port, proto.to_owned()));
        assert_eq!(read("web:80"), is("web", Some(80), "tcp"));
        assert_eq!(read("web:53/UDP"), is("web", Some(53), "udp"));
        assert_eq!(read("web"), is("web", None, "icmp"));
        assert_eq!(read("10.0.0.2:80"), is("10.0.0.2", Some(80), "tcp"));
        assert_eq!(read("[fd00::2]:80/udp"), is("fd00::2", Some(80), "udp"));
        assert_eq!(read("fd00::2"), is("fd00::2", None, "icmp"));
        for wrong in ["", ":80", "web/tcp", "web:x", "web:80/icmp", "web:80/gre"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_policy_stands_in_its_first_line() {
        let rule = RuleView {
            place: "ingress[0]".to_owned(),
            priority: 1000,
            action: Action::Allow,
            direction: Direction::Ingress,
            peers: vec!["app=web".to_owned()],
            ports: vec!["80/tcp".to_owned()],
        };
        let policy = PolicyInfo {
            namespace: "default".to_owned(),
            name: "db".to_owned(),
            form: Form::Kubernetes,
            select: "app=db".to_owned(),
            endpoints: 2,
            isolates: vec![Direction::Ingress],
            rules: vec![rule],
            warnings: Vec::new(),
        };
        insta::assert_snapshot!(policies_table(&[policy]), @r"
        NAME        SELECTS  ENDPOINTS  DIRECTION  ACTION  PEERS      PORTS
        default/db  app=db           2  ingress    allow   app=web    80/tcp
                                        ingress    deny    any other
        ");
    }

    #[test]
    fn a_test_ends_with_the_verdict() {
        let said = |direction, action, rule: Option<&str>| PolicyVerdict {
            endpoint: "web".to_owned(),
            direction,
            action,
            rule: rule.map(ToOwned::to_owned),
        };
        let report = PolicyTestReport {
            allowed: false,
            verdicts: vec![
                said(Direction::Egress, Action::Allow, None),
                said(Direction::Ingress, Action::Deny, Some("office rules[1]")),
            ],
        };
        insta::assert_snapshot!(verdicts(&report), @r"
        egress of web: allowed, since no rule is about it
        ingress of web: denied by office rules[1]
        => denied
        ");
    }
}
