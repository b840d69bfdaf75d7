"""The permitted load: what is asked has to be answered, whole and rightly, whatever else goes on."""

import asyncio
import hashlib
import json
import os
import random

from .answers import FAULTS, PATTERN
from .client import Kept, Mixed, Refused, Streams, decoded, websocket

HOSTS = ["api.soak.test", "h2.soak.test", "basic.soak.test", "key.soak.test", "bare.soak.test", "plain.soak.test"]
# What the sidecar may say of a faulty upstream.
UPSTREAM_CODES = {"upstream_protocol", "upstream_timeout", "upstream_tls", "upstream_unreachable", "upstream_coding"}
DEADLINE = 90


class Agents:
    def __init__(self, proxy, tokens, directory):
        self.proxy, self.ledger, self.tokens, self.directory = proxy, proxy.ledger, tokens, directory
        self.ending = asyncio.Event()

    def start(self):
        kinds = [self.kept] * 6 + [self.streams] * 3 + [self.events] * 3 + [self.sockets] * 2 + [self.faulty] * 3
        kinds += [self.badly_certified, self.echoed, self.curl, self.h2load]
        return [asyncio.create_task(self.forever(kind)) for kind in kinds]

    async def forever(self, kind):
        while not self.ending.is_set():
            try:
                await kind()
            except Exception as error:
                self.ledger.fail(kind.__name__, f"{error!r} {getattr(error, '__notes__', '')}")
            await asyncio.sleep(random.uniform(0, 0.2))

    async def pause(self, most):
        """Less often than it can: the machine is not only ours."""
        await asyncio.sleep(random.uniform(0, most))

    async def kept(self):
        """One connection: some requests, with pauses in which reloads and rotations come."""
        connection = Kept(self.proxy, random.choice(HOSTS))
        try:
            for _ in range(random.randrange(1, 200)):
                if self.ending.is_set():
                    break
                kind, method, path, payload = request()
                name = f"HTTP/1.1 {kind}"
                async with asyncio.timeout(DEADLINE):
                    self.judge(name, kind, payload, path, await connection.ask(name, method, path, payload))
                await self.pause(random.choice([0, 0.02, 0.1, 2]))
        finally:
            connection.close()

    async def streams(self):
        """One connection of HTTP/2, several requests at once on it."""
        connection = Streams(self.proxy, random.choice(HOSTS[:5]))
        try:
            await connection.open()

            async def one():
                for _ in range(random.randrange(1, 60)):
                    if self.ending.is_set():
                        break
                    kind, method, path, payload = request()
                    async with asyncio.timeout(DEADLINE):
                        self.judge(f"HTTP/2 {kind}", kind, payload, path, await connection.ask(method, path, payload))
                    await self.pause(random.choice([0, 0.02, 0.1, 2]))

            async with asyncio.TaskGroup() as group:
                for _ in range(random.randrange(1, 6)):
                    group.create_task(one())
        except ExceptionGroup as group:
            for error in group.exceptions:
                self.ledger.fail("HTTP/2", f"{connection.host}: {error!r}")
        finally:
            connection.close()

    def judge(self, name, kind, payload, path, answer):
        if answer.status != 200 or answer.code:
            raise Mixed(f"{name} {path}: status {answer.status}, {answer.code}")
        if kind == "download":
            length = int(path.rsplit("/", 1)[1])
            right = answer.body == (PATTERN * (length // len(PATTERN) + 1))[:length]
        else:
            right = answer.body.startswith(hashlib.sha256(payload).hexdigest().encode())
        if not right:
            raise Mixed(f"{name} {path}: {len(answer.body)} bytes of another body")
        self.ledger.done[name] += 1

    async def events(self):
        count, host = random.randrange(20, 200), random.choice(HOSTS)
        connection = Kept(self.proxy, host)
        try:
            answer = await connection.ask("SSE", "GET", f"/ok/events/{count}")
        finally:
            connection.close()
        if answer.status != 200 or answer.body != b"".join(b"data: %d\n\n" % at for at in range(count)):
            raise Mixed(f"{host}: status {answer.status}, {answer.code}, {len(answer.body)} bytes")
        self.ledger.done["SSE"] += 1

    async def sockets(self):
        """Of a rotated credential the WebSocket is cut, as it has to be; all others have to last."""
        host, before = random.choice(["bare.soak.test", "key.soak.test", "api.soak.test"]), len(self.tokens.rotations)
        try:
            await websocket(self.proxy, host, random.randrange(5, 100), 0.1)
            self.ledger.done["WebSocket"] += 1
        except (OSError, EOFError):
            # A rotation just before the handshake may be taken note of just after it.
            recent = len(self.tokens.rotations) > before or self.tokens.recently()
            if host != "api.soak.test" or not recent:
                raise
            self.ledger.revoked += 1

    async def faulty(self):
        fault = random.choice(list(FAULTS))
        connection = Kept(self.proxy, "faulty.soak.test")
        try:
            async with asyncio.timeout(random.choice([2, DEADLINE]) if fault.startswith("stall") else DEADLINE):
                answer = await connection.ask("faulty", "GET", f"/ok/fault/{fault}")
                self.fault(fault, answer)
                for _ in range(random.randrange(3)):
                    # The neighbour of a fault has to be served well; the upstream may have closed the connection.
                    self.fault("after " + fault, await connection.ask("faulty", "GET", "/ok/small"))
        except (EOFError, ConnectionError) as error:
            if isinstance(error, Refused):
                raise
            self.ledger.faults[fault, "cut off"] += 1
        except TimeoutError:
            self.ledger.faults[fault, "the agent gave up"] += 1
        finally:
            connection.close()

    def fault(self, fault, answer):
        if answer.code:
            if answer.code not in UPSTREAM_CODES:
                raise Mixed(f"{fault}: status {answer.status}, {answer.code}")
            self.ledger.faults[fault, answer.code] += 1
            return
        whole = {"leave": b"ok", "long": b"01234567", "framings": b"01234"}.get(fault)
        content = decoded(answer, self.ledger)
        served = fault.startswith("after ") or answer.body == whole or (fault == "gzipped" and content != b"")
        if answer.status != 200 or not served:
            raise Mixed(f"{fault}: status {answer.status}, {len(answer.body)} bytes, taken for whole")
        self.ledger.faults[fault, "served"] += 1

    async def badly_certified(self):
        connection = Kept(self.proxy, "stranger.soak.test")
        try:
            answer = await connection.ask("stranger", "GET", "/ok/small")
        finally:
            connection.close()
        if answer.code != "upstream_tls":
            raise Mixed(f"a bad certificate: status {answer.status}, {answer.code}")
        self.ledger.faults["bad certificate", answer.code] += 1
        await self.pause(2)

    async def echoed(self):
        connection = Kept(self.proxy, random.choice(HOSTS[:4]))
        try:
            how = random.choice(["body", "headers", "gzip"])
            answer = await connection.ask("echo", "GET", f"/ok/echo/{how}", fields=[("Accept-Encoding", "gzip")])
        finally:
            connection.close()
        content = decoded(answer, self.ledger)
        if answer.status != 200 or content is None or not content.startswith(b"you sent ") or b"****" not in content:
            raise Mixed(f"echo in {how}: status {answer.status}, {answer.code}")
        self.ledger.done["echo, masked"] += 1
        await self.pause(0.5)

    async def curl(self):
        """A program of its own, with sixteen requests at once."""
        host, config = random.choice(HOSTS), self.directory / "curl.conf"
        scheme = "http" if host == "plain.soak.test" else "https"
        output = self.directory / "curl.out"
        config.write_text(f'url = "{scheme}://{host}/ok/small/[1-40]"\noutput = "{output}"\n')
        version = random.choice(["--http1.1", "--http2"])
        words = ["curl", "-q", "-sS", "-Z", "--parallel-max", "16", version, "-K", str(config), "-w", "%{json}\\n"]
        words += ["--proxy", "http://%s:%d" % self.proxy.address, "--cacert", str(self.directory / "agents-root.pem")]
        status, out, err = await self.command(words)
        codes = [json.loads(line)["response_code"] for line in out.splitlines()]
        if status or codes != [200] * 40:
            raise Mixed(f"{version} {host}: exit {status}, {err.strip()[:200]}, {sorted(codes)[-3:]}")
        self.ledger.done[f"curl {version[2:]}"] += 40
        await self.pause(3)

    async def h2load(self):
        """Through a forwarder, since h2load knows of no proxy."""
        host = random.choice(HOSTS[:5])

        async def forward(reader, writer):
            try:
                connection = await self.proxy.tunnel(f"{host}:443")
                other_reader, other_writer = await asyncio.open_connection(sock=connection)
                await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))
            except OSError:
                writer.close()

        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        words = ["h2load", "-n", "400", "-c", "4", "-m", "10", f"--connect-to=127.0.0.1:{port}", f"https://{host}/ok/small"]
        try:
            status, out, err = await self.command(words)
        finally:
            server.close()
        if status or "400 succeeded" not in out or " 400 2xx" not in out:
            lines = [line for line in out.splitlines() if line.startswith(("requests:", "status codes:"))]
            raise Mixed(f"{host}: exit {status}, {lines}, {err.strip()[:200]}")
        self.ledger.done["h2load"] += 400
        await self.pause(6)

    async def command(self, words):
        environment = {"PATH": os.environ["PATH"]}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, env=environment)
        try:
            async with asyncio.timeout(DEADLINE):
                out, err = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
        return child.returncode, out.decode(), err.decode()


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


def request():
    """Kind, method, path, payload."""
    dice = random.random()
    if dice < 0.03:
        return "download", "GET", f"/ok/down/{random.randrange(1, 6_000_000)}", b""
    if dice < 0.06:
        begin, length = random.randrange(1000), random.randrange(1, 3_000_000)
        return "upload", "POST", "/ok/up", (PATTERN * (length // len(PATTERN) + 2))[begin : begin + length]
    if dice < 0.2:
        return "small upload", "POST", "/ok/up?page=1", PATTERN[: random.randrange(1, 3000)]
    return "request", "GET", random.choice(["/ok/small", "/ok/small/%41%20b?x=1", "/ok/a.b/c"]), b""
