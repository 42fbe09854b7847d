/*
 * apply/lazy.h - a replica whose pages come when somebody reads them: the map, and the filling
 *
 * A lazy replica is a database file with holes.  What stands in a hole is known: the page in the
 * groups of one snapshot of the log.  Everything that entries changed after that snapshot is in the
 * file or in its WAL, so a hole never goes stale; it is filled by fetching the group's block.
 *
 *     log        [group][group][group]...[index] e e e e e │ e e e
 *                    ▼ when read                 ▼ at once │  ▼ followed
 *     db         ███░░░░░░░░█░░░░░░░███░░░░██░░░░░░░░░░░░░░   WAL
 *     present    one bit a page, shared by all processes
 *
 * The map is the file `present`: a header of 4096 bytes, then for each group 8 bytes (bit i: page
 * group*64 + i + 1 is in the file), then one bit a group: somebody waits for it, then one bit a
 * group: it cannot be had now.  docs/FORMAT.md has every byte.
 *
 * Invariants: 1. A bit is set after the page was written, and before the checkpoint that wrote it
 *                tells of it.  So a page with its bit is right, in this boot, whoever was killed.
 *             2. After a loss of power the map says nothing, unless it was closed in good order:
 *                file, WAL and map are made anew then, from blocks that the mirror has.
 *             3. A page that has no group (beyond the map) is never absent: entries brought it.
 *
 * Threads: all functions on a map from any thread and process; one process at a time fills.
 */
#ifndef HW_APPLY_LAZY_H
#define HW_APPLY_LAZY_H

#include "apply/apply.h"

/* ----------------------------------------------------------------------------------- the map */

struct hw_lazy_origin { /* where the holes are filled from */
    uint8_t key[HW_KEY_SIZE];
    uint64_t fork;      /* of the log */
    uint64_t index_seq; /* first index block of the snapshot; UINT64_MAX: none, nothing is absent */
    uint32_t page_size;
    uint32_t group_count;
};

struct hw_lazy_map;
/*
 * Map the file `path`.  HW_ENOTFOUND: there is none that can be trusted; its database is to be made
 * anew.
 */
enum hw_status hw_lazy_map_open(struct hw_env *env, const char *path, struct hw_lazy_map **out,
                                struct hw_error *err) HW_MUST_CHECK;
/* Make it anew: all pages of the groups are absent. */
enum hw_status hw_lazy_map_create(struct hw_env *env, const char *path,
                                  const struct hw_lazy_origin *origin, struct hw_lazy_map **out,
                                  struct hw_error *err) HW_MUST_CHECK;
void hw_lazy_map_close(struct hw_lazy_map *map); /* NULL does nothing */
struct hw_lazy_origin hw_lazy_map_origin(const struct hw_lazy_map *map);
/*
 * The one who fills, when it begins: the map is good in this boot alone.  Durable when this
 * returns.
 */
enum hw_status hw_lazy_map_begin(struct hw_lazy_map *map, struct hw_error *err) HW_MUST_CHECK;
/* And when it ends, with the database file and its WAL synced: good after the next boot as well. */
enum hw_status hw_lazy_map_end(struct hw_lazy_map *map, struct hw_error *err) HW_MUST_CHECK;
/* The database does not fit the log: no page may be read any more, by anybody. */
void hw_lazy_map_break(struct hw_lazy_map *map);
bool hw_lazy_map_is_broken(const struct hw_lazy_map *map);

bool hw_lazy_has(const struct hw_lazy_map *map, uint32_t page_number);
void hw_lazy_mark(struct hw_lazy_map *map, uint32_t page_number);
/* Pages above are given up: they come from entries, should there be such pages again. */
void hw_lazy_mark_above(struct hw_lazy_map *map, uint32_t page_count);
/* Bits of the group's pages. */
uint64_t hw_lazy_group(const struct hw_lazy_map *map, uint32_t group);
void hw_lazy_mark_group(struct hw_lazy_map *map, uint32_t group);
uint64_t hw_lazy_absent(const struct hw_lazy_map *map); /* pages; as of about now */

/* Somebody waits for the group.  True: nobody did before. */
bool hw_lazy_want(struct hw_lazy_map *map, uint32_t group);
void hw_lazy_unwant(struct hw_lazy_map *map, uint32_t group);
/* The first wanted one from `group` on; UINT32_MAX: none. */
uint32_t hw_lazy_next_wanted(const struct hw_lazy_map *map, uint32_t group);
/* The first one that is not whole. */
uint32_t hw_lazy_next_absent(const struct hw_lazy_map *map, uint32_t group);
/* It cannot be had now: whoever waits for it learns it, once. */
void hw_lazy_refuse(struct hw_lazy_map *map, uint32_t group);
bool hw_lazy_take_refused(struct hw_lazy_map *map, uint32_t group);

/* -------------------------------------------------------------------------------- the filling */

/*
 * The newest state of the log as a new database `path` with holes, and its map, which appears last.
 * Neither is there before.  `core` fetches what it lacks.  `ahead` (may be NULL) is told which
 * blocks will be read.
 */
enum hw_status hw_lazy_build(struct hw_env *env, struct hw_core *core, const char *path,
                             const char *map_path, hw_block_range *ahead, void *ctx,
                             struct hw_state *reached, struct hw_error *err) HW_MUST_CHECK;

/*
 * Which blocks of the log are not groups of its newest snapshot: what who follows it has to read.
 * HW_OK with nothing to skip if there is no snapshot.
 */
struct hw_lazy_entries;
enum hw_status hw_lazy_entries_open(struct hw_core *core, struct hw_lazy_entries **out,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_lazy_entries_close(struct hw_lazy_entries *entries); /* NULL does nothing */
bool hw_lazy_entries_skip(void *entries, uint64_t seq);      /* for hw_replica_set_skip() */
void hw_lazy_entries_tell(struct hw_lazy_entries *entries, uint64_t start, uint64_t end,
                          hw_block_range *each, void *ctx);
/* Does that snapshot begin behind `seq`?  Then to start from it is less work. */
bool hw_lazy_is_outdated(const struct hw_lazy_entries *entries, uint64_t seq);

/* Groups of one snapshot, as they come.  One thread. */
struct hw_lazy_filler;
enum hw_status hw_lazy_filler_open(struct hw_core *core, struct hw_lazy_map *map,
                                   struct hw_lazy_filler **out, struct hw_error *err) HW_MUST_CHECK;
void hw_lazy_filler_close(struct hw_lazy_filler *filler); /* NULL does nothing */
/* The block that the group is in. */
uint64_t hw_lazy_filler_block(const struct hw_lazy_filler *filler, uint32_t group);
/*
 * Write the absent pages of a group, whose block is held, through `write`, which stores `size`
 * bytes at an offset of the database, and mark them.  No checkpoint may write meanwhile: the caller
 * sees to that.
 */
typedef enum hw_status hw_lazy_write(void *ctx, uint64_t offset, const void *bytes, size_t size,
                                     struct hw_error *err);
enum hw_status hw_lazy_filler_load(struct hw_lazy_filler *filler, uint32_t group,
                                   struct hw_error *err) HW_MUST_CHECK; /* expands it */
enum hw_status hw_lazy_filler_store(struct hw_lazy_filler *filler, hw_lazy_write *put, void *ctx,
                                    struct hw_error *err) HW_MUST_CHECK;

#endif
