"""CNI cases, each run with Wharf and with the reference chain (bridge, host-local, portmap).

Runs in network, mount and process namespaces of its own (`cni.rs` makes them); prints one line a case:
`name<TAB>wharf<TAB>reference`, each `yes` or `no`. A case's name says what `yes` means.
"""
import concurrent.futures
import json
import os
import subprocess
import sys
import time

ROOT, WHARF = sys.argv[1], sys.argv[2]
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "scripts"))
from lab.engines import Runtime, ports_of  # noqa: E402
from lab.shell import LabError, add_netns, delete_netns, run  # noqa: E402

FOLDER = sys.argv[3]
CASES = []


def case(function):
    CASES.append(function)
    return function


def inside(netns, script, *words, timeout=8):
    done = subprocess.run(["ip", "netns", "exec", netns, sys.executable, "-c", script, *map(str, words)],
                          capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise LabError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


SERVE = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[2] == "tcp" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET6, kind)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1])))
if kind == socket.SOCK_STREAM:
    s.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_STREAM:
        c, who = s.accept(); c.sendall(who[0].encode()); c.close()
    else:
        _, who = s.recvfrom(64); s.sendto(who[0].encode(), who)
"""
ASK = """
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[3] == "tcp" else socket.SOCK_DGRAM
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, kind); s.settimeout(2)
s.connect((sys.argv[1], int(sys.argv[2])))
if kind == socket.SOCK_DGRAM:
    s.send(b"?")
print(s.recv(64).decode().removeprefix("::ffff:"))
"""


class Server:
    """Tells each client its address."""

    def __init__(self, netns, port, proto="tcp"):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", netns, sys.executable, "-c", SERVE, str(port), proto], stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Chain:
    """A list of plugins, and its containers."""

    def __init__(self, name, runtime):
        self.name, self.runtime, self.number, self.made = name, runtime, 0, []

    def pod(self):
        self.number += 1
        name = f"{self.name}{self.number}"
        add_netns(name)
        self.made.append(name)
        return name

    def add(self, name, ports=(), **more):
        runtime = Runtime([{**plugin, **more} for plugin in self.runtime.plugins], self.runtime.path, self.runtime.env)
        return runtime.add(name, name, ports)

    def clear(self):
        """Everything is taken away, as a runtime does with what it no longer knows."""
        for name in self.made:
            try:
                self.runtime.delete(name, name, {})
            finally:
                delete_netns(name)
        self.made.clear()


def address(result, v6=False):
    return next(ip["address"].split("/")[0] for ip in result["ips"] if (":" in ip["address"]) == v6)


def refused(function, *words):
    """The error's code; 0 if there was none."""
    try:
        function(*words)
        return 0
    except LabError as error:
        return json.loads(str(error).split(": ", 1)[1])["code"]


@case
def a_result_has_addresses_gateways_and_default_routes_in_both_families(chain):
    result = chain.add(chain.pod())
    return all(ip.get("gateway") for ip in result["ips"]) and len(result["ips"]) == 2 and len(result["routes"]) == 2


@case
def two_pods_reach_each_other_over_ipv4_and_ipv6(chain):
    a, b = chain.pod(), chain.pod()
    chain.add(a)
    result = chain.add(b)
    with Server(b, 8000):
        return all(inside(a, ASK, address(result, v6), 8000, "tcp") for v6 in (False, True))


@case
def two_containers_of_one_pod_talk_over_localhost(chain):
    a = chain.pod()
    chain.add(a)
    with Server(a, 8000):
        return inside(a, ASK, "127.0.0.1", 8000, "tcp") == "127.0.0.1"


@case
def a_published_tcp_port_answers_on_the_host_s_loopback(chain):
    a = chain.pod()
    chain.add(a, ports_of(21_000, 4))
    with Server(a, 8003):
        return subprocess.run([sys.executable, "-c", ASK, "127.0.0.1", "21003", "tcp"],
                              timeout=8, capture_output=True).returncode == 0


@case
def a_published_tcp_port_answers_a_remote_host_which_the_pod_sees_as_itself(chain):
    a = chain.pod()
    chain.add(a, ports_of(21_010, 1))
    with Server(a, 8000):
        return inside("remote", ASK, "192.0.2.1", 21_010, "tcp") == "192.0.2.2"


@case
def a_published_udp_port_answers_a_remote_host_which_the_pod_sees_as_itself(chain):
    a = chain.pod()
    chain.add(a, [{"hostPort": 21_020, "containerPort": 8000, "protocol": "udp"}])
    with Server(a, 8000, "udp"):
        return inside("remote", ASK, "192.0.2.1", 21_020, "udp") == "192.0.2.2"


@case
def a_pod_reaches_its_own_published_port_by_the_host_s_address(chain):
    a = chain.pod()
    chain.add(a, ports_of(21_030, 1))
    with Server(a, 8000):
        return bool(inside(a, ASK, "192.0.2.1", 21_030, "tcp"))


@case
def a_pod_reaches_a_remote_host_with_the_host_s_address(chain):
    a = chain.pod()
    chain.add(a)
    with Server("remote", 8000):
        return inside(a, ASK, "192.0.2.2", 8000, "tcp") == "192.0.2.1"


@case
def a_second_add_of_the_same_interface_fails(chain):
    a = chain.pod()
    chain.add(a)
    return refused(chain.add, a) != 0


@case
def check_passes_after_add_and_fails_when_the_interface_is_gone(chain):
    a = chain.pod()
    result = chain.add(a)
    check = lambda: [chain.runtime.call(p, "CHECK", a, a, {"prevResult": result}) for p in chain.runtime.plugins]  # noqa: E731
    check()
    run("ip", "-n", a, "link", "delete", "eth0")
    return refused(check) != 0


@case
def del_may_be_repeated_and_comes_after_the_namespace(chain):
    a = chain.pod()
    result = chain.add(a)
    delete_netns(a)
    for _ in range(2):
        chain.runtime.delete(a, a, result)
    return True


@case
def an_address_comes_back_when_a_namespace_ends_without_del(chain):
    a = chain.pod()
    first = address(chain.add(a))
    delete_netns(a)
    chain.made.remove(a)
    time.sleep(1)
    b = chain.pod()
    wish = {"args": {"cni": {"ips": [first]}}}
    try:
        return address(chain.add(b, **wish)) == first
    finally:
        chain.runtime.delete(a, a, {})


@case
def thirty_adds_at_once_give_thirty_addresses(chain):
    pods = [chain.pod() for _ in range(30)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        return len({address(result) for result in pool.map(chain.add, pods)}) == 30


@case
def a_version_that_is_not_spoken_is_error_1_and_a_missing_variable_error_4(chain):
    plugin, a = chain.runtime.plugins[0], chain.pod()
    wrong = {"cniVersion": "9.9.9"}
    version = refused(lambda: chain.runtime.call(plugin, "ADD", a, a, wrong))
    missing = refused(lambda: chain.runtime.call(plugin, "ADD", "", a, {}))
    return (version, missing) == (1, 4)


@case
def no_rule_of_the_host_s_firewall_is_made(chain):
    chain.add(chain.pod(), ports_of(21_040, 8))
    return not run("nft", "list", "ruleset").strip()


def world():
    run("mount", "-t", "tmpfs", "wharf-cni", "/run/netns")
    run("ip", "link", "set", "lo", "up")
    add_netns("remote")
    run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", "remote")
    for netns, link, last in (((), "lan0", 1), (("-n", "remote"), "eth0", 2)):
        run("ip", *netns, "address", "add", f"192.0.2.{last}/24", "dev", link)
        run("ip", *netns, "link", "set", link, "up")
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")


def chains():
    plugins = os.path.join(FOLDER, "bin")
    os.makedirs(plugins, exist_ok=True)
    os.symlink(WHARF, os.path.join(plugins, "wharf"))
    place = ["--runtime-dir", os.path.join(FOLDER, "run")]
    run(WHARF, "daemon", "--background", *place, "--state-dir", os.path.join(FOLDER, "state"), "--uplink", "sockets")
    ours = {"type": "wharf", "ipam": {"ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd88::/64"}]]}}
    bridge = {"type": "bridge", "bridge": "cni-test0", "isGateway": True, "ipMasq": True, "hairpinMode": True,
              "ipam": {"type": "host-local", "dataDir": os.path.join(FOLDER, "host-local"),
                       "ranges": [[{"subnet": "10.89.0.0/16"}], [{"subnet": "fd89::/64"}]],
                       "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}
    return [
        Chain("wharf", Runtime([ours], plugins, {"WHARF_RUNTIME_DIR": place[1]})),
        Chain("reference", Runtime([bridge, {"type": "portmap", "snat": True}], "/usr/lib/cni")),
    ]


def main():
    world()
    both = chains()
    for function in CASES:
        outcomes = []
        for chain in both:
            try:
                outcomes.append("yes" if function(chain) else "no")
            except (LabError, subprocess.TimeoutExpired) as error:
                print(f"{function.__name__}: {chain.name}: {error}", file=sys.stderr)
                outcomes.append("no")
            chain.clear()
            if chain.name == "reference":
                run("nft", "flush", "ruleset")
        print("\t".join([function.__name__.replace("_", " "), *outcomes]), flush=True)


main()
