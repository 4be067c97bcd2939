"""A container, the host, and the world: the rootless uplinks.

The host is the namespace `sw`, joined by veth to the remote host `b`; the container is `a`. Nothing is on the
host's loopback. "Out" is from the container to the remote host, "in" from the remote host to a port published
on the host's address.
"""
import json
import os
import socket

from lab import load
from lab.part import Part
from lab.shell import LabError, add_netns, run, wait_until
from lab.switches import ADDRESS_A, ADDRESS_B, Rawtap, Switch, Wharf

HOST, REMOTE = "192.0.2.1", "192.0.2.2"
HOST6, REMOTE6 = "2001:db8::1", "2001:db8::2"
GATEWAYS = ("192.0.2.254", "2001:db8::fe")

#: What the tools listen on inside.
TCP_PORTS = (load.IPERF, load.SOCKPERF, load.CRR)
UDP_PORT = load.DATAGRAMS


class Uplink(Switch):
    """What all uplinks have in common: the host and its way to the remote host."""

    def setup(self, a, b):
        self.prepare()
        add_netns("sw")
        run("ip", "-n", "sw", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", b)
        for netns, link, four, six in (("sw", "up0", HOST, HOST6), (b, "up1", REMOTE, REMOTE6)):
            run("ip", "-n", netns, "address", "add", f"{four}/24", "dev", link)
            run("ip", "-n", netns, "address", "add", f"{six}/64", "dev", link, "nodad")
            run("ip", "-n", netns, "link", "set", link, "up")
        # Not the remote host: pasta takes a gateway's address for the host's loopback.
        for gateway in GATEWAYS:
            run("ip", "-n", "sw", "route", "add", "default", "via", gateway)
        self.join(a, b)
        for process in self.processes:
            process.check()

    def way(self, direction):
        """The client's namespace, the server's, and the address that the client asks for."""
        return ("a", "b", REMOTE) if direction == "out" else ("b", "a", HOST)

    def wait_for_route(self, netns):
        routed = lambda: "default" in run("ip", "-n", netns, "route")
        wait_until(f"{self.name}: the container's route", routed, self.processes)


class Floor(Rawtap):
    """The floor: a loop that copies frames between two TAPs with all offloads, and no host between."""

    def way(self, direction):
        return ("a", "b", ADDRESS_B) if direction == "out" else ("b", "a", ADDRESS_A)


class WharfSockets(Uplink, Wharf):
    """Wharf as its users run it: a daemon, a network with the uplink `sockets`, MTU 1500."""

    name = "wharf"

    def join(self, a, b):
        self.start_daemon("--uplink", "sockets", netns="sw")
        self.wharf("network", "create", "lab", "--subnet", "10.20.0.0/24")
        ports = [word for port in TCP_PORTS for word in ("-p", f"{port}:{port}")]
        ports += ["-p", f"{UDP_PORT}:{UDP_PORT}/udp"]
        self.wharf("attach", "--netns", f"/run/netns/{a}", "--name", "a", "--network", "lab", *ports)
        self.wait_for_route(a)


class Pasta(Uplink):
    """pasta with its default MTU of 65520."""

    name = "pasta"
    mtu = 65520

    def join(self, a, b):
        tcp = ",".join(str(port) for port in TCP_PORTS)
        self.start(
            "pasta", "--config-net", "--foreground", "--quiet", "--runas", "0", "--mtu", self.mtu, "-t", tcp,
            "-u", UDP_PORT, "-T", "none", "-U", "none", "--netns", f"/run/netns/{a}", netns="sw",
        )
        self.wait_for_route(a)

    @classmethod
    def version(cls):
        return run("dpkg-query", "-W", "-f", "${Version}", "passt")


class Pasta1500(Pasta):
    """pasta with the container's MTU at 1500."""

    name = "pasta-1500"
    mtu = 1500


class Slirp4netns(Uplink):
    """slirp4netns with its default MTU of 1500."""

    name = "slirp4netns"
    version_command = ("slirp4netns", "--version")
    mtu = 1500

    def join(self, a, b):
        api = os.path.join(self.folder, "api")
        self.start(
            "slirp4netns", "--configure", f"--mtu={self.mtu}", "--disable-host-loopback", "--netns-type=path",
            f"--api-socket={api}", f"/run/netns/{a}", "tap0", netns="sw",
        )
        self.wait_for_route(a)
        wait_until("slirp4netns: its API", lambda: os.path.exists(api), self.processes)
        for proto, ports in (("tcp", TCP_PORTS), ("udp", (UDP_PORT,))):
            for port in ports:
                forward = {"proto": proto, "host_addr": "0.0.0.0", "host_port": port, "guest_port": port}
                self.ask(api, {"execute": "add_hostfwd", "arguments": forward})

    @staticmethod
    def ask(path, request):
        with socket.socket(socket.AF_UNIX) as api:
            api.connect(path)
            api.sendall(json.dumps(request).encode())
            api.shutdown(socket.SHUT_WR)
            answer = json.loads(api.recv(4096))
        if "error" in answer:
            raise LabError(f"slirp4netns: {answer['error']}")


class Slirp4netns65520(Slirp4netns):
    """slirp4netns with an MTU of 65520, as RootlessKit starts it."""

    name = "slirp4netns-65520"
    mtu = 65520


MEASURES = {
    "out1": ("TCP out, 1 stream", "Gb/s", True),
    "out4": ("TCP out, 4 streams", "Gb/s", True),
    "in1": ("TCP in, 1 stream", "Gb/s", True),
    "in4": ("TCP in, 4 streams", "Gb/s", True),
    "rr-out": ("half round trip out, p50", "µs", False),
    "rr-in": ("half round trip in, p50", "µs", False),
    "conn-out": ("connections out, 64 at once", "1/s", True),
    "conn-in": ("connections in, 64 at once", "1/s", True),
    "udp-out": ("1400-byte datagrams out, no loss", "k/s", True),
    "udp-in": ("1400-byte datagrams in, no loss", "k/s", True),
}


def measure(switch, what, seconds):
    """One measurement through the uplink."""
    kind, _, direction = what.partition("-")
    if not direction:
        direction = kind.rstrip("14")
        return load.bulk(*switch.way(direction), int(kind[len(direction):]), seconds)
    if kind == "rr":
        return load.round_trip(*switch.way(direction), seconds)
    if kind == "conn":
        return load.connections(*switch.way(direction), seconds, switch.folder)
    return load.lossless(*switch.way(direction), 1400, switch.folder)


BARS = (
    [(what, ("pasta", "pasta-1500"), 1.0) for what in MEASURES]
    + [(what, ("rawtap",), 0.5) for what in ("out1", "out4", "in1", "in4")]
    + [(what, ("slirp4netns",), 3.0) for what in ("out1", "out4", "in1", "in4", "conn-out", "conn-in")]
)

KINDS = {kind.name: kind for kind in (WharfSockets, Pasta, Pasta1500, Slirp4netns, Slirp4netns65520, Floor)}

PART = Part(
    name="egress",
    title="A container and the world, without privilege",
    about=(
        "`rawtap` is a loop that only copies frames between two TAPs,\n"
        "with no host between. Out: from the container to a remote host, which a veth joins to the host; in: from the\n"
        "remote host to a port published on the host. Against pasta the better of its two MTUs counts in each round.\n"
        "No loss: the highest rate at which at most one datagram in 10,000 is lost (RFC 2544's search)."
    ),
    kinds=KINDS, default=tuple(KINDS), measures=MEASURES, measure=measure, bars=BARS, floor="rawtap",
)
