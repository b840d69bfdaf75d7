"""What a hostile agent does. What must not arrive says so itself (`X-Soak-Forbidden`), so that upstreams know it."""

import asyncio
import random
import secrets
import ssl
import struct

from . import hpack, http2
from .answers import PATTERN
from .client import Kept, Refused, Streams

MARK = "X-Soak-Forbidden: 1\r\n"
FRAME = http2.frame
TRAVERSALS = [
    "/forbidden", "/ok/../forbidden", "/ok/%2e%2e/forbidden", "/ok/..%2fforbidden", "/ok//../forbidden",
    "/ok/..;/forbidden", "/ok/..\\forbidden", "/ok/%252e%252e/forbidden", "/okforbidden", "/OK/forbidden",
    "/ok/%c0%ae%c0%ae/forbidden", "/ok", "/%6fk/forbidden", "/ok/.%00./forbidden", "//ok/small", "/ok/./small",
    "/ok/%zz", "/ok/#/../../forbidden", "*",
]  # fmt: skip
FRAMINGS = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 4\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n", "Transfer-Encoding:\x0bchunked\r\n", "Transfer-Encoding: gzip, chunked\r\n",
    "Content-Length: +4\r\n", "Content-Length: 0x4\r\n", "Content-Length: 4, 4\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n", "X: y\nTransfer-Encoding: chunked\r\n", "X: y\rContent-Length: 4\r\n",
    "X: \0\r\n", "Transfer_Encoding: chunked\r\n", "Host: bare.soak.test\r\n", "Host: key.soak.test\r\n",
    "X_Api_Key: a\r\n", "Expect: something\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 4\r\n",
]  # fmt: skip
NOWHERE = [
    "evil.test:443", "api.soak.test:22", "api.soak.test.evil.test:443", "xapi.soak.test:443", "169.254.169.254:80",
    "[fd00:ec2::254]:80", "100.100.100.200:80", "metadata.google.internal:80", "api.soak.test.:443",
    "user@api.soak.test:443", "api.soak.test", "api.soak.test:443:443", "127.0.0.1:{trap}", "localhost:{trap}",
    "[::ffff:127.0.0.1]:{trap}", "0x7f.1:{trap}", "2130706433:{trap}", "0:{trap}", "[::1]:{trap}",
]  # fmt: skip
QUERIES = [
    "access_token=x", "a=1;token=x", "%74oken=x", "to=https%3A%2F%2Fh%2F%3Ftoken%3Dx", "k%2565y=x", "a=%zz",
    "X-Amz-Signature=x",
]  # fmt: skip


class Attacks:
    def __init__(self, proxy, trap):
        self.proxy, self.ledger, self.trap = proxy, proxy.ledger, trap
        self.ending = asyncio.Event()
        self.kinds = [
            self.nowhere, self.nowhere_plain, self.paths, self.framing, self.pipelined, self.names, self.foreign_host,
            self.slow_head, self.half_handshake, self.flood, self.streams, self.stream_paths, self.own_credentials,
            self.query, self.methods, self.noise, self.breaks_off, self.breaks_off_upload, self.not_resolved,
        ]  # fmt: skip

    def start(self, count):
        return [asyncio.create_task(self.forever()) for _ in range(count)]

    async def forever(self):
        while not self.ending.is_set():
            kind = random.choice(self.kinds)
            try:
                async with asyncio.timeout(20):
                    outcome = await kind()
            except Refused as refusal:
                outcome = str(refusal)
            except ssl.SSLError:
                outcome = "TLS ended"
            except TimeoutError:
                outcome = "still open"
            except (OSError, EOFError):
                outcome = "closed"
            except Exception as error:
                outcome = "failed"
                self.ledger.fail(kind.__name__, repr(error))
            self.ledger.attacks[kind.__name__, outcome] += 1
            await asyncio.sleep(random.uniform(0, 0.3))

    async def send(self, data, host=None, wait=3):
        """What comes back on a connection; a forbidden request's answer must not be an upstream's."""
        reader, writer = await (self.proxy.tls(host) if host else self.proxy.plain())
        got = b""
        try:
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(wait):
                while len(got) < 65536 and (more := await reader.read(65536)):
                    got += more
                    if b"\r\n\r\n" in got and b"x-egress-error" in got:
                        break
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()
        return got

    async def forbidden(self, data, host=None):
        return self.refused(await self.send(data, host), data)

    def refused(self, got, data):
        if b"x-soak-upstream" in got.lower():
            self.ledger.forward(f"an upstream answered {data[:100]!r}")
        return got.split(b"\r\n")[0][:12].decode("latin-1") or "closed"

    def host(self):
        return random.choice(["api.soak.test", "h2.soak.test", "key.soak.test", "bare.soak.test"])

    async def nowhere(self):
        connection = await self.proxy.tunnel(random.choice(NOWHERE).format(trap=self.trap))
        connection.close()
        self.ledger.forward("a tunnel to nowhere was opened")
        return "opened"

    async def nowhere_plain(self):
        place = random.choice([*NOWHERE, "api.soak.test:80", "bare.soak.test:80"]).format(trap=self.trap)
        head = f"GET http://{place}/ok/small HTTP/1.1\r\nHost: {place}\r\n{MARK}\r\n"
        return await self.forbidden(head.encode())

    async def not_resolved(self):
        """A route names this host, but not the address that it resolves into."""
        head = f"GET http://localhost:{self.trap}/ok/small HTTP/1.1\r\nHost: localhost:{self.trap}\r\n{MARK}\r\n"
        return await self.forbidden(head.encode())

    async def paths(self):
        host = self.host()
        head = f"GET {random.choice(TRAVERSALS)} HTTP/1.1\r\nHost: {host}\r\n{MARK}\r\n"
        return await self.forbidden(head.encode(), host)

    async def framing(self):
        host = self.host()
        head = f"POST /ok/up HTTP/1.1\r\nHost: {host}\r\n{MARK}{random.choice(FRAMINGS)}"
        if "Content-Length" not in head and "Transfer" not in head:
            head += "Content-Length: 4\r\n"
        inner = f"0\r\n\r\nGET /forbidden HTTP/1.1\r\nHost: {host}\r\n{MARK}\r\n"
        return await self.forbidden((head + "\r\n" + inner).encode(), host)

    async def pipelined(self):
        """The first request is permitted, and what hides behind its body or in it is not."""
        host = self.host()
        inner = f"GET /forbidden HTTP/1.1\r\nHost: {host}\r\n{MARK}\r\n"
        length = random.choice([0, len(inner)])
        head = f"POST /ok/up HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
        got = await self.send((head + inner).encode(), host, 2)
        if got.count(b"x-soak-upstream") > 1:
            self.ledger.forward("a pipelined request to a forbidden path was answered")
        return got.split(b"\r\n")[0][:12].decode("latin-1") or "closed"

    async def names(self):
        """The server name of the handshake is another than the tunnel's; trusting it is not the agent's wish."""
        connection = await self.proxy.tunnel("bare.soak.test:443")
        name = random.choice(["api.soak.test", "evil.test", "bare.soak.test.evil.test", "127.0.0.1"])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await self.proxy.streams(connection, "a tunnel of another name", context, name)
        writer.close()
        self.ledger.forward(f"a handshake for {name} in the tunnel of another host")
        return "shaken hands"

    async def foreign_host(self):
        host, other = "bare.soak.test", random.choice(["api.soak.test", "evil.test", "bare.soak.test:8443", ""])
        target = random.choice(["/ok/small", f"https://{other}/ok/small"])
        return await self.forbidden(f"GET {target} HTTP/1.1\r\nHost: {other}\r\n{MARK}\r\n".encode(), host)

    async def slow_head(self):
        reader, writer = await self.proxy.plain()
        try:
            for byte in f"GET http://plain.soak.test/ok/small HTTP/1.1\r\n{MARK}X: {'y' * 200}".encode():
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
                if reader.at_eof() or reader.fed:
                    break
            return "cut off" if reader.at_eof() or reader.fed else "let go"
        finally:
            writer.close()

    async def half_handshake(self):
        connection = await self.proxy.tunnel(f"{self.host()}:443")
        with connection:
            hello = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + secrets.token_bytes(random.randrange(300))
            await asyncio.get_running_loop().sock_sendall(connection, hello)
            await asyncio.sleep(random.uniform(0, 12))
        return "let go"

    async def flood(self):
        host = self.host()
        reader, writer = await self.proxy.tls(host, protocols=("h2",))
        block = hpack.encode([*http2.target(host, "/ok/small"), ("x-soak-id", "flood")])
        frames = random.choice([
            lambda at: FRAME(http2.SETTINGS), lambda at: FRAME(http2.PING, 0, 0, bytes(8)),
            lambda at: FRAME(http2.PRIORITY, 0, 1, bytes(5)),
            lambda at: FRAME(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
            lambda at: FRAME(77, 0, 0, b"x"), lambda at: FRAME(http2.CONTINUATION, 0, 1, bytes(100)),
            lambda at: FRAME(http2.HEADERS if at == 0 else http2.CONTINUATION, 0, 1, block if at == 0 else b""),
            lambda at: FRAME(http2.HEADERS, 4, 1, block) if at == 0 else FRAME(http2.DATA, 0, 1),
            lambda at: FRAME(http2.HEADERS, 5, 2 * at + 1, block) + FRAME(http2.RESET, 0, 2 * at + 1, bytes([0, 0, 0, 8])),
        ])  # fmt: skip
        try:
            writer.write(http2.PREFACE + FRAME(http2.SETTINGS))
            for begin in range(0, 6000, 200):
                writer.write(b"".join(map(frames, range(begin, begin + 200))))
                await writer.drain()
                if reader.at_eof():
                    return "cut off"
                await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                while await reader.read(65536):
                    pass
            return "cut off"
        finally:
            writer.close()

    async def streams(self):
        """Requests of HTTP/2 that become more than one, or another, in HTTP/1.1."""
        host = random.choice(["api.soak.test", "bare.soak.test"])
        head = dict([*http2.target(host, "/ok/small"), ("x-soak-forbidden", "1")])
        name, value = random.choice([
            (":authority", "key.soak.test"), ("host", "key.soak.test"), (":scheme", "http"), (":path", "*"),
            (":path", ""), (":method", "CONNECT"), (":method", "GET / HTTP/1.1"), ("transfer-encoding", "chunked"),
            ("content-length", "5"), ("x-a", "b\r\nX-Api-Key: c"), ("x-a\r\nhost", "evil.test"), ("X-Upper", "a"),
            ("x_api_key", "a"), (":path", "/ok/ x"), ("connection", "authorization"), (":authority", ""),
            (":protocol", "websocket"),
        ])  # fmt: skip
        head[name] = value
        return await self.stream(host, list(head.items()))

    async def stream_paths(self):
        host = self.host()
        path = random.choice([path for path in TRAVERSALS if "#" not in path])
        return await self.stream(host, [*http2.target(host, path), ("x-soak-forbidden", "1")])

    async def stream(self, host, head):
        connection = Streams(self.proxy, host)
        await connection.open()
        try:
            stream = connection.peer.open()
            await stream.head(head, end=True)
            async with asyncio.timeout(5):
                kind, fields = await stream.event()
            told = dict(fields or [])
            if "x-soak-upstream" in told:
                self.ledger.forward(f"an upstream answered {head}")
            return f"status {told.get(':status')}"
        finally:
            connection.close()

    async def own_credentials(self):
        """Permitted, but for what it carries: the upstream sees that it does not arrive."""
        connection = Kept(self.proxy, random.choice(["api.soak.test", "key.soak.test", "bare.soak.test"]))
        names = ["Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key", "Private-Token", "Proxy-Authorization"]
        fields = [(name, "Bearer agents-own") for name in random.sample(names, 4)]
        if connection.host != "bare.soak.test":
            fields.append(("Cookie", "session=agents-own"))
        fields.append(("Connection", "authorization, x-api-key, keep-alive"))
        try:
            answer = await connection.ask("own credentials", "GET", "/ok/small", fields=fields)
        finally:
            connection.close()
        if answer.status != 200:
            self.ledger.fail("own credentials", f"{connection.host}: status {answer.status}, {answer.code}")
        return f"status {answer.status}"

    async def query(self):
        head = f"GET /ok/small?{random.choice(QUERIES)} HTTP/1.1\r\nHost: api.soak.test\r\n{MARK}\r\n"
        return await self.forbidden(head.encode(), "api.soak.test")

    async def methods(self):
        host = self.host()
        line = random.choice(["TRACE /ok/small", "CONNECT evil.test:443", "PURGE /ok/small", "get /ok/small", "PRI *"])
        return await self.forbidden(f"{line} HTTP/1.1\r\nHost: {host}\r\n{MARK}\r\n".encode(), host)

    async def noise(self):
        host = random.choice([None, self.host()])
        first = random.choice([b"", b"GET ", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n"])
        return await self.forbidden(first + secrets.token_bytes(random.randrange(1, 3000)), host)

    async def breaks_off(self):
        reader, writer = await self.proxy.tls(host := self.host())
        writer.write(f"GET /ok/down/3000000 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        try:
            left = random.randrange(2_000_000)
            while left > 0 and (data := await reader.read(65536)):
                left -= len(data)
        finally:
            writer.transport.abort()
        return "left"

    async def breaks_off_upload(self):
        _, writer = await self.proxy.tls(host := self.host())
        writer.write(f"POST /ok/up HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode())
        writer.write(PATTERN[: random.randrange(65536)])
        await asyncio.sleep(random.uniform(0, 1))
        writer.transport.abort()
        return "left"
