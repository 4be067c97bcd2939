"""Commands, background processes and network namespaces.

All of it happens inside the private mount, network and process namespaces that scripts/compare-peers
makes for itself: names cannot collide with the machine's, and the kernel cleans up whatever happens.
"""
import os
import select
import signal
import subprocess
import time


class LabError(Exception):
    """Something did not work; the text says what."""


def run(*command, timeout=60):
    """Runs a command to its end and returns what it printed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
    except FileNotFoundError:
        raise LabError(f"there is no program `{words[0]}`; scripts/setup peers installs what is used") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(words)}` did not end within {timeout} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"`{' '.join(words)}` failed: {said[-1] if said else done.returncode}")
    return done.stdout


class Background:
    """A process that runs until `stop`, its output in a file."""

    def __init__(self, log, *command, netns=None, env=None, pass_fds=()):
        words = [str(word) for word in command]
        if netns:
            words = ["ip", "netns", "exec", netns, *words]
        self.name, self.log = words[0] if not netns else words[4], log
        with open(log, "ab") as out:
            # Some programs end when their standard input does: it stays open and silent.
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=out, stderr=out, pass_fds=pass_fds,
                env={**os.environ, **(env or {})},
            )

    def check(self):
        """Complains if it has ended by itself."""
        if self.process.poll() is not None:
            with open(self.log, errors="replace") as file:
                said = file.read().strip().splitlines()
            raise LabError(f"{self.name} ended: {said[-1] if said else f'exit status {self.process.returncode}'}")

    def wait_for_end(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def stop(self):
        """Ends it by its id, by force if need be."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()


def wait_until(what, condition, processes=(), seconds=10):
    """Asks `condition` until it holds; a process that ends meanwhile ends the wait."""
    end = time.monotonic() + seconds
    while not condition():
        for process in processes:
            process.check()
        if time.monotonic() > end:
            raise LabError(f"{what} took more than {seconds} s")
        time.sleep(0.02)


def wait_ready(fd, process, seconds=20):
    """Waits until a daemon says on `fd` that it is ready."""
    readable, _, _ = select.select([fd], [], [], seconds)
    if not readable:
        raise LabError(f"{process.name} did not say that it is ready within {seconds} s")
    if not os.read(fd, 64):
        process.wait_for_end(2)  # the end of the pipe is usually the end of the process
        process.check()
        raise LabError(f"{process.name} closed its ready descriptor without a word")


def add_netns(name):
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def delete_netns(name):
    """The namespace's links go with it, though not at once."""
    if os.path.exists(f"/run/netns/{name}"):
        run("ip", "netns", "delete", name)


def has_link(netns, link):
    path = ["ip", "-n", netns, "link", "show", link]
    return subprocess.run(path, capture_output=True).returncode == 0


def move_link(link, source, target, address):
    """Moves a link of one namespace into another as its eth0."""
    run("ip", "-n", source, "link", "set", link, "netns", target, "name", "eth0")
    run("ip", "-n", target, "address", "add", address, "dev", "eth0")
    run("ip", "-n", target, "link", "set", "eth0", "up")
