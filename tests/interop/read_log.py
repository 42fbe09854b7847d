#!/usr/bin/python3
"""A reader of log directories that shares no code with the project: it is docs/FORMAT.md in Python.

    tests/interop/read_log.py DIR [OUT]     checks the log in DIR; writes its newest state to OUT

Prints an object of JSON.  Standard library, and libzstd, libsodium and libxxhash through ctypes.
Nothing in DIR is changed; nobody may write to it meanwhile.
"""
import ctypes
import hashlib
import json
import os
import re
import struct
import sys

GENESIS, TRANSACTION, GROUP, SNAPSHOT, LABEL, GAP, SWITCH = range(1, 8)
PART, COMMIT, KEPT = 1, 2, 3
STARTS, ENDS, ORIGIN = 1, 2, 4
GROUP_PAGES = 64
LOCK_BYTE = 0x40000000

SODIUM = ctypes.CDLL("libsodium.so.23")
XXHASH = ctypes.CDLL("libxxhash.so.0")
XXHASH.XXH3_64bits.restype = ctypes.c_uint64
XXHASH.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
ZSTD = ctypes.CDLL("libzstd.so.1")
ZSTD.ZSTD_createDCtx.restype = ctypes.c_void_p
ZSTD.ZSTD_DCtx_refPrefix.restype = ctypes.c_size_t
ZSTD.ZSTD_DCtx_refPrefix.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
ZSTD.ZSTD_decompressDCtx.restype = ctypes.c_size_t
ZSTD.ZSTD_decompressDCtx.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
                                     ctypes.c_char_p, ctypes.c_size_t]
ZSTD.ZSTD_getFrameContentSize.restype = ctypes.c_uint64
ZSTD.ZSTD_getFrameContentSize.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


class Bad(Exception):
    """The bytes are not what docs/FORMAT.md says."""


def check(condition, *facts):
    if not condition:
        raise Bad("; ".join(str(fact) for fact in facts))


class Cursor:
    """Reads fields of `data` from `at`; beyond the end is Bad."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def left(self):
        return len(self.data) - self.at

    def bytes(self, size):
        check(size <= self.left(), f"{size} bytes wanted at {self.at}, {self.left()} are left")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.bytes(size), "little")

    def uint(self):
        first = self.number(1)
        if first < 253:
            return first
        value = self.number(2 << first - 253)
        check(value > {253: 252, 254: 0xFFFF, 255: 0xFFFFFFFF}[first], "uint is not the shortest")
        return value

    def zigzag(self):
        value = self.uint()
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def hash32(*parts, key=b""):
    return hashlib.blake2b(b"".join(parts), digest_size=32, key=key).digest()


def expand(frame, size, prefix=b""):
    """The content of one zstd frame that was made with `prefix`."""
    check(ZSTD.ZSTD_getFrameContentSize(frame, len(frame)) == size, "zstd frame of another size")
    check(frame[4] & 4, "zstd frame without checksum")
    context, out = ctypes.c_void_p(ZSTD.ZSTD_createDCtx()), ctypes.create_string_buffer(size)
    if prefix:
        ZSTD.ZSTD_DCtx_refPrefix(context, prefix, len(prefix))
    done = ZSTD.ZSTD_decompressDCtx(context, out, size, frame, len(frame))
    ZSTD.ZSTD_freeDCtx(context)
    check(done == size, "zstd frame does not expand")
    return out.raw


# ------------------------------------------------------------------------------- the hash tree

TREE_NAMESPACE = bytes.fromhex("9fac70b50ca14efc4e91c833b204e75b8b5aad8b5881bfc0adb5ef38a3275b9c")
MANIFEST_NAMESPACE = bytes.fromhex(
    "e64b7108eacce47cfc61ac850568f55f8b15b82ec5ed78c4ec597b036e2a1498")


def le64(value):
    return struct.pack("<Q", value)


class Roots:
    """The roots of a log: (index, size, hash) each."""

    def __init__(self):
        self.length, self.byte_length, self.nodes = 0, 0, []

    def push(self, leaf, size):
        """Add a block's leaf hash; the nodes made above it, as (index, size, hash)."""
        index, made = 2 * self.length, []
        self.length, self.byte_length = self.length + 1, self.byte_length + size
        stride = 2
        while self.nodes and self.nodes[-1][0] == index - stride and index & stride:
            left_index, left_size, left = self.nodes.pop()
            index, size = (left_index + index) // 2, left_size + size
            leaf = hash32(b"\x01", le64(size), left, leaf)
            made.append((index, size, leaf))
            stride *= 2
        self.nodes.append((index, size, leaf))
        return made

    def hash(self):
        return hash32(b"\x02", *(node + le64(index) + le64(size)
                                 for index, size, node in self.nodes))


# ---------------------------------------------------------------------------- the log directory

class Log:
    """The files of a directory, checked: blocks (None: pruned), notes, key."""

    def __init__(self, directory):
        self.directory = directory
        self.blocks, self.note, self.fork = [], b"", 0
        self.commits, self.parents = 0, {}
        self.read_log_file()
        self.read_tree_file()
        self.read_segments()
        self.check_slots()

    def file(self, name):
        with open(os.path.join(self.directory, name), "rb") as file:
            return file.read()

    def read_log_file(self):
        data = self.file("log")
        check(data[:8] == b"hwlogf1\n", "log: magic")
        check(hash32(data[:-8])[:8] == data[-8:], "log: checksum")
        version, manifest_size = struct.unpack_from("<II", data, 8)
        check(version == 1, f"log: version {version}")
        self.machine = data[16:32]
        self.device, self.inode, self.first_kept = struct.unpack_from("<QQQ", data, 32)
        self.key, manifest = data[56:88], data[88:-8]
        check(len(manifest) == manifest_size, "log: manifest_size")
        check(hash32(MANIFEST_NAMESPACE, manifest) == self.key, "log: key of the manifest")
        cursor = Cursor(manifest)
        fields = [cursor.uint() for _ in range(6)]
        check(fields == [1, 0, 0, 1, 1, 0], "log: manifest", fields)
        cursor.bytes(32)  # the signer's namespace
        self.public_key = cursor.bytes(32)
        check(cursor.left() == 0, "log: bytes after the manifest")
        self.discovery_key = hash32(b"hypercore", key=self.key)

    def read_tree_file(self):
        """Slots below `length` of the header, which are durable; those after it are hints."""
        data = self.file("tree")
        check(data[:8] == b"hwtree1\n", "tree: magic")
        check(hash32(data[:72])[:8] == data[72:80], "tree: checksum")
        self.tree_length, = struct.unpack_from("<Q", data, 8)
        self.tree_next = struct.unpack_from("<IQ", data, 16)
        self.tree_hash = data[28:60]
        check(data[60:72] == bytes(12), "tree: zeros")
        self.slots = []
        for at in range(80, len(data) - 79, 80):
            slot = data[at:at + 80]
            self.slots.append({"leaf": slot[:32], "parent": slot[32:64],
                               "end": int.from_bytes(slot[64:70], "little"),
                               "segment": int.from_bytes(slot[70:74], "little"),
                               "offset": int.from_bytes(slot[74:80], "little"),
                               "pruned": slot[79] == 255})
        check(len(self.slots) >= self.tree_length, "tree: shorter than its header says")

    def segments(self):
        """(number, generation, name), in the order of the blocks."""
        found = []
        for name in os.listdir(self.directory):
            match = re.fullmatch(r"(\d{8})(?:\.([1-9]\d*))?\.seg", name)
            if match:
                found.append((int(match.group(1)), int(match.group(2) or 0), name))
        return sorted(found)

    def read_segments(self):
        """Walk the segments; keep what is whole, and check tree and signatures on the way."""
        self.kept, self.places, appended = {}, {}, []
        for number, generation, name in self.segments():
            data = self.file(name)
            identity = number + (generation << 24)
            header = self.segment_header(name, data, identity)
            if generation == 0:
                appended.append((number, header, data, name))
            else:
                self.read_kept(identity, header, data, name)
        roots = Roots()
        for i, (number, header, data, name) in enumerate(appended):
            last = i + 1 == len(appended)
            roots = self.fill_pruned(roots, header["first"], name)
            check(roots.hash() == header["tree_hash"], f"{name}: tree_hash")
            check(roots.byte_length == header["start"], f"{name}: start")
            roots = self.walk(number, header, data, name, roots, last)
            self.fork = header["fork"]
        self.roots = roots
        for index, block in self.kept.items():
            if self.blocks[index] is None:
                self.blocks[index] = block

    def segment_header(self, name, data, identity):
        check(data[:8] == b"hwsegm1\n", f"{name}: magic")
        check(hash32(data[:96])[:8] == data[96:104], f"{name}: checksum of the header")
        version, own = struct.unpack_from("<II", data, 8)
        check((version, own) == (1, identity), f"{name}: version, identity", version, own)
        check(data[72:80] == self.discovery_key[:8], f"{name}: discovery key")
        first, start, fork = struct.unpack_from("<QQQ", data, 16)
        return {"first": first, "start": start, "fork": fork, "tree_hash": data[40:72],
                "chain": data[96:104]}

    @staticmethod
    def record(data, at, chain):
        """The record at `at`, or None if none that is whole is there."""
        if at + 4 > len(data):
            return None
        size, = struct.unpack_from("<I", data, at)
        if not 13 < size <= min(16 << 20, len(data) - at):
            return None
        try:
            cursor = Cursor(data[at:at + size - 8], 4)
            record = {"kind": cursor.number(1), "first": cursor.uint(), "start": cursor.uint()}
            data_size, count = cursor.uint(), cursor.uint()
            if record["kind"] not in (PART, COMMIT, KEPT) or count > 65536:
                return None
            head = data[at:at + cursor.at]
            content, behind = cursor.bytes(data_size), cursor.at
            sizes = [cursor.uint() for _ in range(count - 1)]
            if sum(sizes) > data_size or (count == 0 and data_size):
                return None
            if count:
                sizes.append(data_size - sum(sizes))
            if record["kind"] == COMMIT:
                record["note"] = cursor.bytes(cursor.uint())
                record["signature"] = cursor.bytes(64)
            if cursor.left():
                return None
        except Bad:
            return None
        blocks, begin = [], 0
        for block_size in sizes:
            blocks.append(content[begin:begin + block_size])
            begin += block_size
        record["blocks"] = blocks
        record["leaves"] = [hash32(b"\x00", le64(len(block)), block) for block in blocks]
        tail = data[at + behind:at + size - 8]
        record["chain"] = hash32(chain, head, *record["leaves"], tail)[:8]
        record["end"] = at + size
        return record if record["chain"] == data[at + size - 8:at + size] else None

    def read_kept(self, identity, header, data, name):
        at, chain, below = 104, header["chain"], -1
        while at < len(data):
            record = self.record(data, at, chain)
            check(record and record["kind"] == KEPT, f"{name}: record at {at}")
            check(record["first"] > below, f"{name}: kept records do not ascend")
            for i, block in enumerate(record["blocks"]):
                index = record["first"] + i
                check(self.slots[index]["leaf"] == record["leaves"][i], f"block {index}: leaf")
                self.kept[index], self.places[index] = block, (identity, at)
            at, chain, below = record["end"], record["chain"], record["first"]

    def fill_pruned(self, roots, first, name):
        """The blocks whose segment is gone: their leaves are in `tree`."""
        while roots.length < first:
            check(roots.length < len(self.slots), f"{name}: block {roots.length} is nowhere")
            slot = self.slots[roots.length]
            roots.push(slot["leaf"], slot["end"] - roots.byte_length)
            self.blocks.append(None)
        check(roots.length == first, f"{name}: first")
        return roots

    def walk(self, number, header, data, name, roots, last):
        """The batches of one segment; what follows the last commit is not in the log."""
        at, chain, batch = 104, header["chain"], []
        committed = 0
        while True:
            record = self.record(data, at, chain)
            if record is None:
                break
            check(record["first"] == roots.length + sum(len(r["blocks"]) for r, _ in batch),
                  f"{name}: first of the record at {at}")
            batch.append((record, at))
            if record["kind"] == COMMIT:
                self.commit(number, header, name, roots, batch)
                batch, committed = [], committed + 1
            at, chain = record["end"], record["chain"]
        check(committed > 0, f"{name}: begins without a commit")
        check(last or not batch, f"{name}: ends within a batch")
        return roots

    def commit(self, number, header, name, roots, batch):
        for record, at in batch:
            check(record["start"] == roots.byte_length, f"{name}: start of the record at {at}")
            for block, leaf in zip(record["blocks"], record["leaves"]):
                index = roots.length
                made = roots.push(leaf, len(block))
                self.blocks.append(block)
                self.check_slot(index, leaf, made, roots.byte_length, number, at)
        record = batch[-1][0]
        self.note = record["note"]
        self.commits += 1
        message = (TREE_NAMESPACE + self.key + roots.hash() + le64(roots.length)
                   + le64(header["fork"]))
        check(SODIUM.crypto_sign_verify_detached(
            record["signature"], message, ctypes.c_ulonglong(len(message)),
            self.public_key) == 0, f"{name}: signature at length {roots.length}")
        if roots.length == self.tree_length:
            check(roots.hash() == self.tree_hash, "tree: tree_hash")

    def check_slot(self, index, leaf, made, end, number, at):
        for node, _, value in made:
            self.parents[node // 2] = value
            if node // 2 < len(self.slots):
                found = self.slots[node // 2]["parent"]
                check(found == value or (found == bytes(32) and index >= self.tree_length),
                      f"tree: node {node}")
        if index >= self.tree_length:
            return
        slot = self.slots[index]
        check(slot["leaf"] == leaf and slot["end"] == end, f"tree: slot {index}")
        if not slot["pruned"]:
            check((slot["segment"], slot["offset"]) in ((number, at), self.places.get(index)),
                  f"tree: place of {index}")

    def check_slots(self):
        for index in range(len(self.blocks), len(self.slots)):
            check(self.slots[index]["leaf"] == bytes(32), f"block {index} was durable and is gone")
        check(len(self.blocks) >= self.tree_length, "the log is shorter than tree says")
        for index, block in enumerate(self.blocks):
            if index < self.tree_length:
                gone = self.slots[index]["pruned"]
                check(gone or block is not None, f"block {index} is lost")
                if gone:
                    self.blocks[index] = None
                check(index in self.parents or self.slots[index]["parent"] == bytes(32)
                      or None in self.blocks, f"tree: node {2 * index + 1}")


# --------------------------------------------------------------------------------- entries

class Header:
    """The header of a block, and a cursor at its body."""

    def __init__(self, block, seq):
        self.body = cursor = Cursor(block)
        self.seq = seq
        self.type, self.flags, self.time_ms = cursor.number(1), cursor.number(1), cursor.number(6)
        check(GENESIS <= self.type <= SWITCH, f"block {seq}: type {self.type}")
        check(self.flags & ~7 == 0, f"block {seq}: flags {self.flags}")
        snapshot, label = cursor.uint(), cursor.uint()
        check(max(snapshot, label) <= seq, f"block {seq}: points before the log")
        self.snapshot = seq - snapshot if snapshot else None
        self.label = seq - label if label else None
        self.origin = cursor.bytes(24) if self.flags & ORIGIN else None
        check(self.origin is None or (self.type == TRANSACTION and self.flags & STARTS),
              f"block {seq}: an origin of what is no transaction")
        if self.type not in (TRANSACTION, SNAPSHOT):
            check(self.flags == STARTS | ENDS, f"block {seq}: an entry of one block")

    def end(self):
        check(self.body.left() == 0, f"block {self.seq}: bytes after the body")


class Reader:
    """Decodes the blocks of a log in order and keeps what is needed to rebuild its newest state."""

    def __init__(self, blocks):
        self.transactions, self.groups, self.snapshots = [], {}, {}
        self.labels, self.gaps, self.switches, self.ended = {}, [], [], False
        self.genesis, self.newest_snapshot, newest_label = None, None, None
        self.last_state = None  # (seq, page_count, sum)
        time_ms, open_entry, pending = 0, None, None
        for seq, block in enumerate(blocks):
            if block is None:
                open_entry, pending = None, None
                continue
            header = Header(block, seq)
            check(not self.ended, f"block {seq}: after the end of the log")
            whole = seq == 0 or blocks[seq - 1] is not None
            check(header.time_ms >= time_ms, f"block {seq}: time goes back")
            check(not whole or bool(header.flags & STARTS) == (open_entry is None),
                  f"block {seq}: flags")
            check(open_entry in (None, header.type), f"block {seq}: another type in an entry")
            check(None in blocks or (header.snapshot, header.label)
                  == (self.newest_snapshot, newest_label), f"block {seq}: snapshot, label",
                  header.snapshot, header.label, self.newest_snapshot, newest_label)
            time_ms = header.time_ms
            open_entry = None if header.flags & ENDS else header.type
            if header.flags & STARTS:
                pending = []
            if header.type == SNAPSHOT:
                pending = self.index_block(header, pending)
            elif header.type == LABEL:
                newest_label = seq
                self.label(header)
            else:
                {GENESIS: self.read_genesis, TRANSACTION: self.transaction, GROUP: self.group,
                 GAP: self.gap, SWITCH: self.switch}[header.type](header)
            header.end()
        check(open_entry is None, "the log ends within an entry")

    def state(self, header, page_count, total):
        self.last_state = (header.seq, page_count, total)

    def read_genesis(self, header):
        body = header.body
        check(header.seq == 0 and body.bytes(8) == b"hyperwal", "genesis")
        check(body.uint() == 1, "genesis: version")
        self.genesis = {"page_size": body.uint(), "database_id": body.bytes(16).hex(),
                        "page_count": body.uint(), "sum": body.number(8)}
        size = self.genesis["page_size"]
        check(512 <= size <= 65536 and size & (size - 1) == 0, f"genesis: page size {size}")
        self.state(header, self.genesis["page_count"], self.genesis["sum"])

    def transaction(self, header):
        body = header.body
        part = {"seq": header.seq, "ends": bool(header.flags & ENDS), "page_count": body.uint(),
                "before": body.number(8), "after": body.number(8), "pages": []}
        number = 0
        for _ in range(body.uint()):
            step = body.uint()
            number += step >> 1
            check(step >> 1 > 0, f"block {header.seq}: pages do not ascend")
            check(number <= part["page_count"], f"block {header.seq}: page {number}")
            part["pages"].append((number, bool(step & 1)))
        part["frame"] = body.bytes(body.left())
        check(bool(part["frame"]) == bool(part["pages"]), f"block {header.seq}: frame")
        self.transactions.append(part)
        if part["ends"]:
            self.state(header, part["page_count"], part["after"])

    def group(self, header):
        body = header.body
        group, count, back = body.uint(), body.uint(), body.uint()
        check(1 <= count <= GROUP_PAGES and 1 <= back <= header.seq, f"block {header.seq}: group")
        self.groups[header.seq] = (group, count, header.seq - back, body.bytes(body.left()))

    def index_block(self, header, pending):
        body, seq = header.body, header.seq
        fields = {"page_size": body.uint(), "page_count": body.uint(), "sum": body.number(8)}
        fields["least"], fields["greatest"] = seq - body.uint(), seq - body.uint()
        group_count, first = body.uint(), body.uint()
        if header.flags & STARTS:
            pending = {"first_block": seq, **fields, "groups": []}
        check(pending["page_count"] == fields["page_count"]
              and pending["greatest"] == fields["greatest"], f"block {seq}: blocks of two indexes")
        check(first == len(pending["groups"]), f"block {seq}: first_group")
        block = base = seq
        for i in range(body.uint()):
            block, base = block + body.zigzag(), base + body.zigzag()
            check(block < seq and fields["least"] <= base <= fields["greatest"],
                  f"block {seq}: group {first + i}")
            pending["groups"].append((block, base))
        if header.flags & ENDS:
            check(len(pending["groups"]) == group_count, f"block {seq}: group_count")
            self.snapshots[pending["first_block"]] = pending
            self.newest_snapshot = pending["first_block"]
        return pending

    def text(self, body, least):
        size = body.uint()
        check(least <= size <= 200, f"a text of {size} bytes")
        return body.bytes(size)

    def label(self, header):
        name = self.text(header.body, 1)
        check(0 not in name, f"block {header.seq}: name")
        self.labels[name.decode("utf-8", "replace")] = self.last_state and self.last_state[0]

    def gap(self, header):
        body = header.body
        gap = {"seq": header.seq, "from_sum": body.number(8), "to_sum": body.number(8)}
        gap["from_page_count"], gap["to_page_count"] = body.uint(), body.uint()
        gap["reason"] = self.text(body, 0).decode()
        self.gaps.append(gap)
        self.state(header, gap["to_page_count"], gap["to_sum"])

    def switch(self, header):
        body = header.body
        role, key = body.uint(), body.bytes(32)
        switch = {"role": role, "key": key.hex(), "fork": body.uint(), "seq": body.uint(),
                  "page_count": body.uint(), "sum": body.number(8)}
        check(role in (0, 1), f"block {header.seq}: role of a switch")
        check(role == 1 or header.seq == 1, f"block {header.seq}: the switch is not block 1")
        check(self.last_state is None or
              self.last_state[1:] == (switch["page_count"], switch["sum"]),
              f"block {header.seq}: the switch is not at the state before it")
        check(role == 0 or self.last_state is None or self.last_state[0] == switch["seq"],
              f"block {header.seq}: seq of the switch")
        self.switches.append(switch)
        self.ended = role == 1


class State:
    """Pages of a database while it is rebuilt."""

    def __init__(self, page_size):
        self.page_size, self.pages = page_size, {}
        self.lock_page = LOCK_BYTE // page_size + 1

    def page(self, number):
        return self.pages.get(number, bytes(self.page_size))

    def sum(self, page_count):
        total = 0
        for number in range(1, page_count + 1):
            if number != self.lock_page:
                data = struct.pack("<I", number) + self.page(number)
                total ^= XXHASH.XXH3_64bits(data, len(data))
        return total

    def cut(self, page_count):
        for number in [n for n in self.pages if n > page_count]:
            del self.pages[number]

    def lay_group(self, group, count, frame):
        data = expand(frame, count * self.page_size)
        for i in range(count):
            self.pages[group * GROUP_PAGES + 1 + i] = data[i * self.page_size:][:self.page_size]

    def apply(self, part, is_skipped):
        """One block of a transaction."""
        check(len(part["pages"]) * self.page_size <= 4 << 20, f"block {part['seq']}: too large")
        prefix = []
        for number, has_previous in part["pages"]:
            if has_previous:
                check(not is_skipped(number), f"block {part['seq']}: previous of a skipped page")
                prefix.append(self.page(number))
        if not part["pages"]:
            return
        data = expand(part["frame"], len(part["pages"]) * self.page_size, b"".join(prefix))
        for i, (number, _) in enumerate(part["pages"]):
            if not is_skipped(number):
                self.pages[number] = data[i * self.page_size:][:self.page_size]


def snapshot_for(reader):
    """The newest snapshot from which no gap is crossed; or the beginning."""
    gap = max((gap["seq"] for gap in reader.gaps), default=0)
    for seq in sorted(reader.snapshots, reverse=True):
        if reader.snapshots[seq]["least"] >= gap:
            return reader.snapshots[seq]
    check(gap == 0 and reader.genesis and reader.genesis["page_count"] == 0,
          "no snapshot leads to the newest state")
    return {"page_count": 0, "sum": 0, "least": 0, "greatest": 0, "groups": [],
            "page_size": reader.genesis["page_size"]}


def rebuild(reader, snapshot):
    """The newest state, every state sum from greatest_base on compared.  (State, page_count)"""
    state, bases = State(snapshot["page_size"]), {}
    for block, base in snapshot["groups"]:
        group, count, own_base, frame = reader.groups[block]
        check(own_base <= base, f"group {group}: base before its block's")
        state.lay_group(group, count, frame)
        bases[group] = base
    todo = [part for part in reader.transactions if part["seq"] > snapshot["least"]]
    for part in [p for p in todo if p["seq"] <= snapshot["greatest"]]:
        state.apply(part, lambda n, seq=part["seq"]: bases.get((n - 1) // GROUP_PAGES, -1) >= seq)
    page_count, total = snapshot["page_count"], snapshot["sum"]
    state.cut(page_count)
    check(state.sum(page_count) == total, "state sum of the snapshot")
    for part in [p for p in todo if p["seq"] > snapshot["greatest"]]:
        check(part["before"] == total, f"block {part['seq']}: sum_before")
        state.apply(part, lambda number: False)
        total = part["after"]
        if part["ends"]:
            page_count = part["page_count"]
            state.cut(page_count)
            check(state.sum(page_count) == total, f"block {part['seq']}: sum_after")
    return state, page_count


def main(directory, out=None):
    log = Log(directory)
    reader = Reader(log.blocks)
    seq, page_count, total = reader.last_state
    facts = {"key": log.key.hex(), "discovery_key": log.discovery_key.hex(), "fork": log.fork,
             "length": len(log.blocks), "byte_length": log.roots.byte_length,
             "tree_hash": log.roots.hash().hex(), "seq": seq, "pages": page_count,
             "sum": f"{total:016x}", "commits": log.commits, "labels": reader.labels,
             "gaps": len(reader.gaps), "switches": reader.switches,
             "snapshots": len(reader.snapshots),
             "pruned": sum(block is None for block in log.blocks), "note": log.note.hex()}
    if out is not None:
        state, count = rebuild(reader, snapshot_for(reader))
        check(count == page_count, "size of the newest state", count, page_count)
        with open(out, "wb") as file:
            for number in range(1, count + 1):
                file.write(state.page(number))
    return facts


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except Bad as error:
        sys.exit(f"read_log: {error}")
