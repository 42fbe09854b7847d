"""Peers of the interop tests: Node, peer_tool, and a proxy that cuts connections.

Node's packages are installed once, as node/package-lock.json pins them, beside the build folder.
"""
import fcntl
import hashlib
import json
import os
import queue
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
MODULES = os.path.join(os.path.dirname(BUILD), "interop-node")
DEADLINE = 90  # seconds; only a failure takes so long


class Skip(Exception):
    """This cannot be tested here."""


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def install():
    """Node with the packages of node/package.json, or Skip."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Skip("node or npm is not installed")
    pins = b""
    for name in ("package.json", "package-lock.json"):
        with open(os.path.join(HERE, "node", name), "rb") as file:
            pins += file.read()
    wanted = hashlib.sha256(pins).hexdigest()
    stamp = os.path.join(MODULES, "installed")
    os.makedirs(MODULES, exist_ok=True)
    with open(os.path.join(MODULES, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # suites may run at the same time
        if os.path.exists(stamp):
            with open(stamp, encoding="utf-8") as file:
                if file.read() == wanted:
                    return
        for name in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(HERE, "node", name), MODULES)
        try:
            done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                                  cwd=MODULES, capture_output=True, text=True, timeout=300,
                                  stdin=subprocess.DEVNULL, check=False)
            problem = done.stderr[-300:] if done.returncode else None
        except subprocess.TimeoutExpired:
            problem = "no answer in 300 s"
        if problem is not None:
            raise Skip("npm cannot install hypercore: " + " ".join(problem.split()))
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)


class Process:
    """A child that speaks lines of JSON; whatever it wrote to standard error is shown at a failure."""

    def __init__(self, command, **environment):
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.errors, text=True,
                                      env=dict(os.environ, **environment))
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def next(self):
        try:
            line = self.lines.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError(f"no answer: {self.told()}") from None
        check(line is not None, "the peer ended", self.told())
        return json.loads(line)

    def told(self):
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")[-1500:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()
        self.errors.close()


class Node(Process):
    def __init__(self, folder):
        super().__init__(["node", os.path.join(HERE, "node", "peer.js"), folder],
                         HW_NODE_MODULES=MODULES)
        self.events, self.count, self.answers = [], 0, {}
        while self.pump().get("event") != "ready":
            pass

    def pump(self):
        line = self.next()
        if "id" in line:
            self.answers[line["id"]] = line
        else:
            self.events.append(line)
            check(line["event"] != "verification-error", line)
            check(line["event"] != "conflict", line)
        return line

    def start(self, what, **arguments):
        self.count += 1
        self.send(json.dumps({"id": self.count, "do": what, **arguments}))
        return self.count

    def answer(self, number):
        while number not in self.answers:
            self.pump()
        return self.answers.pop(number)

    def call(self, what, **arguments):
        answer = self.answer(self.start(what, **arguments))
        check("error" not in answer, what, arguments, answer.get("error"))
        return answer

    def hashes(self, name):
        return self.call("hashes", name=name)["hashes"]

    def listen(self):
        return self.call("listen")["port"]


class Tool(Process):
    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        super().__init__([os.path.join(BUILD, "tests", "peer_tool"), folder])

    def ask(self, *words):
        self.send(" ".join(str(word) for word in words))
        return self.next()

    def call(self, *words):
        answer = self.ask(*words)
        check("error" not in answer, words, answer.get("error"), self.told())
        return answer

    def hashes(self, name):
        return self.call("hashes", name)["hashes"]

    def listen(self):
        """The port."""
        return int(self.call("listen", "tcp://127.0.0.1:0")["url"].rsplit(":", 1)[1])

    def log(self, name, *batches):
        """A log of our own, served; its key.  A batch is (count, size)."""
        key = self.call("make", name)["key"]
        for count, size in batches:
            self.call("append", name, count, size)
        self.call("serve", name)
        return key

    def mirror(self, name, key, port, what="all"):
        self.call("mirror", name, key, what, f"hyper://127.0.0.1:{port}/{key}")


class Proxy:
    """Passes bytes on to a port; each connection is cut after the number of bytes that `limit` says.

    limit(n) is asked for the n-th connection; None: not cut.
    """

    def __init__(self, port, limit):
        self.target, self.limit = port, limit
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        self.carried = 0  # bytes
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            state = {"left": self.limit(self.connections), "lock": threading.Lock()}
            self.connections += 1
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(source, sink, state),
                                 daemon=True).start()

    def carry(self, source, sink, state):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                with state["lock"]:
                    if state["left"] is not None:
                        data = data[:state["left"]]
                        state["left"] -= len(data)
                    self.carried += len(data)
                sink.sendall(data)
                if state["left"] == 0:
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def main(tests, names):
    """Run them, each in a folder of its own; one line a test."""
    failed = False
    try:
        install()
        reason = None
    except Skip as skip:
        reason = str(skip)
    start = os.getcwd()
    for test in tests:
        if names and test.__name__ not in names:
            continue
        if reason is not None:
            print(f"skip {test.__name__}: {reason}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            random.seed(test.__name__)
            try:
                test()
                print(f"ok {test.__name__}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {str(error)[:300]!r}", flush=True)
            finally:
                os.chdir(start)
    return 1 if failed else 0
