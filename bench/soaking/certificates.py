"""Certificates for the upstreams, by the openssl command."""

import subprocess


def certificates(directory):
    """A root, an upstream's certificate from it, and one of a root that nobody trusts."""

    def openssl(*words):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"error: openssl {words[0]}: {done.stderr}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for root, leaf in [("root", "upstream"), ("other", "stranger")]:
        key, certificate = directory / f"{root}-key.pem", directory / f"{root}.pem"
        openssl("req", "-x509", *curve, "-subj", f"/CN=soak {root}", "-keyout", key, "-out", certificate)
        extensions = directory / "extensions"
        extensions.write_text("subjectAltName=DNS:*.soak.test\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        request, made = directory / "request", directory / f"{leaf}.pem"
        openssl("req", *curve, "-subj", "/CN=soak", "-keyout", directory / f"{leaf}-key.pem", "-out", request)
        chain = ["-CA", certificate, "-CAkey", key, "-CAcreateserial", "-extfile", extensions]
        openssl("x509", "-req", "-in", request, "-days", "2", *chain, "-out", made)
