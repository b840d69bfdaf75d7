#!/usr/bin/env python3
"""Stands in for `smolvm` 1.32 where no guest can boot: the same command lines, answers and exit codes.

A machine is a directory and a few namespaces of this host, so commands in it really run. All that the stand-in is
ever given (arguments, environment, files) is kept under STATE/given, to be searched for secrets. A test compares it
with the real program wherever that runs without a guest.
"""

import sys

sys.dont_write_bytecode = True

import ipaddress
import json
import os
import re
import shutil
import signal
import time

import grammar
import guest


class Failure(Exception):
    """An error of the engine; the exit code is 1."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


def config(what):
    return Failure("CONFIG_ERROR", f"config operation failed: {what}")


def agent(what):
    return Failure("SMOLVM_ERROR", f"agent operation failed: {what}")


class State:
    """The machines under one state directory."""

    def __init__(self, root):
        self.root = os.path.abspath(root or os.path.expanduser("~/.local/share/smolvm-stand-in"))

    def directory(self, name):
        return os.path.join(self.root, "machines", name)

    def path(self, name):
        return os.path.join(self.directory(name), "record.json")

    def names(self):
        folder = os.path.join(self.root, "machines")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def load(self, name):
        try:
            with open(self.path(name)) as file:
                record = json.load(file)
        except FileNotFoundError:
            raise Failure("NOT_FOUND", f"vm not found: {name}") from None
        if record["state"] == "running" and not guest.alive(self.directory(name)):
            record["state"] = "stopped"
        return record

    def save(self, record):
        os.makedirs(self.directory(record["name"]), exist_ok=True)
        with open(self.path(record["name"]) + ".new", "w") as file:
            json.dump(record, file)
        os.rename(file.name, self.path(record["name"]))

    def keep_given(self, what, content):
        """Keeps what a caller gave, to be searched."""
        folder = os.path.join(self.root, "given")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{time.time_ns()}-{os.getpid()}-{what}")
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.rename(file.name, path)

    def fault(self, command):
        """What a test wants to go wrong: STATE/faults/COMMAND holds the message, or HANG."""
        try:
            with open(os.path.join(self.root, "faults", command)) as file:
                message = file.read()
        except FileNotFoundError:
            return
        while message == "HANG":
            signal.pause()
        raise agent(message)

    def old(self):
        """Whether to be a release without the interceptor."""
        return os.path.exists(os.path.join(self.root, "faults", "old"))


def create(state, given):
    name = given.get("name", f"vm-{os.urandom(4).hex()}")
    patterns = [pattern(text) for text in given.get("allow-host-pattern", [])]
    for text in given.get("label", []):
        if "=" not in text:
            raise config(f"--label: expected KEY=VALUE, got '{text}'")
    sockets = mounted_sockets(given.get("mount-socket", []))
    volumes = [volume(text) for text in given.get("volume", [])]
    targets = [target for _, target, _ in volumes]
    for target in targets:
        if targets.count(target) > 1:
            message = f"mount operation failed: validate mounts: duplicate mount target: {target} is specified more than once"
            raise Failure("MOUNT_ERROR", message)
    image = given.get("image")
    if image and re.match(r"\.{0,2}/", image):
        if not os.path.exists(image):
            raise config(f"--image: cannot read archive {image}: No such file or directory (os error 2)")
        image = f"local-dir:{os.path.abspath(image)}"
    valid_name(name)
    cpus, memory = given.get("cpus", 4), given.get("mem", 8192)
    if cpus < 1:
        raise config("validate resources: CPU count must be at least 1")
    if memory < 64:
        raise config(f"validate resources: memory must be at least 64 MiB (got {memory} MiB)")
    if os.path.exists(state.path(name)):
        raise config(f"create machine: machine '{name}' already exists or is being created")
    narrowed = patterns or given.get("allow-cidr") or given.get("allow-host")
    record = {
        "name": name,
        "image": image,
        "cpus": cpus,
        "memory_mib": memory,
        "network": bool(given.get("net") or narrowed),
        "cidrs": [str(ipaddress.ip_network(text)) for text in given.get("allow-cidr", [])],
        "state": "created",
        "created_at": int(time.time()),
        "cmd": list(given.args),
        "env": given.get("env", []),
        "workdir": given.get("workdir"),
        "user": given.get("user"),
        "volumes": volumes,
        "ports": given.get("port", []),
        "sockets": sockets,
        "patterns": patterns,
        "intercepted": False,
    }
    state.save(record)
    print(f"Created machine: {name}\n  CPUs: {cpus}, Memory: {memory} MiB")
    if volumes:
        print(f"  Mounts: {len(volumes)}")
    if record["ports"]:
        print(f"  Ports: {len(record['ports'])}")
    print(f"\nUse 'smolvm machine start --name {name}' to start the machine")
    print(f"Then use 'smolvm machine exec --name {name} -- <command>' to run commands")


def valid_name(name):
    def bad(reason):
        return config(f"create machine: machine name {reason}")

    if not name:
        raise bad("cannot be empty")
    if len(name) > 128:
        raise bad(f"too long: {len(name)} characters (max 128)")
    if not re.match(r"[A-Za-z0-9]", name):
        raise bad(f'must start with a letter or digit (got: "{name}")')
    if name.endswith("-"):
        raise bad(f'cannot end with a hyphen (got: "{name}")')
    if re.search(r"[/\\]", name):
        raise bad("cannot contain path separators")
    wrong = re.search(r"[^A-Za-z0-9_-]", name)
    if wrong:
        raise bad(f"contains invalid character: '{wrong[0]}'")


def pattern(text):
    host = text[:-1] if text.endswith(".") else text
    name = host[2:] if host.startswith("*.") else host
    labels = name.split(".")
    fine = all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", label) for label in labels)
    if not fine or len(name) > 253 or labels[-1].isdigit():
        wanted = "use an exact DNS hostname or *.domain"
        raise config(f'--allow-host-pattern: invalid host pattern "{text}": {wanted}')
    return ("" if host.startswith("*.") else "=") + host.lower()


def mounted_sockets(specs):
    seen = {}
    for spec in specs:
        host, colon, inside = spec.partition(":")
        if not colon:
            raise config(f"mount-socket: expected HOST_PATH:GUEST_PATH, got '{spec}'")
        if not host or not inside:
            raise config(f"mount-socket: both HOST_PATH and GUEST_PATH are required in '{spec}'")
        if re.search("[;|]", inside):
            raise config(f"publish-socket: guest path '{inside}' contains an unsupported character (';' or '|')")
        if not inside.startswith("/"):
            raise config(f"publish-socket: guest path '{inside}' must be absolute")
        if inside in seen:
            raise config(f"mount-socket: guest path '{inside}' is mounted more than once")
        seen[inside] = host
    return [[host, inside] for inside, host in seen.items()]


def volume(spec):
    if ":" not in spec:
        raise Failure("STAND_IN", "a volume of the machine's own disk is not stood in for")
    readonly = spec.endswith(":ro")
    host, _, inside = (spec[:-3] if readonly else spec).rpartition(":")
    if not os.path.exists(host):
        raise Failure("NOT_FOUND", f"mount source not found: {host}")
    if not os.path.isdir(host):
        reason = f"source path on host must be a directory (virtiofs limitation): {host}"
        raise Failure("MOUNT_ERROR", f"mount operation failed: validate host path: {reason}")
    if not inside.startswith("/"):
        reason = f"target path on guest should be an absolute directory: {inside}"
        raise Failure("MOUNT_ERROR", f"mount operation failed: validate guest path: {reason}")
    return [os.path.abspath(host), inside, readonly]


def start(state, given):
    interceptor = binding(given.get("egress-interceptor"))
    if given.get("mediated-egress"):
        raise Failure("STAND_IN", "mediated egress is not stood in for")
    record = state.load(given.get("name", "default"))
    name, address = record["name"], given.get("egress-interceptor")
    if interceptor is None and record["intercepted"]:
        need = "pass --egress-interceptor and set SMOLVM_INTERCEPTOR_TOKEN"
        raise config(f"egress interceptor: this machine requires an external interceptor on every start; {need}")
    if address:
        host, _, port = address.rpartition(":")
        if not ipaddress.ip_address(host.strip("[]")).is_loopback or int(port) == 0:
            need = "interceptor requires a loopback address, nonzero port and random authentication token"
            raise config(f"egress interceptor: {need}")
        record["intercepted"] = True
        state.save(record)
    extras = [f"{len(record['volumes'])} mount(s)"] if record["volumes"] else []
    extras += [f"{len(record['ports'])} port mapping(s)"] if record["ports"] else []
    print(f"Starting machine '{name}'" + (f" with {' and '.join(extras)}" if extras else "") + "...", file=sys.stderr)
    state.fault("start")
    if record["state"] == "running":
        raise agent(f"start machine: machine '{name}' is already running")
    try:
        guest.boot(record, state.directory(name), interceptor)
    except guest.Dead as problem:
        raise agent(f"start machine: {problem}") from None
    record["state"] = "running"
    state.save(record)
    print(f"Machine '{name}' is running")


def binding(address):
    """The interceptor's address and token."""
    if address is None:
        return None
    token = os.environ.get("SMOLVM_INTERCEPTOR_TOKEN")
    if token is None:
        raise config("egress interceptor: set SMOLVM_INTERCEPTOR_TOKEN to 64 random hex digits")
    if not re.fullmatch("[0-9a-fA-F]{64}", token) or set(token) == {"0"}:
        need = "SMOLVM_INTERCEPTOR_TOKEN must contain 64 hex digits and must not be all zeros"
        raise config(f"egress interceptor: {need}")
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port), bytes.fromhex(token)


def running(state, name):
    record = state.load(name)
    if record["state"] != "running":
        then = "if a start is already in progress, retry once it finishes."
        raise agent(f"connect: machine '{name}' is not running. Start it with 'smolvm machine start --name {name}'; {then}")
    return record


def execute(state, given):
    record = running(state, given.get("name", "default"))
    if any(flag in given for flag in ("secret-env", "secret-file", "secret-keychain")):
        raise Failure("STAND_IN", "secrets are not stood in for, and nobody here may use them")
    state.fault("exec")
    return guest.execute(record, state.directory(record["name"]), given)


def copy(state, given):
    ends = [re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]*):(.*)", text) for text in given.args]
    if ends == [None, None]:
        raise config("cp: one of SRC or DST must use machine:path syntax (e.g., myvm:/workspace/file)")
    name, inside = (ends[0] or ends[1]).groups()
    record = running(state, name)
    state.fault("cp")
    upload = ends[0] is None
    outside = given.args[0 if upload else 1]
    try:
        if upload:
            with open(outside, "rb") as file:
                state.keep_given("file", file.read())
        mode = int(given.get("mode", "644"), 8)
        guest.copy(state.directory(record["name"]), upload, outside, inside, mode)
    except (OSError, ValueError) as problem:
        raise agent(f"cp: {problem}") from None
    print(f"Copied {given.args[0]} -> {given.args[1]}")


def stop(state, given):
    record = state.load(given.get("name", "default"))
    name = record["name"]
    if record["state"] != "running":
        print(f"Machine '{name}' is not running (state: {record['state']})")
        return
    print(f"Stopping machine '{name}'...")
    state.fault("stop")
    guest.stop(state.directory(name))
    record["state"] = "stopped"
    state.save(record)
    print(f"Machine '{name}' stopped")


def delete(state, given):
    record = state.load(given["name"])
    name = record["name"]
    if not given.get("force") and not given.get("cascade") and not sys.stdin.isatty():
        how = "pass --force to delete it, or --cascade to remove it together with any machines branched from it"
        raise agent(f"delete: machine '{name}' needs confirmation but stdin is not a terminal; {how}")
    state.fault("delete")
    if record["state"] == "running":
        guest.stop(state.directory(name))
    if os.path.isdir(os.path.join(state.directory(name), "root")):
        print(f"Cleaning up data directory for vm: {name}")
    shutil.rmtree(state.directory(name))
    print(f"Deleted machine: {name}")


def shown(record):
    """A machine as `--json` shows it: of the real program's keys those that say something here."""
    told = {key: record[key] for key in ("cmd", "cpus", "created_at", "image", "memory_mib", "name", "network", "state")}
    told.update(mounts=len(record["volumes"]), ports=len(record["ports"]), pid=record.get("pid"))
    if record["patterns"]:
        told["allowed_hosts"] = record["patterns"]
    return dict(sorted(told.items()))


def ls(state, given):
    records = [state.load(name) for name in state.names()]
    if given.get("json"):
        print(json.dumps([shown(record) for record in records], indent=2))
    elif given.get("quiet"):
        for record in records:
            print(record["name"])
    elif not records:
        print("No machines found")
    else:
        for record in records:
            print(record["name"], record["state"])


def status(state, given):
    name = given.get("name", "default")
    try:
        record = state.load(name)
    except Failure:
        if given.get("json"):
            raise config(f"machine status: machine '{name}' not found") from None
        raise
    print(json.dumps(shown(record), indent=2) if given.get("json") else f"Machine '{name}': {record['state']}")


RUN = {
    "create": create,
    "start": start,
    "exec": execute,
    "cp": copy,
    "stop": stop,
    "delete": delete,
    "ls": ls,
    "status": status,
}


def main(words):
    shell = grammar.Command([], places=("COMMAND",))
    before, words = [], list(words)
    while words and words[0].startswith("-"):
        if words == ["--version"]:
            print("smolvm 1.32.2")
            return 0
        before += [words.pop(0), *([words.pop(0)] if words else [])]
    if words[:1] != ["machine"]:
        return usage(shell, "", grammar.Usage(f"unrecognized subcommand '{words[0] if words else ''}'"))
    name = words[1] if len(words) > 1 else ""
    if name not in RUN:
        return usage(shell, name, grammar.Usage(f"unrecognized subcommand '{name}'"))
    command = grammar.COMMANDS[name]
    state = State(None)
    try:
        given = grammar.parse(command, [*before, *words[2:]], os.environ)
        state = State(given.get("state-dir"))
        if state.old():
            command.flags = [flag for flag in command.flags if "egress" not in flag.long]
            given = grammar.parse(command, [*before, *words[2:]], os.environ)
    except grammar.Usage as problem:
        return usage(command, name, problem)
    if given.get("help"):
        print(f"Usage: {command.usage(name)}\n\nOptions:")
        print("".join(f"  {flag.text}\n" for flag in command.flags), end="")
        return 0
    state.keep_given("call", json.dumps([sys.argv, dict(os.environ)]).encode())
    try:
        return RUN[name](state, given) or 0
    except Failure as problem:
        sys.stdout.flush()
        if given.get("error-format") == "json":
            error = {"code": problem.code, "message": problem.message}
            print(json.dumps({"error": error}, separators=(",", ":"), ensure_ascii=False), file=sys.stderr)
        else:
            print(f"Error: {problem.message}", file=sys.stderr)
        return 1


def usage(command, name, problem):
    tip = f"\n  tip: {problem.tip}\n" if problem.tip else ""
    line = f"\nUsage: {command.usage(name)}\n" if "value" not in problem.message else ""
    print(f"error: {problem.message}\n{tip}{line}\nFor more information, try '--help'.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
