"""Connections that are open and idle.

usage: hold.py serve PORT
       hold.py open ADDRESS PORT COUNT      says "open" when all stand; both run until their input ends
"""
import resource
import socket
import sys
import threading


def serve(port):
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    held = []

    def accept():
        while True:
            held.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        to = (sys.argv[2], int(sys.argv[3]))
        held = [socket.create_connection(to, timeout=10) for _ in range(int(sys.argv[4]))]
        print("open", len(held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
