"""The measurements, and one round of them."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import command
from command import fail
from rig import machine, programs
from rig.egress import COLD, UPSTREAM
from rig.started import NotStarted, Started

# More of a processor than that taken by others makes a figure doubtful.
FOREIGN = 0.3


@dataclasses.dataclass
class Measurement:
    """`words` are those of eload; `needs` is what a peer has to be able to do. A fresh one is taken on a process of its own."""

    words: list
    needs: set = dataclasses.field(default_factory=set)
    fresh: bool = False
    timed: bool = True
    only_full: bool = False


def tunnels(count, **more):
    return Measurement(["idle", "--connections", str(count)], fresh=True, timed=False, **more)


MEASUREMENTS = {
    "cold": Measurement(["handshake", "--cold", str(COLD)], {"mint"}, fresh=True, timed=False),
    "tunnel": Measurement(["handshake"]),
    "resumed": Measurement(["handshake", "--resume"]),
    "h1-c1": Measurement(["rps"]),
    "h1-c64": Measurement(["rps", "--connections", "64"]),
    "h1-64k": Measurement(["rps", "--connections", "8", "--path", "/64k"]),
    "h2-4x16": Measurement(["rps", "--h2", "--connections", "4", "--streams", "16"], {"h2"}),
    "down": Measurement(["bulk"]),
    "up": Measurement(["bulk", "--up"]),
    "down-h2": Measurement(["bulk", "--h2"], {"h2"}),
    "up-h2": Measurement(["bulk", "--h2", "--up"], {"h2"}),
    "sse": Measurement(["sse"]),
    "ws": Measurement(["ws"], {"ws"}),
    "idle": tunnels(1000),
    "idle-10k": tunnels(10_000, only_full=True),
}


@contextlib.contextmanager
def prepared(seconds, tries):
    """A bench in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="egress-bench-") as directory:
        machine.prepare(pathlib.Path(directory))
        yield Bench(pathlib.Path(directory), seconds, tries)


class Bench:
    """Where things are while the peers are measured in turn."""

    def __init__(self, directory, seconds, tries):
        self.directory = directory
        self.certs = directory / "certs"
        self.port = 18080
        self.seconds = seconds
        self.tries = tries
        self.processors = machine.Processors()
        self.processors.take_ours()
        subprocess.run([programs.ELOAD, "certs", "--dir", self.certs], check=True)
        # Some peers give their rights up after they have started, and have files below.
        directory.chmod(0o711)

    def upstream(self):
        command = [programs.ELOAD, "serve", "--port", UPSTREAM, "--certs", self.certs]
        return Started(programs.ELOAD, UPSTREAM, [self.processors.load], self.directory / "upstream.log", command)

    def start(self, peer, processors=None):
        command = peer.command(self, peer.program())
        # The one root, and no directory that the shell names beside it: it would be read at each start.
        roots = {"SSL_CERT_FILE": str(self.certs / "up/ca-cert.pem"), "SSL_CERT_DIR": ""}
        environment = {**roots, **peer.environment}
        processors = processors or self.processors.proxy[:1]
        return Started(programs.ELOAD, self.port, processors, self.directory / f"{peer.name}.log", command, environment)

    def round(self, peer, names):
        """The figures of each measurement that this peer can be put to."""
        names = [name for name in names if MEASUREMENTS[name].needs <= peer.can]
        if peer.drive == "direct":
            names = [name for name in names if not MEASUREMENTS[name].fresh]
        figures = {}
        shared = [name for name in names if not MEASUREMENTS[name].fresh]
        alone = [[name] for name in names if MEASUREMENTS[name].fresh]
        with self.upstream() as upstream:
            for together in filter(None, [*alone, shared]):
                try:
                    self.together(peer, together, upstream, figures)
                except NotStarted as error:
                    print(f"{peer.name} did not start for {', '.join(together)}: {error}", file=sys.stderr)
        return figures

    def together(self, peer, names, upstream, figures):
        """Measurements on one process."""
        if peer.drive == "direct":
            for name in names:
                found = self.quiet(peer, name, None, upstream)
                # There is no proxy to charge.
                figures[name] = {key: value for key, value in found.items() if not key.startswith("cpu_us")}
            return
        with self.start(peer) as started:
            figures.setdefault("start", {"ms": []})["ms"].append(started.start_ms)
            # What a program still does after it listens is not what is measured.
            time.sleep(0.3)
            for name in names:
                figures[name] = self.quiet(peer, name, started, upstream)

    def quiet(self, peer, name, started, upstream):
        """The measurement that others disturbed least, of as many as it takes to be undisturbed, or as there may be."""
        best = None
        # On a process of its own there is one only.
        for _ in range(1 if MEASUREMENTS[name].fresh else self.tries):
            found = self.load(peer.drive, MEASUREMENTS[name], started, upstream)
            if best is None or found["foreign"] < best["foreign"]:
                best = found
            if best["foreign"] < FOREIGN:
                break
        return best

    def load(self, drive, measurement, started, upstream):
        words = list(measurement.words)
        if measurement.timed:
            words += ["--seconds", self.seconds, "--warm", min(0.5, self.seconds / 2)]
        return self.eload(drive, words, started, upstream)

    def eload(self, drive, words, started, upstream):
        """One run of the load, with how much of a processor others took meanwhile."""
        way = {"direct": ["--direct", UPSTREAM, "--auth"], "reverse": ["--direct", self.port], "forward": ["--proxy", self.port]}
        roots = f"{self.certs}/egress/ca-cert.pem,{self.certs}/up/ca-cert.pem"
        words = [programs.ELOAD, *words, *way[drive], "--port", UPSTREAM, "--ca", roots]
        words += ["--pid", started.pid] if started else []
        ours = [beside for beside in (started, upstream) if beside]
        begin, all_before, ours_before = time.monotonic(), machine.busy(), spent(ours)
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        taken = machine.busy() - all_before - (spent(ours) - ours_before)
        try:
            figures = json.loads(done.stdout)
        except json.JSONDecodeError:
            figures = {"n": 0, "errors": 1, "first_error": done.stderr.strip().removeprefix("error: ") or f"eload ended with {done.returncode}"}
        figures["foreign"] = round(max(0.0, taken) / (time.monotonic() - begin), 3)
        return figures


def spent(ours):
    """Seconds of the programs, of this one, and of what it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + sum(each.seconds() for each in ours)


def rounds(bench, peers, names, count):
    """For each peer a list with the figures of each round. The peers take turns, and another one begins each round."""
    results = {peer.name: [] for peer in peers}
    for number in range(count):
        for at in range(len(peers)):
            peer = peers[(at + number) % len(peers)]
            begin = time.monotonic()
            figures = bench.round(peer, names)
            results[peer.name].append(figures)
            tell(f"round {number + 1} of {count}: {peer.name}, {time.monotonic() - begin:.0f} s", figures)
    return results


def tell(what, figures):
    print(what, file=sys.stderr, flush=True)
    for name, found in figures.items():
        if found.get("errors"):
            print(f"  {name}: {found['errors']} errors, the first: {found.get('first_error')}", file=sys.stderr)


def listed(what, known):
    def names(text):
        found = [name for name in text.split(",") if name]
        for name in found:
            if name not in known:
                fail(f"{name!r} is no {what}", f"one or more of {','.join(known)}")
        return found

    return names


def peak(pid):
    """MiB that a process held at most."""
    return command.memory(pid, "VmHWM") / 1024


def size(peer):
    """MB of the program, if it is one file."""
    program = peer.program()
    path = shutil.which(str(program)) if program else None
    if not path or peer.name == "mitmproxy":
        return None
    return os.stat(path).st_size / 1e6
