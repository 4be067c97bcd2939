//! What everybody does: `docker network create`, `docker run`, `-p`.

use super::world::host;

#[test]
fn containers_reach_each_other_by_name_and_address_in_both_families() {
    let out = host(
        r#"docker network create -d wharf --ipam-driver wharf --ipv6 --subnet 10.77.0.0/16 --subnet fd77::/64 blue >/dev/null
        run web --network blue --network-alias www -- bash -c "$(server TCP:80)"
        run client --network blue --ip 10.77.0.9 --ip6 fd77::9 --mac-address 02:00:00:00:00:09 -- sleep 1000
        eventually inside client socat -u OPEN:/dev/null TCP:web:80 2>/dev/null
        for name in web www TCP4:10.77.0.2 TCP6:[fd77::2]; do
            case $name in TCP*) ;; *) name=TCP4:$name;; esac; inside client socat - $name:80
        done
        inside client ping -qc1 -W2 10.77.0.2 | grep -o '0% packet loss'
        inside client ping -qc1 -W2 fd77::2 | grep -o '0% packet loss'
        inside client cat /sys/class/net/eth0/address
        inside client ip -o route show default; inside client ip -6 -o route show default | grep -v 'proto ra'"#,
    );
    let wanted = "10.77.0.9\n10.77.0.9\n10.77.0.9\nfd77::9\n0% packet loss\n0% packet loss\n\
        02:00:00:00:00:09\ndefault via 10.77.0.1 dev eth0 \n\
        default via fd77::1 dev eth0 metric 1024 pref medium\n";
    assert_eq!(out, wanted);
}
