/* Implements hypercore/storage_memory.h. */
#include "hypercore/storage_memory.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

enum { CHUNK_SIZE = 64 << 10 };

struct content { /* of one file; lives until it is removed and the last handle is closed */
    struct content *next;
    char *path; /* owned; NULL: removed */
    uint64_t size, inode;
    uint8_t **chunks; /* owned; NULL: all zero */
    size_t chunk_count, chunk_capacity;
    unsigned handles;
    uint32_t mode;
};

struct memory_file {
    struct hw_file file;
    struct content *content;
};

struct memory_env {
    struct hw_env env;
    struct hw_env *outer;
    struct content *first;
    uint64_t inodes;
};

static struct memory_env *memory(struct hw_env *env)
{
    return (struct memory_env *)env;
}

static struct content *content_of(struct hw_file *file)
{
    return ((struct memory_file *)file)->content;
}

static struct content *find(struct hw_env *env, const char *path)
{
    struct content *content = memory(env)->first;

    while (content != NULL && (content->path == NULL || strcmp(content->path, path) != 0))
        content = content->next;
    return content;
}

static void content_free(struct content *content)
{
    for (size_t i = 0; i < content->chunk_count; i++)
        hw_free(content->chunks[i]);
    hw_free(content->chunks);
    hw_free(content->path);
    hw_free(content);
}

/* Free what has neither name nor handle. */
static void sweep(struct memory_env *env)
{
    struct content **link = &env->first;

    while (*link != NULL) {
        struct content *content = *link;

        if (content->path != NULL || content->handles > 0) {
            link = &content->next;
            continue;
        }
        *link = content->next;
        content_free(content);
    }
}

static struct content *content_new(struct memory_env *env, const char *path, unsigned flags)
{
    struct content *content = hw_zalloc(sizeof(*content));

    if (content == NULL)
        return NULL;
    content->path = hw_strdup(path);
    if (content->path == NULL) {
        hw_free(content);
        return NULL;
    }
    content->inode = ++env->inodes;
    content->mode = (flags & HW_OPEN_PRIVATE) != 0 ? 0600 : 0644;
    content->next = env->first;
    env->first = content;
    return content;
}

static enum hw_status memory_open(struct hw_env *env, const char *path, unsigned flags,
                                  struct hw_file **out, struct hw_error *err)
{
    struct content *content = find(env, path);
    struct memory_file *file;

    if (content == NULL && (flags & HW_OPEN_CREATE) == 0)
        return hw_fail(err, HW_ENOTFOUND, "%s: not in memory", path);
    if (content != NULL && (flags & HW_OPEN_EXCLUSIVE) != 0)
        return hw_fail(err, HW_EEXIST, "%s: is in memory already", path);
    file = hw_zalloc(sizeof(*file));
    if (file != NULL && content == NULL)
        content = content_new(memory(env), path, flags);
    if (file == NULL || content == NULL) {
        hw_free(file);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the file", path);
    }
    file->file.env = env;
    file->content = content;
    content->handles++;
    *out = &file->file;
    return HW_OK;
}

static void memory_close(struct hw_file *file)
{
    if (file == NULL)
        return;
    content_of(file)->handles--;
    sweep(memory(file->env));
    hw_free(file);
}

static enum hw_status memory_read_at(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                     struct hw_error *err)
{
    const struct content *content = content_of(file);
    uint8_t *to = buf;
    uint64_t left = offset < content->size ? content->size - offset : 0;
    size_t there = left < size ? (size_t)left : size;

    (void)err; /* cannot fail */
    memset(to + there, 0, size - there);
    for (size_t done = 0; done < there;) {
        size_t chunk = (size_t)((offset + done) / CHUNK_SIZE);
        size_t at = (size_t)((offset + done) % CHUNK_SIZE);
        size_t part = CHUNK_SIZE - at < there - done ? CHUNK_SIZE - at : there - done;

        if (chunk < content->chunk_count && content->chunks[chunk] != NULL)
            memcpy(to + done, content->chunks[chunk] + at, part);
        else
            memset(to + done, 0, part);
        done += part;
    }
    return there == size ? HW_OK : HW_END;
}

/* The memory of chunk `index`, made if it is missing; NULL: no memory. */
static uint8_t *chunk_at(struct content *content, size_t index)
{
    if (index >= content->chunk_capacity) {
        size_t capacity = 2 * index + 8;
        uint8_t **chunks = hw_realloc(content->chunks, capacity * sizeof(*chunks));

        if (chunks == NULL)
            return NULL;
        content->chunks = chunks;
        content->chunk_capacity = capacity;
    }
    while (content->chunk_count <= index)
        content->chunks[content->chunk_count++] = NULL;
    if (content->chunks[index] == NULL)
        content->chunks[index] = hw_zalloc(CHUNK_SIZE);
    return content->chunks[index];
}

static enum hw_status memory_write_at(struct hw_file *file, uint64_t offset, const void *buf,
                                      size_t size, struct hw_error *err)
{
    struct content *content = content_of(file);
    const uint8_t *from = buf;

    for (size_t done = 0; done < size;) {
        size_t at = (size_t)((offset + done) % CHUNK_SIZE);
        size_t part = CHUNK_SIZE - at < size - done ? CHUNK_SIZE - at : size - done;
        uint8_t *chunk = chunk_at(content, (size_t)((offset + done) / CHUNK_SIZE));

        if (chunk == NULL)
            return hw_fail(err, HW_ENOMEM, "log in memory: no memory for %zu bytes", size);
        memcpy(chunk + at, from + done, part);
        done += part;
        if (offset + done > content->size)
            content->size = offset + done;
    }
    return HW_OK;
}

static void memory_start_sync(struct hw_file *file, uint64_t offset, uint64_t size)
{
    (void)file;
    (void)offset;
    (void)size;
}

static enum hw_status memory_truncate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    struct content *content = content_of(file);
    size_t keep = (size_t)((size + CHUNK_SIZE - 1) / CHUNK_SIZE);

    (void)err; /* cannot fail */
    while (content->chunk_count > keep)
        hw_free(content->chunks[--content->chunk_count]);
    if (size % CHUNK_SIZE != 0 && content->chunk_count == keep && content->chunks[keep - 1] != NULL)
        memset(content->chunks[keep - 1] + size % CHUNK_SIZE, 0,
               CHUNK_SIZE - (size_t)(size % CHUNK_SIZE));
    content->size = size;
    return HW_OK;
}

static enum hw_status memory_sync(struct hw_file *file, struct hw_error *err)
{
    (void)file;
    (void)err;
    return HW_OK;
}

static enum hw_status memory_allocate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    (void)file; /* nothing is gained by reserving */
    (void)size;
    (void)err;
    return HW_OK;
}

static enum hw_status memory_punch(struct hw_file *file, uint64_t offset, uint64_t size,
                                   struct hw_error *err)
{
    struct content *content = content_of(file);

    (void)err; /* cannot fail */
    for (uint64_t done = 0; done < size;) {
        size_t chunk = (size_t)((offset + done) / CHUNK_SIZE);
        size_t at = (size_t)((offset + done) % CHUNK_SIZE);
        uint64_t left = size - done;
        size_t part = CHUNK_SIZE - at < left ? CHUNK_SIZE - at : (size_t)left;

        if (chunk >= content->chunk_count)
            break;
        if (part == CHUNK_SIZE) {
            hw_free(content->chunks[chunk]);
            content->chunks[chunk] = NULL;
        } else if (content->chunks[chunk] != NULL) {
            memset(content->chunks[chunk] + at, 0, part);
        }
        done += part;
    }
    return HW_OK;
}

static void stat_content(const struct content *content, struct hw_file_stat *out)
{
    *out = (struct hw_file_stat){
        .device = 1, .inode = content->inode, .size = content->size, .mode = content->mode};
    for (size_t i = 0; i < content->chunk_count; i++)
        out->allocated += content->chunks[i] == NULL ? 0 : CHUNK_SIZE;
}

static enum hw_status memory_stat_file(struct hw_file *file, struct hw_file_stat *out,
                                       struct hw_error *err)
{
    (void)err; /* cannot fail */
    stat_content(content_of(file), out);
    return HW_OK;
}

static enum hw_status memory_stat(struct hw_env *env, const char *path, struct hw_file_stat *out,
                                  struct hw_error *err)
{
    const struct content *content = find(env, path);

    if (content == NULL)
        return hw_fail(err, HW_ENOTFOUND, "%s: not in memory", path);
    stat_content(content, out);
    return HW_OK;
}

static bool memory_is_in_memory(struct hw_env *env, const char *path)
{
    (void)env;
    (void)path;
    return true;
}

static enum hw_status memory_remove(struct hw_env *env, const char *path, struct hw_error *err)
{
    struct content *content = find(env, path);

    if (content == NULL)
        return hw_fail(err, HW_ENOTFOUND, "%s: not in memory", path);
    hw_free(content->path);
    content->path = NULL;
    sweep(memory(env));
    return HW_OK;
}

static enum hw_status memory_rename(struct hw_env *env, const char *from, const char *to,
                                    struct hw_error *err)
{
    struct content *content = find(env, from);
    char *path = hw_strdup(to);

    if (content == NULL || path == NULL) {
        hw_free(path);
        return hw_fail(err, content == NULL ? HW_ENOTFOUND : HW_ENOMEM,
                       "%s: cannot rename in memory", from);
    }
    if (strcmp(from, to) != 0)
        (void)memory_remove(env, to, NULL); /* there may be none */
    hw_free(content->path);
    content->path = path;
    return HW_OK;
}

static enum hw_status memory_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    (void)env; /* there are no directories: making, removing and syncing one is done at once */
    (void)path;
    (void)err;
    return HW_OK;
}

static enum hw_status memory_dir_as(struct hw_env *env, const char *path, unsigned mode,
                                    struct hw_error *err)
{
    (void)mode;
    return memory_dir(env, path, err);
}

static enum hw_status memory_list(struct hw_env *env, const char *path,
                                  bool (*each)(void *ctx, const char *name), void *ctx,
                                  struct hw_error *err)
{
    size_t size = strlen(path);

    (void)err; /* cannot fail */
    for (const struct content *at = memory(env)->first; at != NULL; at = at->next) {
        if (at->path == NULL || strncmp(at->path, path, size) != 0 || at->path[size] != '/')
            continue;
        if (!each(ctx, at->path + size + 1))
            break;
    }
    return HW_OK;
}

static enum hw_status memory_lock(struct hw_file *file, bool wait, struct hw_error *err)
{
    (void)file; /* nobody else can reach it */
    (void)wait;
    (void)err;
    return HW_OK;
}

static void memory_unlock(struct hw_file *file)
{
    (void)file;
}

static enum hw_status memory_map(struct hw_file *file, size_t size, void **out,
                                 struct hw_error *err)
{
    (void)file;
    (void)size;
    (void)out;
    return hw_fail(err, HW_EMISUSE, "log in memory: nothing to share with other processes");
}

static void memory_unmap(struct hw_env *env, void *bytes, size_t size)
{
    (void)env;
    (void)bytes;
    (void)size;
}

/* ------------------------------------------------------------------- the world around it */

static uint64_t outer_monotonic_ns(struct hw_env *env)
{
    return memory(env)->outer->ops->monotonic_ns(memory(env)->outer);
}

static int64_t outer_realtime_ms(struct hw_env *env)
{
    return memory(env)->outer->ops->realtime_ms(memory(env)->outer);
}

static void outer_random(struct hw_env *env, void *buf, size_t size)
{
    memory(env)->outer->ops->random(memory(env)->outer, buf, size);
}

static enum hw_status outer_machine_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    return memory(env)->outer->ops->machine_id(memory(env)->outer, out, err);
}

static enum hw_status outer_boot_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    return memory(env)->outer->ops->boot_id(memory(env)->outer, out, err);
}

static uint32_t outer_process_id(struct hw_env *env)
{
    return memory(env)->outer->ops->process_id(memory(env)->outer);
}

static uint32_t outer_user_id(struct hw_env *env)
{
    return memory(env)->outer->ops->user_id(memory(env)->outer);
}

static void outer_wait_word(struct hw_env *env, uint32_t *word, uint32_t expected,
                            uint64_t timeout_ns)
{
    memory(env)->outer->ops->wait_word(memory(env)->outer, word, expected, timeout_ns);
}

static void outer_wake_word(struct hw_env *env, uint32_t *word)
{
    memory(env)->outer->ops->wake_word(memory(env)->outer, word);
}

static void outer_log(struct hw_env *env, enum hw_log_level level, const char *line)
{
    hw_env_log(memory(env)->outer, level, "%s", line);
}

static const struct hw_env_ops memory_ops = {
    .open = memory_open,
    .read_at = memory_read_at,
    .write_at = memory_write_at,
    .sync = memory_sync,
    .start_sync = memory_start_sync,
    .truncate = memory_truncate,
    .allocate = memory_allocate,
    .punch = memory_punch,
    .stat_file = memory_stat_file,
    .lock = memory_lock,
    .unlock = memory_unlock,
    .map = memory_map,
    .unmap = memory_unmap,
    .close = memory_close,
    .stat = memory_stat,
    .stat_link = memory_stat,
    .is_in_memory = memory_is_in_memory,
    .rename = memory_rename,
    .remove = memory_remove,
    .make_dir = memory_dir,
    .make_dir_as = memory_dir_as,
    .remove_dir = memory_dir,
    .list = memory_list,
    .sync_dir = memory_dir,
    .monotonic_ns = outer_monotonic_ns,
    .realtime_ms = outer_realtime_ms,
    .random = outer_random,
    .machine_id = outer_machine_id,
    .boot_id = outer_boot_id,
    .process_id = outer_process_id,
    .user_id = outer_user_id,
    .wait_word = outer_wait_word,
    .wake_word = outer_wake_word,
    .log = outer_log,
};

struct hw_env *hw_storage_memory_new(struct hw_env *outer)
{
    struct memory_env *env = hw_zalloc(sizeof(*env));

    if (env == NULL)
        return NULL;
    env->env.ops = &memory_ops;
    env->outer = outer;
    return &env->env;
}

void hw_storage_memory_free(struct hw_env *env)
{
    if (env == NULL)
        return;
    for (struct content *at = memory(env)->first, *next; at != NULL; at = next) {
        next = at->next;
        assert(at->handles == 0);
        content_free(at);
    }
    hw_free(env);
}
