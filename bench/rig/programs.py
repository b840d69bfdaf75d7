"""Builds what is measured and what measures."""

import os
import pathlib
import subprocess

from command import BUILT, fail

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ELOAD = TARGET / "release/eload"
EGRESS = BUILT
PEERS = TARGET / "bench/peers"


def eload():
    cargo("--package", "egress-bench")


def egress():
    # By itself: with the load generator beside it, both would have the features that either asks its libraries for.
    cargo("--package", "egress", "--bin", "egress")


def peer(name):
    """One of the programs under peers/, each of which has a lock file of its own."""
    cargo("--manifest-path", ROOT / "bench/peers" / name / "Cargo.toml", "--target-dir", PEERS)
    return built_peer(name)


def built_peer(name):
    return PEERS / f"release/{name}-peer"


def result(name):
    """Where a result goes that nobody named a file for."""
    (TARGET / "bench").mkdir(parents=True, exist_ok=True)
    return TARGET / "bench" / name


def cargo(*words):
    command = ["cargo", "build", "--release", "--locked", "--quiet", *map(str, words)]
    if subprocess.run(command, cwd=ROOT).returncode:
        fail(f"`{' '.join(command)}` failed", "what it says is above")
