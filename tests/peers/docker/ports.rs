//! `-p` and `-P` in every form.

use super::world::host;

const EVERY_FORM: &str = r#"
start() { net blue; run $kind-web --network $kind-blue --expose 90 -P -p 127.0.0.1:8080:80 -p 127.0.0.2:8080:81 \
    -p 8100-8102:82-84 -p 8200-8210:85 -p 192.0.2.7::86 -p 0.0.0.0:8300:87 -p 8053:53/udp -- \
    bash -c "$(server TCP:80 TCP:81 TCP:82 TCP:83 TCP:84 TCP:85 TCP:86 TCP:87 TCP:90 UDP:53)"
  eventually answers TCP4:127.0.0.1:8080; }
"#;

/// Also Docker's "port mapping on distinct loopback addresses".
#[test]
fn every_form_of_publishing_works_and_a_taken_port_is_refused() {
    let out = host(&format!(
        r#"{EVERY_FORM}
        scenario() {{ start
            for at in 127.0.0.1:8080 127.0.0.2:8080 192.0.2.7:8080 127.0.0.1:8100 127.0.0.1:8102 192.0.2.7:8200 127.0.0.1:8300
            do echo "$at $(yes_or_no answers TCP4:$at)"; done
            echo "udp $(asks UDP4:192.0.2.7:8053 | wc -l)"
            docker run --rm --network $kind-blue -p 8300:80 -v /usr:/usr:ro image true 2>&1 | grep -c 8300
            docker rm -f $kind-web >/dev/null; }}
        each scenario"#
    ));
    let wanted = "127.0.0.1:8080 yes\n127.0.0.2:8080 yes\n192.0.2.7:8080 no\n127.0.0.1:8100 yes\n\
        127.0.0.1:8102 yes\n192.0.2.7:8200 yes\n127.0.0.1:8300 yes\nudp 1\n1\n";
    assert_eq!(out, format!("== bridge\n{wanted}== wharf\n{wanted}"));
}

#[test]
fn wharf_port_shows_the_ports_that_were_chosen() {
    let out = host(&format!(
        r#"{EVERY_FORM}
        kind=wharf; start
        chosen() {{ wharf port --json | python3 -c "import json, sys
for p in json.load(sys.stdin):
    if p['ports'] == '$1': print(p['host_ports'])"; }}
        echo "$(yes_or_no answers TCP4:192.0.2.7:$(chosen 86)) $(yes_or_no answers TCP4:127.0.0.1:$(chosen 90))"
        echo "$(chosen 85) $(chosen 87)""#
    ));
    assert_eq!(out, "yes yes\n8200 8300\n");
}

/// The server closed first, so its side of the old connection is still in TIME-WAIT.
#[test]
fn restart_under_2_msl() {
    let out = host(
        r#"scenario() { net blue; run $kind-web --network $kind-blue -p 8080:80 -- bash -c "$(server TCP:80)"
            eventually answers TCP4:127.0.0.1:8080 && eventually answers TCP6:[::1]:8080
            docker restart -t0 $kind-web >/dev/null; echo "restarted $?"
            echo "$(yes_or_no eventually answers TCP4:127.0.0.1:8080) $(yes_or_no eventually answers TCP6:[::1]:8080)"
            docker rm -f $kind-web >/dev/null; }
        each scenario"#,
    );
    assert_eq!(out, "== bridge\nrestarted 0\nyes yes\n== wharf\nrestarted 0\nyes yes\n");
}

#[test]
fn ports_that_name_no_address_are_published_where_the_network_says() {
    let out = host(
        r#"kind=wharf; net blue -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1
        run web --network wharf-blue -p 8080:80 -p 192.0.2.7:8081:80 -- bash -c "$(server TCP:80)"
        eventually answers TCP4:127.0.0.1:8080
        for at in 4:192.0.2.7:8080 6:[::1]:8080 4:192.0.2.7:8081 4:127.0.0.1:8081; do yes_or_no answers TCP$at; done"#,
    );
    assert_eq!(out, "no\nno\nyes\nno\n");
}
