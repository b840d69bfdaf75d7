"""What upstreams answer: well, with the credential said back, or with a fault."""

import asyncio
import base64
import gzip
import hashlib
import random
import socket
import struct

PATTERN = random.Random(7).randbytes(65536)
CREDENTIALS = ["authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "private-token"]


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
    kind, _, rest = request.path.partition("?")[0].removeprefix("/ok/").partition("/")
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
    shifted = base64.b64encode(b"%d" % random.randrange(999) + said)
    text = b"you sent " + said + b", " + shifted + b", " + said.hex().encode() + b"."
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
