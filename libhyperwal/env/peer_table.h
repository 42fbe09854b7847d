/*
 * env/peer_table.h - who follows a log and how far, for all processes of the machine
 *
 * One file `peers` in the log's directory, mapped by the processes that serve the log (they write),
 * by connections that wait for followers, and by who shows the status.  It is never synced, and
 * made anew after a boot.  A follower has one row, known by its id: when it comes back, by another
 * server perhaps, it gets its old row, so that nobody counts it twice.
 *
 *   byte 0     magic, version, boot id, count of rows ever used, fork of the log
 *     4096     256 rows of 256 bytes:
 *              sequence | id 16 | key 32 | address 64 | server's process id | flags | length |
 *              received | durable | applied | since | left | server | writer
 *
 * Lengths, not seqs: a length covers all blocks below it.  Acknowledged lengths of one row never go
 * back while the log's fork stays.  A row's sequence number is odd while it is written; `writer` is
 * who writes it: a server, or who has `peers` locked.  A reader waits for no writer that was
 * stopped; a writer takes the row from one that was killed, and from no other.
 *
 * A server is known by a number of its own, and the file `peers.NUMBER` that it has locked as long
 * as it lives: without that lock its rows are of followers that are not connected.  Rows change
 * their owner only under the lock of `peers`.
 *
 * Threads: all functions may be called from any thread, but open and close of one table.
 */
#ifndef HW_ENV_PEER_TABLE_H
#define HW_ENV_PEER_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "env/env.h"

enum { HW_PEER_ROWS = 256, HW_PEER_ADDRESS_SIZE = 64 };

struct hw_peer_row {
    uint8_t id[16];  /* of the follower: hash of its identity key and its replica's id */
    uint8_t key[32]; /* its identity key */
    char address[HW_PEER_ADDRESS_SIZE];
    uint32_t process_id; /* of the server it is connected to; 0: it is not connected */
    bool counts;         /* may its acknowledgements confirm a commit? */
    uint64_t length;     /* of its log */
    uint64_t received, durable, applied; /* lengths */
    int64_t since_ms;                    /* connected, 1970 */
};

struct hw_peer_table;
/*
 * `create`: as hw_shared_page_open().  Rows of servers that died since are told as not connected
 * from now on.
 */
enum hw_status hw_peer_table_open(struct hw_env *env, const char *dir, bool create,
                                  struct hw_peer_table **out, struct hw_error *err) HW_MUST_CHECK;
/* The followers of the rows that it claimed are not connected any more.  NULL does nothing. */
void hw_peer_table_close(struct hw_peer_table *table);
/*
 * The row of this follower, or a free one, or that of a follower that left longest ago; it holds
 * *row then, with what the follower had acknowledged before.  HW_ELIMIT: all are connected;
 * HW_ETIMEOUT: somebody who writes it does not go on.
 */
enum hw_status hw_peer_table_claim(struct hw_peer_table *table, const struct hw_peer_row *row,
                                   unsigned *index, struct hw_error *err) HW_MUST_CHECK;
/*
 * The row that was claimed is like this now.  If another server claimed it since, only what is
 * acknowledged counts.  False: it is not this follower's any more, or somebody who writes it does
 * not go on: claim one again.
 */
bool hw_peer_table_set(struct hw_peer_table *table, unsigned index, const struct hw_peer_row *row);
/* False: the row is empty. */
bool hw_peer_table_get(struct hw_peer_table *table, unsigned index, struct hw_peer_row *out);
/* Look which servers died: their followers are not connected. */
void hw_peer_table_bury(struct hw_peer_table *table);
/* Followers that count and have confirmed at least `length` blocks: durable, or applied. */
unsigned hw_peer_table_confirmed(struct hw_peer_table *table, uint64_t length, bool applied);
/*
 * Who writes the log says which fork it is: lengths of another one mean nothing, rows are emptied.
 * HW_ETIMEOUT: somebody who writes the table does not go on.  After a failure nobody may rely on
 * what is confirmed until it was tried again.
 */
enum hw_status hw_peer_table_set_fork(struct hw_peer_table *table, uint64_t fork,
                                      struct hw_error *err) HW_MUST_CHECK;
/*
 * And, as it begins, how long it is: what a follower confirmed beyond that is of a log that was
 * lost since; what it has in the place of blocks to come is not ours, and its row is emptied.
 */
enum hw_status hw_peer_table_set_length(struct hw_peer_table *table, uint64_t length,
                                        struct hw_error *err) HW_MUST_CHECK;

#endif
