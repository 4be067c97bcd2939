//! Podman 4.3 without root, its network made by `slirp4netns`.

use crate::world::{EVENTUALLY, Whose, World};

/// `crun` does not run everywhere (hybrid cgroups), hence `runc`; a busybox tree, hence no image.
const PODMAN: &str = "podman --runtime runc --storage-driver vfs --cgroup-manager cgroupfs \
    --events-backend file --log-level error";
const LIMITS: &str = "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000";

#[test]
fn podman_runs_a_container_with_a_published_port() {
    let world = World::new();
    let script = format!(
        r#"{EVENTUALLY}
        serve TCP4-LISTEN:28082,bind=127.0.0.1 host-v4
        mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/tmp rootfs/www
        cp /bin/busybox rootfs/bin; echo inside >rootfs/www/index.html
        for name in sh ip cat nc httpd sleep; do ln -s busybox rootfs/bin/$name; done
        net=slirp4netns:port_handler=slirp4netns,enable_ipv6=true,allow_host_loopback=true
        {PODMAN} run -d --name web --network $net -p 127.0.0.1:28080:80 {LIMITS} --rootfs $PWD/rootfs \
            sh -c 'ip -4 addr show tap0; nc 10.0.2.2 28082 </dev/null; cat /etc/resolv.conf; exec httpd -f -h /www' \
            >/dev/null || exit
        page() {{ [ "$(curl -s http://127.0.0.1:28080/)" = inside ]; }}
        eventually page && echo published
        {PODMAN} logs web
        slirp=$(pgrep -u $(id -u) slirp4netns); readlink /proc/$slirp/exe
        {PODMAN} kill web >/dev/null
        gone() {{ ! grep -qs '^State:.[RSD]' /proc/$slirp/status; }}
        eventually gone && echo "gone with the container"
        {PODMAN} rm -f web >/dev/null; kill $(jobs -p); pkill -u $(id -u) -x podman; true"#
    );
    let out = world.ok(Whose::Ours, "slirp4netns", &script);
    for words in ["published", "10.0.2.100/24", "host-v4", "nameserver 10.0.2.3", "gone with"] {
        assert!(out.contains(words), "{words}:\n{out}");
    }
    assert!(out.contains("/bin/wharf"), "another slirp4netns served it:\n{out}");
}
