/*
 * sim/random_world.h - a random scenario over the simulated disk, and the oracle that judges it
 *
 * Several processes work on one database, /app.db, and its log: two that write through the shim,
 * one with stock SQLite, a follower that applies the log to /replica.db, another that fills a
 * mirror and applies that to /copy.db.  A seed decides what each does next, when the machine or a
 * process dies, and what of the disk survives.
 *
 *      process 0, 1   connections through the shim; a worker is in one of them
 *      process 2      stock SQLite on the database and the replicas
 *      process 3      follower of the log
 *      process 4      mirror of the log, and follower of the mirror
 *
 * The oracle is a database in memory that gets every transaction which SQLite acknowledged, and
 * the fingerprint after each.  What it says of a state after a crash:
 *
 *      states   0 ........... floor ........... count   (count + 1)
 *                             │                 │        └ was under way: there or not
 *                             │                 └ newest that was acknowledged
 *                             └ newest that may not be lost: synced by SQLite, or in the log
 *
 * Nothing asserts: the first thing wrong is kept in `failure`, and the scenario ends.
 */
#ifndef SIM_RANDOM_WORLD_H
#define SIM_RANDOM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"

enum {
    RANDOM_CONNECTIONS = 6,
    RANDOM_STATES = 256,
    RANDOM_PROCESSES = 5,
    RANDOM_SHIM_PROCESSES = 2,
    RANDOM_FOREIGN = 2,
    RANDOM_FOLLOWER = 3,
    RANDOM_MIRROR = 4,
};

enum { RANDOM_OFF, RANDOM_NORMAL, RANDOM_FULL, RANDOM_MIXED };

struct random_connection {
    sqlite3 *db; /* owned; NULL: closed */
    unsigned process;
    bool is_local;   /* durability=local: an acknowledged commit is in the log */
    bool is_full;    /* synchronous=FULL: an acknowledged commit is durable */
    bool is_reading; /* has a read transaction open, at the state of `seen` */
    uint64_t seen;   /* fingerprint */
};

struct random_state {
    char *sql; /* owned: the transaction that leads here */
    uint64_t fingerprint;
    uint64_t seq; /* in the log, if it is known; else UINT64_MAX */
};

struct random_totals {
    uint64_t scenarios, crashes, kills, commits, checks, restores, operations, gaps, busy;
};

struct random_replica {         /* one that follows */
    struct hw_core *log;        /* owned: the log of the primary, for reading */
    struct hw_core *mirror;     /* owned: for writing; NULL: it follows the log itself */
    struct hw_core *read;       /* owned: the mirror for reading */
    struct hw_replica *replica; /* owned */
};

struct random_world {
    struct sim *sim;
    uint64_t seed, chance;
    /*
     * Borrowed until random_run_choices() returns: what random_chance() answers, instead of what
     * the seed makes of it.  Beyond the end every answer is 0, which lets a scenario end soon.
     */
    const uint8_t *choices, *choices_end;
    struct random_totals totals; /* over all scenarios */
    char failure[640];           /* empty: nothing is wrong */

    /* What the seed chose once. */
    unsigned page_size, auto_vacuum;
    unsigned synchronous; /* RANDOM_OFF... */
    bool has_foreign;     /* stock SQLite writes, too */
    /*
     * Transactions take back what they spilled.  SQLite 3.40.1, after it wrote a spilled frame anew
     * and took it back to before that one, gives the next frames no checksum: recovery stops there,
     * and may even find older frames above newer pages.  So then nobody dies, and it is over when
     * all have closed and the WAL is still there.
     */
    bool has_savepoints;

    struct random_connection connections[RANDOM_CONNECTIONS];
    struct hw_capture *captures[RANDOM_SHIM_PROCESSES]; /* borrowed from the connections */
    struct random_replica replicas[RANDOM_PROCESSES];   /* of RANDOM_FOLLOWER and RANDOM_MIRROR */
    unsigned process;                                   /* that acts now */

    sqlite3 *oracle; /* owned */
    struct random_state states[RANDOM_STATES];
    unsigned count;        /* states[count] is the newest acknowledged; 0 is the empty database */
    unsigned floor;        /* see the picture */
    unsigned durable;      /* the same, but for what only the log saves */
    char *pending;         /* owned: the transaction under way when its process died */
    unsigned acknowledged; /* of `count`, while the last one may be there or not: */
    bool has_unsettled;
    /*
     * A transaction whose process died between its commit frame and the wal-index: nobody saw it,
     * and it is there when the index is made anew, unless somebody has written since.
     */
    uint64_t ghost;      /* fingerprint of the state after it; 0: none */
    unsigned next_value; /* for rows and names that differ */

    uint64_t announced;     /* greatest durable length that was seen */
    uint64_t pruned_below;  /* seqs that were given up, maybe */
    uint64_t mirror_synced; /* length that a mirror said is durable */
    uint64_t fork;          /* of the log */
    bool may_have_gaps;     /* a stranger checkpointed, or emptied the WAL */
    bool lost_power;        /* since the last check */
    bool is_over;           /* nobody writes any more */
    bool is_doubtful;       /* nor does anybody look: what is there is not for us to judge */
};

/* ---------------------------------------------------------------------------- random_world.c */

uint64_t random_chance(struct random_world *w, uint64_t bound); /* 0 to bound - 1 */
void random_fail(struct random_world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void random_act_as(struct random_world *w, unsigned process);
/* Somebody is dead: the machine, or a process, which then is as good as closed. */
bool random_is_down(struct random_world *w);
/* A connection of `process`, or NULL: it could not be opened, or there is no room. */
struct random_connection *random_open(struct random_world *w, unsigned process);
void random_close(struct random_world *w, struct random_connection *connection);
void random_close_process(struct random_world *w, unsigned process);
struct random_connection *random_pick(struct random_world *w, bool of_shim);
/* Arm a death within the next `within` operations: of the machine, or of whoever acts then. */
void random_arm(struct random_world *w, bool power, uint64_t within);
/*
 * Bury who died: close what they had, and start the machine again if it lost power.  True: it did,
 * and all is closed.
 */
bool random_bury(struct random_world *w);
/* Something is wrong, or cannot be told. */
bool random_has_ended(const struct random_world *w);
void random_reset(struct random_world *w, uint64_t seed);

/* ------------------------------------------------------------------------- random_scenario.c */

/* False: the shims could not be registered.  To be released in either case. */
bool random_init(struct random_world *w);
void random_release(struct random_world *w);
/* A whole scenario, as `seed` wants it; then w->failure says what went wrong, if anything did. */
void random_run(struct random_world *w, uint64_t seed);
/* The same, but the choices are read from bytes, and nothing else decides. */
void random_run_choices(struct random_world *w, const uint8_t *choices, size_t size);

/* ----------------------------------------------------------------------------- random_work.c */

void random_oracle_open(struct random_world *w);
void random_oracle_close(struct random_world *w);
/* The transaction belongs to the history from now on. */
void random_acknowledge(struct random_world *w, const char *sql);
/* History ends with states[index]: what came after was lost, as it may be. */
void random_forget_after(struct random_world *w, unsigned index);
/* Functions and settings that every connection needs. */
void random_prepare(struct random_world *w, sqlite3 *db);
void random_commit(struct random_world *w, struct random_connection *connection);
void random_checkpoint(struct random_world *w, struct random_connection *connection);
/* A read transaction begins, or one ends and must have seen one state only. */
void random_read(struct random_world *w, struct random_connection *connection);
/* Wait until all is logged, note where. */
void random_wait_logged(struct random_world *w, struct random_connection *connection);
void random_label(struct random_world *w, struct random_connection *connection);
void random_snapshot(struct random_world *w, struct random_connection *connection);
void random_prune(struct random_world *w);
void random_note_length(struct random_world *w);

/* ---------------------------------------------------------------------------- random_check.c */

/* Which state is this?  The newest with this fingerprint that may be; -1: none. */
int random_find_state(struct random_world *w, uint64_t fingerprint, unsigned floor);
/* A process died within a transaction, others live: is it there? */
void random_settle(struct random_world *w);
/* All is closed and nothing fails: do database, log and promises agree? */
void random_check(struct random_world *w);
/* Replace a file by some state of the log; dying in it, too. */
void random_restore(struct random_world *w);
/* Every state that was logged is restored, or was given up. */
void random_check_restore(struct random_world *w);

/* --------------------------------------------------------------------------- random_follow.c */

void random_follow(struct random_world *w, unsigned process);
/* Follow to the head, and compare with the primary page by page. */
void random_check_follower(struct random_world *w, unsigned process);
void random_follow_close(struct random_world *w, unsigned process);

#endif
