"""Upstreams on loopback, honest and faulty ones. Each holds every request that arrives against what may arrive."""

import asyncio
import base64
import gzip
import hashlib
import random
import socket
import ssl
import struct

from . import http2

PATTERN = random.Random(7).randbytes(65536)
CREDENTIALS = ["authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "private-token"]
# The header and the slot of each host's credential, and what the header's value is made of.
INJECTED = {
    "api.soak.test": ("authorization", "TOKEN_0", "Bearer {}"),
    "h2.soak.test": ("authorization", "TOKEN_0", "Bearer {}"),
    "basic.soak.test": ("authorization", "TOKEN_0", "basic"),
    "key.soak.test": ("x-api-key", "TOKEN_1", "{}"),
    "faulty.soak.test": ("authorization", "TOKEN_0", "Bearer {}"),
}
BARE = ["bare.soak.test", "plain.soak.test"]
CHURN = [f"churn{at}.soak.test" for at in range(6)]


class Request:
    def __init__(self, method, host, path, fields):
        self.method, self.host, self.path, self.fields = method, host, path, fields
        self.id = self.field("x-soak-id") or "none"

    def all(self, name):
        return [value for known, value in self.fields if known.lower() == name]

    def field(self, name):
        return next(iter(self.all(name)), None)


class Upstreams:
    def __init__(self, ledger, tokens, directory):
        self.ledger, self.tokens, self.directory = ledger, tokens, directory
        self.churn = set(CHURN)
        self.ports = {}

    async def start(self):
        good = self.context("upstream")
        both = self.context("upstream")
        both.set_alpn_protocols(["h2", "http/1.1"])
        listeners = {"h1": good, "h2": both, "bad": self.context("stranger"), "plain": None, "trap": None}
        for name, context in listeners.items():
            serve = self.trap if name == "trap" else self.connected
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=1 << 20, backlog=1024)
            self.ports[name] = server.sockets[0].getsockname()[1]

    def context(self, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}-key.pem")
        return context

    async def trap(self, reader, writer):
        """Nothing may connect here: no route leads to this port."""
        self.ledger.forward("a connection to an address that no route may reach")
        writer.close()

    async def connected(self, reader, writer):
        tls = writer.get_extra_info("ssl_object")
        try:
            if tls and tls.selected_alpn_protocol() == "h2":
                await self.http2(reader, writer)
            else:
                while await self.http1(reader, writer, "https" if tls else "http"):
                    pass
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def judge(self, request, scheme):
        """Every rule about what may arrive."""
        self.ledger.arrived += 1
        about = f"{request.method} {request.host}{request.path[:80]} ({request.id[:60]})"
        if request.host not in {*INJECTED, *BARE, *self.churn}:
            self.ledger.forward(f"{about}: host")
        if (scheme == "http") != (request.host == "plain.soak.test"):
            self.ledger.forward(f"{about}: scheme {scheme}")
        if not request.path.startswith("/ok/") or request.field("x-soak-forbidden") or request.method not in ("GET", "POST"):
            self.ledger.forward(f"{about}: forbidden")
        header, slot, form = INJECTED.get(request.host, (None, None, None))
        carried = {name: request.all(name) for name in CREDENTIALS if request.all(name)}
        if header is None:
            wanted = [{}]
        else:
            wanted = [{header: [self.value(form, token)]} for token in self.tokens.good(slot)]
        if carried not in wanted:
            names = {name: len(values) for name, values in carried.items()}
            self.ledger.forward(f"{about}: credentials {names} are not the one injected (lag {self.ledger.lag:.2f} s)")
        if header and (request.all("cookie") or "token=" in request.path):
            self.ledger.forward(f"{about}: the agent's own cookie or query credential")

    def value(self, form, token):
        return "Basic " + base64.b64encode(f"soak:{token}".encode()).decode() if form == "basic" else form.format(token)

    async def http1(self, reader, writer, scheme):
        line, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        fields = [tuple(part.strip() for part in text.split(":", 1)) for text in lines]
        words = line.split(" ")
        if len(words) != 3 or words[2] != "HTTP/1.1" or any(len(field) != 2 for field in fields):
            self.ledger.forward(f"bytes that are no request: {line[:60]!r}")
            return False
        request = Request(words[0], "", words[1], fields)
        request.host = ",".join(request.all("host")).split(":")[0]
        self.judge(request, scheme)
        if request.field("upgrade"):
            await websocket(request, reader, writer)
            return False
        lengths, codings = request.all("content-length"), request.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            self.ledger.forward(f"{request.method} {request.host}{request.path[:80]}: two framings")
        body = chunks(reader) if codings else exactly(reader, int(lengths[0]) if lengths else 0)
        answer = Answer1(writer)
        await respond(request, body, answer)
        return answer.whole

    async def http2(self, reader, writer):
        tasks = set()

        def accept(stream):
            task = asyncio.create_task(self.stream(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await http2.Peer(reader, writer, accept).run()
        for task in list(tasks):
            task.cancel()

    async def stream(self, stream):
        try:
            _, fields = await stream.event()
            told = dict(fields)
            request = Request(told[":method"], told[":authority"], told[":path"], fields)
            self.judge(request, told[":scheme"])
            await respond(request, frames(stream), Answer2(stream))
        except OSError:
            pass
        finally:
            stream.peer.streams.pop(stream.number, None)


async def exactly(reader, length):
    while length > 0:
        data = await reader.read(min(length, 65536))
        if not data:
            raise EOFError
        length -= len(data)
        yield data


async def chunks(reader):
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass


async def frames(stream):
    while (event := await stream.event())[0] != "end":
        if event[0] == "data":
            yield event[1]


class Answer1:
    def __init__(self, writer):
        self.writer, self.whole, self.chunked = writer, False, False

    async def head(self, fields, length=None, status=200):
        self.chunked = length is None
        fields = fields + [("transfer-encoding", "chunked") if self.chunked else ("content-length", str(length))]
        text = "".join(f"{name}: {value}\r\n" for name, value in fields)
        await self.raw(f"HTTP/1.1 {status} OK\r\n{text}\r\n".encode())

    async def data(self, data):
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    async def end(self):
        if self.chunked:
            await self.raw(b"0\r\n\r\n")
        self.whole = True

    async def raw(self, data):
        self.writer.write(data)
        await self.writer.drain()

    def abort(self):
        """A reset, and not an orderly end."""
        if not self.writer.is_closing():
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Answer2:
    def __init__(self, stream):
        self.stream = stream

    async def head(self, fields, length=None, status=200):
        fields = [(":status", str(status)), *fields]
        await self.stream.head(fields + ([] if length is None else [("content-length", str(length))]))

    async def data(self, data):
        await self.stream.data(data)

    async def end(self):
        await self.stream.data(b"", end=True)


async def respond(request, body, answer):
    fields = [("x-soak-id", request.id), ("x-soak-upstream", "1")]
    path, _, query = request.path.partition("?")
    kind, _, rest = path.removeprefix("/ok/").partition("/")
    digest = hashlib.sha256()
    async for data in body:
        digest.update(data)
    if kind == "fault":
        await FAULTS[rest](request, answer, fields)
    elif kind == "down":
        length = int(rest)
        await answer.head(fields, length)
        for begin in range(0, length, len(PATTERN)):
            await answer.data(PATTERN[: length - begin])
        await answer.end()
    elif kind == "events":
        await answer.head(fields + [("content-type", "text/event-stream")])
        for at in range(int(rest)):
            await answer.data(b"data: %d\n\n" % at)
            await asyncio.sleep(random.uniform(0.05, 0.5))
        await answer.end()
    elif kind == "echo":
        await echo(request, answer, fields, rest)
    else:
        text = digest.hexdigest().encode() + b" " + PATTERN.hex()[: random.randrange(2000)].encode()
        await answer.head(fields, len(text) if random.random() < 0.7 else None)
        await answer.data(text)
        await answer.end()


async def echo(request, answer, fields, how):
    """Says the credential back, as the masking has to find it."""
    said = " ".join(value for name in CREDENTIALS for value in request.all(name)).encode()
    text = b"you sent " + said + b", " + base64.b64encode(b"%d" % random.randrange(999) + said) + b", " + said.hex().encode() + b"."
    if how == "headers":
        fields = fields + [("x-echo", said.decode()), ("x-echo-hex", said.hex())]
    if how == "gzip":
        text = gzip.compress(text * 5)
        fields = fields + [("content-encoding", "gzip")]
    await answer.head(fields, len(text) if random.random() < 0.5 else None)
    while text:
        cut = random.randrange(1, 60)
        await answer.data(text[:cut])
        text = text[cut:]
        await asyncio.sleep(0)
    await answer.end()


async def reset(request, answer, fields):
    await answer.head(fields, 100_000)
    await answer.data(PATTERN[: random.randrange(1, 65536)])
    answer.abort()


async def reset_head(request, answer, fields):
    await answer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nx-filler: 0123456789\r\n"[: random.randrange(60)])
    answer.abort()


async def stall(request, answer, fields):
    await asyncio.sleep(10)
    answer.abort()


async def stall_body(request, answer, fields):
    await answer.head(fields, 50_000)
    await answer.data(PATTERN[:1000])
    await asyncio.sleep(10)
    answer.abort()


async def short(request, answer, fields):
    await answer.head(fields, 1000)
    await answer.data(PATTERN[:999])


async def long(request, answer, fields):
    """More than the length: it must never be the beginning of another answer."""
    await answer.head(fields, 8)
    await answer.raw(b"01234567HTTP/1.1 200 OK\r\nx-soak-upstream: 1\r\nx-soak-id: smuggled\r\ncontent-length: 0\r\n\r\n")
    await answer.end()


async def framings(request, answer, fields):
    await answer.head(fields + [("content-length", "5")])
    await answer.data(b"01234")
    await answer.end()


async def garbage(request, answer, fields):
    await answer.raw(random.randbytes(random.randrange(1, 4000)))


async def chunk(request, answer, fields):
    await answer.head(fields)
    await answer.raw(b"5\r\n01234\r\nzz\r\n")


async def gzipped(request, answer, fields):
    text = bytearray(gzip.compress(PATTERN[:5000]))
    text[random.randrange(20, len(text))] ^= 255
    await answer.head(fields + [("content-encoding", "gzip")], len(text))
    await answer.data(bytes(text))
    await answer.end()


async def leave(request, answer, fields):
    """Answers well, and is gone when the next request comes."""
    await answer.head(fields, 2)
    await answer.data(b"ok")


FAULTS = {
    call.__name__: call
    for call in [reset, reset_head, stall, stall_body, short, long, framings, garbage, chunk, gzipped, leave]
}


async def websocket(request, reader, writer):
    accept = hashlib.sha1(f"{request.field('sec-websocket-key')}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-soak-upstream: 1\r\n"
        b"sec-websocket-accept: " + base64.b64encode(accept) + b"\r\nx-soak-id: " + request.id.encode() + b"\r\n\r\n"
    )
    while True:
        first, length = await reader.readexactly(2)
        length &= 127
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        mask = await reader.readexactly(4)
        data = bytes(byte ^ mask[at & 3] for at, byte in enumerate(await reader.readexactly(length)))
        head = bytes([first, length]) if length < 126 else bytes([first, 126]) + struct.pack(">H", length)
        writer.write(head + data)
        await writer.drain()
        if first & 15 == 8:
            return
