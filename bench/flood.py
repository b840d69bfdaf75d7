#!/usr/bin/env python3
"""How much memory a sidecar holds while everything is done to it at once, against the ceiling that it tells of itself.

    cargo build --release && bench/flood.py [--egress FILE] [--connections N]

Half of the connections are half heads; of the others a third each are handshakes that go no further, uploads that stall, and
downloads that nobody reads. The upstream is plain HTTP/1.1 and never stops sending. Needs nothing but Python.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time


def main():
    top = pathlib.Path(__file__).resolve().parent.parent
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--egress", default=top / "target/release/egress")
    arguments.add_argument("--connections", type=int, default=512)
    given = arguments.parse_args()
    upstream = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=serve, args=(upstream,), daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        measure(os.path.abspath(given.egress), pathlib.Path(directory), given.connections, upstream.getsockname()[1])


def serve(listener):
    """Answers every request with a body that has no end."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=pour, args=(connection,), daemon=True).start()


def pour(connection):
    try:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))
    except OSError:
        pass


def measure(egress, directory, count, port):
    routes = directory / "routes.yaml"
    routes.write_text(
        f"routes:\n  - {{host: api.test, scheme: http, connect_to: 127.0.0.1:{port}}}\n"
        f"  - {{host: tls.test, connect_to: 127.0.0.1:{port}}}\n"
    )
    admin = f"unix:{directory}/admin.sock"
    read, write = os.pipe()
    command = [egress, "serve", "-r", routes, "--listen", "127.0.0.1:0", "--ca-ephemeral", "--admin", admin]
    command += ["--ready-fd", str(write), "--log", "error"]
    for name in ["--max-connections", "--max-per-client", "--max-requests"]:
        command += [name, str(count)]
    command += ["--max-http2", str(max(1, count // 8))]
    sidecar = subprocess.Popen(command, pass_fds=[write])
    try:
        os.close(write)
        told = {}
        with os.fdopen(read) as ready:
            while "READY" not in told:
                key, value = ready.readline().strip().split("=", 1)
                told[key] = value
        host, proxy = told["LISTEN"].rsplit(":", 1)
        held = [attack(at, (host, int(proxy))) for at in range(count - 1)]
        before = 0
        while (now := memory(sidecar.pid, "VmRSS")) > before * 1.01:
            before = now
            time.sleep(2)
        held.pop().close()
        status = subprocess.run([egress, "status", "--json", "--admin", admin], capture_output=True, check=True)
        ceiling = json.loads(status.stdout)["memory_ceiling"] / 2**20
        peak = memory(sidecar.pid, "VmHWM") / 1024
        print(f"| connections | now MiB | peak MiB | ceiling MiB |\n|---|---|---|---|")
        print(f"| {len(held)} | {now / 1024:.0f} | {peak:.0f} | {ceiling:.0f} |")
        raise SystemExit(peak > ceiling)
    finally:
        sidecar.kill()


def attack(at, proxy):
    connection = socket.create_connection(proxy)
    filler = b"X-Filler: " + b"f" * 60_000
    if at % 2 == 0:
        connection.sendall(b"GET http://api.test/ HTTP/1.1\r\n" + filler)
    elif at % 6 == 1:
        connection.sendall(b"CONNECT tls.test:443 HTTP/1.1\r\nHost: tls.test:443\r\n\r\n")
        connection.recv(4096)
        connection.sendall(bytes([22, 3, 1, 64, 0]) + bytes([1, 0, 63, 0]) + bytes(8000))
    elif at % 6 == 3:
        head = b"POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000000000\r\n"
        connection.sendall(head + filler + b"\r\n\r\n" + bytes(100_000))
    else:
        connection.sendall(b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n" + filler + b"\r\n\r\n")
    return connection


def memory(pid, field):
    """KiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
