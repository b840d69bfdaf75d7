"""Programs that run beside a measurement: started by `eload spawn`, which times them, and ended with all their descendants."""

import os
import pathlib
import signal
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """With what the program said."""


class Started:
    def __init__(self, eload, port, processors, log, command, environment=None):
        # To cut off what a round before has logged takes milliseconds, which are none of the start's.
        log.unlink(missing_ok=True)
        words = [eload, "spawn", "--port", port, "--cpu", ",".join(map(str, processors)), "--log", log, "--", *command]
        environment = {**os.environ, **(environment or {})}
        self.spawn = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True, env=environment)
        told = self.spawn.stdout.readline().split()
        if len(told) != 2:
            self.spawn.wait()
            raise NotStarted(log.read_text()[-2000:] if log.exists() else "")
        self.pid, self.start_ms = int(told[0]), float(told[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        members = tree(self.pid)
        for number in signal.SIGTERM, signal.SIGKILL:
            for pid in filter(lives, members):
                os.kill(pid, number)
            try:
                self.spawn.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
        self.spawn.wait()
        # Where its parent was killed, nothing waited for it so far; and thousands of sockets are not closed in no time.
        end = time.monotonic() + 10
        while any(map(lives, members)) and time.monotonic() < end:
            time.sleep(0.01)

    def seconds(self):
        """CPU time of the tree, in ticks of 10 ms: enough to know what is foreign."""
        return sum(spent(pid) for pid in tree(self.pid))


def tree(pid):
    """The process and its descendants."""
    found = [pid]
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                found += tree(int(child))
        except OSError:
            continue
    return found


def lives(pid):
    """Whether any thread of a process does: the first may have ended while another still has the sockets."""
    for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                return True
        except OSError:
            continue
    return False


def spent(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / TICK
