#!/usr/bin/env python3
"""What masking costs a download: the CPU time of a sidecar for a megabyte, with `redact: true` and with `redact: false`.

    cargo build --release && bench/redact.py [--rounds N] [--mib N] [--credential N] [--callgrind]

The same files come from the same upstream by two routes with the same credential, over TLS on both sides, and the rounds
alternate. With --callgrind the instructions of the sidecar are counted instead, which are the same on a busy machine; the
kernel's are not among them. Needs curl and openssl, and valgrind for that.
"""

import json
import os
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
    # As long as a token of a ChatGPT login.
    arguments.add_argument("--credential", type=command.at_least(8), default=1600, metavar="N", help="its characters [default: 1600]")
    arguments.add_argument("--callgrind", action="store_true", help="count instructions, in one round of two downloads each")
    given = arguments.parse_args()
    command.needed("curl", "openssl")
    if given.callgrind:
        command.needed("valgrind", packages="valgrind")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(given.egress, pathlib.Path(directory), given.mib, given.credential)
        try:
            unit, taken = bench.instructions() if given.callgrind else bench.time(given.rounds)
        finally:
            bench.upstream.kill()
    print(f"| {given.mib} MiB | masked: {unit} a MB | not masked | median of the rounds' ratios |\n|---|---|---|---|")
    for body in BODIES:
        masked, plain = (taken[body, host] for host in ROUTES)
        ratio = statistics.median(one / other for one, other in zip(masked, plain))
        print(f"| {body} | {statistics.median(masked):.0f} | {statistics.median(plain):.0f} | {ratio:.3f} |")


class Bench:
    def __init__(self, egress, directory, mib, length):
        self.egress = egress
        self.credential = random.Random(2).randbytes(length).hex()[:length]
        self.directory = directory
        self.files = directory / "files"
        self.files.mkdir()
        for name, make in BODIES.items():
            (self.files / name).write_bytes(make(mib))
        self.upstream, port = serve(directory, self.files)
        rule = "connect_to: '127.0.0.1:{}', auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, redact: {}"
        rules = [f"  - {{host: {host}, {rule.format(port, redact)}}}\n" for host, redact in ROUTES.items()]
        (directory / "routes.yaml").write_text("routes:\n" + "".join(rules))

    def time(self, rounds):
        sidecar, listen = self.start([])
        taken = {(body, host): [] for body in BODIES for host in ROUTES}
        try:
            for _ in range(rounds):
                for (body, host), figures in taken.items():
                    before = cpu(sidecar.pid)
                    fetch(self.directory, listen, f"https://{host}/{body}")
                    figures.append((cpu(sidecar.pid) - before) * 1e6 / self.megabytes(body))
        finally:
            sidecar.kill()
        return "CPU us", taken

    def instructions(self):
        """What three downloads take more than one."""
        taken = {}
        for body in BODIES:
            for host in ROUTES:
                one, three = (self.counted(body, host, count) for count in (1, 3))
                taken[body, host] = [(three - one) / 2 / self.megabytes(body)]
        return "instructions", taken

    def counted(self, body, host, count):
        out = self.directory / "callgrind.out"
        sidecar, listen = self.start(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"])
        for _ in range(count):
            fetch(self.directory, listen, f"https://{host}/{body}")
        sidecar.terminate()
        sidecar.wait()
        summary = next(line for line in out.read_text().splitlines() if line.startswith("summary:"))
        return int(summary.split()[1])

    def start(self, under):
        listen = free_port()
        serving = [*under, self.egress, "serve", "-r", self.directory / "routes.yaml", "--listen", f"127.0.0.1:{listen}"]
        serving += ["--ca-dir", self.directory / "ca", "--upstream-ca", self.directory / "cert.pem", "--log", "error"]
        environment = {"EGRESS_TOKEN_0": self.credential, "PATH": os.environ["PATH"]}
        sidecar = subprocess.Popen(serving, env=environment, stderr=subprocess.DEVNULL if under else None)
        wait_for(listen)
        return sidecar, listen

    def megabytes(self, body):
        return (self.files / body).stat().st_size / 1e6


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
    for _ in range(1500):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
