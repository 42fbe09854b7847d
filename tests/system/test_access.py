#!/usr/bin/python3
"""Who may do what with what a server serves, seen from the outside; and servers that are known again.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback

from test_network import (LONG, PROGRAM, Skip, background, check, follower, load_extension, make,
                          run, server)


def wait_until(condition, what, process=None):
    deadline = time.monotonic() + LONG
    while not condition():
        check(time.monotonic() < deadline, "not within", LONG, what,
              process.said()[-900:] if process is not None else "")
        time.sleep(0.02)


def someone(dir, name):
    """Another user: the environment, and the identity key in hex."""
    folder = os.path.join(dir, "home-" + name)
    os.makedirs(folder, exist_ok=True)
    environment = {**os.environ, "HYPERWAL_IDENTITY": os.path.join(folder, "identity")}
    return environment, run("key", env=environment).stdout.split()[0]


def keys(*lines, path="authorized_keys"):
    """As an editor does it: a new file in the place of the old one."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
    os.chmod(path + ".new", 0o600)
    os.replace(path + ".new", path)


def refusals(process):
    return [line for line in process.said().splitlines() if "event=access_refused" in line]


# ------------------------------------------------------------------------------- the rules

def rights_depend_on_key_and_name(dir):
    make("app.db")
    make("other.db")
    one, one_key = someone(dir, "one")
    two, _ = someone(dir, "two")
    keys("# who may what", f"read app.db,new-* {one_key} the first one")
    with server("--authorized-keys", "authorized_keys", "app.db", "other.db") as primary:
        app, other = primary.urls["app.db"], primary.urls["other.db"]
        run("follow", app, "r.db", "--once", env=one)
        error = run("follow", other, "s.db", "--once", code=1, env=one).stderr
        check("does not let us have" in error and "other.db" in error, error)
        check(not os.path.exists("s.db-hyper"), "something was left")
        line = refusals(primary)[0]
        for part in (f"peer={one_key}", "address=", 'name="other.db"', "right=read", "reason="):
            check(part in line, part, line)
        # What does not exist looks the same, but for names that one may read.
        error = run("status", app.replace("app.db", "missing"), code=1, env=one).stderr
        check("does not let us have" in error and "app.db" not in error.split("missing", 1)[1], error)
        error = run("status", app.replace("app.db", "new-one"), code=1, env=one).stderr
        check("it has app.db" in error and "other.db" not in error, error)
        # By its key a log is no easier to have.
        key = json.loads(run("key", "other.db", "--json").stdout)["key"]
        error = run("restore", other.replace("other.db", key), "o.db", code=1, env=one).stderr
        check("not for us" in error or "let us" in error, error)
        error = run("follow", app, "t.db", "--once", code=1, env=two).stderr
        check("let us in" in error, error)
        wait_until(lambda: "event=peer_refused" in primary.said(), "peer_refused", primary)
        # The server's own identity may do all.
        run("follow", other, "u.db", "--once")


def without_rules_this_machine_reads_and_no_other(dir):
    make("app.db")
    one, _ = someone(dir, "one")
    with server("app.db") as primary:
        run("follow", primary.urls["app.db"], "r.db", "--once", env=one)
    error = run("serve", "--listen", "tcp://0.0.0.0:0", "app.db", code=1).stderr
    check("nobody was allowed" in error, error)
    keys(path="authorized_keys")  # a file without rules: nobody, but it is a decision
    with server("--authorized-keys", "authorized_keys", "app.db", listen="tcp://0.0.0.0:0") as primary:
        url = primary.urls["app.db"]
        error = run("follow", url, "s.db", "--once", code=1, env=one).stderr
        check("let us in" in error, error)
        run("status", url)


def users_own_file_is_found_without_an_option(dir):
    make("app.db")
    one, one_key = someone(dir, "one")
    daemon, _ = someone(dir, "daemon")
    keys(f"read app.db {one_key}", path=os.path.join(dir, "home-daemon", "authorized_keys"))
    with server("app.db", listen="tcp://0.0.0.0:0", environment=daemon) as primary:
        run("status", primary.urls["app.db"], env=one)
    keys(f"read nothing {one_key}")
    daemon["HYPERWAL_AUTHORIZED_KEYS"] = os.path.abspath("authorized_keys")
    with server("app.db", environment=daemon) as primary:
        run("status", primary.urls["app.db"], env=one, code=1)


def who_follows_is_told_to_those_who_may_write(dir):
    make("app.db")
    one, one_key = someone(dir, "one")
    two, two_key = someone(dir, "two")
    with server("--allow", one_key, "--allow-write", two_key, "app.db") as primary:
        url = primary.urls["app.db"]
        with follower(url, "r.db", environment=one) as replica:
            replica.line("r.db")

            def peers(environment):
                said = json.loads(run("status", url, "--json", env=environment).stdout)["server"]
                return said["peers"], said["peer_count"]

            wait_until(lambda: one_key in [peer["key"] for peer in peers(two)[0]], "a follower",
                       primary)
            told, count = peers(one)
            check(told == [] and count >= 1, told, count)


def file_that_is_wrong_is_refused(dir):
    make("app.db")
    for text, code, words in (("read app.db", 2, "line 1: after rights and names there is no key"),
                              ("# a\n\nreed * any", 2, 'line 3: "reed" is no right'),
                              ("read a%zz any", 2, "hex digits"),
                              ("read * " + "0" * 63, 2, "line 1: not a key")):
        keys(text)
        error = run("serve", "--listen", "tcp://127.0.0.1:0", "--authorized-keys", "authorized_keys",
                    "app.db", code=code).stderr
        check(words in error and "authorized_keys" in error, text, error)
    keys("read * any")
    os.chmod("authorized_keys", 0o622)
    error = run("serve", "--listen", "tcp://127.0.0.1:0", "--authorized-keys", "authorized_keys",
                "app.db", code=1).stderr
    check("others may write it" in error and "chmod go-w" in error, error)
    if os.geteuid() == 0:  # nobody else can give a file away
        os.chmod("authorized_keys", 0o600)
        os.chown("authorized_keys", 12345, -1)
        error = run("serve", "--listen", "tcp://127.0.0.1:0", "--authorized-keys", "authorized_keys",
                    "app.db", code=1).stderr
        check("another user owns it" in error, error)
    error = run("serve", "--listen", "tcp://127.0.0.1:0", "--authorized-keys", "missing", "app.db",
                code=1).stderr
    os.remove("authorized_keys")
    check("missing" in error and "no such file" in error, error)
    error = run("serve", "--listen", "tcp://127.0.0.1:0", "--allow-write", "x", "app.db", code=2).stderr
    check("--allow-write x" in error, error)


def right_that_is_taken_back_ends_what_used_it(dir):
    make("app.db")
    one, one_key = someone(dir, "one")
    two, two_key = someone(dir, "two")
    keys(f"read app.db {one_key}", f"read app.db {two_key}")

    def applied(name):
        with sqlite3.connect(f"file:{name}?mode=ro", uri=True) as db:
            return db.execute("SELECT count(*) FROM t").fetchone()[0]

    with server("--authorized-keys", "authorized_keys", "app.db") as primary, \
            follower(primary.urls["app.db"], "r.db", environment=one) as replica, \
            follower(primary.urls["app.db"], "s.db", environment=two) as friend:
        replica.line("r.db")
        friend.line("s.db")
        before = applied("r.db")
        keys(f"read nothing {one_key}", f"read app.db {two_key}")
        wait_until(lambda: refusals(primary), "a refusal", primary)
        check(f"peer={one_key}" in refusals(primary)[0], refusals(primary)[0])
        check("taken back" in refusals(primary)[0], refusals(primary)[0])
        with sqlite3.connect("app.db", isolation_level=None) as db:
            db.execute("INSERT INTO t SELECT max(a) + 1, 0 FROM t")
        wait_until(lambda: applied("s.db") == before + 1, "the friend has it", primary)
        check(applied("r.db") == before, "who lost the right has it too")
        keys(f"read app.db {one_key}", f"read app.db {two_key}")
        wait_until(lambda: applied("r.db") == before + 1, "it goes on", replica)
        check(not any(two_key in line for line in refusals(primary)), refusals(primary))


def reload_takes_the_keys_of_the_configuration_and_of_the_file(dir):
    make("app.db")
    one, one_key = someone(dir, "one")
    two, two_key = someone(dir, "two")
    full = os.path.abspath

    def configure(*lines):
        with open("serve.conf", "w", encoding="utf-8") as file:
            file.write("\n".join((f"database = {full('app.db')}", "listen = tcp://127.0.0.1:0",
                                  f"authorized-keys = {full('authorized_keys')}") + lines) + "\n")

    keys()
    configure(f"allow = {one_key}")
    check(f"authorized-keys = {full('authorized_keys')}" in
          run("serve", "--config", "serve.conf", "--check-config").stdout, "settings")
    with background("serve", "--config", "serve.conf", "--json") as primary:
        url = json.loads(primary.line("{"))["url"]
        primary.line('{"ready"')
        run("status", url, env=one)
        run("status", url, env=two, code=1)
        configure(f"allow-write = {two_key}")
        primary.process.send_signal(signal.SIGHUP)
        wait_until(lambda: run_code("status", url, env=two) == 0, "the new one", primary)
        run("status", url, env=one, code=1)
        with open("authorized_keys", "a", encoding="utf-8") as file:
            file.write(f"read app.db {one_key}\n")
        primary.process.send_signal(signal.SIGHUP)
        wait_until(lambda: run_code("status", url, env=one) == 0, "the one of the file", primary)
        with open("authorized_keys", "a", encoding="utf-8") as file:
            file.write("nonsense\n")
        primary.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "line 2" in primary.said(), "the mistake", primary)
        run("status", url, env=one)


def run_code(*args, env):
    """The exit code, whatever it is."""
    return subprocess.run([PROGRAM, *args], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=LONG, check=False).returncode


# ------------------------------------------------------------------------- known servers

def server_with_another_key_is_not_spoken_to(dir):
    make("app.db")
    client, _ = someone(dir, "client")
    known = os.path.join(dir, "home-client", "known_servers")
    old, old_key = someone(dir, "old")
    new, new_key = someone(dir, "new")
    with server("app.db", environment=old) as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once", env=client)
    listen = re.sub(r"^hyper(://[^/]+)/.*", r"tcp\1", url)
    with open(known, encoding="utf-8") as file:
        text = file.read()
    check(re.fullmatch(re.escape(listen) + " " + old_key + r" [0-9TZ:.-]+\n", text), text)
    check(os.stat(known).st_mode & 0o777 == 0o600, "mode")
    with server("app.db", listen=listen, environment=new):
        for args in (("follow", url, "r.db", "--once"), ("follow", url, "new.db", "--once"),
                     ("status", url), ("log", url), ("restore", url, "o.db"), ("verify", url)):
            error = run(*args, code=1, env=client).stderr
            for part in ("another server", old_key, new_key, f"{known}:1", "--forget"):
                check(part in error, args, part, error)
        check(not os.path.exists("new.db-hyper") and not os.path.exists("o.db"), "something was left")
        run("status", url + "?server=" + new_key, env=client)
        error = run("status", url + "?server=" + old_key, code=1, env=client).stderr
        check("asked for" in error, error)
        # The log's key proves the log, but a server that is known must be the one.
        key = json.loads(run("key", "app.db", "--json").stdout)["key"]
        run("log", url.replace("app.db", key), code=1, env=client)
        os.remove(known)
        run("log", url.replace("app.db", key), env=client)
        check(not os.path.exists(known), "written for a log named by its key")
        run("follow", url, "r.db", "--once", env=client)
        check(new_key in open(known, encoding="utf-8").read(), "not written again")


def open_through_the_vfs(url, environment, **parameters):
    """How many rows there are, in a process of its own; None: it cannot be opened."""
    parent, child = os.pipe()
    process = os.fork()
    if process == 0:
        os.environ.update(environment)
        rows = b""
        try:
            keep = load_extension()
            extra = "".join(f"&{name}={value}" for name, value in parameters.items())
            db = sqlite3.connect(f"file:{url}?vfs=hyperwal&timeout=20000{extra}", uri=True)
            rows = b"%d" % db.execute("SELECT count(*) FROM t").fetchone()[0]
            db.close()
            keep.close()
        except sqlite3.Error:
            pass
        os.write(child, rows)
        os._exit(0)
    os.close(child)
    with os.fdopen(parent, "rb") as file:
        text = file.read()
    os.waitpid(process, 0)
    return int(text) if text else None


def remote_database_is_opened_from_the_server_that_is_known(dir):
    make("app.db")
    client, _ = someone(dir, "client")
    client["HYPERWAL_CACHE"] = os.path.join(dir, "cache")
    old, old_key = someone(dir, "old")
    new, new_key = someone(dir, "new")
    with server("app.db", environment=old) as primary:
        url = primary.urls["app.db"]
        check(open_through_the_vfs(url, client) == 100, "the known one")
        check(open_through_the_vfs(url, client, server=old_key) == 100, "the one that is named")
        check(open_through_the_vfs(url, client, server=new_key) is None, "another one is named")
        check(open_through_the_vfs(url, client, server="nonsense") is None, "no key")
    listen = re.sub(r"^hyper(://[^/]+)/.*", r"tcp\1", url)
    check(open_through_the_vfs(url, client) == 100, "out of reach")
    with server("app.db", listen=listen, environment=new):
        check(open_through_the_vfs(url, client) is None, "another one than the known one")
        check(open_through_the_vfs(url, client, server=new_key) == 100, "it is named")


def sockets_of_this_machine_are_not_written_down(dir):
    make("app.db")
    client, _ = someone(dir, "client")
    with server("app.db", listen=f"ipc://{os.path.join(dir, 'socket')}") as primary:
        run("status", primary.urls["app.db"], env=client)
    check(not os.path.exists(os.path.join(dir, "home-client", "known_servers")), "written")


def known_servers_that_cannot_be_believed_stop_everybody(dir):
    make("app.db")
    client, _ = someone(dir, "client")
    known = os.path.join(dir, "home-client", "known_servers")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("status", url, env=client)
        os.chmod(known, 0o666)
        error = run("status", url, code=1, env=client).stderr
        check("others may write it" in error, error)
        os.chmod(known, 0o600)
        with open(known, "a", encoding="utf-8") as file:
            file.write("nonsense\n")
        run("status", url, env=client)  # what it looks for comes before
        error = run("status", url.replace("127.0.0.1", "localhost"), code=2, env=client).stderr
        check("known_servers: line 2" in error, error)
        run("status", url, env={**client, "HYPERWAL_KNOWN_SERVERS": "/dev/null"})


def without_a_place_for_its_identity_nobody_begins(dir):
    """No home, a home that cannot be made, one that cannot be written: words, and no identity of zeros."""
    make("app.db")
    plain = {name: value for name, value in os.environ.items()
             if name not in ("HOME", "XDG_CONFIG_HOME") and not name.startswith("HYPERWAL_")}
    cases = [(plain, {}, "set HYPERWAL_IDENTITY or HOME"),
             ({**plain, "HOME": "/dev/null"}, {}, "HYPERWAL_IDENTITY=FILE")]
    if os.getuid() == 0:
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        os.chmod(dir, 0o755)
        if subprocess.run(["test", "-x", PROGRAM], check=False, **nobody).returncode == 0:
            cases.append(({**plain, "HOME": "/nonexistent"}, nobody, "HYPERWAL_IDENTITY=FILE"))
    with server("--allow", "any", "app.db") as primary:
        url = primary.urls["app.db"]
        for environment, who, words in cases:
            for verb in (("status", url), ("serve", "--listen", "tcp://127.0.0.1:0", "--allow", "any", "app.db")):
                began = time.monotonic()
                error = run(*verb, code=1, env=environment, **who).stderr
                check(words in error, environment.get("HOME"), verb, error)
                check(time.monotonic() - began < LONG / 6, "it was waited for", verb)
        nowhere = {"HOME": "", "XDG_CONFIG_HOME": "", "HYPERWAL_IDENTITY": ""}
        nowhere["HYPERWAL_CACHE"] = os.path.join(dir, "cache")
        check(open_through_the_vfs(url, nowhere) is None, "a remote database was opened")
    # Where it is named the servers that were met are not kept, and all is well.
    listen = ("--listen", "tcp://127.0.0.1:0", "--identity", "one", "--allow", "any", "--json", "app.db")
    process = subprocess.Popen([PROGRAM, "serve", *listen], env=plain, stdout=subprocess.PIPE, text=True)
    try:
        told = json.loads(process.stdout.readline())
        run("status", told["url"])
    finally:
        process.terminate()
        check(process.wait(timeout=LONG) == 0, "it ended with", process.returncode)
        process.stdout.close()


TESTS = (rights_depend_on_key_and_name, without_rules_this_machine_reads_and_no_other,
         users_own_file_is_found_without_an_option, who_follows_is_told_to_those_who_may_write,
         file_that_is_wrong_is_refused, right_that_is_taken_back_ends_what_used_it,
         reload_takes_the_keys_of_the_configuration_and_of_the_file,
         server_with_another_key_is_not_spoken_to,
         remote_database_is_opened_from_the_server_that_is_known, sockets_of_this_machine_are_not_written_down,
         known_servers_that_cannot_be_believed_stop_everybody,
         without_a_place_for_its_identity_nobody_begins)


def main(names):
    failed, start = False, os.getcwd()
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
            os.chdir(directory)
            try:
                test(directory)
                print(f"ok {test.__name__}", flush=True)
            except Skip as reason:
                print(f"skip {test.__name__}: {reason}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {error}", flush=True)
            finally:
                os.chdir(start)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
