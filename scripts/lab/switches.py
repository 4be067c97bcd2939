"""The switches that are compared on one host, each between two namespaces.

A switch has `setup(a, b)`, which joins the namespaces, and `teardown`. Each is set up as its users would for speed; what that means is said in its docstring.
"""
import os
import shutil
import subprocess

from lab import measuring
from lab.part import Part
from lab.shell import Background, LabError, add_netns, delete_netns, has_link, move_link, run
from lab.shell import wait_ready, wait_until

ADDRESS_A, ADDRESS_B, PREFIX = "10.20.0.2", "10.20.0.3", "24"


class Switch:
    """What all have in common: a namespace `sw` for the switch, a folder, processes."""

    name = ""
    version_command = None

    def __init__(self, folder):
        self.folder = os.path.join(folder, self.name)
        self.processes = []

    def setup(self, a, b):
        """Joins the namespaces; afterwards b has `self.address`."""
        self.prepare()
        add_netns("sw")
        self.join(a, b)
        for process in self.processes:
            process.check()
        self.address = self.address_of_b()
        run("ip", "netns", "exec", a, "ping", "-c", "1", "-w", "5", self.address)

    def prepare(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder, mode=0o700)

    def join(self, a, b):
        raise NotImplementedError

    def address_of_b(self):
        return ADDRESS_B

    def teardown(self):
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()
        delete_netns("sw")

    def start(self, *command, **options):
        log = os.path.join(self.folder, "log")
        process = Background(log, *command, **options)
        self.processes.append(process)
        return process

    def move_taps(self, a, b):
        """Gives the switch's TAPs `ta` and `tb` to the two ends."""
        for tap, netns, address in (("ta", a, ADDRESS_A), ("tb", b, ADDRESS_B)):
            wait_until(f"{self.name}: the link {tap}", lambda: has_link("sw", tap), self.processes)
            move_link(tap, "sw", netns, f"{address}/{PREFIX}")

    @classmethod
    def version(cls):
        """What the peer says of itself; its first line."""
        if not cls.version_command:
            return None
        said = subprocess.run(cls.version_command, capture_output=True, text=True)
        return (said.stdout or said.stderr).strip().splitlines()[0]


class Rawtap(Switch):
    """The floor: a loop that copies frames between two TAPs with all offloads."""

    name = "rawtap"
    words = ()

    def __init__(self, folder):
        super().__init__(folder)
        self.program = os.path.join(folder, "rawtap-program")

    def join(self, a, b):
        self.start(self.program, "ta", "tb", *self.words, netns="sw")
        self.move_taps(a, b)


class RawtapPlain(Rawtap):
    """The same without virtio-net header, as a switch that knows no offload."""

    name = "rawtap-plain"
    words = ("plain",)


class Bridge(Switch):
    """The kernel's bridge with a veth pair for each end, nothing filtered."""

    name = "bridge"
    version_command = ("uname", "-r")

    def join(self, a, b):
        run("ip", "-n", "sw", "link", "add", "br0", "type", "bridge")
        run("ip", "-n", "sw", "link", "set", "br0", "up")
        for end, netns, address in (("a", a, ADDRESS_A), ("b", b, ADDRESS_B)):
            run("ip", "-n", "sw", "link", "add", f"v{end}", "type", "veth", "peer", f"t{end}")
            run("ip", "-n", "sw", "link", "set", f"v{end}", "master", "br0", "up")
            move_link(f"t{end}", "sw", netns, f"{address}/{PREFIX}")
        # Where br_netfilter is loaded, bridged frames would go through the packet filter.
        for key in ("iptables", "ip6tables", "arptables"):
            path = f"/proc/sys/net/bridge/bridge-nf-call-{key}"
            run("ip", "netns", "exec", "sw", "sh", "-c", f"[ ! -e {path} ] || echo 0 >{path}")


class OpenVSwitch(Switch):
    """Open vSwitch's userspace datapath with TAP ports, as packaged."""

    name = "ovs"
    version_command = ("ovs-vswitchd", "--version")
    options = ()

    def join(self, a, b):
        at = lambda name: os.path.join(self.folder, name)
        env = {"OVS_RUNDIR": self.folder, "OVS_LOGDIR": self.folder, "OVS_DBDIR": self.folder}
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        run("ovsdb-tool", "create", at("conf.db"), schema)
        remote = f"--remote=punix:{at('db.sock')}"
        self.start("ovsdb-server", at("conf.db"), remote, f"--unixctl={at('db.ctl')}", env=env)
        wait_until("ovs: the database", lambda: os.path.exists(at("db.sock")), self.processes)
        vsctl = ("ovs-vsctl", f"--db=unix:{at('db.sock')}", "--timeout=15")
        run(*vsctl, "--no-wait", "init")
        for option in self.options:
            run(*vsctl, "--no-wait", "set", "Open_vSwitch", ".", f"other_config:{option}")
        control = f"--unixctl={at('vs.ctl')}"
        quiet = "--verbose=poll_loop:off"
        self.start("ovs-vswitchd", f"unix:{at('db.sock')}", control, quiet, netns="sw", env=env)
        ports = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]
        for tap in ("ta", "tb"):
            ports += ["--", "add-port", "br0", tap, "--", "set", "interface", tap, "type=tap"]
        run(*vsctl, *ports)
        self.move_taps(a, b)


class OpenVSwitchTso(OpenVSwitch):
    """The same with its experimental option `userspace-tso-enable`, off as packaged."""

    name = "ovs-tso"
    options = ("userspace-tso-enable=true",)


class Vde(Switch):
    """VDE 2: vde_switch, and vde_plug2tap for each end."""

    name = "vde"
    version_command = ("vde_switch", "--version")

    def join(self, a, b):
        control = os.path.join(self.folder, "switch")
        self.start("vde_switch", "-s", control)
        ready = os.path.join(control, "ctl")
        wait_until("vde: its control socket", lambda: os.path.exists(ready), self.processes)
        for tap in ("ta", "tb"):
            self.start("vde_plug2tap", "-s", control, tap, netns="sw")
        self.move_taps(a, b)


class Wharf(Switch):
    """Wharf as its users run it: a daemon, a network, two attached namespaces."""

    name = "wharf"

    def __init__(self, folder):
        super().__init__(folder)
        self.program = os.environ.get("WHARF_BIN", "wharf")

    def wharf(self, *words):
        return run(self.program, *words, "--runtime-dir", os.path.join(self.folder, "run"))

    def start_daemon(self, *words, netns=None):
        ready, say_ready = os.pipe()
        try:
            daemon = self.start(
                self.program, "daemon", "--runtime-dir", os.path.join(self.folder, "run"),
                "--state-dir", os.path.join(self.folder, "state"), *words,
                "--ready-fd", say_ready, pass_fds=(say_ready,), netns=netns,
            )
            os.close(say_ready)
            wait_ready(ready, daemon)
        finally:
            os.close(ready)

    def join(self, a, b):
        self.start_daemon("--uplink", "none")
        self.wharf("network", "create", "lab", "--subnet", "10.20.0.0/24")
        for name, netns in (("a", a), ("b", b)):
            self.wharf("attach", "--netns", f"/run/netns/{netns}", "--name", name, "--network", "lab")

    def address_of_b(self):
        lines = self.wharf("inspect", "b", "--address").split()
        if not lines:
            raise LabError("`wharf inspect b --address` printed nothing")
        return lines[0]


def two_tap_program(name, program):
    """A program used like rawtap, `PROGRAM TAP_A TAP_B`: the pipeline without a daemon."""

    class TwoTaps(Rawtap):
        def __init__(self, folder):
            super().__init__(folder)
            self.program = program

    TwoTaps.name = name
    TwoTaps.__doc__ = f"`{os.path.basename(program)} TAP_A TAP_B`"
    return TwoTaps


ALL = {kind.name: kind for kind in (Rawtap, Wharf, Bridge, OpenVSwitch, OpenVSwitchTso, Vde, RawtapPlain)}
DEFAULT = ("rawtap", "wharf", "bridge", "ovs", "ovs-tso", "vde")

#: What Wharf must reach.
BARS = [
    ("tcp1", ("rawtap",), 0.95), ("tcp4", ("rawtap",), 0.95), ("pps18", ("rawtap",), 0.95), ("rr", ("rawtap",), 1.15),
    ("tcp1", ("ovs",), 8.0), ("tcp4", ("ovs",), 8.0), ("pps18", ("ovs",), 1.0), ("rr", ("ovs",), 1.0),
    ("tcp1", ("vde",), 15.0), ("tcp4", ("vde",), 15.0), ("pps18", ("vde",), 1.0), ("rr", ("vde",), 1.0),
]

PART = Part(
    name="same-host",
    title="Two containers on one host",
    about="`rawtap` is a loop that only copies frames between two TAPs.",
    kinds=ALL, default=DEFAULT, measures=measuring.MEASURES, measure=measuring.measure, bars=BARS, floor="rawtap",
)
