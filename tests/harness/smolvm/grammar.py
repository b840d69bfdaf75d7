"""The grammar of `smolvm` 1.32: commands, flags, and what it says of a command line that it does not take.

Nothing here looks at a machine. A test compares these tables with the help of the real program.
"""

import re


class Usage(Exception):
    """What is wrong with a command line; the exit code is 2."""

    def __init__(self, message, tip=None):
        super().__init__(message)
        self.message, self.tip = message, tip


class Flag:
    """One flag. Without a placeholder it takes no value."""

    def __init__(self, text, many=False, check=None, needs=None, env=None):
        found = re.fullmatch(r"(?:-(\w), )?--([a-z-]+)(?: <(.+)>)?", text)
        self.text, self.many, self.check, self.needs, self.env = text, many, check, needs, env
        self.short, self.long, self.value = found.groups()
        self.label = f"--{self.long}" + (f" <{self.value}>" if self.value else "")


class Command:
    """What a subcommand takes. `rest` is the placeholder of a trailing command, `strict` if it needs its `--`."""

    def __init__(self, flags, places=(), rest=None, strict=False, required=(), conflicts=()):
        self.flags = [*flags, *GLOBAL, Flag("-h, --help")]
        self.places, self.rest, self.strict = places, rest, strict
        self.required, self.conflicts = required, conflicts

    def usage(self, name):
        parts = [f"smolvm machine {name} [OPTIONS]"]
        parts += [f"--{long} <{value}>" for long, value in self.required]
        parts += [f"<{place}>" for place in self.places]
        if self.rest:
            parts.append("[-- <COMMAND>...]" if self.strict else "<COMMAND>...")
        return " ".join(parts)


def address(text):
    if not re.fullmatch(r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\]):\d{1,5}", text):
        raise ValueError("invalid socket address syntax")
    return text


def number(text):
    if not text.isdigit():
        raise ValueError("invalid digit found in string")
    return int(text)


def seconds(text):
    if not text.isdigit():
        raise ValueError(f"'{text}' is not a whole number of seconds")
    return int(text)


def duration(text):
    units = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
    if not text:
        raise ValueError("value was empty")
    if not text[0].isdigit():
        raise ValueError("expected number at 0")
    if text.isdigit():
        raise ValueError(f"time unit needed, for example {text}sec or {text}ms")
    total = 0
    for count, unit in re.findall(r"(\d+)\s*([a-zA-Z]*)", text):
        if unit not in units:
            known = "ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)"
            raise ValueError(f'unknown time unit "{unit}", supported units: {known}')
        total += int(count) * units[unit]
    return total


def image(text):
    if not text:
        raise ValueError("image reference must not be empty")
    return text


def error_format(text):
    if text not in ("text", "json"):
        raise ValueError("\n  [possible values: text, json]")
    return text


NAME = "SMOLVM_MACHINE_NAME"
GLOBAL = [Flag("--error-format <ERROR_FORMAT>", check=error_format), Flag("--state-dir <PATH>")]
SECRETS = [
    Flag("--secret-env <GUEST_VAR=HOST_VAR>", many=True),
    Flag("--secret-file <GUEST_VAR=PATH>", many=True),
    Flag("--secret-keychain <GUEST_VAR=SERVICE[/ACCOUNT]>", many=True),
]
COMMANDS = {
    "create": Command(
        [
            Flag("-n, --name <NAME>", env=NAME),
            Flag("--label <KEY=VALUE>", many=True),
            Flag("-I, --image <IMAGE>", check=image),
            Flag("--cpus <N>", check=number),
            Flag("--mem <MiB>", check=number),
            Flag("-v, --volume <HOST|REMOTE:GUEST[:ro|rw|staged]>", many=True),
            Flag("-p, --port <PORT[-END]|HOST[-END]:GUEST[-END][/udp]>", many=True),
            Flag("--net"),
            Flag("--allow-cidr <CIDR>", many=True),
            Flag("--allow-host <HOSTNAME>", many=True),
            Flag("--allow-host-pattern <PATTERN>", many=True),
            Flag("--mount-socket <HOST_PATH:GUEST_PATH>", many=True),
            Flag("-e, --env <KEY=VALUE>", many=True),
            Flag("-w, --workdir <DIR>"),
            Flag("-u, --user <USER>"),
            Flag("--smolfile <PATH>"),
            *SECRETS,
        ],
        rest="COMMAND",
        strict=True,
    ),
    "start": Command(
        [
            Flag("-n, --name <NAME>", env=NAME),
            Flag("--branchable"),
            Flag("--egress-interceptor <ADDR>", check=address),
            Flag("--mediated-egress", needs="egress-interceptor"),
            Flag("--proxy <URL>"),
            Flag("--no-proxy <LIST>"),
        ]
    ),
    "exec": Command(
        [
            Flag("--name <NAME>", env=NAME),
            Flag("-w, --workdir <DIR>"),
            Flag("-u, --user <USER>"),
            Flag("-e, --env <KEY=VALUE>", many=True),
            Flag("--timeout <DURATION>", check=duration),
            Flag("-i, --interactive"),
            Flag("-t, --tty"),
            Flag("--stream"),
            Flag("-d, --detach"),
            *SECRETS,
        ],
        rest="COMMAND",
        conflicts=[("detach", "interactive"), ("detach", "tty"), ("detach", "stream")],
    ),
    "cp": Command(
        [Flag("--mode <OCTAL>"), Flag("--uid <UID>", check=number), Flag("--gid <GID>", check=number)],
        places=("SRC", "DST"),
    ),
    "stop": Command([Flag("-n, --name <NAME>", env=NAME), Flag("-t, --timeout <SECONDS>", check=seconds)]),
    "delete": Command(
        [Flag("-n, --name <NAME>", env=NAME), Flag("-f, --force"), Flag("--cascade")],
        required=[("name", "NAME")],
    ),
    "ls": Command([Flag("-v, --verbose"), Flag("--json"), Flag("-q, --quiet")]),
    "status": Command([Flag("-n, --name <NAME>", env=NAME), Flag("--json")]),
}


class Parsed(dict):
    """Values by the flags' long names; places and the trailing command in `args`."""

    args = ()


def parse(command, words, environ):
    """The flags of one command line; raises `Usage`."""
    parsed, args, words, order = Parsed(), [], list(words), []
    while words:
        word = words.pop(0)
        if word == "--":
            args += words
            break
        if word.startswith("-") and len(word) > 1:
            order.append(take(command, parsed, word, words))
        elif command.rest and not command.strict:
            args += [word, *words]
            break
        elif len(args) < len(command.places):
            args.append(word)
        else:
            raise Usage(f"unexpected argument '{word}' found")
    if "help" not in parsed:
        check(command, parsed, args, order, environ)
    parsed.args = args
    return parsed


def take(command, parsed, word, words):
    """One flag and its value from the rest of the line. Returns the flag's name."""
    value, label = None, word
    if word.startswith("--"):
        label, equals, given = word.partition("=")
        flag = next((flag for flag in command.flags if label == f"--{flag.long}"), None)
        value = given if equals else None
    else:
        label = word[:2]
        flag = next((flag for flag in command.flags if flag.short == word[1]), None)
        if flag and len(word) > 2:
            if flag.value:
                value = word[2:]
            else:
                words.insert(0, "-" + word[2:])
    if flag is None:
        tip = f"to pass '{label}' as a value, use '-- {label}'" if command.rest else None
        raise Usage(f"unexpected argument '{label}' found", tip)
    if not flag.value:
        if flag.long in parsed:
            raise Usage(f"the argument '{flag.label}' cannot be used multiple times")
        parsed[flag.long] = True
        return flag.long
    if value is None:
        if not words or words[0] == "--":
            raise Usage(f"a value is required for '{flag.label}' but none was supplied")
        if words[0].startswith("-") and len(words[0]) > 1:
            take(command, Parsed(), words[0], words[1:])
            raise Usage(f"a value is required for '{flag.label}' but none was supplied")
        value = words.pop(0)
    if flag.long in parsed and not flag.many:
        raise Usage(f"the argument '{flag.label}' cannot be used multiple times")
    if flag.check:
        try:
            value = flag.check(value)
        except ValueError as problem:
            between = "" if str(problem).startswith("\n") else ": "
            raise Usage(f"invalid value '{value}' for '{flag.label}'{between}{problem}") from None
    parsed.setdefault(flag.long, []).append(value) if flag.many else parsed.update({flag.long: value})
    return flag.long


def check(command, parsed, args, order, environ):
    """What can be told only of the line as a whole."""
    for one, other in command.conflicts:
        if one in parsed and other in parsed:
            first, second = sorted((one, other), key=order.index)
            raise Usage(f"the argument '--{first}' cannot be used with '--{second}'")
    missing = []
    for flag in command.flags:
        if flag.env and flag.long not in parsed and environ.get(flag.env):
            parsed[flag.long] = environ[flag.env]
        if flag.needs and flag.long in parsed and flag.needs not in parsed:
            missing.append(next(other.label for other in command.flags if other.long == flag.needs))
    missing += [f"--{long} <{value}>" for long, value in command.required if long not in parsed]
    missing += [f"<{place}>" for place in command.places[len(args) :]]
    if command.rest and not command.strict and not args:
        missing.append("<COMMAND>...")
    if missing:
        lines = "".join(f"\n  {label}" for label in missing)
        raise Usage(f"the following required arguments were not provided:{lines}")
