"""Containers coming and going: CNI with Wharf, and with the reference plugins of Debian.

A runtime is played here, in libcni's order of calls: each plugin of the list with the result of the one
before, and DEL in reverse with the final one. What is timed is what a container's start waits for.
"""
import json
import os
import subprocess
import time

from lab.part import Part
from lab.shell import LabError, add_netns, delete_netns, run
from lab.switches import Wharf

PLUGINS = "/usr/lib/cni"
CONTAINERS, PORTS_EACH, PORTS_ONE = 470, 32, 206
FEW = 30

MEASURES = {
    "add": ("CNI ADD with 4 published ports, median", "ms", False),
    "del": ("CNI DEL of it, median", "ms", False),
    "start": ("the plugin's VERSION, median", "ms", False),
    "crowd": (f"ADD with {PORTS_EACH} ports each, many containers, median", "ms", False),
    "ports": (f"ADD with {PORTS_ONE} ports", "ms", False),
}


def middle(values):
    return sorted(values)[len(values) // 2]


class Runtime:
    """Plays libcni with a list of plugins."""

    def __init__(self, plugins, path, env=None):
        self.plugins, self.path, self.env = plugins, path, env or {}

    def call(self, plugin, verb, container, netns, more):
        conf = {"cniVersion": "1.0.0", "name": "lab", **plugin, **more}
        env = {**os.environ, **self.env, "CNI_COMMAND": verb, "CNI_PATH": self.path, "CNI_CONTAINERID": container,
               "CNI_NETNS": f"/run/netns/{netns}", "CNI_IFNAME": "eth0"}
        program = os.path.join(self.path, plugin["type"])
        done = subprocess.run([program], input=json.dumps(conf), env=env, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise LabError(f"{plugin['type']} {verb}: {done.stdout or done.stderr}")
        return done.stdout

    @staticmethod
    def capabilities(ports):
        return {"runtimeConfig": {"portMappings": ports}} if ports else {}

    def add(self, container, netns, ports=()):
        result = {}
        for plugin in self.plugins:
            more = self.capabilities(ports) | ({"prevResult": result} if result else {})
            result = json.loads(self.call(plugin, "ADD", container, netns, more))
        return result

    def delete(self, container, netns, result, ports=()):
        for plugin in reversed(self.plugins):
            self.call(plugin, "DEL", container, netns, self.capabilities(ports) | {"prevResult": result})


def ports_of(first, count):
    return [{"hostPort": first + n, "containerPort": 8000 + n, "protocol": "tcp"} for n in range(count)]


class Crowd:
    """Namespaces of containers for the length of a `with`."""

    def __init__(self, count):
        self.names = [f"pod{n}" for n in range(count)]

    def __enter__(self):
        for name in self.names:
            add_netns(name)
        return self.names

    def __exit__(self, *_):
        for name in self.names:
            delete_netns(name)


class Chain(Wharf):
    """Plugins in the namespace of the comparison; a and b are not used."""

    def setup(self, a, b):
        self.prepare()
        self.join(a, b)
        for process in self.processes:
            process.check()


class WharfCni(Chain):
    """Wharf as the only plugin: addresses and ports are the daemon's."""

    name = "wharf"
    crowd = CONTAINERS

    def join(self, a, b):
        self.start_daemon("--uplink", "sockets")
        bin_dir = os.path.join(self.folder, "cni")
        os.makedirs(bin_dir, exist_ok=True)
        link = os.path.join(bin_dir, "wharf")
        if not os.path.exists(link):
            os.symlink(os.environ["WHARF_BIN"], link)
        plugin = {"type": "wharf", "ipam": {"subnet": "10.88.0.0/16"}}
        self.runtime = Runtime([plugin], bin_dir, {"WHARF_RUNTIME_DIR": os.path.join(self.folder, "run")})


class Reference(Chain):
    """The plugins of containernetworking: bridge, host-local and portmap, with iptables."""

    name = "reference"
    #: Each container makes the next one's rules dearer; all of them would take many minutes.
    crowd = 40

    def join(self, a, b):
        bridge = {"type": "bridge", "bridge": "cni-lab0", "isGateway": True, "ipMasq": True,
                  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.89.0.0/16"}]],
                           "routes": [{"dst": "0.0.0.0/0"}], "dataDir": os.path.join(self.folder, "host-local")}}
        self.runtime = Runtime([bridge, {"type": "portmap"}], PLUGINS)

    def teardown(self):
        subprocess.run(["ip", "link", "delete", "cni-lab0"], capture_output=True)
        super().teardown()

    @classmethod
    def version(cls):
        return run("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins")


def timed(function, *words):
    begin = time.monotonic()
    result = function(*words)
    return (time.monotonic() - begin) * 1000, result


def few(runtime, what):
    adds, dels = [], []
    with Crowd(FEW) as names:
        for number, name in enumerate(names):
            ports = ports_of(20_000 + 10 * number, 4)
            took, result = timed(runtime.add, name, name, ports)
            adds.append(took)
            took, _ = timed(runtime.delete, name, name, result, ports)
            dels.append(took)
    # The first one makes the network.
    values = sorted((adds if what == "add" else dels)[1:])
    return {"value": middle(values), "p99": values[-1]}


def crowd(runtime, count):
    results, took = [], []
    with Crowd(count) as names:
        begin = time.monotonic()
        for number, name in enumerate(names):
            ports = ports_of(10_000 + PORTS_EACH * number, PORTS_EACH)
            one, result = timed(runtime.add, name, name, ports)
            took.append(one)
            results.append((name, result, ports))
        whole = time.monotonic() - begin
        for name, result, ports in results:
            runtime.delete(name, name, result, ports)
    values = sorted(took)
    return {"value": middle(values), "p99": values[len(values) * 99 // 100], "whole_s": whole, "containers": count}


def one_with_ports(runtime):
    with Crowd(1) as (name,):
        runtime.delete(name, name, runtime.add(name, name))
        took, result = timed(runtime.add, name, name, ports_of(30_000, PORTS_ONE))
        runtime.delete(name, name, result, ports_of(30_000, PORTS_ONE))
    return {"value": took}


def start(runtime):
    call = lambda: runtime.call(runtime.plugins[0], "VERSION", "x", "x", {})  # noqa: E731
    return {"value": middle([timed(call)[0] for _ in range(20)])}


def measure(switch, what, _seconds):
    runtime = switch.runtime
    if what in ("add", "del"):
        return few(runtime, what)
    if what == "crowd":
        return crowd(runtime, switch.crowd)
    return start(runtime) if what == "start" else one_with_ports(runtime)


def checks(rounds):
    """Bars that are no ratio to a peer."""
    out = []

    def bar(text, what, field, bound, unit):
        values = [one["wharf"][what][field] for one in rounds if what in one.get("wharf", {})]
        if values:
            value = middle(values)
            out.append((f"{text}: {value:.1f} {unit}, bar ≤ {bound} {unit}", value <= bound))

    bar("plugin start-up", "start", "value", 5, "ms")
    bar(f"{CONTAINERS} containers with {PORTS_EACH} ports, median", "crowd", "value", 20, "ms")
    bar("all of them", "crowd", "whole_s", 10, "s")
    bar(f"one container with {PORTS_ONE} ports", "ports", "value", 50, "ms")
    return out


PART = Part(
    name="engines",
    title="Containers through CNI",
    about=(
        "A runtime that follows libcni's order of calls; each call is a process. The reference chain's crowd is\n"
        f"{Reference.crowd} containers, not {CONTAINERS}."
    ),
    kinds={"wharf": WharfCni, "reference": Reference}, default=("wharf", "reference"), measures=MEASURES,
    measure=measure, bars=[("add", ("reference",), 0.333), ("del", ("reference",), 0.333)], floor="reference",
    checks=checks,
)
