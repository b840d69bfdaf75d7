"""The network of the stand-in's machines: a resolver and a gateway, as virtio-net and the egress interceptor show them.

Every address is local in the guest's network namespace, so a connection to anywhere ends here. It goes to the
interceptor or nowhere: nothing in this file dials what the guest asked for.
"""

import fcntl
import ipaddress
import os
import socket
import struct
import threading
import zlib

RESOLVER = "100.96.0.1"
PORTS = (443, 80, 8443)
RESET = struct.pack("ii", 1, 0)


def listen(network):
    """In the guest's network namespace: loopback up, and, where the machine has a network, all of the world on it."""
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41 | 0x8))
    if not network:
        return []
    world_is_local()
    sockets = []
    for port in (53, *PORTS):
        listener = socket.create_server(("0.0.0.0", port), backlog=64)
        sockets.append(listener)
    control.bind(("0.0.0.0", 53))
    return [control, *sockets]


def world_is_local():
    """`ip route add local default dev lo`, which needs no `ip`."""
    loopback = socket.if_nametoindex("lo")
    route = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 255, 3, 254, 2, 0)
    route += struct.pack("HHI", 8, 4, loopback)
    request = struct.pack("IHHII", 16 + len(route), 24, 0x1 | 0x4 | 0x400, 1, 0) + route
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.sendto(request, (0, 0))
        answer = netlink.recv(4096)
        (error,) = struct.unpack_from("i", answer, 16)
        if error:
            raise OSError(-error, "the route to everywhere")


def carry(record, root, interceptor, fds):
    """On the host's side: carries everything that the guest sends, until the process ends."""
    policy = Policy(record)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    jobs = [(resolve, sockets[0], policy)] if sockets else []
    for listener in sockets[2:]:
        jobs.append((accept, listener, lambda guest: forward(guest, policy, interceptor)))
    for outside, inside in record["sockets"]:
        jobs.append((accept, guest_listener(root + inside), lambda guest, to=outside: bridge(guest, to)))
    for job, *args in jobs:
        threading.Thread(target=job, args=args, daemon=True).start()


class Policy:
    """Which names are resolved, and which addresses may be connected to."""

    def __init__(self, record):
        self.patterns, self.cidrs = record["patterns"], [ipaddress.ip_network(text) for text in record["cidrs"]]
        self.learned = set()

    def address(self, name):
        """A made-up address, the same for a name each time, where the name is admitted."""
        admitted = not self.patterns or any(
            name == pattern[1:] if pattern.startswith("=") else name.endswith(pattern[1:]) for pattern in self.patterns
        )
        if not admitted:
            return None
        address = ipaddress.ip_address("198.51.100.0") + 1 + zlib.crc32(name.encode()) % 250
        self.learned.add(address)
        return address

    def admits(self, address):
        if not self.patterns and not self.cidrs:
            return True
        return address in self.learned or any(address in network for network in self.cidrs)


def resolve(query, policy):
    while True:
        asked, client = query.recvfrom(512)
        labels, at = [], 12
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        question = asked[12 : at + 5]
        (kind,) = struct.unpack_from(">H", asked, at + 1)
        address = policy.address(".".join(labels).lower())
        found = address is not None and kind == 1
        head = struct.pack(">HHHHHH", *struct.unpack_from(">H", asked), 0x8180 if address else 0x8183, 1, found, 0, 0)
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 30, 4) + address.packed if found else b""
        query.sendto(head + question + answer, client)


def accept(listener, serve):
    while True:
        guest, _ = listener.accept()
        threading.Thread(target=serve, args=(guest,), daemon=True).start()


def forward(guest, policy, interceptor):
    """One connection of the guest, by the interceptor's protocol."""
    host, port = guest.getsockname()
    address = ipaddress.ip_address(host)
    try:
        if interceptor is None or not policy.admits(address):
            raise ConnectionError("not admitted")
        service = socket.create_connection(interceptor[:2])
        head = b"SMOLICPT\x01" + interceptor[2] + bytes([address.version]) + struct.pack(">H", port) + address.packed
        service.sendall(head)
        if service.recv(1) != b"\0":
            raise ConnectionError("refused")
    except OSError:
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        guest.close()
        return
    splice(guest, service)


def guest_listener(path):
    """A socket of the guest's, at a path that may be longer than an address can be."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    folder = os.open(os.path.dirname(path), os.O_PATH)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    listener.listen()
    return listener


def bridge(guest, outside):
    service = socket.socket(socket.AF_UNIX)
    try:
        service.connect(outside)
    except OSError:
        guest.close()
        return
    splice(guest, service)


def splice(one, other):
    def pump(source, sink):
        try:
            while chunk := source.recv(1 << 16):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET) if end.family != socket.AF_UNIX else None
                end.close()

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()
    one.close()
    other.close()
