"""An HTTP/2 peer over asyncio's streams: either side, and no more of RFC 9113 than honest peers need of each other."""

import asyncio
import itertools
import struct

from . import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def target(host, path, method="GET"):
    """The pseudo-headers of a request."""
    return [(":method", method), (":scheme", "https"), (":authority", host), (":path", path)]


class Reset(ConnectionError):
    """The stream or the connection ended before its message did."""


class Stream:
    """Events are `("head", fields)`, `("data", bytes)`, `("end", None)`, `("reset", why)`."""

    def __init__(self, peer, number):
        self.peer, self.number = peer, number
        self.events = asyncio.Queue()
        self.window = peer.initial_window
        self.ended = None

    async def event(self):
        kind, value = await self.events.get()
        if kind == "reset":
            raise Reset(value)
        return kind, value

    async def head(self, fields, end=False):
        self.peer.check(self)
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.peer.writer.write(frame(HEADERS, flags, self.number, hpack.encode(fields)))
        await self.peer.writer.drain()

    async def data(self, data, end=False):
        while data or end:
            self.peer.check(self)
            room = min(16384, len(data), self.window, self.peer.window)
            if data and room <= 0:
                self.peer.opened.clear()
                await self.peer.opened.wait()
                continue
            part, data = data[:room], data[room:]
            self.window -= room
            self.peer.window -= room
            last = end and not data
            self.peer.writer.write(frame(DATA, END_STREAM if last else 0, self.number, part))
            await self.peer.writer.drain()
            if last:
                return

    def reset(self, code=8):
        self.peer.writer.write(frame(RESET, 0, self.number, struct.pack(">I", code)))
        self.peer.streams.pop(self.number, None)


class Peer:
    def __init__(self, reader, writer, accept=None):
        """`accept` is called with each stream that the other side opens; without it this side is the client."""
        self.reader, self.writer, self.accept = reader, writer, accept
        self.numbers = itertools.count(1, 2)
        self.decoder = hpack.Decoder()
        self.streams, self.window, self.initial_window = {}, 65535, 65535
        self.opened = asyncio.Event()
        self.gone = None
        if accept is None:
            writer.write(PREFACE)
        writer.write(frame(SETTINGS))

    def open(self):
        if self.gone:
            raise Reset(self.gone)
        stream = self.streams[number] = Stream(self, number := next(self.numbers))
        return stream

    def check(self, stream):
        if stream.ended or self.gone:
            raise Reset(stream.ended or self.gone)

    async def run(self):
        """Reads until the connection ends."""
        try:
            if self.accept and await self.reader.readexactly(len(PREFACE)) != PREFACE:
                raise Reset("no preface")
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                number = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                await self.take(head[3], head[4], number, payload)
        except (OSError, EOFError, ValueError) as error:
            self.end(f"connection: {type(error).__name__}")
        finally:
            self.end("connection over")
            self.writer.close()

    def end(self, why):
        self.gone = self.gone or why
        for stream in self.streams.values():
            stream.ended = stream.ended or why
            stream.events.put_nowait(("reset", self.gone))
        self.streams.clear()
        self.opened.set()

    async def take(self, kind, flags, number, payload):
        if kind == HEADERS:
            await self.headers(flags, number, payload)
        elif kind == DATA:
            if payload:
                more = struct.pack(">I", len(payload))
                self.writer.write(frame(WINDOW_UPDATE, 0, 0, more))
                if number in self.streams and not flags & END_STREAM:
                    self.writer.write(frame(WINDOW_UPDATE, 0, number, more))
                await self.writer.drain()
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            self.tell(number, ("data", payload), flags)
        elif kind == RESET:
            if stream := self.streams.pop(number, None):
                stream.ended = f"reset {int.from_bytes(payload, 'big')}"
                stream.events.put_nowait(("reset", stream.ended))
                self.opened.set()
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:
                    for stream in self.streams.values():
                        stream.window += value - self.initial_window
                    self.initial_window = value
            self.writer.write(frame(SETTINGS, ACK))
            self.opened.set()
        elif kind == PING and not flags & ACK:
            self.writer.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if number == 0:
                self.window += more
            elif stream := self.streams.get(number):
                stream.window += more
            self.opened.set()
        elif kind == GOAWAY:
            last, code = struct.unpack(">II", payload[:8])
            self.gone = f"goaway {code}"
            for stream in [stream for stream in self.streams.values() if stream.number > last]:
                stream.ended = self.gone
                stream.events.put_nowait(("reset", self.gone))
                del self.streams[stream.number]

    async def headers(self, flags, number, block):
        if flags & PADDED:
            block = block[1 : len(block) - block[0]]
        if flags & PRIORITISED:
            block = block[5:]
        while not flags & END_HEADERS:
            head = await self.reader.readexactly(9)
            block += await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            flags |= head[4] & END_HEADERS
        fields = self.decoder.decode(block)
        if number not in self.streams and self.accept:
            self.streams[number] = Stream(self, number)
            self.accept(self.streams[number])
        self.tell(number, ("head", fields), flags)

    def tell(self, number, event, flags):
        if stream := self.streams.get(number):
            stream.events.put_nowait(event)
            if flags & END_STREAM:
                stream.events.put_nowait(("end", None))
