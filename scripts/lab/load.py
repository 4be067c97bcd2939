"""Traffic between a client's and a server's namespace, by public tools, and the figures of it."""
import json
import os
import subprocess
import time

from lab.shell import Background, LabError, run

IPERF, SOCKPERF, CRR, DATAGRAMS = 5201, 5202, 5203, 9999

#: Of so many datagrams one may be lost.
LOSS = 10_000


class Server(Background):
    """A server in a namespace for the length of a `with`."""

    def __init__(self, netns, *command):
        super().__init__(os.devnull, *command, netns=netns)

    def __enter__(self):
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.stop()


def client(netns, *command, seconds):
    """Runs a client to its end; some say with their exit status that they were ended by a time-out."""
    words = ["ip", "netns", "exec", netns, *(str(word) for word in command)]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds * 3 + 30
    )
    return done.stdout


def bulk(a, b, address, streams, seconds):
    """Bulk TCP: Gb/s that arrived."""
    with Server(b, "iperf3", "-s", "-1", "-p", IPERF):
        said = client(
            a, "iperf3", "-c", address, "-p", IPERF, "-t", seconds, "-O", "1", "-J", "-P", streams, seconds=seconds
        )
    try:
        result = json.loads(said)
    except ValueError:
        raise LabError("iperf3 gave no result") from None
    if "error" in result:
        raise LabError(f"iperf3: {result['error']}")
    return {"value": result["end"]["sum_received"]["bits_per_second"] / 1e9}


def round_trip(a, b, address, seconds):
    """Half round trips of 64 bytes over TCP, the two ends on different cores."""
    with Server(b, "taskset", "-c", "0", "sockperf", "server", "--tcp", "-i", "0.0.0.0", "-p", SOCKPERF):
        words = ("taskset", "-c", "1", "sockperf", "ping-pong", "--tcp", "-i", address, "-p", SOCKPERF, "-m", "64")
        said = client(a, *words, "-t", seconds, seconds=seconds)
    figures = {}
    for line in said.splitlines():
        for name, text in (("value", "percentile 50.000"), ("p99", "percentile 99.000")):
            if text in line:
                figures[name] = float(line.split("=")[-1].split("\x1b")[0])
    if not figures.get("value"):
        raise LabError("sockperf gave no result")
    return figures


def connections(a, b, address, seconds, folder):
    """TCP connections a second, 64 at once: connect, a byte from the server, close."""
    crr = os.path.join(os.path.dirname(folder), "crr")
    with Server(b, crr, "serve", "0.0.0.0", CRR):
        words = client(a, crr, "load", address, CRR, 64, seconds, seconds=seconds).split()
    if len(words) < 3 or float(words[0]) == 0:
        raise LabError("crr gave no result")
    return {"value": float(words[0]), "failed": float(words[2])}


def lossless(a, b, address, size, folder):
    """RFC 2544's search: the highest rate, in thousands a second, that arrives whole."""
    program = os.path.join(os.path.dirname(folder), "udprate")

    def trial(rate, seconds=1):
        words = run(program, a, b, address, DATAGRAMS, size, int(rate), seconds).split()
        return int(words[0]) / seconds, int(words[1]) / seconds

    trial(10_000, 0.2)
    offered, arrived = trial(0)
    if arrived == 0:
        raise LabError("no datagram arrived")
    low, high, best = 0.0, offered, 0.0
    rate = arrived
    for _ in range(7):
        sent, arrived = trial(rate)
        if arrived >= sent - max(1, sent / LOSS):
            low, best = rate, max(best, arrived)
        else:
            high = rate
        rate = (low + high) / 2
    return {"value": best / 1000}
