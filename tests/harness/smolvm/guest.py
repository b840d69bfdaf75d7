"""A machine of the stand-in: a directory as its disk, and namespaces of this host in which its commands run.

It needs root. Where the image has an empty `usr`, the host's is put there, read-only, so that an image can be small.
"""

import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import traceback
import tty

import gateway

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
BIND, RDONLY, REMOUNT, REC, PRIVATE = 4096, 1, 32, 16384, 1 << 18
PDEATHSIG = 1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Dead(Exception):
    """A machine that does not come up."""


def call(name, *args):
    args = [arg.encode() if isinstance(arg, str) else arg for arg in args]
    if getattr(LIBC, name)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def boot(record, directory, interceptor):
    """Brings a machine up. The process that carries it is left behind."""
    root = os.path.join(directory, "root")
    image = (record["image"] or "").partition("local-dir:")[2]
    if not os.path.isdir(root):
        if not os.path.isdir(image):
            raise Dead(f"image: {record['image']} is no unpacked root file system, and the stand-in takes nothing else")
        subprocess.run(["cp", "-a", image, root], check=True)
    told, tell = os.pipe()
    if os.fork() == 0:
        os.close(told)
        os.setsid()
        try:
            carry(record, directory, root, interceptor, tell)
        except BaseException as problem:
            os.write(tell, f"boot process: {problem}".encode())
        os._exit(1)
    os.close(tell)
    with os.fdopen(told) as told:
        answer = told.read()
    if answer != "up":
        raise Dead(answer or "boot process exited before the agent was ready")


def carry(record, directory, root, interceptor, tell):
    """The machine monitor: carries the guest's network until it is killed, and takes the guest along then."""
    for fd in (0, 1, 2):
        os.dup2(os.open(os.path.join(directory, "log"), os.O_RDWR | os.O_CREAT | os.O_APPEND), fd)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        os.close(tell)
        try:
            raise_guest(record, root, theirs)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    theirs.close()
    message, fds, _, _ = socket.recv_fds(ours, 64, 16)
    if not message or ours.recv(2) != b"up":
        raise Dead("the guest died")
    with open(os.path.join(directory, "pids"), "w") as file:
        json.dump({"monitor": os.getpid(), "guest": int(message)}, file)
    gateway.carry(record, root, interceptor, fds)
    os.write(tell, b"up")
    os.close(tell)
    os.wait()
    os._exit(0)


def raise_guest(record, root, theirs):
    """Makes the guest's namespaces, gives its sockets to the monitor, and waits for its end."""
    call("prctl", PDEATHSIG, signal.SIGKILL)
    call("unshare", NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET)
    sockets = gateway.listen(record["network"])
    first = os.fork()
    if first == 0:
        call("prctl", PDEATHSIG, signal.SIGKILL)
        # A process image of its own: the monitor's arguments and environment stay outside.
        os.set_inheritable(theirs.fileno(), True)
        os.execve(sys.executable, ["init", "-B", __file__, os.path.dirname(root), str(theirs.fileno())], {})
    socket.send_fds(theirs, [str(first).encode()], [listener.fileno() for listener in sockets])
    theirs.close()
    os.waitpid(first, 0)


def init(record, root, up):
    """PID 1 of the guest: mounts, and then the workload, which alone gets the environment given at `create`."""
    call("mount", None, "/", None, REC | PRIVATE, None)
    if os.path.isdir(f"{root}/usr") and not os.listdir(f"{root}/usr"):
        call("mount", "/usr", f"{root}/usr", None, BIND | REC, None)
        call("mount", None, f"{root}/usr", None, BIND | REMOUNT | RDONLY, None)
        certificates = f"{root}/usr/local/share/ca-certificates"
        if os.path.isdir(certificates):
            call("mount", "tmpfs", certificates, "tmpfs", 0, None)
    for name in ("null", "zero", "random", "urandom", "tty"):
        os.makedirs(f"{root}/dev", exist_ok=True)
        open(f"{root}/dev/{name}", "a").close()
        call("mount", f"/dev/{name}", f"{root}/dev/{name}", None, BIND, None)
    os.makedirs(f"{root}/dev/pts", exist_ok=True)
    call("mount", "devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    if not os.path.lexists(f"{root}/dev/ptmx"):
        os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.makedirs(f"{root}/proc", exist_ok=True)
    call("mount", "proc", f"{root}/proc", "proc", 0, None)
    for outside, inside, readonly in record["volumes"]:
        os.makedirs(root + inside, exist_ok=True)
        call("mount", outside, root + inside, None, BIND, None)
        if readonly:
            call("mount", None, root + inside, None, BIND | REMOUNT | RDONLY, None)
    if record["network"]:
        with open(f"{root}/etc/resolv.conf", "w") as file:
            file.write(f"nameserver {gateway.RESOLVER}\n")
    os.chroot(root)
    os.chdir("/")
    workload = None
    if record["cmd"]:
        given = dict(pair.partition("=")[::2] for pair in record["env"])
        workload = subprocess.Popen(record["cmd"], env={"PATH": PATH, **given}, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(up, b"up")
    os.close(up)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()


def pids(directory):
    try:
        with open(os.path.join(directory, "pids")) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def alive(directory):
    found = pids(directory)
    try:
        # The monitor goes first: the guest's first process waits for all others.
        with open(f"/proc/{found['monitor']}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (TypeError, OSError):
        return False


def stop(directory):
    """Ends a machine and waits until all of it is gone."""
    for which in ("guest", "monitor"):
        try:
            pid = pids(directory)[which]
            gone = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([gone], [], [])
        except (TypeError, ProcessLookupError):
            pass
    try:
        os.unlink(os.path.join(directory, "pids"))
    except FileNotFoundError:
        pass


def enter(directory):
    """Goes into a machine, for good. Children are inside its process namespace as well."""
    guest = pids(directory)["guest"]
    for name in ("ipc", "uts", "net", "pid", "mnt"):
        fd = os.open(f"/proc/{guest}/ns/{name}", os.O_RDONLY)
        call("setns", fd, 0)
        os.close(fd)
    os.chroot(os.path.join(directory, "root"))
    os.chdir("/")


def execute(record, directory, given):
    """Runs a command in a machine; returns its exit code."""
    environment = {"PATH": PATH, "HOME": "/root"}
    environment.update(pair.partition("=")[::2] for pair in given.get("env", []))
    command = list(given.args)
    if given.get("user"):
        command = ["runuser", "-u", given["user"], "--", *command]
    if given.get("tty"):
        environment.setdefault("TERM", os.environ.get("TERM", "xterm"))
    enter(directory)
    os.chdir(given.get("workdir") or record["workdir"] or "/")
    if given.get("tty") and sys.stdin.isatty():
        return on_terminal(command, environment)
    live = given.get("interactive") or given.get("tty") or given.get("stream")
    output = subprocess.DEVNULL if given.get("detach") else None if live else subprocess.PIPE
    try:
        # A group of its own: what interrupts this program does not reach the guest.
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=None if given.get("interactive") else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        if given.get("detach"):
            print(child.pid)
            return 0
        out, err = child.communicate(timeout=given.get("timeout"))
    except FileNotFoundError:
        print(f"Error: exec: {command[0]}: No such file or directory", file=sys.stderr)
        return 127
    except subprocess.TimeoutExpired:
        child.kill()
        return 124
    if out or err:
        sys.stdout.buffer.write(out)
        sys.stdout.flush()
        sys.stderr.buffer.write(err)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def on_terminal(command, environment):
    """The command on a terminal of the guest's, joined to ours."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.execvpe(command[0], command, environment)
        finally:
            os._exit(127)
    fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        pty._copy(master)
    except OSError:
        pass
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def copy(directory, upload, outside, inside, mode):
    """One file into a machine or out of it. Paths are resolved inside."""
    flags = os.O_RDONLY if upload else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    ours = os.open(outside, flags, 0o644)
    if not inside.startswith("/"):
        raise ValueError(f"{inside} is not absolute")
    enter(directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if upload else os.O_RDONLY
    theirs = os.open(inside, flags, mode)
    if upload:
        os.fchmod(theirs, mode)
    source, target = (ours, theirs) if upload else (theirs, ours)
    while chunk := os.read(source, 1 << 16):
        os.write(target, chunk)


if __name__ == "__main__":
    with open(os.path.join(sys.argv[1], "record.json")) as told:
        init(json.load(told), os.path.join(sys.argv[1], "root"), int(sys.argv[2]))
