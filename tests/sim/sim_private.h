/* sim/sim_private.h - what the files of the simulator share; tests include sim/sim.h only */
#ifndef SIM_SIM_PRIVATE_H
#define SIM_SIM_PRIVATE_H

#include "sim/sim.h"

enum { SIM_PATH_SIZE = 512, SIM_PROCESS_COUNT = 16, SIM_SHM_REGIONS = 64, SIM_SHM_LOCKS = 8 };

/* Bytes that grow; all-zero is empty. */
struct sim_bytes {
    uint8_t *bytes; /* owned */
    size_t size, capacity;
};

struct sim_pending {
    bool is_truncate;
    uint64_t offset; /* the new size, of a truncation */
    uint8_t *bytes;  /* owned; NULL for a truncation */
    size_t size;
};

enum { SIM_USER = 1000 }; /* whose the files are */

struct sim_inode {
    uint64_t id;
    uint32_t mode;
    bool is_directory;
    struct sim_bytes now, durable;
    struct sim_pending *pending; /* owned */
    size_t pending_count, pending_capacity;
    int64_t modified_ns, changed_ns;
    int map_fd;                  /* memfd that holds the first map_size bytes, -1: none */
    size_t map_size;             /* bytes */
    struct sim_handle *handles;  /* all open ones, dead ones too */
    struct sim_handle *env_lock; /* who holds hw_env_ops.lock */
    struct sim_inode *shm;       /* of a database: the wal-index in use */
    struct sim_inode *next;
};

/* An open file of either door. */
struct sim_handle {
    struct sim *sim;
    struct sim_inode *inode;
    struct sim_handle *next; /* of the same inode */
    unsigned process;
    uint32_t generation; /* of the process; another one: dead */
    bool is_writable;
    bool is_database; /* opened by SQLite as a database */
    bool delete_on_close;
    bool sync_directory; /* with the next sync: a new journal or WAL */
    bool persist_wal, powersafe_overwrite;
    int lock; /* SQLITE_LOCK_* */
    struct sim_inode *shm;
    void *regions[SIM_SHM_REGIONS]; /* this handle's own mapping of each */
    size_t region_size;
    uint16_t shm_shared, shm_exclusive; /* slots, as bits */
    char path[SIM_PATH_SIZE];
};

struct sim_name {
    char *path; /* owned */
    struct sim_inode *inode;
};
struct sim_names {
    struct sim_name *items; /* owned */
    size_t count, capacity;
};

/* A change of names not yet synced: `to` comes to be `inode` (NULL: nothing), `from` goes. */
struct sim_name_change {
    char *from; /* owned, NULL: nothing goes */
    char *to;   /* owned, NULL: nothing comes */
    struct sim_inode *inode;
};

struct sim_map {
    struct sim_inode *inode;
    const struct sim_handle *handle; /* of our own code's: it was mapped through; only compared */
    bool holds_lock;                 /* the handle was closed and its lock lives on */
    void *memory;
    size_t size;
    unsigned process;
    uint32_t generation;
};

struct sim_env {
    struct hw_env env;
    struct sim *sim;
};

struct sim_tally {
    enum sim_operation operation;
    char path[SIM_PATH_SIZE];
    uint64_t count;
};

struct sim {
    struct sim_env env;
    sqlite3_vfs vfs;
    char vfs_name[32];
    uint64_t seed, chance; /* state of the generator */
    uint64_t now_ns;
    int64_t clock_ms; /* sim_set_clock() */
    uint64_t boot;
    uint64_t next_inode;
    uint64_t next_temporary;
    int sector_size;
    bool powersafe_overwrite;
    uint64_t space; /* bytes left */
    struct sim_inode *inodes;
    struct sim_names now, durable;
    struct sim_name_change *changes; /* owned */
    size_t change_count, change_capacity;
    struct sim_map *maps; /* owned */
    size_t map_count, map_capacity;

    unsigned process;
    uint32_t generations[SIM_PROCESS_COUNT];
    uint32_t first_generations[SIM_PROCESS_COUNT]; /* of this seed */
    bool is_dead[SIM_PROCESS_COUNT];               /* a SIM_KILL was reached, sim_kill() is due */

    struct sim_fault fault;
    bool has_fault, fault_reached, crashed;
    uint64_t fault_seen; /* operations that counted */
    uint64_t operations, trace;
    struct sim_tally *tallies; /* owned */
    size_t tally_count, tally_capacity;
    bool prints; /* HYPERWAL_TRACE */
    char violation[256 + SIM_PATH_SIZE];
    struct sim_bytes log;
    void (*idle)(void *ctx);
    void *idle_ctx;
    bool is_idle; /* idle() runs */
};

/* What is to become of an operation. */
enum sim_verdict { SIM_GO, SIM_FAIL, SIM_CUT, SIM_FLIP };
struct sim_outcome {
    enum sim_verdict verdict;
    int os_errno; /* of SIM_FAIL */
};

void *sim_allocate(size_t size); /* zeroed; aborts if there is none */
void *sim_grow(void *memory, size_t *capacity, size_t count, size_t item_size);
char *sim_copy_text(const char *text);
uint64_t sim_chance(struct sim *sim, uint64_t bound); /* 0 to bound - 1 */
void sim_random(struct sim *sim, void *buf, size_t size);
uint64_t sim_hash(uint64_t hash, const void *bytes, size_t size);
enum { SIM_HASH_START = 1469598103 };

void sim_bytes_resize(struct sim_bytes *bytes, size_t size); /* new bytes are zero */
void sim_bytes_release(struct sim_bytes *bytes);

/* ------------------------------------------------------------------------------ sim_fault.c */

/* Counts and traces an operation, and says what becomes of it. */
struct sim_outcome sim_begin(struct sim *sim, const struct sim_handle *handle,
                             enum sim_operation operation, const char *path, uint64_t offset,
                             uint64_t size);

/* ------------------------------------------------------------------------------- sim_disk.c */

/* Absolute, without doubled or trailing slashes. */
void sim_path(char out[SIM_PATH_SIZE], const char *path);
void sim_parent(char out[SIM_PATH_SIZE], const char *path);
struct sim_inode *sim_find(struct sim *sim, const char *path);
/* errno of the failure, 0: done.  Flags are those of hw_env_ops.open. */
int sim_open(struct sim *sim, const char *path, unsigned flags, struct sim_handle **out);
void sim_close(struct sim_handle *handle);
bool sim_is_dead(const struct sim_handle *handle);
/* SIM_CUT: the file ended before `size`; the rest is zero. */
enum sim_verdict sim_read(struct sim_handle *handle, uint64_t offset, void *buf, size_t size,
                          int *os_errno);
int sim_write(struct sim_handle *handle, uint64_t offset, const void *buf, size_t size);
int sim_sync(struct sim_handle *handle);
int sim_truncate(struct sim_handle *handle, uint64_t size);
int sim_allocate_file(struct sim_handle *handle, uint64_t size);
uint64_t sim_size(const struct sim_inode *inode);
void sim_stat(struct sim *sim, const struct sim_inode *inode, struct hw_file_stat *out);
int sim_rename(struct sim *sim, const char *from, const char *to);
int sim_remove(struct sim *sim, const char *path, bool is_directory);
int sim_make_dir(struct sim *sim, const char *path);
int sim_sync_dir(struct sim *sim, const char *path);
void sim_inode_touch(struct sim *sim, struct sim_inode *inode);
void sim_inode_resize(struct sim *sim, struct sim_inode *inode, size_t size); /* and pending */
void sim_disk_start(struct sim *sim);   /* an empty root directory */
void sim_disk_release(struct sim *sim); /* all files; nothing may be open */
void sim_disk_crash(struct sim *sim, enum sim_crash_mode mode);

/* ------------------------------------------------------------------------------ sim_names.c */

struct sim_inode *sim_inode_new(struct sim *sim, uint32_t mode, bool is_directory);
void sim_names_add(struct sim *sim, const char *path, struct sim_inode *inode); /* to be synced */
/* At once and durable; inode NULL: the name goes. */
void sim_names_put(struct sim *sim, const char *path, struct sim_inode *inode);
void sim_names_crash(struct sim *sim, enum sim_crash_mode mode);
void sim_names_release(struct sim *sim);

/* -------------------------------------------------------------------------------- sim_map.c */

/* A mapping of [offset, offset + size) of the file for this process; NULL: no memory. */
void *sim_map_memory(struct sim *sim, struct sim_inode *inode, uint64_t offset, size_t size);
void sim_unmap_memory(struct sim *sim, void *memory, size_t size);
/* The processes that are dead keep their addresses, but nobody else sees what is there. */
void sim_map_detach_dead(struct sim *sim);
void sim_map_pull(struct sim_inode *inode); /* `now` gets what was written through mappings */
void sim_map_push(struct sim_inode *inode, uint64_t offset, size_t size);
void sim_map_forget(struct sim_inode *inode);

/* -------------------------------------------------------------------- sim_env.c, sim_vfs.c */

void sim_env_init(struct sim *sim);
void sim_vfs_init(struct sim *sim);
void sim_locks_drop(struct sim_handle *handle);
/* The handle will be closed: a mapping keeps the open file, and so its lock. */
void sim_map_keep_lock(struct sim_handle *handle);
void sim_map_drop_lock(struct sim_map *map);
void sim_wait(struct sim *sim, uint64_t ns); /* the clock goes on, others run */
extern const sqlite3_io_methods sim_file_methods;

/* A file as SQLite sees it. */
struct sim_vfs_file {
    sqlite3_file file;
    struct sim_handle *handle; /* owned */
};
/* sim_shm.c: the methods for the wal-index */
int sim_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out);
int sim_shm_lock(sqlite3_file *file, int offset, int count, int flags);
void sim_shm_barrier(sqlite3_file *file);
int sim_shm_unmap(sqlite3_file *file, int delete_it);

#endif
