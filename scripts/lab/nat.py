"""A container behind a host's NIC: address translation in Wharf's packet uplink and in the kernel.

The host is the namespace `sw`, joined by veth to the remote host `b`; the container is `a`. "Out" is from the
container to the remote host, "in" from the remote host to a port that is published or forwarded.
"""
import os

from lab import load, report
from lab.egress import HOST, TCP_PORTS, UDP_PORT, Floor, Uplink
from lab.part import Part
from lab.shell import LabError, run
from lab.switches import ADDRESS_A, PREFIX, Wharf

#: Wharf's own address on the host's LAN, where it has one.
OWN = "192.0.2.3"
GATEWAY = "10.20.0.1"
DATAGRAM = 18


class WharfPacket(Uplink, Wharf):
    """Wharf's `packet` uplink with an address of its own on the NIC."""

    name = "wharf"
    address = OWN
    how = ("--address", f"{OWN}/24")

    def join(self, a, b):
        self.start_daemon("--uplink", "none", netns="sw")
        self.wharf("uplink", "create", "lan", "--packet", "up0", *self.how)
        self.wharf("network", "create", "lab", "--subnet", "10.20.0.0/24", "--uplink", "lan")
        ports = [word for port in TCP_PORTS for word in ("-p", f"{port}:{port}")]
        ports += ["-p", f"{UDP_PORT}:{UDP_PORT}/udp"]
        self.wharf("attach", "--netns", f"/run/netns/{a}", "--name", "a", "--network", "lab", *ports)
        self.wait_for_route(a)

    def way(self, direction):
        client, server, address = super().way(direction)
        return client, server, address if direction == "out" else self.address


class WharfShared(WharfPacket):
    """Wharf's `packet` uplink sharing the host's address."""

    name = "wharf-shared"
    address = HOST
    how = ("--share-host-address",)


class Nftables(Uplink):
    """The kernel: a veth to the container, nftables masquerade and DNAT."""

    name = "nftables"
    version_command = ("nft", "--version")

    def join(self, a, b):
        run("ip", "-n", "sw", "link", "add", "in0", "type", "veth", "peer", "name", "eth0", "netns", a)
        for netns, link, address in (("sw", "in0", GATEWAY), (a, "eth0", ADDRESS_A)):
            run("ip", "-n", netns, "address", "add", f"{address}/{PREFIX}", "dev", link)
            run("ip", "-n", netns, "link", "set", link, "up")
        run("ip", "-n", a, "route", "add", "default", "via", GATEWAY)
        run("ip", "netns", "exec", "sw", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        rules = os.path.join(self.folder, "rules")
        with open(rules, "w") as file:
            file.write(self.rules())
        run("ip", "netns", "exec", "sw", "nft", "-f", rules)
        self.wait_for_route(a)

    @staticmethod
    def rules():
        ports = ", ".join(str(port) for port in TCP_PORTS)
        return f"""table ip lab {{
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "up0" masquerade
  }}
  chain in {{
    type nat hook prerouting priority dstnat;
    iifname "up0" tcp dport {{ {ports} }} dnat to {ADDRESS_A}
    iifname "up0" udp dport {UDP_PORT} dnat to {ADDRESS_A}
  }}
}}
"""


MEASURES = {
    "out": ("TCP out, 1 stream", "Gb/s", True),
    "in": ("TCP in, 1 stream", "Gb/s", True),
    "conn-out": ("connections out, 64 at once", "1/s", True),
    "conn-in": ("connections in, 64 at once", "1/s", True),
    "udp-out": (f"{DATAGRAM}-byte datagrams out", "k/s", True),
    "udp-in": (f"{DATAGRAM}-byte datagrams in", "k/s", True),
    "rr-out": ("half round trip out, p50", "µs", False),
    "rr-in": ("half round trip in, p50", "µs", False),
}


def measure(switch, what, seconds):
    """One measurement through the uplink."""
    kind, _, direction = what.partition("-")
    if not direction:
        return load.bulk(*switch.way(kind), 1, seconds)
    if kind == "rr":
        return load.round_trip(*switch.way(direction), seconds)
    if kind == "conn":
        return load.connections(*switch.way(direction), seconds, switch.folder)
    return flood(switch, direction, seconds)


def flood(switch, direction, seconds):
    """Datagrams that arrive, in thousands a second, of as many as the sender can offer."""
    program = os.path.join(os.path.dirname(switch.folder), "udprate")
    client, server, address = switch.way(direction)
    run(program, client, server, address, UDP_PORT, DATAGRAM, 10_000, 0.2)
    words = run(program, client, server, address, UDP_PORT, DATAGRAM, 0, seconds).split()
    if int(words[1]) == 0:
        raise LabError("no datagram arrived")
    return {"value": int(words[1]) / seconds / 1000}


BARS = (
    [(what, ("nftables",), 0.8) for what in ("conn-out", "conn-in")]
    + [(what, ("rawtap",), 0.8) for what in ("out", "in")]
)


def checks(rounds):
    """The same bars for the uplink that shares the host's address."""
    out = []
    for what, others, bound in BARS:
        ratio = report.median(report.ratios(rounds, what, "wharf-shared", others[0]))
        if ratio is not None:
            text = f"{MEASURES[what][0]}, shared address: {ratio:.2f} × {others[0]}, bar ≥ {bound:g}"
            out.append((text, ratio >= bound))
    return out


KINDS = {kind.name: kind for kind in (WharfPacket, WharfShared, Nftables, Floor)}

PART = Part(
    name="nat",
    title="Address translation on a NIC",
    about=(
        "`rawtap` is a loop that only copies frames between two TAPs,\n"
        "with no host and no translation between. Out: from the container to a remote host, which a veth joins to the\n"
        "host; in: from the remote host to a port published, or forwarded by DNAT, on the host."
    ),
    kinds=KINDS, default=tuple(KINDS), measures=MEASURES, measure=measure, bars=BARS, floor="rawtap", checks=checks,
)
