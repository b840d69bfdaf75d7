"""The machine that is measured on: what it has to have, its processors, and a network of our own on it."""

import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys
import time

from command import fail

# Set in the process that has its own network already.
INSIDE = "EGRESS_BENCH_INSIDE"

DESCRIPTORS = 131_072


def check():
    """Root makes the network, and raises the limit of descriptors beyond what 10,000 tunnels take."""
    if sys.platform != "linux":
        fail(f"this runs on Linux, and {sys.platform} is something else", "take a virtual machine")
    if os.geteuid() != 0:
        fail("only root can make a network of its own", f"sudo --preserve-env=PATH,HOME {sys.argv[0]}")
    for program, package in [("unshare", "util-linux"), ("mount", "util-linux"), ("ip", "iproute2"), ("cargo", None)]:
        if not shutil.which(program):
            fail(f"{program} is missing", f"apt install {package}" if package else "https://rustup.rs")
    if len(os.sched_getaffinity(0)) < 2:
        fail("one processor is too few", "the proxy has one for itself, and the load and the upstream have another")


def enter_again():
    """Starts this program anew in a network and with mounts of its own."""
    environment = {**os.environ, INSIDE: "1"}
    os.execvpe("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv], environment)


def prepare(directory):
    """Leaves nothing but loopback, where all ports are ours, and a hosts file with the upstream's names.

    It is all of /etc that is replaced: a mount over one file is lost when somebody outside renames a new one over it.
    """
    etc = directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    names = [f"c{number}.cold.test" for number in range(200)]
    hosts = "".join(f"127.0.0.1 {name}\n" for name in ["localhost api.test", *names])
    (etc / "hosts").write_text(hosts)
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", etc, "/etc")
    # Peers that share memory by names do not meet their like outside.
    run("mount", "-t", "tmpfs", "none", "/dev/shm")
    run("ip", "link", "set", "lo", "up")
    # As many ports as there are, since 10,000 tunnels with closed ones behind them take more than the usual 28,000.
    pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("20000 65535")
    raise_descriptors()


def raise_descriptors():
    """To what the largest measurement takes, or as near to it as this machine lets root come."""
    at_most = max(int(pathlib.Path("/proc/sys/fs/nr_open").read_text()), 1024)
    for most in [min(DESCRIPTORS, at_most), resource.getrlimit(resource.RLIMIT_NOFILE)[1]]:
        try:
            return resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except ValueError:
            continue


def run(*words):
    subprocess.run([str(word) for word in words], check=True)


class Processors:
    """One for load and upstream, the others for the proxy, of which it has the first unless a measurement says more."""

    def __init__(self):
        mine = sorted(os.sched_getaffinity(0))
        self.load = mine[0]
        siblings = shared_cores(self.load)
        # Hyperthreads of one core slow each other down.
        self.proxy = sorted(mine[1:], key=lambda processor: (processor in siblings, processor))

    def two(self):
        """Two for the proxy, of which one is the load's as well where there are no more."""
        return (self.proxy + [self.load])[:2]

    def take_ours(self):
        """This process and what it starts are part of the load."""
        os.sched_setaffinity(0, {self.load})


def shared_cores(processor):
    path = pathlib.Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    found = set()
    for part in path.read_text().strip().split(",") if path.exists() else []:
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def described(processors):
    cpus = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpus.splitlines() if line.startswith("model name")), platform.machine())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": model,
        "processors": os.cpu_count(),
        "load_on": processors.load,
        "proxy_on": processors.proxy[0],
        "same_core": processors.proxy[0] in shared_cores(processors.load),
        "kernel": platform.release(),
    }


def busy():
    """Seconds that all processors were busy so far, what a hypervisor gave to others included."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / os.sysconf("SC_CLK_TCK")
