/*
 * sim/sim.h - a simulated machine: one disk under both SQLite and the log
 *
 * A `struct sim` is a disk, a clock, memory shared between processes and a source of chance, all
 * driven by one seed.  Two doors lead to it: sim_env() for our own code, sim_vfs() for SQLite.  So
 * database, WAL, log and position files crash in the same instant, and the same seed gives the
 * same run (sim_trace_hash() tells).
 *
 *        SQLite ─▶ sim_vfs ─┐           ┌─ what readers see ("now")
 *                           ├─▶ disk ───┤
 *      hyperwal ─▶ sim_env ─┘           └─ what is durable + an ordered list of what is not yet
 *
 * The model of a file: durable bytes, and the writes and truncations since the last sync.  A sync
 * makes the list durable; a failed sync forgets it although readers still see the bytes, as Linux
 * does.  The model of a directory is the same with its names: a file that was created, renamed or
 * removed stays so only after sync_dir().
 *
 * A crash (sim_crash) keeps, drops or tears what was not synced, by mode and seed; everything open
 * is dead, locks and shared memory are gone, and the boot id is new.  A kill (sim_kill) ends
 * processes only: the page cache survives, their locks do not.  Calls on a dead handle fail with
 * EIO, and closing it works.
 *
 * One thread at a time.  The simulator takes its own memory from malloc, so that a failed hw_alloc
 * is never its own.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#include "env/env.h"

struct sim;

/* Seed 0: that of HYPERWAL_SEED in the environment, else 1.  Never NULL: no memory aborts. */
struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *sim);
/* An empty disk and a new seed under the same env and VFS, whose addresses others may keep. */
void sim_reset(struct sim *sim, uint64_t seed);

struct hw_env *sim_env(struct sim *sim);
sqlite3_vfs *sim_vfs(struct sim *sim); /* registered; its name is unique */

/* ------------------------------------------------------------------------------ the machine */

/* What the disk says of itself.  The start: 4096, true. */
void sim_set_sector_size(struct sim *sim, int size);
void sim_set_powersafe_overwrite(struct sim *sim, bool on);
/* Room for this many more bytes; UINT64_MAX (the start): enough. */
void sim_set_space(struct sim *sim, uint64_t bytes);
void sim_advance(struct sim *sim, uint64_t ns);
/* Somebody sets the clock of day: so far from where it would be (the start: 0). */
void sim_set_clock(struct sim *sim, int64_t offset_ms);
/* Called whenever somebody waits (wait_word, xSleep): the place to let others run. */
void sim_set_idle(struct sim *sim, void (*idle)(void *ctx), void *ctx);
/* What is opened, locked or mapped from now on belongs to this process, 0 (the start) to 15. */
void sim_set_process(struct sim *sim, unsigned process);

enum sim_crash_mode {
    SIM_KEEP,   /* everything written reached the disk */
    SIM_DROP,   /* nothing that was not synced did */
    SIM_RANDOM, /* each write did or did not; directory operations up to some point */
    SIM_TORN,   /* as RANDOM, and each 512-byte sector of a write did or did not */
    SIM_BYTES,  /* as RANDOM, and a write may end at any byte */
    SIM_CRASH_MODES
};
/* Power loss, and the machine is up again. */
void sim_crash(struct sim *sim, enum sim_crash_mode mode);
enum { SIM_ALL_PROCESSES = 16 };
/* kill -9.  Close what the dead left behind, here in the test, after this. */
void sim_kill(struct sim *sim, unsigned process);

/* ---------------------------------------------------------------------------------- faults */

enum sim_operation {
    SIM_OPEN = 1 << 0,
    SIM_READ = 1 << 1,
    SIM_WRITE = 1 << 2,
    SIM_SYNC = 1 << 3,
    SIM_TRUNCATE = 1 << 4,
    SIM_ALLOCATE = 1 << 5,
    SIM_STAT = 1 << 6,
    SIM_MAP = 1 << 7,
    SIM_RENAME = 1 << 8,
    SIM_REMOVE = 1 << 9,
    SIM_MAKE_DIR = 1 << 10,
    SIM_LIST = 1 << 11,
    SIM_SYNC_DIR = 1 << 12,
    SIM_LOCK = 1 << 13,   /* file and shared-memory locks: taking one */
    SIM_UNLOCK = 1 << 14, /* never fails, but a crash may come here */
    SIM_FILE_OPERATIONS = (1 << 13) - 1,
    SIM_ANY = (1 << 15) - 1,
};

enum sim_fault_kind {
    SIM_EIO = 1 << 0,
    SIM_ENOSPC = 1 << 1,
    SIM_EMFILE = 1 << 2,
    SIM_SHORT_READ = 1 << 3, /* the file seems to end early */
    SIM_BIT_FLIP = 1 << 4,   /* one bit of what is read */
    SIM_CRASH = 1 << 5,      /* everything fails from here on, until sim_crash() */
    SIM_KILL = 1 << 6,       /* the process that does this is dead from here on */
    SIM_ENOMEM = 1 << 7,     /* an allocation; not an operation of the disk */
};

struct sim_fault {
    enum sim_fault_kind kind;
    unsigned operations; /* that count; 0: all that this kind can hit */
    const char *path;    /* only files whose path contains this; NULL: all; borrowed */
    uint64_t at;         /* the n-th of them, from 1 */
    bool for_ever;       /* and all after it */
};

void sim_set_fault(struct sim *sim, const struct sim_fault *fault); /* NULL: no fault any more */
bool sim_fault_was_reached(const struct sim *sim);
bool sim_has_crashed(const struct sim *sim); /* a SIM_CRASH was reached, sim_crash() is due */
/* A SIM_KILL hit this process, sim_kill() is due. */
bool sim_is_killed(const struct sim *sim, unsigned process);

/* ----------------------------------------------------------------------------- observation */

uint64_t sim_operation_count(const struct sim *sim);
uint64_t sim_count(const struct sim *sim, unsigned operations, const char *path_part);
uint64_t sim_trace_hash(const struct sim *sim);
unsigned sim_open_handles(const struct sim *sim);          /* of live processes */
bool sim_log_has(const struct sim *sim, const char *text); /* in a line given to env->log */
/*
 * What was done against the contract of env.h: a database or -shm opened by a descriptor of our own
 * while this process has it open through SQLite.  NULL: nothing.
 */
const char *sim_violation(const struct sim *sim);

/* The bytes that readers see; for tests that look or tamper.  NULL: no such file. */
const uint8_t *sim_file_bytes(struct sim *sim, const char *path, size_t *size);
bool sim_file_exists(struct sim *sim, const char *path);
/* Durable at once.  Makes the file if it is missing (its directory must exist). */
void sim_file_put(struct sim *sim, const char *path, const void *bytes, size_t size);
void sim_file_truncate(struct sim *sim, const char *path, size_t size);
void sim_file_flip(struct sim *sim, const char *path, size_t offset, uint8_t mask);
void sim_file_remove(struct sim *sim, const char *path);
/* As utimensat() does: the time of the last write, which who restores an old file sets back. */
void sim_file_set_modified(struct sim *sim, const char *path, int64_t ns);

/* -------------------------------------------------------------------------------- scenarios */

/*
 * prepare (no fault), run (with the fault at its n-th operation), then, after a crash if that was
 * the fault, check (no fault); for n = 1, 2, ... until no fault is reached, for each kind.  run()
 * must bear any failure, and close what it opened; check() asserts.  A run that fails names the
 * fault, n and the seed at the end of the program.  HYPERWAL_STRIDE in the environment multiplies
 * the stride, for builds in which everything costs more.
 */
struct sim_scenario {
    unsigned faults;                             /* of enum sim_fault_kind */
    unsigned operations;                         /* 0: all */
    const char *path;                            /* as in struct sim_fault */
    unsigned crash_modes;                        /* bits 1 << mode; 0: all */
    uint64_t seed;                               /* 0: as sim_new() */
    uint64_t stride;                             /* every so many-th operation only; 0: every one */
    bool for_ever;                               /* faults stay (but for SIM_CRASH and SIM_KILL) */
    void (*prepare)(struct sim *sim, void *ctx); /* may be NULL */
    void (*run)(struct sim *sim, void *ctx);
    void (*check)(struct sim *sim, void *ctx);
    void *ctx;
};
/* How many runs there were, or would have been without HYPERWAL_STRIDE (about). */
uint64_t sim_for_each_fault(struct sim *sim, const struct sim_scenario *scenario);

/* ----------------------------------------------------------------------------------- oracle */

/*
 * Hash of schema and rows, read through SQL, within the transaction that is open if one is; false:
 * an error, whose text is in `message`.
 */
bool sim_fingerprint(sqlite3 *db, uint64_t *hash, char message[256]);
/* Open `path` with the VFS of this name read-write and run integrity_check. */
bool sim_integrity_ok(const char *vfs_name, const char *path, char message[256]);

#endif
