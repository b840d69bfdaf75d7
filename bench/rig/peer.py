"""One program that is measured."""

import dataclasses
import pathlib
from collections.abc import Callable


@dataclasses.dataclass
class Peer:
    """`drive` is "direct" (the upstream itself), "reverse" (TLS at once) or "forward" (CONNECT). `can` names what not every
    peer can: "h2" to the agent, "mint" (it makes leaves), "ws"."""

    name: str
    drive: str
    can: set
    program: Callable[[], str | pathlib.Path | None]
    command: Callable
    install: str
    environment: dict = dataclasses.field(default_factory=dict)
    # One of the crates under peers/, which is built.
    crate: str | None = None
