"""What stands beside the switch for containers: names so far.

The container is `a`; whoever answers it stands behind the address of its gateway. What answers is bound to the first
core, what asks to the second one.
"""
import os

from lab import load
from lab.part import Part
from lab.shell import LabError, add_netns, run
from lab.switches import ADDRESS_A, PREFIX, Switch, Wharf

GATEWAY = "10.20.0.1"
#: Local names, `c0` and so on, all of the one container.
NAMES = [f"c{number}" for number in range(100)]


class Beside(Switch):
    """What all have in common: one container and its gateway."""

    def setup(self, a, b):
        self.prepare()
        add_netns("sw")
        self.join(a)
        for process in self.processes:
            process.check()
            run("taskset", "--all-tasks", "--cpu-list", "--pid", 0, process.process.pid)


class WharfNames(Beside, Wharf):
    """Wharf: the name server of a network, its names aliases of an attached namespace."""

    name = "wharf"

    def join(self, a):
        self.start_daemon("--uplink", "none", netns="sw")
        self.wharf("network", "create", "lab", "--subnet", "10.20.0.0/24")
        aliases = [word for name in NAMES for word in ("--alias", name)]
        self.wharf("attach", "--netns", f"/run/netns/{a}", "--name", "a", "--network", "lab", *aliases)


class Dnsmasq(Beside):
    """dnsmasq beside a veth to the container, its names those of a hosts file."""

    name = "dnsmasq"
    version_command = ("dnsmasq", "--version")

    def join(self, a):
        run("ip", "-n", "sw", "link", "add", "in0", "type", "veth", "peer", "name", "eth0", "netns", a)
        for netns, link, address in (("sw", "in0", GATEWAY), (a, "eth0", ADDRESS_A)):
            run("ip", "-n", netns, "address", "add", f"{address}/{PREFIX}", "dev", link)
            run("ip", "-n", netns, "link", "set", link, "up")
        hosts = os.path.join(self.folder, "hosts")
        with open(hosts, "w") as file:
            file.writelines(f"{ADDRESS_A} {name}\n" for name in NAMES)
        os.chmod(os.path.dirname(hosts), 0o755)
        self.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
            f"--addn-hosts={hosts}", f"--listen-address={GATEWAY}", "--bind-interfaces", "--pid-file", "--local-ttl=5",
            netns="sw",
        )


MEASURES = {"dns": ("answers about local names, one core", "k/s", True)}


def measure(switch, what, seconds):
    """Good answers, in thousands a second."""
    program = os.path.join(os.path.dirname(switch.folder), "dnsrate")
    ask = lambda length: load.run("taskset", "-c", "1", program, "a", GATEWAY, len(NAMES), length).split()
    ask(0.3)
    sent, answered, bad = (int(word) for word in ask(seconds))
    if answered == 0 or bad > 0:
        raise LabError(f"{what}: of {sent} queries {answered} were answered well and {bad} badly")
    return {"value": answered / seconds / 1000, "lost": sent - answered}


KINDS = {kind.name: kind for kind in (WharfNames, Dnsmasq)}

PART = Part(
    name="services",
    title="Names",
    about=(
        "Queries for A records of a hundred local names from one container, 64 on their way at once. What answers is\n"
        "bound to one core, what asks to another."
    ),
    kinds=KINDS, default=tuple(KINDS), measures=MEASURES, measure=measure, bars=[("dns", ("dnsmasq",), 1.0)],
    floor="dnsmasq",
)
