"""What the programs of this directory have in common as commands: their arguments, and one line for what is wrong with them."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

BUILT = pathlib.Path(__file__).resolve().parent.parent / "target/release/egress"


class Plain(argparse.ArgumentParser):
    """Tells faults as `egress` does: an error, a hint, and exit code 2."""

    def __init__(self, text):
        super().__init__(description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message):
        fail(message, f"{self.prog} --help lists the options")


class Parser(Plain):
    """With the one binary that is measured."""

    def __init__(self, text):
        super().__init__(text)
        about = "the binary [default: target/release/egress]"
        self.add_argument("--egress", type=binary, default=str(BUILT), metavar="FILE", help=about)


def fail(message, hint):
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    raise SystemExit(2)


def needed(*programs, packages="openssl curl nghttp2-client"):
    for program in programs:
        if not shutil.which(program):
            fail(f"{program} is missing", f"apt install {packages}")


def at_least(least):
    """A type for numbers."""

    def number(text):
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return number


def output(text):
    """A type for files to write: that one cannot be written is not left for the end of a long run to find out."""
    path = pathlib.Path(text)
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error.strerror}") from None
    return path


def binary(text):
    """A type for the binary: its absolute path."""
    if not os.path.exists(text):
        fail(f"{text} is not there", "cargo build --release, or --egress FILE")
    try:
        said = subprocess.run([text, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        said = ""
    if not said.startswith("egress "):
        fail(f"{text} is no egress", "cargo build --release, or --egress FILE")
    return os.path.abspath(text)


def told(read, log=None):
    """What a sidecar says on --ready-fd, once it is ready."""
    lines = {}
    with os.fdopen(read) as ready:
        while "READY" not in lines:
            if not (line := ready.readline()):
                if log:
                    sys.stderr.write(log.read_text())
                fail("the sidecar did not start", "what it says is above")
            key, value = line.strip().split("=", 1)
            lines[key] = value
    return lines


def memory(pid, field):
    """KiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
