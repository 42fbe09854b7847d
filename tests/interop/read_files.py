"""The files beside the log and beside a replica, as docs/FORMAT.md describes them; no project code.

Used by test_read_log.py.
"""
import struct

from read_log import Cursor, LOCK_BYTE, XXHASH, check

NOTHING = 2**64 - 1


def read_note(data):
    """The note of a commit; None where there is none."""
    if not data:
        return None
    cursor = Cursor(data)
    check(cursor.number(1) == 1, "note: version")
    note = {"salts": cursor.bytes(8), "checksum": (cursor.number(4), cursor.number(4)),
            "sum": cursor.number(8), "frame": cursor.uint(), "pages": cursor.uint()}
    newest = cursor.uint()
    for name in ("seq", "snapshot", "label"):
        back = cursor.uint()
        check(back <= newest + 1, f"note: {name}")
        note[name] = newest - (back - 1) if back else None
    for name in ("log_since", "raw_since", "snapshot_bytes", "time_ms"):
        note[name] = cursor.uint()
    check(cursor.left() == 0, "note: bytes left over")
    return note


def read_sums(data, page_count):
    """(seq, page size, state sum) that the file `sums` is of."""
    magic, version, page_size, zero, seq, zeros = struct.unpack_from("<IIIIQQ", data)
    check((magic, version, zero, zeros) == (0x53555348, 1, 0, 0), "sums: header")
    total = 0
    for number in range(1, page_count + 1):
        if number != LOCK_BYTE // page_size + 1:
            total ^= struct.unpack_from("<Q", data, 32 + (number - 1) * 8)[0]
    return seq, page_size, total


def read_position(data):
    """The file `position` of a log."""
    magic, version, checksum = struct.unpack_from("<IIQ", data)
    check((len(data), magic, version) == (1104, 0x534F5048, 1), "position: header")
    covered = struct.pack("<I", 1) + data[16:]
    check(XXHASH.XXH3_64bits(covered, len(covered)) == checksum, "position: checksum")
    clean, device, inode, size, modified, changed = struct.unpack_from("<B7xQQQqq", data, 32)
    return {"boot": data[16:32], "clean": bool(clean), "device": device, "inode": inode,
            "size": size, "modified_ns": modified, "changed_ns": changed,
            "path": data[80:].split(b"\0", 1)[0].decode()}


def read_shared(data):
    """What the words of `shared` that a reader needs say, once nobody writes them."""
    check(len(data) == 4096 and struct.unpack_from("<II", data) == (0x50535748, 4), "shared")
    names = ("news", "work", "idle", "urgent", "yield", "worker")
    fields = dict(zip(names, struct.unpack_from("<6I", data, 64)))
    names = ("durable_length", "wanted_length", "applied_seq", "committed")
    fields.update(zip(names, struct.unpack_from("<4Q", data, 88)))
    for i, name in enumerate(("position", "door", "round", "synced", "gap_before",
                              "gap_after")):
        at = 120 + 56 * i
        generation, = struct.unpack_from("<Q", data, at)
        slot = at + 8 + 24 * (generation % 2)
        fields[name] = (data[slot:slot + 8], *struct.unpack_from("<QQ", data, slot + 8))
    fields["alarm"] = data[516:772].split(b"\0", 1)[0].decode()
    return fields


def wal_checksum(data, one, two):
    for first, second in struct.iter_unpack("<II", data):
        one = one + first + two & 0xFFFFFFFF
        two = two + second + one & 0xFFFFFFFF
    return one, two


def slot_checks(slot):
    return wal_checksum(slot[:56], 0x68777270, 1) == struct.unpack_from("<II", slot, 56)


def read_replica(data):
    """The key that the file `replica` names, and the source."""
    lines = data.decode().split("\n")
    rest = [line.split(" ")[0] for line in lines[3:]]
    check(lines[0] == f"hyperwal replica {2 if 'base' in rest else 1}" and lines[1].startswith("key ")
          and lines[2].startswith("source ")
          and rest in ([""], ["fork", ""], ["base", ""], ["fork", "base", ""]), "replica", lines)
    return lines[1][4:], lines[2][7:]


def read_ring(data):
    """The records of a replica's `position`, oldest first."""
    check(len(data) == 4097 * 64 and data[:8] == b"hwrplpos" and slot_checks(data[:64]), "ring")
    check(struct.unpack_from("<II", data, 8) == (1, 4096), "ring: version, records")
    records = []
    for at in range(64, len(data), 64):
        slot = data[at:at + 64]
        if not slot_checks(slot):
            continue
        ordinal, seq, total = struct.unpack_from("<QQQ", slot)
        check(64 * (1 + (ordinal - 1) % 4096) == at, f"ring: record {ordinal} is at {at}")
        frame, one, two, pages, flags, boot = struct.unpack_from("<6I", slot, 32)  # flags: and epoch
        records.append({"ordinal": ordinal, "seq": seq, "sum": total, "salts": slot[24:32],
                        "frame": frame, "checksum": (one, two), "pages": pages,
                        "closed": bool(flags & 1), "boot": boot})
    return sorted(records, key=lambda record: record["ordinal"])
