"""What much of something costs the socket uplink: many flows, idle flows, many published ports."""
import os
import sys
import time

from lab import load
from lab.egress import REMOTE, WharfSockets
from lab.part import Part
from lab.shell import run, wait_until

HELD = 5204
FLOWS, ACTIVE, IDLE = 10_000, 100, 100
PORTS = 12_000
HOLD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hold.py")

MEASURES = {
    "flows": (f"TCP out, {ACTIVE} streams, with {FLOWS - ACTIVE} idle connections open (as a part of without)", "", True),
    "idle": (f"wake-ups with {IDLE} idle connections", "1/min", False),
    "ports": (f"publishing {PORTS} ports", "s", False),
}


class Held:
    """Idle connections from the container to the remote host, for the length of a `with`."""

    def __init__(self, count):
        self.server = load.Server("b", sys.executable, HOLD, "serve", HELD)
        self.count = count

    def __enter__(self):
        self.server.__enter__()
        log = f"/tmp/held.{os.getpid()}"
        self.client = load.Background(log, sys.executable, HOLD, "open", REMOTE, HELD, self.count, netns="a")
        self.log = log
        wait_until("opening connections", lambda: os.path.getsize(log) > 0, [self.client], seconds=60)
        return self

    def __exit__(self, *_):
        self.client.stop()
        self.server.stop()
        os.unlink(self.log)


def daemon(switch):
    """The daemon's process id: `ip netns exec` becomes it."""
    return switch.processes[0].process.pid


def resident(pid):
    """Resident memory in MB."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def slab():
    """The kernel's own memory in MB, of the whole machine."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Slab")) / 1024


def switches(pid):
    """Context switches of all threads so far."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


def flows(switch, seconds):
    pid = daemon(switch)
    few = load.bulk("a", "b", REMOTE, ACTIVE, seconds)["value"]
    before, kernel = resident(pid), slab()
    with Held(FLOWS - ACTIVE):
        memory, kernel = resident(pid) - before, slab() - kernel
        many = load.bulk("a", "b", REMOTE, ACTIVE, seconds)["value"]
    return {"value": many / few, "gbps_few": few, "gbps_many": many, "resident_mb": memory, "kernel_mb": kernel}


def idle(switch, seconds):
    pid = daemon(switch)
    with Held(IDLE):
        time.sleep(3)
        before = switches(pid)
        time.sleep(60)
        return {"value": float(max(switches(pid) - before, 1))}


def ports(switch, seconds):
    pid = daemon(switch)
    before, kernel, begin = resident(pid), slab(), time.monotonic()
    last = 20_000 + PORTS - 1
    switch.wharf("publish", "a", f"20000-{last}:20000-{last}")
    took = time.monotonic() - begin
    figures = {"value": took, "resident_mb": resident(pid), "more_mb": resident(pid) - before, "kernel_mb": slab() - kernel}
    switch.wharf("unpublish", "a", f"20000-{last}:20000-{last}")
    return figures


def measure(switch, what, seconds):
    return {"flows": flows, "idle": idle, "ports": ports}[what](switch, seconds)


def checks(rounds):
    """Bars that are no ratio to a peer."""
    out = []

    def bar(text, what, field, bound, more, unit):
        values = sorted(one["wharf"][what][field] for one in rounds if what in one.get("wharf", {}))
        if values:
            middle = values[len(values) // 2]
            reached = middle >= bound if more else middle <= bound
            out.append((f"{text}: {middle:.2f}{unit}, bar {'≥' if more else '≤'} {bound:g}{unit}", reached))

    bar(f"{FLOWS} open flows against {ACTIVE}", "flows", "value", 0.9, True, " ×")
    bar(f"resident memory of {FLOWS - ACTIVE} more flows (1 KiB each)", "flows", "resident_mb", FLOWS / 1024, False, " MB")
    bar(f"wake-ups with {IDLE} idle flows", "idle", "value", 6, False, " a minute")
    bar(f"publishing {PORTS} ports", "ports", "value", 1, False, " s")
    bar("resident memory with them", "ports", "resident_mb", 50, False, " MB")
    return out


PART = Part(
    name="limits",
    title="Many flows, idle flows, many published ports",
    about=(
        "Wharf's socket uplink alone. Kernel memory (slab of the whole\n"
        "machine, both ends' sockets included) and the daemon's resident memory are apart in limits.json."
    ),
    kinds={"wharf": WharfSockets}, default=("wharf",), measures=MEASURES, measure=measure, bars=[], floor="wharf",
    checks=checks,
)
