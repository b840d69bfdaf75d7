#!/usr/bin/env python3
"""How much memory a sidecar holds while everything is done to it at once, against the ceiling that it tells of itself.

    cargo build --release && bench/flood.py [--egress FILE] [--connections N]

One connection in eight speaks HTTP/2: downloads that nobody reads, uploads that the upstream does not read, many fields that
are kept for later ones, and more requests than there may be. Half of the others are half heads, and half are handshakes that
go no further. The caps are as many connections and requests, and as few decoders, leaves and pooled connections as there may
be, since nothing here fills those. The upstream speaks HTTP/2 and never stops sending. Exits with 1 where the peak is above
the ceiling. Needs openssl.
"""

import asyncio
import json
import os
import pathlib
import resource
import ssl
import struct
import subprocess
import tempfile

from command import Parser, at_least, fail, memory, needed, told
from soaking import hpack, http2
from soaking.certificates import certificates

HOST = "flood.soak.test"
# As many as a client's table of 4,096 bytes holds of entries with a name of one byte (RFC 7541, section 4.1).
ENTRIES = 4096 // 33


def main():
    arguments = Parser(__doc__)
    number = at_least(1)
    arguments.add_argument("--connections", type=number, default=512, metavar="N", help="how many, at least 1 [default: 512]")
    given = arguments.parse_args()
    needed("openssl")
    # Each has an end here, and so has what it makes the sidecar open to the upstream.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if 2 * given.connections + 100 > most:
        fail(f"--connections {given.connections} takes more descriptors than the {most} of `ulimit -Hn`", "take fewer")
    with tempfile.TemporaryDirectory() as directory:
        raise SystemExit(asyncio.run(measure(given.egress, pathlib.Path(directory), given.connections)))


async def measure(egress, directory, count):
    certificates(directory)
    upstream = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    upstream.load_cert_chain(directory / "upstream.pem", directory / "upstream-key.pem")
    upstream.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(pour, "127.0.0.1", 0, ssl=upstream, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    routes, admin = directory / "routes.yaml", f"unix:{directory}/admin.sock"
    routes.write_text(f"routes: [{{host: {HOST}, connect_to: '127.0.0.1:{port}'}}]\n")
    http2_count = max(1, count // 8)
    command = [egress, "serve", "-r", routes, "--listen", "127.0.0.1:0", "--ca-ephemeral", "--admin", admin, "--log", "error"]
    command += ["--upstream-ca", directory / "root.pem", "--roots", "bundled"]
    command += ["--head-timeout", "1h", "--handshake-timeout", "1h", "--body-timeout", "1h"]
    command += ["--max-decoding", "20MiB", "--max-leaves", "1", "--max-pooled", "1", "--max-http2", str(http2_count)]
    for name in ["--max-connections", "--max-per-client", "--max-requests"]:
        command += [name, str(count)]
    read, write = os.pipe()
    sidecar = subprocess.Popen([*command, "--ready-fd", str(write)], pass_fds=[write])
    try:
        os.close(write)
        host, proxy = (await asyncio.to_thread(told, read))["LISTEN"].rsplit(":", 1)
        address, requests = (host, int(proxy)), count // http2_count + 1
        attacks = [flood(address, requests) for _ in range(http2_count)]
        attacks += [half(address, at % 2) for at in range(count - http2_count)]
        held = await asyncio.gather(*attacks)
        before = 0
        while (now := memory(sidecar.pid, "VmRSS")) > before * 1.01:
            before = now
            await asyncio.sleep(3)
        status = subprocess.run([egress, "status", "--json", "--admin", admin], capture_output=True, check=True)
        ceiling = json.loads(status.stdout)["memory_ceiling"] / 2**20
        peak = memory(sidecar.pid, "VmHWM") / 1024
        print("| connections | of HTTP/2 | now MiB | peak MiB | ceiling MiB | peak in % of it |\n|---|---|---|---|---|---|")
        share = 100 * peak / ceiling
        print(f"| {len(held)} | {http2_count} | {now / 1024:.0f} | {peak:.0f} | {ceiling:.0f} | {share:.0f} |")
        return int(peak > ceiling)
    finally:
        sidecar.kill()
        sidecar.wait()


async def pour(reader, writer):
    """An upstream that answers every request with a body that has no end, and reads none."""

    class Peer(http2.Peer):
        async def take(self, kind, flags, number, payload):
            if kind != http2.DATA:
                await super().take(kind, flags, number, payload)

    async def answer(stream):
        try:
            await stream.head([(":status", "200"), ("content-type", "text/plain")])
            while True:
                await stream.data(bytes(65536))
        except OSError:
            pass

    tasks = set()
    try:
        await Peer(reader, writer, lambda stream: tasks.add(asyncio.create_task(answer(stream)))).run()
    except asyncio.CancelledError:
        # The measurement is over.
        pass


async def half(proxy, is_handshake):
    """A head that does not end, or a handshake that does not."""
    reader, writer = await asyncio.open_connection(*proxy)
    if is_handshake:
        await connect(reader, writer)
        writer.write(bytes([22, 3, 1, 64, 0]) + bytes([1, 0, 63, 0]) + bytes(8000))
    else:
        writer.write(f"GET http://{HOST}/ HTTP/1.1\r\nX-Filler: ".encode() + b"f" * 60_000)
    return reader, writer


async def connect(reader, writer):
    writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer


async def flood(proxy, requests):
    """One HTTP/2 connection: as many requests as it is to have, and then as many as its table has entries."""
    reader, writer = await asyncio.open_connection(*proxy, limit=1024)
    await connect(reader, writer)
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2"])
    await writer.start_tls(context, server_hostname=HOST)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    # All windows are wide open, and nobody reads.
    wide = struct.pack(">HI", 4, 2**31 - 1)
    writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, wide))
    writer.write(http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFF0000)))
    await asyncio.sleep(0.1)
    filler = ("x-filler", "f" * 4000)
    for at in range(requests):
        is_upload = at % 2 == 1
        fields = hpack.encode([*http2.target(HOST, "/", "POST" if is_upload else "GET"), filler])
        flags = http2.END_HEADERS | (0 if is_upload else http2.END_STREAM)
        writer.write(http2.frame(http2.HEADERS, flags, 2 * at + 1, fields))
        if is_upload:
            writer.write(http2.frame(http2.DATA, 0, 2 * at + 1, bytes(16384)) * 4)
    # Each entry that is kept is a piece of a block of one whole frame, and keeps all of it.
    kept = b"\x40" + hpack.integer(1, 7) + b"x" + hpack.integer(0, 7)
    fields = hpack.encode([*http2.target(HOST, "/"), ("x-filler", "f" * 16_200)]) + kept
    for at in range(requests, requests + ENTRIES):
        writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 2 * at + 1, fields))
    return reader, writer


if __name__ == "__main__":
    main()
