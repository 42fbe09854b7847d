/* Implements env/peer_table.h, which has the picture and the rules of ownership. */
#include "env/peer_table.h"

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"

enum { MAGIC = 0x54505748, VERSION = 2, HEADER_SIZE = 4096, READ_TRIES = 1000 };
enum { USED = 1, COUNTS = 2 };
enum { STUCK_WAIT_NS = 1000000, LOCK_TRIES = 1000, LOOK_TRIES = 20 };
enum { TABLE_WRITER = 2 }; /* who writes a row with the table locked; servers' numbers are odd */

/* A row as it is copied out of the file and into it. */
struct row {
    uint8_t id[16];
    uint8_t key[32];
    char address[HW_PEER_ADDRESS_SIZE];
    uint32_t process_id;
    uint32_t flags;
    uint64_t length, received, durable, applied;
    int64_t since_ms;
    uint64_t left_ns; /* when it was told that it is not connected */
    uint64_t server;  /* whose row it is */
    uint64_t reserved[8];
};

enum { ROW_WORDS = sizeof(struct row) / sizeof(uint64_t) };
enum { FLAGS_WORD = offsetof(struct row, flags) / sizeof(uint64_t) };

struct shared_row {
    _Atomic uint64_t sequence;
    _Atomic uint64_t words[ROW_WORDS];
    _Atomic uint64_t writer; /* a server, TABLE_WRITER, or 0: nobody */
};

/* The bytes of the file.  Also in the picture of the header. */
struct layout {
    uint32_t magic, version;
    uint8_t boot_id[16];
    _Atomic uint32_t used; /* rows from here on were never used */
    uint32_t reserved;
    _Atomic uint64_t fork;
    _Alignas(HEADER_SIZE) struct shared_row rows[HW_PEER_ROWS];
};

static_assert(sizeof(struct shared_row) == 256, "a row is 256 bytes");
static_assert(sizeof(struct row) % sizeof(uint64_t) == 0, "a row is whole words");
enum { TABLE_SIZE = HEADER_SIZE + HW_PEER_ROWS * 256 };

struct hw_peer_table {
    struct hw_env *env;
    struct layout *layout;   /* mapped */
    char *path;              /* owned */
    struct hw_mutex mutex;   /* guards what follows */
    _Atomic uint64_t server; /* 0: none of the rows is ours; read without the mutex, too */
    struct hw_file *alive;   /* locked: our server's file */
    char *alive_path;        /* owned */
};

/* ----------------------------------------------------------------------------------- rows */

static void row_load(struct shared_row *shared, struct row *out)
{
    uint64_t words[ROW_WORDS];

    for (unsigned w = 0; w < ROW_WORDS; w++)
        words[w] = atomic_load_explicit(&shared->words[w], memory_order_acquire);
    memcpy(out, words, sizeof(*out));
}

static bool is_used(const struct row *row)
{
    return (row->flags & USED) != 0;
}

static bool is_of(const struct row *row, const uint8_t id[16])
{
    return is_used(row) && memcmp(row->id, id, sizeof(row->id)) == 0;
}

/*
 * False: it changed meanwhile.  Where somebody stopped in the midst of writing, the words before
 * and after are as good as each other as long as they are of one follower, see row_store().
 */
static bool row_look(struct shared_row *shared, struct row *out)
{
    uint64_t sequence = atomic_load_explicit(&shared->sequence, memory_order_acquire);
    struct row after;

    row_load(shared, out);
    row_load(shared, &after); /* whose flags and id are at least as new as all of *out */
    return atomic_load_explicit(&shared->sequence, memory_order_acquire) == sequence &&
           is_used(out) == is_used(&after) && memcmp(out->id, after.id, sizeof(after.id)) == 0;
}

/* False: nobody has the row. */
static bool row_read(struct hw_peer_table *table, unsigned index, struct row *out)
{
    struct shared_row *shared = &table->layout->rows[index];

    for (int i = 0; i < 2 * READ_TRIES; i++) {
        bool is_written = atomic_load(&shared->sequence) % 2 != 0;

        if (!(is_written && i < READ_TRIES) && row_look(shared, out))
            return is_used(out);
    }
    return false;
}

/*
 * Another follower's row is no row first, and all of the new one before it is one again: neither
 * who reads meanwhile nor a death in between mixes two followers.
 */
static void row_store(struct shared_row *shared, const struct row *row, uint64_t odd)
{
    uint64_t words[ROW_WORDS];
    struct row old;

    row_load(shared, &old);
    memcpy(words, row, sizeof(words));
    if (!is_of(&old, row->id))
        atomic_store_explicit(&shared->words[FLAGS_WORD], 0, memory_order_release);
    for (unsigned w = 0; w < ROW_WORDS; w++)
        if (w != FLAGS_WORD)
            atomic_store_explicit(&shared->words[w], words[w], memory_order_release);
    atomic_store_explicit(&shared->words[FLAGS_WORD], words[FLAGS_WORD], memory_order_release);
    atomic_store_explicit(&shared->sequence, odd + 1, memory_order_release);
    atomic_store_explicit(&shared->writer, 0, memory_order_release);
}

static void row_describe(const struct hw_peer_row *from, uint64_t server, uint64_t now,
                         struct row *to)
{
    memcpy(to->id, from->id, sizeof(to->id));
    memcpy(to->key, from->key, sizeof(to->key));
    memcpy(to->address, from->address, sizeof(to->address));
    to->address[sizeof(to->address) - 1] = '\0';
    to->process_id = from->process_id;
    to->flags = USED | (from->counts ? COUNTS : 0);
    to->length = from->length;
    to->since_ms = from->since_ms;
    to->left_ns = from->process_id == 0 ? now : 0;
    to->server = server;
}

static void raise_to(uint64_t *value, uint64_t to)
{
    if (*value < to)
        *value = to;
}

static void row_acknowledge(const struct hw_peer_row *from, struct row *to)
{
    raise_to(&to->received, from->received);
    raise_to(&to->durable, from->durable);
    raise_to(&to->applied, from->applied);
}

/* ------------------------------------------------------------------------------- the file */

static bool layout_is_valid(const struct layout *layout, const uint8_t boot_id[16])
{
    return layout->magic == MAGIC && layout->version == VERSION &&
           memcmp(layout->boot_id, boot_id, sizeof(layout->boot_id)) == 0;
}

static void layout_reset(struct layout *layout, const uint8_t boot_id[16])
{
    memset(layout, 0, TABLE_SIZE);
    memcpy(layout->boot_id, boot_id, sizeof(layout->boot_id));
    layout->version = VERSION;
    atomic_thread_fence(memory_order_release);
    layout->magic = MAGIC;
}

/*
 * Rows of `path` may change their owners until it is unlocked.  The lock is held for microseconds,
 * but by somebody who may have been stopped; and a worker's thread, which comes here too, must not
 * wait in the kernel (hw_thread_interrupt()).
 */
static enum hw_status lock_table(struct hw_env *env, const char *path, bool create, int tries,
                                 struct hw_file **out, struct hw_error *err)
{
    unsigned flags = HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK;
    struct hw_file *file = NULL;
    enum hw_status status;
    uint32_t nobody = 0;

    status = env->ops->open(env, path, flags | (create ? HW_OPEN_CREATE : 0), &file, err);
    if (status != HW_OK)
        return status;
    status = env->ops->lock(file, false, err);
    for (int i = 1; status == HW_EBUSY && i < tries; i++) {
        env->ops->wait_word(env, &nobody, 0, STUCK_WAIT_NS);
        status = env->ops->lock(file, false, err);
    }
    if (status != HW_OK) {
        env->ops->close(file);
        return status;
    }
    *out = file;
    return HW_OK;
}

static void unlock_table(struct hw_file *file)
{
    struct hw_env *env = file->env;

    env->ops->unlock(file); /* a mapping would keep the lock beyond close */
    env->ops->close(file);
}

static enum hw_status map_table(struct hw_peer_table *table, struct hw_file *file, bool create,
                                struct hw_error *err)
{
    struct hw_env *env = table->env;
    struct hw_file_stat stat;
    void *memory = NULL;
    uint8_t boot_id[16];
    enum hw_status status = env->ops->stat_file(file, &stat, err);

    if (status == HW_OK && stat.size < TABLE_SIZE)
        status = create ? env->ops->allocate(file, TABLE_SIZE, err)
                        : hw_fail(err, HW_ENOTFOUND, "%s: too short", table->path);
    if (status == HW_OK)
        status = env->ops->boot_id(env, boot_id, err);
    if (status == HW_OK)
        status = env->ops->map(file, TABLE_SIZE, &memory, err);
    if (status != HW_OK)
        return status;
    if (!layout_is_valid(memory, boot_id)) {
        if (!create) {
            env->ops->unmap(env, memory, TABLE_SIZE);
            return hw_fail(err, HW_ENOTFOUND, "%s: not of this boot", table->path);
        }
        layout_reset(memory, boot_id);
    }
    table->layout = memory;
    return HW_OK;
}

/* -------------------------------------------------------------------------------- servers */

static char *server_path(struct hw_peer_table *table, uint64_t server)
{
    return hw_format("%s.%016llx", table->path, (unsigned long long)server);
}

/* Is its file locked?  What the dead left is removed. */
static bool server_lives(struct hw_peer_table *table, uint64_t server)
{
    struct hw_env *env = table->env;
    char *path = server_path(table, server);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (path == NULL)
        return true; /* not known: nothing is taken from it */
    status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK, &file,
                            NULL);
    if (status == HW_OK) {
        status = env->ops->lock(file, false, NULL);
        if (status == HW_OK)
            (void)env->ops->remove(env, path, NULL); /* tried again for the next dead */
    }
    env->ops->close(file);
    hw_free(path);
    return status != HW_OK && status != HW_ENOTFOUND;
}

/* With the table locked. */
static bool writer_died(struct hw_peer_table *table, uint64_t writer)
{
    return writer == TABLE_WRITER || (writer != 0 && !server_lives(table, writer));
}

/* Takes the row from a writer that is dead.  False: it lives, or that cannot be told. */
static bool row_take_over(struct hw_peer_table *table, struct shared_row *shared, uint64_t who)
{
    uint64_t writer = atomic_load(&shared->writer);
    struct hw_file *file = NULL;
    bool is_ours = false;

    if (who != TABLE_WRITER && lock_table(table->env, table->path, false, 1, &file, NULL) != HW_OK)
        return false;
    if (writer_died(table, writer))
        is_ours = atomic_compare_exchange_strong(&shared->writer, &writer, who);
    if (file != NULL)
        unlock_table(file);
    return is_ours;
}

/*
 * Begin to write, as server `who`, or as TABLE_WRITER with the table locked; *odd is the row's
 * sequence number meanwhile.  Others write for nanoseconds, or until they get the processor again.
 * False: somebody who lives has not gone on for a second.  The row stays its: it would write what
 * is old by then.
 */
static bool row_lock(struct hw_peer_table *table, struct shared_row *shared, uint64_t who,
                     uint64_t *odd)
{
    uint32_t nobody = 0;
    uint64_t writer = 0;

    for (int i = 1; !atomic_compare_exchange_strong(&shared->writer, &writer, who); i++) {
        if (i % LOOK_TRIES == 0 && row_take_over(table, shared, who))
            break;
        if (i == LOCK_TRIES)
            return false;
        table->env->ops->wait_word(table->env, &nobody, 0, STUCK_WAIT_NS);
        writer = 0;
    }
    *odd = atomic_load(&shared->sequence) | 1;
    atomic_store(&shared->sequence, *odd);
    return true;
}

/* With the table locked.  Most rows have the same few servers: the last answer is kept. */
static void bury_locked(struct hw_peer_table *table)
{
    uint32_t used = atomic_load(&table->layout->used);
    uint64_t now = table->env->ops->monotonic_ns(table->env);
    uint64_t known = 0, odd;
    bool lives = false;

    for (uint32_t i = 0; i < used && i < HW_PEER_ROWS; i++) {
        struct shared_row *shared = &table->layout->rows[i];
        struct row row;

        row_load(shared, &row); /* also one that was left half written */
        if (row.server == 0 || row.server == table->server || row.process_id == 0)
            continue;
        if (row.server != known) {
            known = row.server;
            lives = server_lives(table, known);
        }
        if (lives || !row_lock(table, shared, TABLE_WRITER, &odd))
            continue;
        row_load(shared, &row);
        row.process_id = 0;
        row.left_ns = now;
        row_store(shared, &row, odd);
    }
}

void hw_peer_table_bury(struct hw_peer_table *table)
{
    struct hw_file *file = NULL;

    if (lock_table(table->env, table->path, false, LOCK_TRIES, &file, NULL) != HW_OK)
        return; /* who is connected is for people, or asked again at the next claim */
    hw_mutex_lock(&table->mutex);
    bury_locked(table);
    hw_mutex_unlock(&table->mutex);
    unlock_table(file);
}

/* We are a server from now on. */
static enum hw_status become_server(struct hw_peer_table *table, struct hw_error *err)
{
    struct hw_env *env = table->env;
    unsigned flags =
        HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_EXCLUSIVE | HW_OPEN_CLOSE_ON_FORK;
    struct hw_file *file = NULL;
    uint64_t server = 0;
    enum hw_status status;
    char *path;

    if (table->server != 0)
        return HW_OK;
    env->ops->random(env, &server, sizeof(server));
    server |= 1; /* 0 is nobody */
    path = server_path(table, server);
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the table of followers");
    status = env->ops->open(env, path, flags, &file, err);
    if (status == HW_OK)
        status = env->ops->lock(file, false, err);
    if (status != HW_OK) {
        env->ops->close(file);
        hw_free(path);
        return status;
    }
    table->server = server;
    table->alive = file;
    table->alive_path = path;
    return HW_OK;
}

/* --------------------------------------------------------------------------- open and close */

/* The file of a server that died when no row named it, or before a boot. */
static bool remove_leftover(void *ctx, const char *name)
{
    struct hw_peer_table *table = ctx;
    const char *number = strncmp(name, "peers.", 6) == 0 ? name + 6 : "";

    if (strlen(number) == 16 && strspn(number, "0123456789abcdef") == 16)
        (void)server_lives(table, strtoull(number, NULL, 16)); /* which removes it if not */
    return true;
}

enum hw_status hw_peer_table_open(struct hw_env *env, const char *dir, bool create,
                                  struct hw_peer_table **out, struct hw_error *err)
{
    struct hw_peer_table *table = hw_zalloc(sizeof(*table));
    struct hw_file *file = NULL;
    enum hw_status status;

    if (table == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the table of followers");
    table->env = env;
    hw_mutex_init(&table->mutex);
    table->path = hw_format("%s/peers", dir);
    status = table->path == NULL ? hw_fail(err, HW_ENOMEM, "no memory for the table of followers")
                                 : lock_table(env, table->path, create, LOCK_TRIES, &file, err);
    if (status == HW_OK) {
        status = map_table(table, file, create, err);
        if (status == HW_OK)
            bury_locked(table);
        if (status == HW_OK && create)
            (void)env->ops->list(env, dir, remove_leftover, table, NULL); /* only litter */
        unlock_table(file);
    }
    if (status != HW_OK) {
        hw_mutex_release(&table->mutex);
        hw_free(table->path);
        hw_free(table);
        return status;
    }
    *out = table;
    return HW_OK;
}

static void leave(struct hw_peer_table *table)
{
    uint32_t used = atomic_load(&table->layout->used);
    uint64_t now = table->env->ops->monotonic_ns(table->env);
    uint64_t who = table->server, odd;

    for (uint32_t i = 0; i < used && i < HW_PEER_ROWS; i++) {
        struct shared_row *shared = &table->layout->rows[i];
        struct row row;

        row_load(shared, &row);
        if (row.server != who || !row_lock(table, shared, who, &odd))
            continue; /* who looks for the dead finds it */
        row_load(shared, &row);
        if (row.server == who && row.process_id != 0) {
            row.process_id = 0;
            row.left_ns = now;
        }
        row_store(shared, &row, odd);
    }
}

void hw_peer_table_close(struct hw_peer_table *table)
{
    struct hw_env *env;

    if (table == NULL)
        return;
    env = table->env;
    if (table->server != 0) {
        leave(table);
        (void)env->ops->remove(env, table->alive_path, NULL); /* a leftover is found by the next */
        env->ops->close(table->alive);
    }
    env->ops->unmap(env, table->layout, TABLE_SIZE);
    hw_mutex_release(&table->mutex);
    hw_free(table->alive_path);
    hw_free(table->path);
    hw_free(table);
}

/* --------------------------------------------------------------------------- claim and set */

static enum hw_status stuck(const struct hw_peer_table *table, struct hw_error *err)
{
    return hw_fail(err, HW_ETIMEOUT, "%s: somebody who writes it does not go on", table->path);
}

/* With the table locked: nobody else takes rows now.  HW_PEER_ROWS: there is none. */
static unsigned find_row(struct hw_peer_table *table, const uint8_t id[16])
{
    uint32_t used = atomic_load(&table->layout->used);
    unsigned empty = HW_PEER_ROWS, left = HW_PEER_ROWS;
    uint64_t left_ns = UINT64_MAX;
    struct row row;

    for (unsigned i = 0; i < used && i < HW_PEER_ROWS; i++) {
        row_load(&table->layout->rows[i], &row);
        if (!is_used(&row)) {
            empty = empty == HW_PEER_ROWS ? i : empty;
        } else if (is_of(&row, id)) {
            return i;
        } else if (row.process_id == 0 && row.left_ns < left_ns) {
            left = i;
            left_ns = row.left_ns;
        }
    }
    if (empty == HW_PEER_ROWS && used < HW_PEER_ROWS)
        empty = used;
    return empty < HW_PEER_ROWS ? empty : left;
}

static enum hw_status take_row(struct hw_peer_table *table, unsigned index,
                               const struct hw_peer_row *want, struct hw_error *err)
{
    struct hw_env *env = table->env;
    struct shared_row *shared = &table->layout->rows[index];
    uint64_t odd;
    struct row row;

    if (!row_lock(table, shared, TABLE_WRITER, &odd))
        return stuck(table, err);
    row_load(shared, &row);
    if (!is_of(&row, want->id))
        row = (struct row){0};
    row_describe(want, table->server, env->ops->monotonic_ns(env), &row);
    row_acknowledge(want, &row);
    row_store(shared, &row, odd);
    if (atomic_load(&table->layout->used) <= index)
        atomic_store(&table->layout->used, index + 1);
    return HW_OK;
}

enum hw_status hw_peer_table_claim(struct hw_peer_table *table, const struct hw_peer_row *row,
                                   unsigned *index, struct hw_error *err)
{
    struct hw_file *file = NULL;
    enum hw_status status = lock_table(table->env, table->path, true, LOCK_TRIES, &file, err);
    unsigned found;

    if (status != HW_OK)
        return status;
    hw_mutex_lock(&table->mutex);
    status = become_server(table, err);
    if (status == HW_OK) {
        found = find_row(table, row->id);
        if (found == HW_PEER_ROWS) {
            bury_locked(table);
            found = find_row(table, row->id);
        }
        if (found < HW_PEER_ROWS) {
            status = take_row(table, found, row, err);
            *index = found;
        } else {
            status = hw_fail(err, HW_ELIMIT, "%s: %d followers are connected, which is the limit",
                             table->path, HW_PEER_ROWS);
        }
    }
    hw_mutex_unlock(&table->mutex);
    unlock_table(file);
    return status;
}

bool hw_peer_table_set(struct hw_peer_table *table, unsigned index, const struct hw_peer_row *want)
{
    struct hw_env *env = table->env;
    struct shared_row *shared = &table->layout->rows[index % HW_PEER_ROWS];
    uint64_t server = atomic_load(&table->server), odd;
    struct row row;
    bool same;

    if (server == 0 || !row_lock(table, shared, server, &odd))
        return false; /* it has claimed none; or a claim tells what is wrong */
    row_load(shared, &row);
    same = is_of(&row, want->id);
    if (same && row.server == server)
        row_describe(want, server, env->ops->monotonic_ns(env), &row);
    if (same)
        row_acknowledge(want, &row);
    row_store(shared, &row, odd);
    return same;
}

/* ----------------------------------------------------------------------------------- look */

bool hw_peer_table_get(struct hw_peer_table *table, unsigned index, struct hw_peer_row *out)
{
    struct row row;

    if (index >= HW_PEER_ROWS || !row_read(table, index, &row))
        return false;
    *out = (struct hw_peer_row){
        .process_id = row.process_id,
        .counts = (row.flags & COUNTS) != 0,
        .length = row.length,
        .received = row.received,
        .durable = row.durable,
        .applied = row.applied,
        .since_ms = row.since_ms,
    };
    memcpy(out->id, row.id, sizeof(out->id));
    memcpy(out->key, row.key, sizeof(out->key));
    memcpy(out->address, row.address, sizeof(out->address));
    out->address[sizeof(out->address) - 1] = '\0';
    return true;
}

unsigned hw_peer_table_confirmed(struct hw_peer_table *table, uint64_t length, bool applied)
{
    uint32_t used = atomic_load(&table->layout->used);
    unsigned count = 0;
    struct row row;

    for (uint32_t i = 0; i < used && i < HW_PEER_ROWS; i++) {
        if (row_read(table, i, &row) && (row.flags & COUNTS) != 0 &&
            (applied ? row.applied : row.durable) >= length)
            count++;
    }
    return count;
}

/* With the table locked: rows with more than `length` blocks are nobody's from now on. */
static enum hw_status empty_rows(struct hw_peer_table *table, uint64_t length, struct hw_error *err)
{
    for (unsigned i = 0; i < HW_PEER_ROWS; i++) {
        struct shared_row *shared = &table->layout->rows[i];
        uint64_t odd;
        struct row row;

        if (!row_lock(table, shared, TABLE_WRITER, &odd))
            return stuck(table, err);
        row_load(shared, &row);
        if (row.received > length || row.durable > length || row.applied > length || length == 0)
            row = (struct row){0};
        row_store(shared, &row, odd);
    }
    return HW_OK;
}

enum hw_status hw_peer_table_set_fork(struct hw_peer_table *table, uint64_t fork,
                                      struct hw_error *err)
{
    struct hw_file *file = NULL;
    enum hw_status status;

    if (atomic_load(&table->layout->fork) == fork)
        return HW_OK;
    status = lock_table(table->env, table->path, false, LOCK_TRIES, &file, err);
    if (status == HW_EBUSY)
        return stuck(table, err);
    if (status != HW_OK)
        return status;
    if (atomic_load(&table->layout->fork) != fork) /* nobody else did it meanwhile */
        status = empty_rows(table, 0, err);
    if (status == HW_OK)
        atomic_store(&table->layout->fork, fork);
    unlock_table(file);
    return status;
}

enum hw_status hw_peer_table_set_length(struct hw_peer_table *table, uint64_t length,
                                        struct hw_error *err)
{
    struct hw_file *file = NULL;
    enum hw_status status = lock_table(table->env, table->path, false, LOCK_TRIES, &file, err);

    if (status == HW_EBUSY)
        return stuck(table, err);
    if (status != HW_OK)
        return status;
    status = empty_rows(table, length, err);
    unlock_table(file);
    return status;
}
