//! `wharf publish`, `wharf unpublish`, `wharf port`.

use clap::Args;

use super::options::{Format, Global};
use super::output::{Outcome, line, listing, table};
use crate::control::model::{PublicationInfo, PublishRequest, PublishSpec};

/// `wharf publish`, `wharf unpublish`
#[derive(Args, Debug)]
pub(crate) struct Publish {
    /// The container
    name: String,
    /// `[[hostIP:]hostPort[-end]:]port[-end][/tcp|udp|sctp]`
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PublishSpec>,
    /// The network, for a container on several
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// `wharf port`
#[derive(Args, Debug)]
pub(crate) struct Port {
    /// Only of this container
    name: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// Runs `wharf publish`. The host ports are printed, since the daemon may have chosen them.
pub(crate) fn publish(global: &Global, args: Publish) -> Outcome {
    let request = PublishRequest { publish: args.specs };
    for publication in global.client().publish(&args.name, args.network.as_deref(), &request)? {
        line(&arrow(&publication))?;
    }
    Ok(0)
}

/// Runs `wharf unpublish`.
pub(crate) fn unpublish(global: &Global, args: &Publish) -> Outcome {
    let client = global.client();
    for spec in &args.specs {
        client.unpublish(&args.name, args.network.as_deref(), spec)?;
    }
    Ok(0)
}

/// Runs `wharf port`.
pub(crate) fn port(global: &Global, args: &Port) -> Outcome {
    let client = global.client();
    let publications = match &args.name {
        Some(name) => client.endpoint(name)?.into_iter().flat_map(|e| e.published).collect(),
        None => client.publications()?,
    };
    listing(args.format.json, &publications, || publications_table(&publications))
}

fn publications_table(publications: &[PublicationInfo]) -> String {
    let rows = publications.iter().map(|publication| {
        [
            publication.endpoint.clone(),
            publication.network.clone(),
            host_side(publication),
            publication.ports.to_string(),
            publication.proto.to_string(),
        ]
    });
    table(["NAME", "NETWORK", "HOST", ">PORT", "PROTO"], rows.collect())
}

/// One publication in one cell: `*:1180->5000/tcp`.
pub(crate) fn arrow(publication: &PublicationInfo) -> String {
    format!("{}->{}/{}", host_side(publication), publication.ports, publication.proto)
}

fn host_side(publication: &PublicationInfo) -> String {
    let ports = publication.host_ports;
    match publication.host_addr {
        None => format!("*:{ports}"),
        Some(addr) if addr.is_ipv6() => format!("[{addr}]:{ports}"),
        Some(addr) => format!("{addr}:{ports}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::PublicationId;
    use crate::control::model::{PortRange, Proto};

    fn publication(host_addr: Option<&str>, last: u16, proto: Proto) -> PublicationInfo {
        PublicationInfo {
            id: PublicationId(1),
            endpoint: "web".to_owned(),
            network: "blue".to_owned(),
            host_addr: host_addr.map(|a| a.parse().unwrap()),
            host_ports: PortRange::new(8000, last).unwrap(),
            ports: PortRange::new(80, last - 7920).unwrap(),
            proto,
        }
    }

    #[test]
    fn a_range_is_one_line() {
        insta::assert_snapshot!(publications_table(&[
            publication(None, 8000, Proto::Tcp),
            publication(Some("127.0.0.1"), 8009, Proto::Udp),
            publication(Some("::1"), 8000, Proto::Sctp),
        ]), @r"
        NAME  NETWORK  HOST                  PORT  PROTO
        web   blue     *:8000                  80  tcp
        web   blue     127.0.0.1:8000-8009  80-89  udp
        web   blue     [::1]:8000              80  sctp
        ");
    }
}
