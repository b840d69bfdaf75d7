"""What grows, how far, and what is measured of it."""

import dataclasses
from collections.abc import Callable

from rig import egress


@dataclasses.dataclass
class Axis:
    """`words` are those of eload for a value, and `routes` writes the routes file for it. `unit` is what the CPU time is for;
    `cpu` is the figure that says it."""

    name: str
    label: str
    values: list
    words: Callable[[int], list]
    unit: str
    cpu: str = "cpu_us_per"
    delay: str | None = "p99_us"
    routes: Callable = lambda path, _: egress.write_routes(path)
    # Values that a quick check leaves out.
    long: int | None = None

    def taken(self, is_short):
        return [value for value in self.values if not (is_short and self.long and value >= self.long)]


def many_routes(path, count):
    """Ten to a host, of which the load asks for none."""
    rules = [f"  - {{host: r{number // 10}.routes.test, path_allowlist: [/p{number % 10}]}}\n" for number in range(count - 1)]
    egress.write_routes(path, "".join(rules))


def many_hosts(path, _):
    """All below one route."""
    rule = f"  - {{host: '*.many.test', port: {egress.UPSTREAM}, path_allowlist: [/1k], connect_to: '127.0.0.1:{egress.UPSTREAM}'"
    egress.write_routes(path, f"{rule}, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}}\n")


def body(size):
    """A large one may take longer than the window is, so that bytes are counted then."""
    return ["bulk", "--size", size] if size else ["rps", "--path", "/0"]


AXES = [
    Axis(
        "connections",
        "open tunnels, of which at most 64 ask at once",
        [1, 10, 100, 1000, 10_000],
        lambda count: ["rps", "--connections", count, "--at-once", 64],
        "request",
        long=10_000,
    ),
    Axis(
        "routes",
        "routes in the file",
        [10, 100, 1000, 10_000, 100_000],
        lambda _: ["rps", "--connections", 64],
        "request",
        routes=many_routes,
        long=100_000,
    ),
    Axis(
        "hosts",
        "hosts that new tunnels lead to in turn",
        [1, 10, 100, 1000, 10_000],
        lambda count: ["handshake", "--hosts", count],
        "tunnel",
        routes=many_hosts,
        long=10_000,
    ),
    Axis(
        "body",
        "bytes of a body",
        [0, *(10**power for power in range(3, 10))],
        body,
        "request",
        delay=None,
        long=10**8,
    ),
    Axis(
        "websockets",
        "open WebSockets, 1,000 messages a second in all",
        [1, 10, 100, 1000, 5000],
        lambda count: ["ws", "--connections", count, "--every", count],
        "message",
        long=5000,
    ),
]


def per_unit(axis, value, found):
    """CPU microseconds for a unit of work. Of bodies that did not all end in the window, by their bytes."""
    if axis.name == "body" and value:
        per_mb = found.get("cpu_us_per_mb")
        return None if per_mb is None else per_mb * value / 1e6
    return found.get(axis.cpu)
