#!/usr/bin/python3
"""A WebSocket listener among many clients.  One line a test (docs/TESTING.md)."""
import contextlib
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
UPGRADE = (b"GET /log HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def upgrade_all(connections):
    for connection in connections:
        with contextlib.suppress(OSError):  # it may be gone already
            connection.sendall(UPGRADE)


def url_of(server):
    ready, _, _ = select.select([server.stdout], [], [], 60)
    check(ready, "serve says nothing")
    return server.stdout.readline().split()[2]


def a_server_ends_while_clients_are_being_upgraded(rounds=5, count=300):
    with contextlib.closing(sqlite3.connect("app.db")) as db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("CREATE TABLE t(a)")
        db.commit()
    for i in range(rounds):
        with subprocess.Popen([PROGRAM, "serve", "--listen", "ws://127.0.0.1:0/log", "app.db"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True) as server, contextlib.ExitStack() as stack:
            stack.callback(server.kill)
            port = int(url_of(server).split(":")[2].split("/")[0])
            connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
                           for _ in range(count)]
            upgrade_all(connections[:i * count // rounds])
            server.send_signal(signal.SIGTERM)
            upgrade_all(connections[i * count // rounds:])
            code = server.wait(timeout=60)
            check(code == 0, f"round {i}: ended with {code}")


def main():
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
        test = a_server_ends_while_clients_are_being_upgraded
        try:
            test()
            print(f"ok {test.__name__}", flush=True)
            return 0
        except Exception as error:  # told of, whatever it is
            traceback.print_exc(file=sys.stdout)
            print(f"not ok {test.__name__}: {str(error)!r}", flush=True)
            return 1
        finally:
            os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
