#!/usr/bin/env python3
"""Each rule of tidy.py finds what it is for, and finds nothing in clean sources."""
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import tidy  # noqa: E402

HEAD = "/* A file. */\n"
CLEAN = {
    "libhyperwal/base/alloc.h": HEAD + "#ifndef HW_BASE_ALLOC_H\n#define HW_BASE_ALLOC_H\n"
                                       "void *hw_alloc(unsigned long size);\n#endif\n",
    "libhyperwal/wal/wal.h": HEAD + "#ifndef HW_WAL_WAL_H\n#define HW_WAL_WAL_H\n#endif\n",
    "libhyperwal/wal/index.h": HEAD + "#ifndef HW_WAL_INDEX_H\n#define HW_WAL_INDEX_H\n#endif\n",
    "libhyperwal/wal/scan.c": HEAD + '#include "base/alloc.h"\n#include "wal/index.h"\n'
                                     "/* hw_alloc() may fail, malloc() is not called. */\n"
                                     'static int f(void)\n{\n    return ops->read("open(x)");\n}\n',
    "libhyperwal/entry/entry.h": HEAD + "#ifndef HW_ENTRY_ENTRY_H\n#define HW_ENTRY_ENTRY_H\n"
                                        "int hw_label_decode(struct hw_cursor *cursor);\n#endif\n",
    "tests/fuzz/fuzz_label.c": HEAD + "int f(void)\n{\n    return hw_label_decode(0);\n}\n",
    "replicator/main.c": HEAD + '#include <hyperwal.h>\nint main(void)\n{\n    return 0;\n}\n',
}
BODY = "static int f(void)\n{\n%s}\n"

# rule, file, what is added to it
CASES = {
    "an include of a higher layer is found":
        ("layers", "libhyperwal/wal/scan.c", '#include "capture/capture.h"\n'),
    "an include of another layer's private header is found":
        ("layers", "libhyperwal/capture/a.c", HEAD + '#include "wal/index.h"\n'),
    "a library outside its module is found":
        ("layers", "libhyperwal/wal/scan.c", "#include <sodium.h>\n"),
    "the program's use of the inside is found":
        ("layers", "replicator/main.c", '#include "wal/wal.h"\n'),
    "a bare malloc is found": ("banned", "libhyperwal/wal/scan.c", BODY % "    p = malloc(3);\n"),
    "a bare open is found": ("banned", "libhyperwal/wal/scan.c", BODY % "    return open(p);\n"),
    "a printf in the library is found": ("banned", "libhyperwal/wal/scan.c", BODY % "printf(p);\n"),
    "a strcat is found anywhere": ("banned", "replicator/main.c", BODY % "    strcat(a, b);\n"),
    "a descriptor for a -shm is found":
        ("descriptors", "libhyperwal/wal/scan.c", BODY % "    env->ops->open(env, shm_path, 1);\n"),
    "a long function is found": ("sizes", "libhyperwal/wal/scan.c", BODY % ("    x();\n" * 70)),
    "a long file is found": ("sizes", "libhyperwal/wal/scan.c", "int x;\n" * 801),
    "a long line is found": ("sizes", "libhyperwal/wal/scan.c", "/* " + "x" * 100 + " */\n"),
    "a tab is found": ("blanks", "libhyperwal/wal/scan.c", "int\tx;\n"),
    "a trailing blank is found": ("blanks", "libhyperwal/wal/scan.c", "int x; \n"),
    "work left for later is found":
        ("promises", "libhyperwal/wal/scan.c", "/* TO" "DO: more */\n"),
    "a name that does not exist is found":
        ("names_in_comments", "libhyperwal/wal/scan.c", "/* see hw_wal_gone() */\n"),
    "a wrong guard is found":
        ("guards", "libhyperwal/wal/b.h", HEAD + "#ifndef X_H\n#define X_H\n#endif\n"),
    "a missing head is found": ("heads", "libhyperwal/wal/c.c", "int x;\n"),
    "a decoder that is not fuzzed is found":
        ("fuzzed", "libhyperwal/wal/wal.h", "int hw_frame_decode(struct hw_cursor *cursor);\n"),
}


def make_tree(root):
    for path, text in CLEAN.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(text)
    os.makedirs(os.path.join(root, "tests/lint"))
    shutil.copy(os.path.join(HERE, "layers.txt"), os.path.join(root, "tests/lint/layers.txt"))


def run(name, rule, path, added):
    with tempfile.TemporaryDirectory() as root:
        make_tree(root)
        if path:
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "a", encoding="utf-8") as file:
                file.write(added)
        found = {key for key, problems in tidy.check(root).items() if problems}
    expected = {rule} if rule else set()
    if found == expected:
        print(f"ok {name}")
        return True
    print(f"not ok {name}: found {sorted(found)}")
    return False


def main():
    done = [run("clean sources pass", None, None, None)]
    done += [run(name, *case) for name, case in CASES.items()]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
