"""Runs scripts/peers/measure between two namespaces and reads what it prints."""
import os
import re
import subprocess

from lab.shell import LabError

#: What is measured on one host: the word for `measure`, its title, the unit, more is better.
MEASURES = {
    "tcp1": ("TCP, 1 stream", "Gb/s", True),
    "tcp4": ("TCP, 4 streams", "Gb/s", True),
    "rr": ("half round trip, p50", "µs", False),
    "pps18": ("18-byte datagrams", "k/s", True),
    "pps1400": ("1400-byte datagrams", "k/s", True),
}

PATTERNS = {
    "tcp": re.compile(r"^tcp\d (?P<value>[\d.]+) Gb/s retr=(?P<retransmits>\d+|None)"),
    "rr": re.compile(r"^rr half-rtt avg=(?P<mean>[\d.]+) p50=(?P<value>[\d.]+) p99=(?P<p99>[\d.]+) us"),
    "pps": re.compile(r"^pps\d+ (?P<value>\d+) kpps"),
}


def parse(what, line):
    """The figures of one line, `value` among them; None for a measurement that failed."""
    match = PATTERNS[what.rstrip("0123456789")].match(line)
    if not match:
        return None
    figures = {key: float(text) for key, text in match.groupdict().items() if text != "None"}
    return figures if figures["value"] > 0 else None


def measure(switch, what, seconds):
    """One measurement between `a` and `b`; complains when it gives no figure."""
    here = os.path.dirname(os.path.abspath(__file__))
    tool = os.path.join(here, "..", "peers", "measure")
    command = [tool, "a", "b", switch.address, str(seconds), what]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds * 3 + 60
    )
    figures = parse(what, done.stdout.strip())
    if figures is None:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()
        raise LabError(f"{what}: {said[-1]}")
    return figures
