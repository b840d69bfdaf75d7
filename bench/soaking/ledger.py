"""What the soak knows and finds: the tokens, what may be sent where, and each finding against one of the promises."""

import asyncio
import base64
import collections
import secrets
import time

# A token is known by either end, so that a part of one is found too.
CORES = [secrets.token_hex(11), secrets.token_hex(11)]


def forms(core):
    """How a core reads plain, in hex, and in base64 wherever it stands in a longer text."""
    raw = core.encode()
    yield raw
    yield from [raw.hex().encode(), raw.hex().upper().encode()]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw).decode()
        # The words at either end hold bits of the neighbours.
        whole = text[4 if shift else 0 : (shift + len(raw)) // 3 * 4].encode()
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


NEEDLES = sorted({form for core in CORES for form in forms(core)})
LONGEST = max(map(len, NEEDLES))


class Scanner:
    """Looks for the tokens in one direction of one connection, however it is cut."""

    def __init__(self, ledger, place):
        self.ledger, self.place, self.tail = ledger, place, b""

    def feed(self, data):
        self.ledger.received += len(data)
        text = self.tail + data
        for needle in NEEDLES:
            if needle in text:
                self.ledger.leaks.append(f"{self.place}: {len(needle)} bytes of a token's form")
        self.tail = text[1 - LONGEST :]


class Tokens:
    """The values of the slots. Of a rotated one the old value counts for two seconds more, and for our own lag."""

    GRACE = 2.0

    def __init__(self, ledger, directory):
        self.ledger, self.directory = ledger, directory
        self.valid = {}
        self.rotations = []

    def rotate(self, slot):
        now = time.monotonic()
        for value, until in list(self.valid.get(slot, {}).items()):
            self.valid[slot][value] = min(until, now + self.GRACE)
        value = f"{CORES[0]}-{len(self.rotations):05}-{secrets.token_hex(4)}-{CORES[1]}"
        self.valid.setdefault(slot, {})[value] = float("inf")
        self.rotations.append(now)
        staged = self.directory / f".{slot}"
        staged.write_text(value + "\n")
        staged.chmod(0o600)
        staged.rename(self.directory / slot)

    def recently(self):
        """Whether a rotation may not have been taken note of yet."""
        return time.monotonic() - self.rotations[-1] < self.GRACE + self.ledger.lag

    def good(self, slot):
        now = time.monotonic() - self.ledger.lag
        return [value for value, until in self.valid[slot].items() if until >= now]


class Ledger:
    def __init__(self):
        self.done, self.failed, self.retried = collections.Counter(), [], collections.Counter()
        self.faults, self.attacks, self.revoked = collections.Counter(), collections.Counter(), 0
        self.forwarded, self.leaks = [], []
        self.received, self.arrived, self.lag = 0, 0, 0.0
        self.began = time.monotonic()

    def at(self):
        return f"{time.monotonic() - self.began:.1f} s"

    def fail(self, kind, why):
        self.failed.append(f"{self.at()}: {kind}: {why}")

    def forward(self, what):
        self.forwarded.append(f"{self.at()}: {what}")

    async def watch_lag(self):
        """How late this very program is, at the worst of the last ten seconds."""
        late = collections.deque(maxlen=100)
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0.1)
            late.append(time.monotonic() - begin - 0.1)
            self.lag = max(late)
