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

#[test]
fn a_compose_file_needs_no_more_than_the_driver_s_name() {
    let out = host(
        r#"mkdir app; cat >app/docker-compose.yml <<'FILE'
version: "2.4"
networks:
  front: {driver: wharf, ipam: {driver: wharf}}
  back: {driver: wharf, internal: true, ipam: {driver: wharf}}
services:
  db: {image: image, volumes: ["/usr:/usr:ro"], networks: [back],
    command: ["bash", "-c", 'exec socat TCP-LISTEN:80,reuseaddr,fork SYSTEM:"echo db"']}
  web: {image: image, volumes: ["/usr:/usr:ro"], networks: [front, back], ports: ["8080:80"],
    command: ["bash", "-c", 'exec socat TCP-LISTEN:80,reuseaddr,fork SYSTEM:"socat - TCP\:db\:80"']}
  probe: {image: image, volumes: ["/usr:/usr:ro"], networks: [front], command: ["sleep", "1000"]}
FILE
        compose() { docker-compose --project-directory app -f app/docker-compose.yml -p app "$@"; }
        quietly compose up -d; eventually answers TCP4:127.0.0.1:8080; tells TCP4:127.0.0.1:8080
        compose exec -T probe socat - TCP:web:80; yes_or_no compose exec -T probe socat - TCP:db:80
        quietly compose down; wharf ps --json; wharf network ls --json | grep -c docker-; true"#,
    );
    assert_eq!(out, "db\ndb\nno\n[]\n0\n");
}
