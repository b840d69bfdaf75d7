#!/usr/bin/env python3
"""How long a launch takes: `egress run -- true` against `true`, and a sidecar from its start to READY.

    cargo build --release && bench/launch.py [--rounds N] [--egress FILE]

The rounds of all measurements are interleaved. Prints medians in milliseconds, wall time and CPU time of all processes.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

from command import Parser, at_least, fail, told

MANIFEST = """\
bottles:
  bench:
    agent_provider: {template: custom}
    egress:
      routes:
        - {host: api.example.com, auth: {scheme: Bearer, token_ref: BENCH_TOKEN}}
        - {host: registry.example.com}
"""

ROUTES = """\
routes:
  - {host: api.example.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}
  - {host: registry.example.com}
"""


def main():
    arguments = Parser(__doc__)
    number = at_least(1)
    arguments.add_argument("--rounds", type=number, default=41, metavar="N", help="of all measurements [default: 41]")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(given.egress, pathlib.Path(directory))
        kinds = {"true": bench.true, "egress run -- true": bench.run, "egress serve, to READY": bench.serve}
        taken = {name: [] for name in kinds}
        for _ in range(given.rounds):
            for name, kind in kinds.items():
                taken[name].append(kind())
    print(f"| {given.rounds} rounds | median ms | median CPU ms | worst ms |\n|---|---|---|---|")
    for name, figures in taken.items():
        wall, cpu = zip(*figures)
        middle = statistics.median
        print(f"| `{name}` | {middle(wall):.1f} | {middle(cpu):.1f} | {max(wall):.1f} |")


class Bench:
    def __init__(self, egress, directory):
        self.egress = egress
        self.directory = directory
        self.project = directory / "home/project"
        self.project.mkdir(parents=True)
        (directory / "bottle.yaml").write_text(MANIFEST)
        (directory / "routes.yaml").write_text(ROUTES)
        runtime = directory / "run"
        runtime.mkdir(mode=0o700)
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(directory / "home"),
            "XDG_RUNTIME_DIR": str(runtime),
            "BENCH_TOKEN": "placeholder-of-the-bench",
            "EGRESS_TOKEN_0": "placeholder-of-the-bench",
        }

    def true(self):
        return timed(lambda: self.command(["/bin/true"]))

    def run(self):
        manifest = str(self.directory / "bottle.yaml")
        return timed(lambda: self.command([self.egress, "run", "-m", manifest, "--", "true"]))

    def command(self, words):
        if code := subprocess.run(words, env=self.environment, cwd=self.project).returncode:
            fail(f"{' '.join(words)} ended with {code}", "what it says is above")

    def serve(self):
        """The time until the last line of --ready-fd; stopping the sidecar is not in it."""
        ours, theirs = os.pipe()
        words = [self.egress, "serve", "-r", str(self.directory / "routes.yaml"), "--listen", "127.0.0.1:0"]
        words += ["--ca-ephemeral", "--ready-fd", str(theirs), "--log", "error"]
        begin = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        child = subprocess.Popen(words, env=self.environment, pass_fds=[theirs])
        os.close(theirs)
        told(ours)
        wall = time.perf_counter() - begin
        child.terminate()
        if code := child.wait():
            fail(f"the sidecar ended with {code}", "what it says is above")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * wall, cpu(before, after)


def timed(action):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    action()
    wall = time.perf_counter() - begin
    return 1000 * wall, cpu(before, resource.getrusage(resource.RUSAGE_CHILDREN))


def cpu(before, after):
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    main()
