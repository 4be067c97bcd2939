# Podman 4.3 as root, its network made through CNI by Wharf. $1: the program, $2: an empty directory.
set -u
wharf=$1 dir=$2
ip link set lo up
export WHARF_RUNTIME_DIR=$dir/run CONTAINERS_CONF=$dir/containers.conf
mkdir -p $dir/bin $dir/net.d $dir/tmp $dir/rootfs/{bin,etc,proc,sys,dev,tmp,www}
"$wharf" daemon --background --state-dir $dir/state --uplink sockets || exit
"$wharf" cni install -q --bin-dir $dir/bin --conf-dir $dir/net.d --name pods --cni-version 0.4.0 \
  --subnet 10.61.0.0/24 --subnet fd61::/64 || exit
cat > $dir/containers.conf <<CONF
[network]
network_backend = "cni"
cni_plugin_dirs = ["$dir/bin", "/usr/lib/cni"]
network_config_dir = "$dir/net.d"
[engine]
# Podman would bind published ports itself, to keep others off; ours are real listening sockets.
enable_port_reservation = false
CONF
cp /bin/busybox $dir/rootfs/bin; echo inside > $dir/rootfs/www/index.html
for name in sh ip nc nslookup httpd sleep wget cat; do ln -s busybox $dir/rootfs/bin/$name; done
podman="podman --root $dir/storage --runroot $dir/runroot --tmpdir $dir/tmp --runtime runc --storage-driver vfs
  --cgroup-manager cgroupfs --events-backend file --log-level error"
limits="--ulimit nofile=1024:1024 --ulimit nproc=1000:1000"
eventually() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; return 1; }
trap '$podman rm -f -t 0 web other >/dev/null 2>&1; "$wharf" status -q >/dev/null' EXIT
$podman network ls --format '{{.Name}}' | grep -x pods && echo listed
$podman run -d --name web --network pods --network-alias shop \
  -p 28090:80 $limits --rootfs $dir/rootfs httpd -f -h /www > /dev/null || exit
page() { [ "$(curl -s http://127.0.0.1:28090/)" = inside ]; }
eventually page && echo published
"$wharf" ps | grep -q '^web ' && echo seen
$podman run --rm --name other --network pods $limits --rootfs $dir/rootfs \
  wget -q -O - http://shop/ | grep -q inside && echo alias
$podman run --rm --name other --network pods $limits --rootfs $dir/rootfs \
  wget -q -O - http://web/ | grep -q inside && echo resolved
$podman rm -f -t 0 web > /dev/null
[ "$("$wharf" ps --json)" = "[]" ] && echo gone
