//! `subnet.env`, which Flannel's CNI plugin reads.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use ipnet::IpNet;

use super::plan::Plan;

/// Writes the file whole: who reads it sees the old one or the new one.
pub fn write(path: &Path, plan: &Plan, subnets: &[IpNet], mtu: u16) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let draft = path.with_extension("env.draft");
    fs::write(&draft, text(plan, subnets, mtu))?;
    fs::rename(draft, path)
}

fn text(plan: &Plan, subnets: &[IpNet], mtu: u16) -> String {
    let mut text = String::new();
    for v6 in [false, true] {
        let family = if v6 { "IPV6_" } else { "" };
        let of_family = |net: &IpNet| net.addr().is_ipv6() == v6;
        let network = plan.ranges().find(of_family);
        let subnet = subnets.iter().copied().find(of_family);
        let (Some(network), Some(subnet)) = (network, subnet) else { continue };
        // Flannel means the first host's address, which is the gateway's.
        let first =
            subnet.hosts().find(|addr| *addr != subnet.network()).unwrap_or(subnet.network());
        let _ = writeln!(text, "FLANNEL_{family}NETWORK={network}");
        let _ = writeln!(text, "FLANNEL_{family}SUBNET={first}/{}", subnet.prefix_len());
    }
    let _ = write!(text, "FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::cluster::Slot;

    #[test]
    fn the_file_is_flannel_s() {
        let nets: [IpNet; 2] =
            ["10.42.0.0/16".parse().unwrap(), "2001:cafe:42::/56".parse().unwrap()];
        let plan = Plan::new(&nets, &[24, 64], &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flannel/subnet.env");
        write(&path, &plan, &plan.subnets(Slot(5)), 1450).unwrap();
        let text = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.5.1/24\n\
                    FLANNEL_IPV6_NETWORK=2001:cafe:42::/56\nFLANNEL_IPV6_SUBNET=2001:cafe:42:5::1/64\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
}
