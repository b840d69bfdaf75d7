#!/usr/bin/env python3
"""What masking costs a download: the CPU time of a sidecar for a megabyte, with `redact: true` and with `redact: false`.

    cargo build --release && bench/redact.py [--rounds N] [--mib N] [--egress FILE]

The same files come from the same upstream by two routes with the same credential, over TLS on both sides, and the rounds
alternate. Needs curl and openssl.
"""

import json
import pathlib
import random
import socket
import statistics
import subprocess
import tempfile
import time

import command

# A download of each is much like what agents fetch: an archive, and an API's JSON.
BODIES = {
    "bytes": lambda mib: random.Random(1).randbytes(mib << 20),
    "json": lambda mib: json.dumps([{"id": at, "name": f"user-{at}", "login": True} for at in range(mib * 20_000)]).encode(),
}
ROUTES = {"masked.test": "true", "plain.test": "false"}


def main():
    arguments = command.Parser(__doc__)
    arguments.add_argument("--rounds", type=command.at_least(1), default=15, metavar="N", help="downloads of each kind [default: 15]")
    arguments.add_argument("--mib", type=command.at_least(1), default=128, metavar="N", help="size of a download [default: 128]")
    given = arguments.parse_args()
    command.needed("curl", "openssl")
    with tempfile.TemporaryDirectory() as directory:
        measure(given.egress, pathlib.Path(directory), given.rounds, given.mib)


def measure(egress, directory, rounds, mib):
    files = directory / "files"
    files.mkdir()
    for name, make in BODIES.items():
        (files / name).write_bytes(make(mib))
    upstream, port = serve(directory, files)
    listen, routes = free_port(), directory / "routes.yaml"
    rules = [
        f"  - {{host: {host}, connect_to: '127.0.0.1:{port}', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, redact: {redact}}}\n"
        for host, redact in ROUTES.items()
    ]
    routes.write_text("routes:\n" + "".join(rules))
    serving = [egress, "serve", "-r", routes, "--listen", f"127.0.0.1:{listen}", "--ca-dir", directory / "ca"]
    serving += ["--upstream-ca", directory / "cert.pem", "--log", "error"]
    # As long as a token of a ChatGPT login.
    token = random.Random(2).randbytes(800).hex()
    sidecar = subprocess.Popen(serving, env={"EGRESS_TOKEN_0": token})
    try:
        wait_for(listen)
        taken = {(body, host): [] for body in BODIES for host in ROUTES}
        for _ in range(rounds):
            for (body, host), figures in taken.items():
                before = cpu(sidecar.pid)
                fetch(directory, listen, f"https://{host}/{body}")
                size = (files / body).stat().st_size / 1e6
                figures.append((cpu(sidecar.pid) - before) * 1e6 / size)
    finally:
        sidecar.kill()
        upstream.kill()
    print(f"| {rounds} rounds of {mib} MiB | masked: CPU us a MB | not masked | median of the rounds' ratios |\n|---|---|---|---|")
    for body in BODIES:
        masked, plain = (taken[body, host] for host in ROUTES)
        ratio = statistics.median(one / other for one, other in zip(masked, plain))
        print(f"| {body} | {statistics.median(masked):.0f} | {statistics.median(plain):.0f} | {ratio:.3f} |")


def serve(directory, files):
    """Files by their names, over TLS and HTTP/1.0."""
    names = ",".join(f"DNS:{host}" for host in ROUTES)
    certificate = ["-keyout", directory / "key.pem", "-out", directory / "cert.pem", "-subj", "/CN=bench"]
    certificate += ["-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *certificate], check=True, capture_output=True)
    port = free_port()
    server = ["openssl", "s_server", "-quiet", "-WWW", "-accept", f"127.0.0.1:{port}"]
    server += ["-cert", directory / "cert.pem", "-key", directory / "key.pem"]
    running = subprocess.Popen(server, cwd=files, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(port)
    return running, port


def fetch(directory, proxy, url):
    fetching = ["curl", "--silent", "--fail", "--http1.1", "--proxy", f"http://127.0.0.1:{proxy}", "--output", "/dev/null"]
    subprocess.run([*fetching, "--cacert", directory / "ca/ca-cert.pem", url], check=True)


def cpu(pid):
    """Seconds of all threads, to the nanosecond."""
    return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
