//! The host of one test, as a script of a shell.

use std::process::{Command, Output};

/// No script takes so many seconds unless it hangs, even on a busy machine.
const TIMEOUT: &str = "240";

/// Makes the host in the namespaces that the shell is in, and starts all that belongs to it. Functions for
/// the test's own script:
///
/// - `run NAME ARGS… -- CMD…`: a container in the background, on what `ARGS` say
/// - `inside NAME CMD…`: a command in it
/// - `remote CMD…`: a command on the remote host, 192.0.2.1 and 2001:db8::1 on the LAN of 192.0.2.7 and
///   2001:db8::7
/// - `server KIND:PORT…`: a server of TCP or UDP that says who asks; `tells SPEC`, `asks SPEC`: what one says
/// - `each SCENARIO`: first with `$kind` bridge, then wharf; `net NAME OPTIONS…`: a network `$kind-NAME`
///
/// The image has nothing but links: programs are the machine's own, read-only.
const PRELUDE: &str = r#"
set -u
SERVER='
import socket, sys, threading
def name(a): return a[0].removeprefix("::ffff:").encode() + b"\n"
def tcp(s):
    s.listen()
    while True:
        c, a = s.accept(); c.sendall(name(a)); c.close()
def udp(s):
    while True:
        d, a = s.recvfrom(2048); s.sendto(name(a), a)
for word in sys.argv[1:]:
    kind, port = word.split(":")
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", int(port)))
    threading.Thread(target=tcp if kind == "TCP" else udp, args=(s,)).start()
'
mount --make-rprivate / && mount -t tmpfs wharf-test /run && mkdir -p /run/docker/plugins || exit
ip link set lo up; mkdir "$DIR/etc"; echo '{}' >"$DIR/etc/daemon.json"
ip netns add remote && ip link add ext0 type veth peer name ext0 netns remote
ip addr add 192.0.2.7/24 dev ext0; ip addr add 2001:db8::7/64 dev ext0 nodad; ip link set ext0 up
ip route add default via 192.0.2.1; ip route add default via 2001:db8::1
remote() { ip netns exec remote "$@"; }
remote ip link set lo up; remote ip link set ext0 up
remote ip addr add 192.0.2.1/24 dev ext0; remote ip addr add 2001:db8::1/64 dev ext0 nodad
export DOCKER_HOST=unix:///run/docker.sock WHARF_RUNTIME_DIR=/run/wharf; touch "$DIR/etc/wharf.toml"
docker() { /usr/bin/docker "$@"; }
eventually() { for _ in $(seq 150); do "$@" && return; sleep 0.1; done; echo "gave up: $*" >&2; return 1; }
quietly() { "$@" >/dev/null 2>&1; }
start_wharf() { wharf daemon --background --state-dir "$DIR/state" --config "$DIR/etc/wharf.toml" "$@" >/dev/null; }
start_plugin() { wharf docker-plugin --state "$DIR/state/docker.json" "$@" >>"$DIR/plugin.log" 2>&1 & plugin=$!
  eventually test -S /run/docker/plugins/wharf.sock; }
start_docker() {
  dockerd --config-file "$DIR/etc/daemon.json" --storage-driver vfs --data-root "$DIR/docker" --exec-root /run/docker \
    --pidfile /run/docker.pid --host $DOCKER_HOST "$@" >>"$DIR/docker.log" 2>&1 & dockerd=$!
  eventually quietly docker version; }
run() { local name=$1; shift; local args=(); while [ "$1" != -- ]; do args+=("$1"); shift; done; shift
  quietly docker run --detach --name "$name" --volume /usr:/usr:ro "${args[@]}" image "$@" ||
    { echo "no container $name" >&2; docker start "$name" >&2; return 1; }; }
inside() { docker exec "$@"; }
server() { echo "python3 -c '$SERVER' $*"; }
tells() { socat -T3 - "$1" </dev/null; }
asks() { echo | socat -T1 - "$1"; }
answers() { [ -n "$(tells "$1" 2>/dev/null)" ]; }
# One scenario after another on networks of Docker's kernel bridge and of Wharf.
each() { for kind in bridge wharf; do echo "== $kind"; "$@"; done; }
net() { local name=$1 ipam=; shift; [ $kind = bridge ] || ipam="--ipam-driver wharf"; count=$((${count:-0} + 1))
  quietly docker network create -d $kind $ipam --ipv6 --subnet fd00:$count::/64 "$@" $kind-$name; }
yes_or_no() { if quietly "$@"; then echo yes; else echo no; fi; }
settle() { start_wharf && start_plugin && start_docker && make_image; }
make_image() { mkdir -p "$DIR/image"/{usr,proc,sys,dev,etc,tmp,root,run}
  for link in bin sbin lib lib64; do ln -s usr/$link "$DIR/image/$link"; done
  tar -C "$DIR/image" -c . | quietly docker import - image; }
finish() { quietly docker rm -f $(docker ps -aq); kill $dockerd $plugin; wait $dockerd $plugin
  wharf daemon stop --release; } 2>/dev/null
trap finish EXIT
"#;

/// Runs a script on a fresh host with all daemons running; it must succeed. What it printed.
pub(super) fn host(script: &str) -> String {
    let output = try_host(&format!("settle || exit\n{script}"));
    let (out, err) = (crate::world::text(&output.stdout), crate::world::text(&output.stderr));
    assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
    out
}

/// The same with nothing started yet, and whatever came of it. The logs are at the end of its errors.
pub(super) fn try_host(script: &str) -> Output {
    assert!(rustix::process::geteuid().is_root(), "Docker's tests need root");
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wharf"), bin.join("wharf")).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", TIMEOUT, "unshare", "--net", "--mount", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "bash", "-c"]);
    command.arg(format!("{PRELUDE}\n{script}")).env_clear().current_dir(dir.path());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    command.env("HOME", dir.path()).env("DIR", dir.path()).env("LC_ALL", "C");
    let mut output = command.output().expect("`timeout` can be run");
    for log in ["plugin.log", "docker.log"] {
        let text = std::fs::read_to_string(dir.path().join(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("level=info")).collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        output.stderr.extend_from_slice(format!("\n{log}:\n{tail}\n").as_bytes());
    }
    output
}
