//! What survives whose end.

use super::world::host;

#[test]
fn a_transfer_goes_on_while_the_plugin_dockerd_and_wharf_are_replaced() {
    let out = host(
        r#"kill $dockerd; wait $dockerd; echo '{"live-restore": true}' >"$DIR/etc/daemon.json"; start_docker
        kind=wharf; net blue
        run web --network wharf-blue -p 8080:80 -- bash -c \
            'while :; do socat -u OPEN:/dev/zero TCP6-LISTEN:80,reuseaddr,fork 2>/dev/null; done'
        run client --network wharf-blue -- sleep 1000
        pid=$(docker inspect -f '{{.State.Pid}}' client); in_client() { nsenter -t $pid -n "$@"; }
        ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web)
        eventually in_client socat -u TCP4:$ip:80,readbytes=10 /dev/null
        in_client socat -u TCP4:$ip:80 OPEN:/dev/null & transfer=$!
        bytes() { in_client cat /proc/net/dev | sed -n 's/.*eth0: *\([0-9]*\).*/\1/p'; }
        moves() { local before; before=$(bytes); sleep 0.3; [ $(($(bytes) - before)) -gt 100000 ] && [ -d /proc/$transfer ]; }
        eventually moves && echo before
        kill -9 $plugin; wait $plugin; rm /run/docker/plugins/wharf.sock; moves && echo "without the plugin"
        start_plugin; moves && echo "with a new one"
        kill -9 $dockerd; wait $dockerd; moves && echo "without dockerd"; start_docker; moves && echo "with a new one"
        kill -9 $(wharf status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'); start_wharf; eventually moves && echo "with a new wharf"
        run late --network wharf-blue -- sleep 1000 && inside late ping -qc1 -W2 web | grep -o ' 0% packet loss'
        eventually quietly remote socat -u TCP4:192.0.2.7:8080,readbytes=10 /dev/null && echo published
        docker rm -f web client late >/dev/null; docker network rm wharf-blue
        wharf ps --json; wharf network ls --json | grep -c docker-; ip -o link | grep -c ': wh'; true"#,
    );
    let wanted = "before\nwithout the plugin\nwith a new one\nwithout dockerd\nwith a new one\n\
        with a new wharf\n 0% packet loss\npublished\nwharf-blue\n[]\n0\n0\n";
    assert_eq!(out, wanted);
}

#[test]
fn containers_come_back_with_a_dockerd_that_ended_or_was_killed() {
    let out = host(
        r#"kind=wharf; net blue
        run web --network wharf-blue --restart always -p 8080:80 -- bash -c "$(server TCP:80)"
        eventually answers TCP4:127.0.0.1:8080 && echo before
        for signal in TERM KILL; do kill -$signal $dockerd; wait $dockerd; start_docker
            eventually answers TCP4:127.0.0.1:8080 && echo "after $signal: $(wharf port --json | grep -c host_ports)"; done
        run shared --network container:web -- sleep 1000; run host --network host -- sleep 1000
        run none --network none -- sleep 1000
        inside shared socat - TCP:127.0.0.1:80; inside host ip -o link show ext0 | wc -l; inside none ip -o link | wc -l"#,
    );
    assert_eq!(out, "before\nafter TERM: 1\nafter KILL: 1\n127.0.0.1\n1\n1\n");
}

#[test]
fn without_wharf_s_daemon_a_container_is_refused_in_words_and_nothing_is_left() {
    let out = host(
        r#"kind=wharf; net blue; wharf daemon stop
        docker run --network wharf-blue --name web -v /usr:/usr:ro image true 2>&1 | grep -o 'wharf daemon.*(`wharf status`)'
        docker rm -f web >/dev/null; start_wharf
        run web --network wharf-blue -- sleep 1000 && wharf ps --json | grep -c '"id"'; ip -o link | grep -c ': wh'; true"#,
    );
    assert!(out.ends_with("(`wharf status`)\n1\n0\n"), "{out}");
}

#[test]
fn names_and_labels_come_from_docker_s_events() {
    let out = host(
        r#"kill $plugin; wait $plugin; start_plugin --watch /run/docker.sock
        kind=wharf; net blue; net red
        run web --network wharf-blue --network-alias www --label tier=front -p 8080:80 -- sleep 1000
        named() { [ "$(wharf ps --json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | sort | tr '\n' ' ')" = "$1" ]; }
        eventually named "web " && echo named; wharf inspect web | grep -c '"tier": "front"'; wharf inspect web | grep -c '"www"'
        docker network connect wharf-red web; eventually named "web web " && echo both
        docker rename web shop; eventually named "shop shop " && echo renamed
        kill $plugin; wait $plugin; docker rename shop store; start_plugin --watch /run/docker.sock
        eventually named "store store " && echo "caught up""#,
    );
    assert_eq!(out, "named\n1\n1\nboth\nrenamed\ncaught up\n");
}
