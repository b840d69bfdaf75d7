"""An agent's connections: through the proxy or to it, in plain or in TLS, every received byte searched for tokens."""

import asyncio
import base64
import gzip
import hashlib
import secrets
import socket
import ssl
import zlib

from . import http2
from .ledger import Scanner


class Reader(asyncio.StreamReader):
    def __init__(self, scanner):
        super().__init__(limit=1 << 20)
        self.scanner, self.fed = scanner, 0

    def feed_data(self, data):
        self.fed += len(data)
        self.scanner.feed(data)
        super().feed_data(data)


class Refused(ConnectionError):
    """The CONNECT was not answered with 200."""


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, {name.lower(): value for name, value in fields}, body

    @property
    def code(self):
        return self.fields.get("x-egress-error")


class Proxy:
    """Where the sidecar is, and whom it has made its agents trust."""

    def __init__(self, ledger, address, root):
        self.ledger, self.address, self.root = ledger, address, root
        self.contexts = {}

    def context(self, protocols):
        if protocols not in self.contexts:
            context = ssl.create_default_context(cadata=self.root)
            context.set_alpn_protocols(list(protocols))
            self.contexts[protocols] = context
        return self.contexts[protocols]

    async def plain(self):
        return await self.streams(await self.socket(), "the proxy's port")

    async def socket(self):
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, self.address)
        except BaseException:
            connection.close()
            raise
        return connection

    async def tunnel(self, authority):
        """The socket of a tunnel in which nothing has been said."""
        loop, connection = asyncio.get_running_loop(), await self.socket()
        try:
            await loop.sock_sendall(connection, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := await loop.sock_recv(connection, 4096)):
                    break
                head += data
            if not head.startswith(b"HTTP/1.1 200"):
                raise Refused(head.split(b"\r\n")[0].decode("latin-1") or "closed")
        except BaseException:
            connection.close()
            raise
        return connection

    async def tls(self, host, name=None, protocols=("http/1.1",)):
        connection = await self.tunnel(f"{host}:443")
        return await self.streams(connection, host, self.context(protocols), name or host)

    async def streams(self, connection, place, context=None, name=None):
        loop = asyncio.get_running_loop()
        reader = Reader(Scanner(self.ledger, f"what an agent got from {place}"))
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, sock=connection, ssl=context, server_hostname=name if context else None
            )
        except BaseException:
            connection.close()
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def read_answer(reader, each=None):
    """One answer of HTTP/1.1; `each` is called with each piece of its body. Raises where it is cut off."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    fields = [tuple(part.strip() for part in text.split(":", 1)) for text in lines]
    told = {name.lower(): value for name, value in fields}
    status, pieces = int(line.split(" ")[1]), []
    if status >= 200:
        async for data in body(reader, told):
            pieces.append(data)
            if each:
                each(data)
    return Answer(status, fields, b"".join(pieces))


async def body(reader, told):
    if told.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            while size:
                data = await reader.read(min(size, 65536))
                if not data:
                    raise EOFError("inside a chunk")
                size -= len(data)
                yield data
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif "content-length" in told:
        left = int(told["content-length"])
        while left:
            data = await reader.read(min(left, 65536))
            if not data:
                raise EOFError("inside a body")
            left -= len(data)
            yield data
    else:
        while data := await reader.read(65536):
            yield data


class Kept:
    """A kept-alive connection of HTTP/1.1, opened anew where it was closed while it was idle."""

    def __init__(self, proxy, host):
        self.proxy, self.host, self.reader, self.writer = proxy, host, None, None

    async def ask(self, kind, method, path, payload=b"", fields=()):
        fresh = self.writer is None
        try:
            return await self.once(method, path, payload, fields)
        except (OSError, EOFError) as error:
            error.add_note(f"{method} {self.host}{path}")
            # An idle connection may end at any time; a request of which a byte was answered may not.
            answered = self.reader is not None and self.reader.fed > self.before
            self.close()
            if fresh or answered:
                raise
            self.proxy.ledger.retried[kind] += 1
            return await self.once(method, path, payload, fields)

    async def once(self, method, path, payload=b"", fields=()):
        self.before = 0
        if self.writer is None:
            plain = self.host == "plain.soak.test"
            self.reader, self.writer = await (self.proxy.plain() if plain else self.proxy.tls(self.host))
        self.before = self.reader.fed
        number = secrets.token_hex(6)
        target = f"http://{self.host}{path}" if self.host == "plain.soak.test" else path
        head = f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\nX-Soak-Id: {number}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields)
        chunked = payload and payload[0] & 1
        if chunked:
            head += "Transfer-Encoding: chunked\r\n\r\n"
        else:
            head += f"Content-Length: {len(payload)}\r\n\r\n" if payload else "\r\n"
        self.writer.write(head.encode())
        for begin in range(0, len(payload), 60_000):
            piece = payload[begin : begin + 60_000]
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writer.drain()
        if chunked:
            self.writer.write(b"0\r\n\r\n")
        answer = await read_answer(self.reader)
        if answer.fields.get("connection", "").lower() == "close" or "x-egress-error" in answer.fields:
            self.close()
        check_id(answer, number)
        return answer

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None


def check_id(answer, number):
    if answer.code is None and answer.fields.get("x-soak-id") != number:
        raise Mixed(f"status {answer.status}: the answer is not this request's")


class Mixed(Exception):
    """Something that is no fault of any upstream: a wrong answer, or one that is cut and looks whole."""


class Streams:
    """A connection of HTTP/2 in a tunnel."""

    def __init__(self, proxy, host):
        self.proxy, self.host, self.peer, self.task = proxy, host, None, None

    async def open(self):
        reader, writer = await self.proxy.tls(self.host, protocols=("h2",))
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            raise Mixed("no HTTP/2 in the tunnel")
        self.peer = http2.Peer(reader, writer)
        self.task = asyncio.create_task(self.peer.run())

    async def ask(self, method, path, payload=b"", fields=()):
        number, stream = secrets.token_hex(6), self.peer.open()
        head = http2.target(self.host, path, method)
        await stream.head([*head, ("x-soak-id", number), *fields], end=not payload)
        if payload:
            await stream.data(payload, end=True)
        told, pieces = [], []
        try:
            while (event := await stream.event())[0] != "end":
                if event[0] == "data":
                    pieces.append(event[1])
                else:
                    told += event[1]
        finally:
            self.peer.streams.pop(stream.number, None)
        answer = Answer(int(dict(told)[":status"]), told, b"".join(pieces))
        check_id(answer, number)
        return answer

    def close(self):
        if self.peer:
            self.task.cancel()
            self.peer.writer.close()


def decoded(answer, ledger):
    """The content, searched too where it came as gzip."""
    if answer.fields.get("content-encoding") != "gzip":
        return answer.body
    try:
        text = gzip.decompress(answer.body)
    except (OSError, EOFError, zlib.error):
        return None
    Scanner(ledger, "a gzip answer").feed(text)
    return text


async def websocket(proxy, host, messages, pause):
    """Echoes messages; returns whether each came back before the connection ended."""
    reader, writer = await proxy.tls(host)
    try:
        key = base64.b64encode(secrets.token_bytes(16))
        writer.write(
            b"GET /ok/ws HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\nX-Soak-Id: ws\r\n\r\n"
        )
        answer = await read_answer(reader)
        wanted = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        if answer.status != 101 or answer.fields.get("sec-websocket-accept") != wanted:
            raise Mixed(f"status {answer.status} {answer.code}")
        for _ in range(messages):
            text = secrets.token_hex(secrets.randbelow(60)).encode()
            mask = secrets.token_bytes(4)
            masked = bytes(byte ^ mask[at & 3] for at, byte in enumerate(text))
            writer.write(bytes([0x81, 0x80 | len(text)]) + mask + masked)
            if await reader.readexactly(2 + len(text)) != bytes([0x81, len(text)]) + text:
                raise Mixed("another message came back")
            await asyncio.sleep(pause)
    finally:
        writer.close()
