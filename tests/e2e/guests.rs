//! Guests that configure themselves, with the clients that they have: udhcpc, dhclient, the kernel.

use std::os::unix::fs::PermissionsExt;

use crate::support::{self, PATIENCE};
use crate::world::{BLUE, FAMILIES, World, eventually};

/// Called by udhcpc with what it was told: takes it, and writes it down.
const UDHCPC_SCRIPT: &str = "#!/bin/sh
case $1 in
  deconfig) ip -4 addr flush dev $interface ;;
  bound|renew)
    ip addr add $ip/$mask dev $interface
    ip route replace default via $router
    echo \"$dns $mtu $search $serverid\" >\"$0.told\" ;;
esac
";

/// The same for dhclient.
const DHCLIENT_SCRIPT: &str = "#!/bin/sh
case $reason in
  BOUND6|RENEW6|REBIND6)
    ip -6 addr add $new_ip6_address/64 dev $interface nodad
    echo \"$new_dhcp6_name_servers $new_dhcp6_domain_search\" >\"$0.told\" ;;
esac
";

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn in_world(name: &str, body: impl FnOnce(&World)) {
    support::in_world(name, |dir| {
        let world = World::without_daemon(dir);
        world.start("--uplink none");
        world.ok(&format!("network create blue {BLUE}"));
        body(&world);
    });
}

#[test]
fn a_dhcp_client_is_given_the_address_of_its_record() {
    in_world("guests::a_dhcp_client_is_given_the_address_of_its_record", |world| {
        let a = world.container("a", "--network blue");
        let script = script(world, "udhcpc.script", UDHCPC_SCRIPT);
        world.ok("exec a -- ip -4 addr flush dev eth0");
        world.ok(&format!("exec a -- udhcpc -n -q -f -t 3 -T 1 -O search -i eth0 -s {script}"));
        let shown = world.ok("exec a -- ip -4 -o addr show dev eth0");
        assert!(shown.contains(&format!("{}/24", a.addr(FAMILIES[0]))), "{shown}");
        let told = std::fs::read_to_string(format!("{script}.told")).unwrap();
        assert_eq!(told.trim(), "10.20.0.1 1500 blue 10.20.0.1");
        world.ok("exec a -- ping -c 1 -W 2 10.20.0.1");
    });
}

#[test]
fn a_dhcpv6_client_is_given_the_address_of_its_record() {
    in_world("guests::a_dhcpv6_client_is_given_the_address_of_its_record", |world| {
        let a = world.container("a", "--network blue");
        let script = script(world, "dhclient.script", DHCLIENT_SCRIPT);
        let files = world.path("dhclient").display().to_string();
        world.ok("exec a -- ip -6 addr flush dev eth0 scope global");
        world.ok(&format!(
            "exec a -- dhclient -6 -1 -cf /dev/null -sf {script} -lf {files}.leases -pf {files}.pid eth0"
        ));
        let shown = world.ok("exec a -- ip -6 -o addr show dev eth0 scope global");
        assert!(shown.contains(&format!("{}/64", a.addr(FAMILIES[1]))), "{shown}");
        let told = std::fs::read_to_string(format!("{script}.told")).unwrap();
        assert_eq!(told.trim(), "fd20::1 blue.");
    });
}

#[test]
fn the_kernel_takes_router_and_address_from_the_advertisement() {
    in_world("guests::the_kernel_takes_router_and_address_from_the_advertisement", |world| {
        // The one address that SLAAC makes of this MAC, and another that it could not make.
        let mac = "02:42:0a:14:00:77";
        for (name, options) in [
            ("slaac", &format!("--mac {mac} --ip6 fd20::42:aff:fe14:77")[..]),
            ("managed", "--ip6 fd20::7"),
        ] {
            let container = world.container(name, &format!("--network blue {options}"));
            let recorded = container.addr(FAMILIES[1]).to_string();
            let exec = |words: &str| world.ok(&format!("exec {name} -- {words}"));
            exec("ip -6 addr flush dev eth0 scope global");
            exec("ip -6 route flush default");
            for setting in
                ["accept_ra=2", "autoconf=1", "router_solicitations=3", "addr_gen_mode=0"]
            {
                let (key, value) = setting.split_once('=').unwrap();
                let path = format!("/proc/sys/net/ipv6/conf/eth0/{key}");
                let write = format!("echo {value} >{path}");
                let wrote = world.output(&["exec", name, "--", "sh", "-c", &write]);
                assert!(wrote.status.success(), "{write}: {wrote:?}");
            }
            exec("ip link set eth0 down");
            exec("ip link set eth0 up");
            eventually("the router is known", PATIENCE, || {
                exec("ip -6 route show default").contains("proto ra")
            });
            let shown = || exec("ip -6 -o addr show dev eth0 scope global");
            if name == "slaac" {
                eventually("the address is", PATIENCE, || shown().contains(&recorded));
            }
            let lines = shown().lines().filter(|line| !line.contains(&recorded)).count();
            assert_eq!(lines, 0, "and no other: {}", shown());
        }
    });
}
