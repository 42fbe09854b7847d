#!/usr/bin/python3
"""The server `hyperwal serve` as a service: its configuration, the service manager, many databases.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
SOURCE = os.environ.get("HW_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
PROGRAM = os.path.join(BUILD, "hyperwal")
LONG = 30  # seconds: nothing here takes so long unless it hangs


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args, code=0, env=None):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, check=False)
    check(done.returncode == code, f"hyperwal {args}: exit {done.returncode}, expected {code}",
          done.stdout[-300:], done.stderr[-600:])
    return done


class Server:
    """`hyperwal serve` with these arguments, ready; `lines` are those it printed before that."""

    def __init__(self, *args, env=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([PROGRAM, "serve", *map(str, args)], text=True,
                                        stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        self.lines = []
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.lines.append(line.rstrip("\n"))
        raise AssertionError(f"not ready: {self.said()}")

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def line(self, start):
        """The next line of output that begins so."""
        for line in self.process.stdout:
            if line.startswith(start):
                return line.rstrip("\n")
        raise AssertionError(f"no line {start!r}: {self.said()}")

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, code=0):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        self.process.communicate(timeout=LONG)
        check(self.process.returncode == code, f"ended with {self.process.returncode}", self.said())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.end()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.communicate()
            self.log.close()


def names(server):
    return sorted(line.split()[0] for line in server.lines)


def stock(path):
    return sqlite3.connect(path, isolation_level=None, timeout=20)


def make(path, rows=3):
    with contextlib.closing(stock(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        for i in range(rows):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def wait_until(condition, what, server=None):
    end = time.monotonic() + LONG
    while not condition():
        check(time.monotonic() < end, f"waited in vain until {what}",
              server.said() if server is not None else "")
        time.sleep(0.005)


# ---------------------------------------------------------------------- the configuration


def a_wrong_line_of_the_configuration_is_named(dir):
    """Every mistake ends with 2 and tells file, line and reason."""
    conf = f"{dir}/serve.conf"
    for text, line, words in (
            ("frobnicate = 1\n", 1, "there is no such setting"),
            ("# comment\n\n  directory /srv\n", 3, "KEY = VALUE"),
            ("directory =\n", 1, "no value"),
            ("directory = somewhere\n", 1, "begins with /"),
            ("stop-timeout = 0\n", 1, "a number from 1 to 3600"),
            ("stop-timeout = soon\n", 1, "a number from"),
            ("stop-timeout = 99999999999999999999\n", 1, "a number from"),
            ("stop-timeout = 5\r\nstop-timeout = 6\r\n", 2, "is set already"),
            ("identity = /a\nidentity = /b\n", 2, "is set already"),
            ("= 1\n", 1, "no such setting"),
            ("directory = /a\0b\n", 1, "no text"),
            ("listen = tcp://127.0.0.1:0\n" * 17, 17, "at most 16")):
        write(conf, text)
        said = run("serve", "--config", conf, "--check-config", code=2).stderr
        check(f"{conf}:{line}: " in said and words in said, repr(text[:40]), said)
    write(conf, "#" * (1 << 20) + "\n")
    check("1 MiB" in run("serve", "--config", conf, code=2).stderr, "a file too large")
    write(conf, "")
    check("needs a DB or a DIR" in run("serve", "--config", conf, code=2).stderr, "an empty file")
    run("serve", "--config", f"{dir}/nothing", code=1)


def settings_of_file_and_command_line_are_joined(dir):
    conf = f"{dir}/serve.conf"
    write(conf, f"  directory\t=  {dir}  \r\n# none\nlisten=tcp://127.0.0.1:0\nidentity = {dir}/i\n"
                "stop-timeout = 7")
    shown = run("serve", "--config", conf, "--check-config", "--listen", "tcp://localhost:0",
                "--identity", f"{dir}/other", dir).stdout
    check(shown == f"directory = {dir}\ndirectory = {dir}\nlisten = tcp://127.0.0.1:0\n"
                   f"listen = tcp://localhost:0\nidentity = {dir}/other\nstop-timeout = 7\n", shown)
    check(not os.path.exists(f"{dir}/other"), "a check made the identity")


def a_default_configuration_is_read_only_if_nothing_is_named(dir):
    make(f"{dir}/a.db")
    os.makedirs(f"{dir}/config/hyperwal")
    write(f"{dir}/config/hyperwal/serve.conf", f"database = {dir}/a.db\nstop-timeout = 9\n")
    env = {"XDG_CONFIG_HOME": f"{dir}/config"}
    check("stop-timeout = 9" in run("serve", "--check-config", env=env).stdout, "not read")
    check("stop-timeout = 20" in run("serve", "--check-config", dir, env=env).stdout, "read")
    with Server(env=env) as server:
        check(names(server) == ["a.db"], server.lines)


def settings_are_all_in_the_manual(dir):
    del dir
    with open(f"{SOURCE}/replicator/config.c", encoding="utf-8") as file:
        keys = re.findall(r'^    \{"([a-z-]+)",', file.read(), re.M)
    with open(f"{SOURCE}/docs/man/hyperwal.1", encoding="utf-8") as file:
        page = file.read()
    check(len(keys) > 4, keys)
    for key in keys:
        check(re.search(rf"^\.It Li {key} ", page, re.M), f"hyperwal(1) does not have {key}")


def a_reload_takes_what_is_new_and_drops_what_is_gone(dir):
    conf = f"{dir}/serve.conf"
    for name in ("one", "two"):
        os.mkdir(f"{dir}/{name}")
        make(f"{dir}/{name}/{name}.db")
    make(f"{dir}/single.db")
    write(conf, f"directory = {dir}/one\ndatabase = {dir}/single.db\n")
    with Server("--config", conf) as server:
        check(names(server) == ["one.db", "single.db"], server.lines)
        write(conf, f"directory = {dir}/one\ndirectory = {dir}/two\n")
        server.signal(signal.SIGHUP)
        server.line("two.db ")
        wait_until(lambda: "single.db: not in the configuration" in server.said(), "it is dropped")
        make(f"{dir}/two/later.db")
        server.line("later.db ")
        write(conf, f"directory = {dir}/one\nnonsense\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is as it was" in server.said(), "it is refused")
        check(f"{conf}:2: nonsense" in server.said(), server.said())
        make(f"{dir}/two/more.db")
        server.line("more.db ")
        write(conf, f"directory = {dir}/one\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "two/more.db: not in" in server.said(), "they are dropped")
        make(f"{dir}/two/unseen.db")
        make(f"{dir}/one/seen.db")
        server.line("seen.db ")


def a_reload_of_a_server_without_a_file_changes_nothing(dir):
    make(f"{dir}/a.db")
    with Server(f"{dir}/a.db") as server, Manager(dir) as manager:
        del manager
        server.signal(signal.SIGHUP)
        with contextlib.closing(stock(f"{dir}/a.db")) as db:
            db.execute("INSERT INTO t(b) VALUES('after')")
        wait_until(lambda: "transaction" in run("log", f"{dir}/a.db").stdout, "it is logged")


def a_listener_and_a_key_come_with_a_reload(dir):
    make(f"{dir}/a.db")
    env = {"HYPERWAL_IDENTITY": f"{dir}/client"}
    key = run("key", env=env).stdout.split()[0]
    conf, start = f"{dir}/serve.conf", f"database = {dir}/a.db\nidentity = {dir}/server\n"
    write(conf, start + f"listen = ipc://{dir}/first\nallow = {'0' * 64}\n")
    with Server("--config", conf) as server:
        run("status", f"ipc://{dir}/first/a.db", code=1, env=env)
        write(conf, start + f"listen = ipc://{dir}/first\nlisten = ipc://{dir}/second\n"
                            f"allow = {'0' * 64}\nallow = {key}\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(f"{dir}/second"), "it listens", server)
        for socket_ in ("first", "second"):
            check("a.db" in run("status", f"ipc://{dir}/{socket_}/a.db", env=env).stdout, socket_)
        write(conf, start + f"listen = ipc://{dir}/second\nallow = {key}\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "need a restart" in server.said(), "it says what it cannot do")


# -------------------------------------------------------------------- the service manager


class Manager:
    """What systemd is to a service: a socket that hears what it says."""

    def __init__(self, dir, abstract=False):
        self.name = f"@hyperwal-test-{os.getpid()}" if abstract else f"{dir}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.settimeout(LONG)
        self.env = {"NOTIFY_SOCKET": self.name}

    def hear(self, wanted):
        """The next message with this line, as a dictionary."""
        while True:
            lines = self.socket.recv(4096).decode().split("\n")
            if wanted in lines or any(line.startswith(wanted + "=") for line in lines):
                return dict(line.split("=", 1) for line in lines)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def the_service_manager_hears_of_start_reload_and_stop(dir):
    make(f"{dir}/a.db")
    for abstract in (False, True):
        with Manager(dir, abstract) as manager:
            server = Server(f"{dir}/a.db", env=manager.env)
            with server:
                told = manager.hear("READY=1")
                check(told["STATUS"] == "serving 1 database", told)
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                server.signal(signal.SIGHUP)
                told = manager.hear("RELOADING=1")
                check(before <= int(told["MONOTONIC_USEC"]) <=
                      time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, told)
                manager.hear("READY=1")
            manager.hear("STOPPING=1")


def the_status_line_follows_the_number_of_databases(dir):
    make(f"{dir}/a.db")
    with Manager(f"{dir}/..") as manager, Server(dir, env=manager.env):
        manager.hear("READY=1")
        make(f"{dir}/b.db")
        while manager.hear("STATUS")["STATUS"] != "serving 2 databases":
            pass
        os.unlink(f"{dir}/b.db")
        while manager.hear("STATUS")["STATUS"] != "serving 1 database":
            pass


def a_watchdog_hears_signs_of_life(dir):
    make(f"{dir}/a.db")
    with Manager(dir) as manager:
        with Server(f"{dir}/a.db", env={**manager.env, "WATCHDOG_USEC": "200000"}):
            for _ in range(5):
                manager.hear("WATCHDOG=1")
        with Server(f"{dir}/a.db", env={**manager.env, "WATCHDOG_USEC": "200000",
                                        "WATCHDOG_PID": "1"}) as server:
            manager.hear("READY=1")
            server.signal(signal.SIGHUP)
            told = manager.hear("RELOADING=1")
            check("WATCHDOG" not in told, told)


def a_manager_that_is_not_there_keeps_nobody(dir):
    make(f"{dir}/a.db")
    for name in (f"{dir}/nobody", "relative", "/" + "x" * 200):
        with Server(f"{dir}/a.db", env={"NOTIFY_SOCKET": name}) as server:
            check("nobody is notified" in server.said(), server.said())


def the_unit_is_of_a_kind_that_the_program_keeps(dir):
    """The unit relies on notifications, reloads and a bound for the stop."""
    del dir
    with open(f"{SOURCE}/replicator/systemd/hyperwal.service", encoding="utf-8") as file:
        unit = file.read()
    for line in ("Type=notify", "NotifyAccess=main", "ExecReload=/bin/kill -HUP $MAINPID",
                 "WatchdogSec=60", "TimeoutStopSec=45"):
        check(f"\n{line}\n" in unit, line)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify",
                               f"{SOURCE}/replicator/systemd/hyperwal.service"],
                              capture_output=True, text=True, timeout=LONG, check=False)
        check("Unknown" not in done.stderr, done.stderr)


def tests():
    """The functions of one argument `dir`, in the order in which they are written."""
    return [value for value in globals().values()
            if getattr(value, "__module__", "") == __name__ and hasattr(value, "__code__")
            and value.__code__.co_varnames[:value.__code__.co_argcount] == ("dir",)]


def main():
    failed = 0
    chosen = set(sys.argv[1:])
    for test in tests():
        name = test.__name__
        if chosen and name not in chosen:
            continue
        outer = tempfile.mkdtemp(prefix="hyperwal-daemon-")
        dir = os.path.join(outer, "d")
        os.mkdir(dir)
        try:
            test(dir)
            print(f"ok {name}", flush=True)
        except Skip as skip:
            print(f"skip {name}: {skip}", flush=True)
        except Exception as error:  # any failure is one of the test
            failed += 1
            words = str(error).replace("\n", " | ")[:600]
            print(f"not ok {name}: {type(error).__name__} {words}", flush=True)
            traceback.print_exc()
        finally:
            shutil.rmtree(outer, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
