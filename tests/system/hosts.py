"""Several hosts on one machine, with a network between them that delays, loses and is cut.

    with Network(seed=1) as network:
        one, two = network.host(), network.host()
        network.way(one, two, delay_ms=20, loss=0.01)
        with one:                                  # this thread is on the host `one`
            subprocess.Popen([...])                # and so is what it starts

A host is a network namespace with one TUN device; behind the devices is the wire, a process that
moves packets between them:

    host one ── tun ──▶ wire: dropped? ──▶ queue of one ──▶ tun ── host two
                                           to two, in order,
                                           due after the delay

Namespaces without a name live as long as somebody has them open, and devices as long as the wire:
nothing is left behind however the test ends.  What a cut drops, it drops without a word, as a
cable does; no side learns of it.  Where connections are reset, both sides of who sends something
learn at once, as from a firewall; and a host whose link is down knows that itself.  Needs root or a kernel that lets users make namespaces, and
/dev/net/tun; unavailable() says what is missing.  The kernel need not have netem.
"""

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import time

CLONE_NEWNET, CLONE_NEWUSER, PR_SET_PDEATHSIG = 0x40000000, 0x10000000, 1
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFTXQLEN = 0x8914, 0x8916, 0x891C, 0x8943
IFF_UP, IFF_RUNNING = 1, 0x40
TCP_RST, TCP_ACK = 4, 16
PACKETS_A_TURN = 64  # of one host, before the others have theirs

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def namespace_of_thread():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def become_root_of_our_own():
    """Without privileges: a user namespace, and a network of it to which we may come back."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"),
                       ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def unavailable():
    """None, or why there can be no hosts here.  To be called first, while there is one thread."""
    try:
        if os.geteuid() != 0:
            become_root_of_our_own()
        with Network():
            return None
    except OSError as error:
        return f"no hosts of our own here ({error})"


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def reset_packet(source, destination, ports, sequence, acknowledged):
    """A TCP segment that ends the connection; `acknowledged`: None, or what it acknowledges."""
    flags = TCP_RST if acknowledged is None else TCP_RST | TCP_ACK
    fields = [*ports, sequence, acknowledged or 0, 5 << 12 | flags, 0, 0, 0]
    around = source + destination + struct.pack("!HH", socket.IPPROTO_TCP, 20)
    fields[6] = checksum(around + struct.pack("!HHIIHHHH", *fields))
    header = [0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0, source, destination]
    header[7] = checksum(struct.pack("!BBHHHBBH4s4s", *header))
    return struct.pack("!BBHHHBBH4s4s", *header) + struct.pack("!HHIIHHHH", *fields)


def resets_for(packet):
    """What its sender and its receiver get instead of it: (address, packet) each."""
    source, destination, start = packet[12:16], packet[16:20], (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_TCP:
        return
    here, there, sequence, acknowledged, flags = struct.unpack("!HHIIH", packet[start:start + 14])
    if flags & TCP_RST:
        return
    if flags & TCP_ACK:
        yield source, reset_packet(destination, source, (there, here), acknowledged, None)
        yield destination, reset_packet(source, destination, (here, there), sequence, acknowledged)
    else:
        yield source, reset_packet(destination, source, (there, here), 0, sequence + 1 & 0xFFFFFFFF)


class Host:
    def __init__(self, number):
        self.address = f"10.77.0.{number}"
        self.packed = socket.inet_aton(self.address)
        self.outside = []
        before = namespace_of_thread()
        try:
            call("unshare", CLONE_NEWNET)
            self.namespace = namespace_of_thread()
            self.device = self.make_device()
        finally:
            call("setns", before, CLONE_NEWNET)
            os.close(before)

    def make_device(self):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            def set(request, name, *value):
                fcntl.ioctl(control, request, struct.pack("16s", name) + b"".join(value).ljust(24, b"\0"))

            up = struct.pack("H", IFF_UP | IFF_RUNNING)
            set(SIOCSIFFLAGS, b"lo", up)
            with contextlib.suppress(PermissionError):  # the machine's root alone may; 500 will do
                set(SIOCSIFTXQLEN, b"wire", struct.pack("i", 4000))
            for request, address in ((SIOCSIFADDR, self.packed), (SIOCSIFNETMASK, b"\xff\xff\xff\0")):
                set(request, b"wire", struct.pack("HH4s", socket.AF_INET, 0, address))
            set(SIOCSIFFLAGS, b"wire", up)
        return device

    def link(self, is_up):
        """Its own device is taken down, or up again."""
        with self, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            flags = struct.pack("16sH22x", b"wire", IFF_UP | IFF_RUNNING if is_up else 0)
            fcntl.ioctl(control, SIOCSIFFLAGS, flags)

    def __enter__(self):
        self.outside.append(namespace_of_thread())
        call("setns", self.namespace, CLONE_NEWNET)
        return self

    def __exit__(self, *_):
        before = self.outside.pop()
        call("setns", before, CLONE_NEWNET)
        os.close(before)


class Way:
    """From one host to another; times in seconds, the rate in bytes a second (0: no limit)."""

    def __init__(self, device):
        self.device = device
        self.delay, self.loss, self.rate, self.queue_max = 0.0, 0.0, 0.0, 0
        self.is_cut = self.is_reset = False
        self.packets = collections.deque()  # (due, packet), in order
        self.queued = self.carried = 0      # bytes
        self.free = 0.0                     # when the rate lets the next one begin

    def put(self, packet, now, chance):
        if self.is_cut or (self.loss and chance.random() < self.loss):
            return
        begin = now
        if self.rate:
            if self.queued > self.queue_max:
                return
            begin = self.free = max(now, self.free) + len(packet) / self.rate
        self.packets.append((begin + self.delay, packet))
        self.queued += len(packet)

    def deliver(self, now):
        while self.packets and self.packets[0][0] <= now:
            packet = self.packets.popleft()[1]
            self.queued -= len(packet)
            if self.is_cut:
                continue
            self.carried += len(packet)
            try:
                os.write(self.device, packet)
            except OSError:
                pass  # its host is gone, or has no room: so the packet is lost


class Wire:
    """The process in the middle.  `devices`: of each address."""

    def __init__(self, devices, control, seed):
        self.devices, self.control, self.chance = devices, control, random.Random(seed)
        self.ways = {one + two: Way(devices[two]) for one in devices for two in devices if one != two}

    def obey(self):
        """A request is one object; each has one answer.  False: nobody asks any more."""
        data = self.control.recv(65536)
        if not data:
            return False
        request = json.loads(data)
        way = self.ways[bytes.fromhex(request.pop("way"))]
        vars(way).update(request)
        self.control.send(json.dumps({"carried": way.carried}).encode())
        return True

    def take(self, device):
        for _ in range(PACKETS_A_TURN):
            try:
                packet = os.read(device, 65536)
            except OSError:
                return
            way = self.ways.get(packet[12:20])  # source and destination; others are IPv6 or strangers
            if way is None or packet[0] >> 4 != 4:
                continue
            if way.is_reset and not way.is_cut:
                self.reset(packet)
            else:
                way.put(packet, time.monotonic(), self.chance)

    def reset(self, packet):
        for address, answer in resets_for(packet):
            with contextlib.suppress(OSError):  # its link is down
                os.write(self.devices[address], answer)

    def run(self):
        inputs = [self.control, *self.devices.values()]
        while True:
            now = time.monotonic()
            due = [way.packets[0][0] for way in self.ways.values() if way.packets]
            ready, _, _ = select.select(inputs, [], [], max(min(due) - now, 0) if due else None)
            for one in ready:
                if one is not self.control:
                    self.take(one)
                elif not self.obey():
                    return
            now = time.monotonic()
            for way in self.ways.values():
                way.deliver(now)


class Network:
    """Hosts are made first; the wire starts with the first call that needs it."""

    def __init__(self, hosts=2, seed=1):
        self.hosts = []
        try:
            for number in range(1, hosts + 1):
                self.hosts.append(Host(number))
        except OSError:
            self.close_hosts()
            raise
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.process = os.fork()
        if self.process == 0:
            self.control.close()
            self.be_the_wire(theirs, parent, seed)
        theirs.close()

    def be_the_wire(self, control, parent, seed):
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                Wire({host.packed: host.device for host in self.hosts}, control, seed).run()
        finally:
            os._exit(0)

    def ask(self, one, two, **values):
        self.control.send(json.dumps({"way": (one.packed + two.packed).hex(), **values}).encode())
        answer = self.control.recv(65536)
        if not answer:
            raise OSError("the wire has ended")
        return json.loads(answer)

    def way(self, one, two, delay_ms=0, loss=0, rate=0):
        """Both ways alike; a link with a rate has a queue of 50 ms, or 64 KiB."""
        for here, there in ((one, two), (two, one)):
            self.ask(here, there, delay=delay_ms / 1000, loss=loss, rate=rate,
                     queue_max=max(rate * 0.05, 65536))

    def all_ways(self, **values):
        for i, one in enumerate(self.hosts):
            for two in self.hosts[:i]:
                self.way(one, two, **values)

    def cut_way(self, one, two, is_cut=True):
        """What `one` sends to `two`; not what comes back."""
        self.ask(one, two, is_cut=is_cut)

    def reset(self, one, two, is_reset=True):
        self.ask(one, two, is_reset=is_reset)
        self.ask(two, one, is_reset=is_reset)

    def cut_between(self, one, two, is_cut=True):
        self.ask(one, two, is_cut=is_cut)
        self.ask(two, one, is_cut=is_cut)

    def cut(self, host, is_cut=True):
        """Nothing comes from this host or gets there, until heal()."""
        for other in self.hosts:
            if other is not host:
                self.cut_between(host, other, is_cut)

    def heal(self, host):
        self.cut(host, False)

    def carried(self, one, two):
        """Bytes that were delivered, with their headers."""
        return self.ask(one, two)["carried"]

    def close_hosts(self):
        for host in self.hosts:
            os.close(host.namespace)
            os.close(host.device)
        self.hosts = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.control.close()  # the wire ends with it
        os.waitpid(self.process, 0)
        self.close_hosts()
