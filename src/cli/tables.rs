//! `wharf fdb`, `wharf neigh`, `wharf routes`: what the switch has learned and was told.

use super::human::{millis, or_dash};
use super::options::{Format, Global};
use super::output::{Outcome, listing, table};
use crate::control::model::{FdbView, NeighbourView};
use crate::datapath::inspect::RouteInfo;

/// Runs `wharf fdb`.
pub(crate) fn fdb(global: &Global, format: Format) -> Outcome {
    let entries = global.client().fdb()?;
    listing(format.json, &entries, || fdb_table(&entries))
}

/// Runs `wharf neigh`.
pub(crate) fn neigh(global: &Global, format: Format) -> Outcome {
    let entries = global.client().neighbours()?;
    listing(format.json, &entries, || neighbours_table(&entries))
}

/// Runs `wharf routes`.
pub(crate) fn routes(global: &Global, format: Format) -> Outcome {
    let routes = global.client().routes()?;
    listing(format.json, &routes, || routes_table(&routes))
}

fn fdb_table(entries: &[FdbView]) -> String {
    let rows = entries.iter().map(|entry| {
        let age = if entry.fixed { "fixed".to_owned() } else { millis(entry.age_ms) };
        [entry.network.clone(), entry.mac.to_string(), entry.port.clone(), age]
    });
    table(["NETWORK", "MAC", "PORT", ">AGE"], rows.collect())
}

fn neighbours_table(entries: &[NeighbourView]) -> String {
    let rows = entries.iter().map(|entry| {
        [entry.addr.to_string(), or_dash(entry.mac), entry.port.clone(), entry.state.clone()]
    });
    table(["ADDRESS", "MAC", "PORT", "STATE"], rows.collect())
}

fn routes_table(routes: &[RouteInfo]) -> String {
    let rows = routes.iter().map(|route| [route.dst.clone(), or_dash(route.via), route.to.clone()]);
    table(["DESTINATION", "VIA", "TO"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_entry_has_no_age() {
        let entry = |fixed| FdbView {
            network: "blue".to_owned(),
            mac: "02:42:0a:14:00:02".parse().unwrap(),
            port: "web".to_owned(),
            fixed,
            age_ms: 12_000,
        };
        insta::assert_snapshot!(fdb_table(&[entry(true), entry(false)]), @r"
        NETWORK  MAC                PORT    AGE
        blue     02:42:0a:14:00:02  web   fixed
        blue     02:42:0a:14:00:02  web     12s
        ");
    }

    #[test]
    fn an_unresolved_neighbour_has_no_mac() {
        let entry = NeighbourView {
            port: "lan".to_owned(),
            addr: "fe80::1".parse().unwrap(),
            mac: None,
            state: "incomplete".to_owned(),
        };
        insta::assert_snapshot!(neighbours_table(&[entry]), @r"
        ADDRESS  MAC  PORT  STATE
        fe80::1  -    lan   incomplete
        ");
    }

    #[test]
    fn routes_name_where_they_lead() {
        let route = |dst: &str, via: Option<&str>, to: &str| RouteInfo {
            dst: dst.to_owned(),
            via: via.map(|v| v.parse().unwrap()),
            to: to.to_owned(),
        };
        let routes =
            [route("10.20.0.0/24", None, "blue"), route("0.0.0.0/0", Some("192.0.2.1"), "lan")];
        insta::assert_snapshot!(routes_table(&routes), @r"
        DESTINATION   VIA        TO
        10.20.0.0/24  -          blue
        0.0.0.0/0     192.0.2.1  lan
        ");
    }
}
