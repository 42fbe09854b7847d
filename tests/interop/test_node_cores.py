#!/usr/bin/python3
"""Logs of plain blocks between peer_tool and Node: both ways, live, sparse, cut, cleared, truncated.

One line a test (docs/TESTING.md).  Names given as arguments run only those tests.
"""
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers import Node, Proxy, Tool, check, main  # noqa: E402


def same(left, right, length):
    """Both have all blocks, and the same ones."""
    check(len(left) == length and len(right) == length, len(left), len(right), length)
    for i, pair in enumerate(zip(left, right)):
        check(pair[0] == pair[1] and pair[0] is not None, f"block {i}", pair)


def same_tree(tool, name, node, other):
    stat, tree = tool.call("stat", name), node.call("tree", name=other)["hash"]
    check(stat["tree"] == tree, stat, tree)


def node_follows_a_log_live_and_has_every_block():
    with Tool("c") as tool, Node("js") as node:
        key = tool.log("a", (3000, 300))
        node.call("open", name="a", key=key)
        node.call("connect", port=tool.listen())
        node.call("whole", name="a", length=3000)
        for i in range(1, 21):
            length = tool.call("append", "a", 1 + i % 3, 2000)["length"]
            node.call("whole", name="a", length=length)
        same(tool.hashes("a"), node.hashes("a"), length)
        same_tree(tool, "a", node, "a")


def node_gets_single_blocks_and_downloads_no_other():
    with Tool("c") as tool, Node("js") as node:
        key = tool.log("a", (2000, 300))
        node.call("open", name="a", key=key, sparse=True)
        node.call("connect", port=tool.listen())
        check(node.call("update", name="a")["length"] == 2000)
        for index in (0, 1999, 1023, 1024, 77):
            got = node.call("get", name="a", index=index)
            check(got["hash"] == tool.call("get", "a", index)["hash"], index)
        check(node.call("stat", name="a")["downloaded"] == 5, node.call("stat", name="a"))
        offset = node.call("stat", name="a")["byteLength"] // 2
        found = node.call("seek", name="a", offset=offset)
        check(0 < found["index"] < 2000, found)


def node_gets_blocks_while_more_are_appended():
    with Tool("c") as tool, Node("js") as node:
        key = tool.log("a", (500, 300))
        node.call("open", name="a", key=key, sparse=True)
        node.call("connect", port=tool.listen())
        node.call("update", name="a")
        asked = {}
        for i in range(200):
            index = random.randrange(500)
            asked[node.start("get", name="a", index=index)] = index
            if i % 4 == 0:
                tool.call("append", "a", 3, 500)
        for number, index in asked.items():
            answer = node.answer(number)
            check("error" not in answer, answer)
            check(answer["hash"] == tool.call("get", "a", index)["hash"], index)


def a_log_made_by_node_is_mirrored_live():
    for compat in (False, True):
        with Tool(f"c{compat}") as tool, Node(f"js{compat}") as node:
            key = node.call("make", name="a", compat=compat)["key"]
            node.call("append", name="a", count=2000, size=200)
            tool.mirror("a", key, node.listen())
            tool.call("whole", "a", 2000)
            for i in range(20):
                length = node.call("append", name="a", count=1 + i % 3, size=1000)["length"]
                tool.call("whole", "a", length)
            same(tool.hashes("a"), node.hashes("a"), length)
            same_tree(tool, "a", node, "a")


def a_mirror_takes_single_blocks_of_node():
    with Tool("c") as tool, Node("js") as node:
        key = node.call("make", name="a")["key"]
        node.call("append", name="a", count=3000, size=100)
        tool.mirror("a", key, node.listen(), "sparse")
        tool.call("wait", "a", 3000)
        hashes = node.hashes("a")
        for index in (0, 2999, 2048, 1111):
            check(tool.call("get", "a", index)["hash"] == hashes[index], index)
        held = [i for i, value in enumerate(tool.hashes("a")) if value is not None]
        check(held == [0, 1111, 2048, 2999], held)


def a_mirror_of_node_feeds_a_follower_that_sees_no_other():
    with Tool("primary") as primary, Node("js") as node, Tool("follower") as follower:
        key = primary.log("a", (1500, 300))
        node.call("open", name="a", key=key)
        node.call("connect", port=primary.listen())
        follower.mirror("a", key, node.listen())
        follower.call("whole", "a", 1500)
        for _ in range(10):
            length = primary.call("append", "a", 2, 1000)["length"]
            follower.call("whole", "a", length)
        same(primary.hashes("a"), follower.hashes("a"), length)


def a_mirror_of_ours_feeds_node_after_its_source_is_gone():
    with Tool("mirror") as mirror, Node("js") as node:
        with Tool("primary") as primary:
            key = primary.log("a", (1500, 300))
            mirror.mirror("a", key, primary.listen())
            mirror.call("whole", "a", 1500)
            hashes = primary.hashes("a")
        mirror.call("serve", "a")
        node.call("open", name="a", key=key)
        node.call("connect", port=mirror.listen())
        node.call("whole", name="a", length=1500)
        same(hashes, node.hashes("a"), 1500)


def blocks_of_megabytes_cross_both_ways():
    with Tool("c") as tool, Node("js") as node:
        key = tool.log("a", (2, "=5000000"), (1, "=15728640"), (3, 100))
        node.call("open", name="a", key=key)
        node.call("connect", port=tool.listen())
        node.call("whole", name="a", length=6)
        same(tool.hashes("a"), node.hashes("a"), 6)
        key = node.call("make", name="b")["key"]
        node.call("append", name="b", count=3, size=5000000)
        node.call("append", name="b", count=1, size=15 << 20)
        tool.mirror("b", key, node.listen())
        tool.call("whole", "b", 4)
        same(tool.hashes("b"), node.hashes("b"), 4)


def growing(count, most):
    """Cut the first `count` connections after some bytes, at first few."""
    limits = [random.randrange(1, 50 + most * i // count) for i in range(count)]
    return lambda n: limits[n] if n < count else None


def node_resumes_however_often_it_is_cut():
    with Tool("c") as tool, Node("js") as node:
        key = tool.log("a", (2000, 300))
        with Proxy(tool.listen(), growing(40, 60000)) as proxy:
            node.call("open", name="a", key=key)
            whole = node.start("whole", name="a", length=2000)
            while whole not in node.answers:
                node.call("connect", port=proxy.port)
                while whole not in node.answers and node.pump().get("event") != "disconnected":
                    pass
            node.answer(whole)
            check(proxy.connections > 20, proxy.connections)
        same(tool.hashes("a"), node.hashes("a"), 2000)


def a_mirror_resumes_however_often_it_is_cut():
    with Tool("c") as tool, Node("js") as node:
        key = node.call("make", name="a")["key"]
        node.call("append", name="a", count=2000, size=300)
        with Proxy(node.listen(), growing(12, 100000)) as proxy:
            tool.mirror("a", key, proxy.port)
            tool.call("whole", "a", 2000)
            check(proxy.connections > 5, proxy.connections)
        same(tool.hashes("a"), node.hashes("a"), 2000)


def several_logs_share_one_connection():
    with Tool("c") as tool, Node("js") as node:
        names = [f"log{i}" for i in range(5)]
        keys = [tool.log(name, (200 * (i + 1), 300)) for i, name in enumerate(names)]
        for name, key in zip(names, keys):
            node.call("open", name=name, key=key)
        node.call("connect", port=tool.listen())
        for i, name in enumerate(names):
            node.call("whole", name=name, length=200 * (i + 1))
            same(tool.hashes(name), node.hashes(name), 200 * (i + 1))
        for i in range(4):  # the other way, over the same connection
            name = f"js{i}"
            key = node.call("make", name=name)["key"]
            node.call("append", name=name, count=300, size=100)
            tool.call("mirror", name, key, "all")
            tool.call("serve", name)
        node.call("drop")
        node.call("connect", port=tool.listen())
        for i in range(4):
            tool.call("whole", f"js{i}", 300)
            same(tool.hashes(f"js{i}"), node.hashes(f"js{i}"), 300)
        check(node.call("stat", name="js0")["connections"] == 1, node.call("stat", name="js0"))


def blocks_that_node_gave_up_are_not_waited_for():
    with Tool("c") as tool, Node("js") as node:
        key = node.call("make", name="a")["key"]
        node.call("append", name="a", count=128, size=100)
        node.call("clear", name="a", start=20, end=30)
        tool.mirror("a", key, node.listen(), "sparse")
        tool.call("wait", "a", 128)
        answer = tool.ask("get", "a", 25)
        check(answer.get("status") == "HW_EPRUNED", answer)
        hashes = node.hashes("a")
        check(tool.call("get", "a", 19)["hash"] == hashes[19])
        check(tool.call("get", "a", 70)["hash"] == hashes[70])
        node.call("clear", name="a", start=64, end=96)  # while it is connected
        answer = tool.ask("get", "a", 80)
        check(answer.get("status") == "HW_EPRUNED", answer)
        check(tool.call("get", "a", 70)["hash"] == hashes[70])  # held
        check(tool.call("get", "a", 100)["hash"] == hashes[100])


def a_log_that_node_truncated_is_followed_to_its_new_fork():
    with Tool("c") as tool, Node("js") as node:
        key = node.call("make", name="a")["key"]
        node.call("append", name="a", count=100, size=100)
        tool.mirror("a", key, node.listen())
        tool.call("whole", "a", 100)
        check(node.call("truncate", name="a", length=50)["fork"] == 1)
        node.call("append", name="a", count=100, size=333)
        tool.call("whole", "a", 150)
        stat = tool.call("stat", "a")
        check(stat["fork"] == 1 and stat["length"] == 150, stat)
        same(tool.hashes("a"), node.hashes("a"), 150)


def whom_we_dialed_does_not_get_our_other_logs():
    """That is for those who reach our listener, where everybody may read."""
    with Tool("c") as tool, Node("js") as node:
        mine = tool.log("mine", (50, 100))
        node.call("open", name="mine", key=mine)
        key = node.call("make", name="a")["key"]
        node.call("append", name="a", count=10, size=100)
        tool.mirror("a", key, node.listen())
        for length in (10, 20):  # the second one comes when all channels have been asked for
            tool.call("whole", "a", length)
            node.call("append", name="a", count=10, size=100)
        tool.call("whole", "a", 30)
        check(node.call("stat", name="mine")["length"] == 0, node.call("stat", name="mine"))
        node.call("connect", port=tool.listen())
        node.call("whole", name="mine", length=50)
        same(tool.hashes("mine"), node.hashes("mine"), 50)


TESTS = [
    node_follows_a_log_live_and_has_every_block,
    node_gets_single_blocks_and_downloads_no_other,
    node_gets_blocks_while_more_are_appended,
    a_log_made_by_node_is_mirrored_live,
    a_mirror_takes_single_blocks_of_node,
    a_mirror_of_node_feeds_a_follower_that_sees_no_other,
    a_mirror_of_ours_feeds_node_after_its_source_is_gone,
    blocks_of_megabytes_cross_both_ways,
    node_resumes_however_often_it_is_cut,
    a_mirror_resumes_however_often_it_is_cut,
    several_logs_share_one_connection,
    blocks_that_node_gave_up_are_not_waited_for,
    a_log_that_node_truncated_is_followed_to_its_new_fork,
    whom_we_dialed_does_not_get_our_other_logs,
]

if __name__ == "__main__":
    sys.exit(main(TESTS, sys.argv[1:]))
