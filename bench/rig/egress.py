"""egress as it is measured: with policy, stripping, injection, masking, limits, and a line of the log for each request."""

from rig.peer import Peer

UPSTREAM = 18443
TOKEN = "sk-injected-0123456789abcdef"
COLD = 200

RULES = """\
    port: 18443
    path_allowlist: [%s]
    methods: [GET, POST]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
    ssrf_ip_allowlist: [127.0.0.0/8]
"""


def peer(name, binary, write=None, words=()):
    """With the routes file that `write` writes, and more arguments."""

    def command(bench, program):
        routes = bench.directory / "routes.yaml"
        (write or ordinary_routes)(routes)
        return [*serve(bench, program, routes), *words]

    environment = {"EGRESS_TOKEN_0": TOKEN}
    return Peer(name, "forward", {"h2", "ws", "mint"}, lambda: binary, command, "", environment)


def ordinary_routes(path):
    write_routes(path, route("'*.cold.test'", "/1k"))


def write_routes(path, more=""):
    """The host that all loads but two ask, and more routes."""
    path.write_text("routes:\n" + more + route("api.test", "/1k, /64k, /sink, /sse, /ws, {regex: '^/[0-9]+$'}"))


def route(host, paths):
    return f"  - host: {host}\n{RULES % paths}"


def serve(bench, program, routes):
    """With caps that 10,000 tunnels fit under, since a refused tunnel is none to measure."""
    words = [program, "serve", "--routes", routes, "--listen", f"127.0.0.1:{bench.port}", "--ca-dir", bench.certs / "egress"]
    words += ["--upstream-ca", bench.certs / "up/ca-cert.pem", "--log", "info"]
    for cap in ["--max-connections", "--max-per-client", "--max-requests"]:
        words += [cap, "16384"]
    return words
