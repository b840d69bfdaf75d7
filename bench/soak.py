#!/usr/bin/env python3
"""Soaks a sidecar in a mixed load, attacks, faults of upstreams and a reload each second, and holds it to four promises.

    cargo build --release && bench/soak.py [--egress FILE] [--seconds N] [--json FILE]

No permitted request fails for a cause of the sidecar's, no forbidden one is forwarded, no token reaches an agent or the log,
and the memory stays where it is. Exits with 1 where one does not hold. Loopback only. Needs openssl, curl and h2load
(Debian: openssl, curl, nghttp2-client).
"""

import asyncio
import base64
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import ssl
import statistics
import subprocess
import tempfile
import time

from command import Parser, at_least, memory, needed, output, told
from soaking.agents import Agents
from soaking.attacks import Attacks
from soaking.certificates import certificates
from soaking.client import Kept, Proxy
from soaking.ledger import Ledger, Scanner, Tokens
from soaking.upstreams import BARE, CHURN, INJECTED, Upstreams


def main():
    arguments = Parser(__doc__)
    # Fewer have no fifths to compare.
    number = at_least(5)
    arguments.add_argument("--seconds", type=number, default=600, metavar="N", help="how long, at least 5 [default: 600]")
    arguments.add_argument("--json", type=output, metavar="FILE", help="where all figures are written")
    arguments.add_argument("--keep-log", type=output, metavar="FILE", help="where the sidecar's log is copied to")
    given = arguments.parse_args()
    needed("openssl", "curl", "h2load")
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(given.egress, pathlib.Path(directory))
        asyncio.run(soak.run(given.seconds))
        if given.keep_log:
            shutil.copy(soak.log, given.keep_log)
    result = soak.result()
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(not result["holds"])


class Soak:
    def __init__(self, egress, directory):
        self.egress, self.directory = egress, directory
        self.secrets, self.config = directory / "secrets", directory / "config"
        self.secrets.mkdir()
        self.config.mkdir()
        self.log, self.routes, self.admin = directory / "log", self.config / "routes.yaml", directory / "admin.sock"
        self.rss, self.reloads, self.ended = [], collections.Counter(), None

    async def run(self, seconds):
        certificates(self.directory)
        shutil.copy(self.directory / "root.pem", self.config)
        self.ledger = Ledger()
        self.tokens = Tokens(self.ledger, self.secrets)
        for slot in ["TOKEN_0", "TOKEN_1"]:
            self.tokens.rotate(slot)
        self.upstreams = Upstreams(self.ledger, self.tokens, self.directory)
        await self.upstreams.start()
        self.write(self.document(CHURN))
        child, address, root = self.sidecar()
        try:
            proxy = Proxy(self.ledger, address, root)
            agents, attacks = Agents(proxy, self.tokens, self.directory), Attacks(proxy, self.upstreams.ports["trap"])
            own = [asyncio.create_task(self.ledger.watch_lag())]
            load = agents.start() + attacks.start(12)
            await self.supervise(child, proxy, seconds)
            self.status = await self.ask("GET", "/status")
            agents.ending.set()
            attacks.ending.set()
            _, late = await asyncio.wait(load, timeout=100)
            for task in late:
                self.ledger.fail("at the end", f"{task.get_coro()} does not end")
            for task in [*late, *own]:
                task.cancel()
            self.peak = memory(child.pid, "VmHWM")
            child.terminate()
            self.ended = await asyncio.to_thread(child.wait, 30)
        finally:
            if child.poll() is None:
                child.kill()
        self.read_log()

    def sidecar(self):
        read, write = os.pipe()
        words = [self.egress, "serve", "-r", self.routes, "--listen", "127.0.0.1:0", "--ca-ephemeral"]
        words += ["--ready-fd", str(write), "--admin", f"unix:{self.admin}"]
        words += ["--upstream-ca", self.config / "root.pem", "--roots", "bundled"]
        words += ["--answer-timeout", "8s", "--body-timeout", "8s", "--log-format", "json"]
        environment = {f"EGRESS_{slot}_FILE": str(self.secrets / slot) for slot in ["TOKEN_0", "TOKEN_1"]}
        with self.log.open("wb") as log:
            child = subprocess.Popen(words, pass_fds=[write], stdout=log, stderr=log, env=environment)
        os.close(write)
        said = told(read, self.log)
        host, port = said["LISTEN"].rsplit(":", 1)
        root = ssl.DER_cert_to_PEM_cert(base64.b64decode(said["CA"]))
        (self.directory / "agents-root.pem").write_text(root)
        return child, (host, int(port)), root

    def document(self, churn):
        """The routes, in another order each time; JSON is YAML."""
        ports = self.upstreams.ports
        places = {"h2.soak.test": "h2", "stranger.soak.test": "bad", "plain.soak.test": "plain"}
        routes = []
        for host in [*INJECTED, *BARE, "stranger.soak.test", *churn]:
            route = {"host": host, "path_allowlist": ["/ok/"], "connect_to": f"127.0.0.1:{ports[places.get(host, 'h1')]}"}
            header, slot, form = INJECTED.get(host, (None, None, None))
            if slot:
                scheme = {"basic": "Basic", "{}": "raw"}.get(form, "Bearer")
                route |= {"token_env": f"EGRESS_{slot}", "auth_scheme": scheme}
            if header == "x-api-key":
                route["auth_header"] = header
            if form == "basic":
                route["auth_user"] = "soak"
            if host == "plain.soak.test":
                route["scheme"] = "http"
            routes.append(route)
        routes.append({"host": "localhost", "scheme": "http", "port": ports["trap"]})
        if len(churn) % 2:
            # A neighbour of routes that are in use.
            routes.append({"host": "api.soak.test", "path_allowlist": ["/churn/"]})
        random.shuffle(routes)
        return {"routes": routes}

    def broken(self):
        """Files that a reload has to refuse as a whole, although they begin with a route that admits everything."""
        document = self.document(CHURN)
        document["routes"].insert(0, {"host": "bare.soak.test", "connect_to": f"127.0.0.1:{self.upstreams.ports['h1']}"})
        twice = {"routes": [*document["routes"], document["routes"][0]]}
        missing = {"host": "missing.soak.test", "auth_scheme": "Bearer", "token_env": "EGRESS_TOKEN_9"}
        texts = [twice, {"routes": [*document["routes"], missing]}, {"routes": [*document["routes"], {"hots": "a.test"}]}]
        return random.choice([*map(json.dumps, texts), json.dumps(document)[:-2], "", "routes: {"])

    def write(self, document):
        staged = self.config / ".routes"
        staged.write_text(document if isinstance(document, str) else json.dumps(document))
        staged.rename(self.routes)

    async def supervise(self, child, proxy, seconds):
        """Reloads, rotates and samples, once a second."""
        begin = time.monotonic()
        for turn in range(seconds):
            await asyncio.sleep(max(0, begin + turn - time.monotonic()))
            if child.poll() is not None:
                raise SystemExit(f"error: the sidecar ended with {child.returncode}\n{self.log.read_text()[-3000:]}")
            self.rss.append(memory(child.pid, "VmRSS"))
            if turn % 7 == 3:
                self.tokens.rotate("TOKEN_0")
            if turn % 10 == 9:
                await self.refused(child)
            elif turn % 5 == 0:
                await self.removed(proxy)
            else:
                # Nobody asks for these hosts, so it does not matter when the reload is through.
                self.upstreams.churn = set(CHURN)
                self.write(self.document(random.sample(CHURN, random.randrange(len(CHURN) + 1))))
                child.send_signal(signal.SIGHUP)
                self.reloads["HUP"] += 1
        await asyncio.sleep(max(0, begin + seconds - time.monotonic()))

    async def refused(self, child):
        """By the signal or by the admin socket, which says that the old policy stayed."""
        self.write(self.broken())
        if random.random() < 0.5:
            child.send_signal(signal.SIGHUP)
            self.reloads["HUP, broken file"] += 1
            return
        status, _ = await self.ask("POST", "/reload")
        self.reloads["admin socket, broken file"] += 1
        if status < 400:
            self.ledger.fail("reload", f"a broken file was taken: {status}")

    async def removed(self, proxy):
        """Once the admin socket has answered, a removed route is gone, on an open tunnel too."""
        kept = Kept(proxy, CHURN[0])
        self.upstreams.churn = set(CHURN)
        try:
            await self.reload_to(CHURN)
            if (await kept.once("GET", "/ok/small")).status != 200:
                self.ledger.fail("reload", "a route that came is not there")
            await self.reload_to(CHURN[1:])
            self.upstreams.churn = set(CHURN[1:])
        except (OSError, EOFError) as error:
            self.ledger.fail("reload", f"the request to a route that came: {error!r}")
            return
        # The first on the tunnel that was open, the second for want of it on a new one.
        for _ in range(2):
            try:
                if not (await kept.once("GET", "/ok/small")).code:
                    self.ledger.forward("a request of a route that was removed")
            except (OSError, EOFError):
                kept.close()
        kept.close()

    async def reload_to(self, churn):
        self.write(self.document(churn))
        status, _ = await self.ask("POST", "/reload")
        self.reloads["admin socket"] += 1
        if status != 200:
            self.ledger.fail("reload", f"a good file was refused: {status}")

    async def ask(self, method, path):
        reader, writer = await asyncio.open_unix_connection(self.admin)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split(b" ")[1]), body

    def read_log(self):
        scanner = Scanner(self.ledger, "the sidecar's log")
        self.codes = collections.Counter()
        with self.log.open("rb") as log:
            for line in log:
                scanner.feed(line)
                if b"panic" in line:
                    self.ledger.fail("log", line[:300].decode(errors="replace"))
                if b'"code":"' in line:
                    self.codes[line.split(b'"code":"')[1].split(b'"')[0].decode()] += 1

    def result(self):
        fifth = len(self.rss) // 5
        before, after = (statistics.median(part or [0]) for part in [self.rss[fifth : 2 * fifth], self.rss[-fifth:]])
        flat = fifth > 0 and after <= before + max(before * 0.1, 2048)
        begin = min(30, fifth)
        ledger, counters = self.ledger, json.loads(self.status[1])
        promises = {
            "permitted requests failed": len(ledger.failed),
            "forbidden requests forwarded": len(ledger.forwarded),
            "leaks of a credential": len(ledger.leaks),
        }
        holds = not any(promises.values()) and flat and self.ended == 0
        minutes = [at / 60 for at in range(begin, len(self.rss))]
        slope = statistics.linear_regression(minutes, self.rss[begin:]).slope if len(minutes) > 1 else 0
        return {
            "holds": holds,
            "seconds": len(self.rss),
            "promises": promises,
            "rss_kib": {
                "flat": flat, "after_warm_up": self.rss[begin], "second_fifth": before, "last_fifth": after,
                "end": self.rss[-1], "max": max(self.rss), "hwm": self.peak, "slope_per_minute": round(slope, 1),
                "each_second": self.rss,
            },  # fmt: skip
            "permitted": dict(sorted(ledger.done.items())),
            "permitted_total": sum(ledger.done.values()),
            "retried_when_idle": dict(ledger.retried),
            "websockets_of_rotated": ledger.revoked,
            "faults": {", ".join(key): count for key, count in sorted(ledger.faults.items())},
            "attacks_total": sum(ledger.attacks.values()),
            "attacks": {": ".join(key): count for key, count in sorted(ledger.attacks.items())},
            "arrived": ledger.arrived,
            "received_bytes_searched": ledger.received,
            "rotations": len(self.tokens.rotations) - 2,
            "reloads": dict(self.reloads),
            "codes_in_the_log": dict(self.codes.most_common()),
            "exit": self.ended,
            "status": counters,
            "findings": [*ledger.failed[:50], *ledger.forwarded[:50], *ledger.leaks[:50]],
        }


def table(result):
    rss, promises = result["rss_kib"], result["promises"]
    mib = lambda field: f"{rss[field] / 1024:.1f}"
    rows = [("seconds", result["seconds"]), *promises.items()]
    middles = f"median of {mib('second_fifth')} MiB in the second fifth, {mib('last_fifth')} in the last"
    rows.append(("RSS flat", f"{'yes' if rss['flat'] else 'NO'}: {middles}"))
    rows.append(("RSS after warm-up, end, most, VmHWM: MiB", ", ".join(map(mib, ["after_warm_up", "end", "max", "hwm"]))))
    rows.append(("slope: KiB a minute", rss["slope_per_minute"]))
    rows.append(("permitted requests served", result["permitted_total"]))
    rows.append(("retried on idle connections", sum(result["retried_when_idle"].values())))
    rows.append(("WebSockets cut by a rotation", result["websockets_of_rotated"]))
    rows.append(("faults of upstreams", sum(result["faults"].values())))
    rows.append(("attacks", result["attacks_total"]))
    rows.append(("reloads, rotations", f"{sum(result['reloads'].values())}, {result['rotations']}"))
    rows.append(("MB that agents received, searched", result["received_bytes_searched"] // 10**6))
    text = "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)
    faults = "\n".join(f"| {name} | {count} |" for name, count in result["faults"].items())
    text += f"\n\n| fault, as it ended | |\n|---|---|\n{faults}"
    return text + "".join(f"\n- {finding}" for finding in result["findings"])


if __name__ == "__main__":
    main()
