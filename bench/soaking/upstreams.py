"""Upstreams on loopback, which hold every request that arrives against what may arrive."""

import asyncio
import base64
import ssl

from . import http2
from .answers import CREDENTIALS, Answer1, Answer2, respond, websocket

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
        permitted = request.path.startswith("/ok/") and request.method in ("GET", "POST")
        if not permitted or request.field("x-soak-forbidden"):
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
