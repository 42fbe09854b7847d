/*
 * Whose replica it is: the file `replica`, and how a replica passes from one log to another.
 *
 *   hyperwal replica 1          2: with a base, which older programs must not overlook
 *   key HEX
 *   source DIR or URLs
 *   fork N                      0 if it is missing
 *   base EPOCH SEQ SUM PAGES    of a replica that followed other logs before
 *
 * The file is replaced as a whole.  With it a replica is of another log at once; what `position`
 * recorded before has another epoch, and means the base, or nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply/replay.h"
#include "apply/replica_internal.h"
#include "base/alloc.h"

enum { BINDING_SIZE_MAX = 1024 }; /* bytes of the file */
enum { SWITCH_SEQ = 1 };          /* where a log says which one it continues */
enum { EPOCH_MAX = 0xffffff };

/* ---------------------------------------------------------------------------------- the file */

static bool key_parse(const char *hex, uint8_t key[HW_KEY_SIZE])
{
    for (int i = 0; i < 2 * HW_KEY_SIZE; i++) {
        char c = hex[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        key[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : key[i / 2] | digit);
    }
    return true;
}

static bool base_parse(const char *text, struct hw_replica_base *out)
{
    unsigned long long epoch, seq, sum, pages;
    int read = 0;

    if (sscanf(text, "%8llu %20llu %16llx %10llu%n", &epoch, &seq, &sum, &pages, &read) != 4 ||
        (text[read] != '\n' && text[read] != '\0') || epoch == 0 || epoch > EPOCH_MAX ||
        pages > UINT32_MAX)
        return false;
    *out = (struct hw_replica_base){
        .epoch = (uint32_t)epoch, .seq = seq, .sum = sum, .page_count = (uint32_t)pages};
    return true;
}

/* `text` ends with a zero. */
static bool binding_parse(const char *text, struct hw_replica_info *out)
{
    static const char name[] = "hyperwal replica ", key[] = "\nkey ";
    const char *source, *fork, *base;

    if (strncmp(text, name, strlen(name)) != 0)
        return false;
    text += strlen(name);
    if ((text[0] != '1' && text[0] != '2') || strncmp(text + 1, key, strlen(key)) != 0 ||
        !key_parse(text + 1 + strlen(key), out->key))
        return false;
    source = strstr(text, "\nsource ");
    out->source[0] = 0;
    if (source != NULL)
        (void)snprintf(out->source, sizeof(out->source), "%.*s", (int)strcspn(source + 8, "\n"),
                       source + 8);
    fork = strstr(text, "\nfork ");
    out->fork = fork != NULL ? strtoull(fork + 6, NULL, 10) : 0;
    base = strstr(text, "\nbase ");
    out->base = (struct hw_replica_base){0};
    return base == NULL ? text[0] == '1' : base_parse(base + 6, &out->base);
}

enum hw_status hw_replica_binding_read(struct hw_env *env, const char *dir,
                                       struct hw_replica_info *out, struct hw_error *err)
{
    char text[BINDING_SIZE_MAX + 1] = {0};
    struct hw_replica_info info = *out;
    char *path = hw_format("%s/replica", dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory");
    status = hw_env_read_file(env, path, text, BINDING_SIZE_MAX, &size, err);
    if (status == HW_OK && !binding_parse(text, &info))
        status =
            hw_fail(err, HW_ECORRUPT,
                    "%s: does not name the log of this replica: remove the replica and %s, and "
                    "follow again",
                    path, dir);
    if (status == HW_OK)
        *out = info;
    hw_free(path);
    return status;
}

enum hw_status hw_replica_binding_write(struct hw_env *env, const char *dir,
                                        const struct hw_replica_info *info, struct hw_error *err)
{
    const struct hw_replica_base *base = &info->base;
    char hex[2 * HW_KEY_SIZE + 1], fork[32] = "", began[96] = "";
    char *path = hw_format("%s/replica", dir), *text;
    enum hw_status status;

    hw_key_format(info->key, hex);
    if (info->fork != 0)
        (void)snprintf(fork, sizeof(fork), "fork %llu\n", (unsigned long long)info->fork);
    if (base->epoch != 0)
        (void)snprintf(began, sizeof(began), "base %u %llu %016llx %u\n", base->epoch,
                       (unsigned long long)base->seq, (unsigned long long)base->sum,
                       base->page_count);
    text = hw_format("hyperwal replica %d\nkey %s\nsource %s\n%s%s", base->epoch != 0 ? 2 : 1, hex,
                     info->source, fork, began);
    if (path == NULL || text == NULL)
        status = hw_fail(err, HW_ENOMEM, "replica: no memory");
    else
        status = hw_env_replace_file(env, path, text, strlen(text), 0, err);
    hw_free(path);
    hw_free(text);
    return status;
}

enum hw_status hw_replica_info(struct hw_env *env, const char *path, struct hw_replica_info *out,
                               struct hw_error *err)
{
    struct hw_replica_info info = {.seq = UINT64_MAX};
    struct hw_replica_record record;
    char *dir = hw_format("%s-hyper", path);
    enum hw_status status;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory");
    status = hw_replica_binding_read(env, dir, &info, err);
    if (status == HW_ENOTFOUND)
        status = hw_fail(err, status, "%s: not a replica", path);
    if (status == HW_OK)
        status = hw_positions_peek(env, dir, &record, err);
    if (status == HW_OK) {
        hw_record_rebase(&record, &info.base);
        info.record = record.ordinal;
        info.is_closed = (record.flags & HW_RECORD_CLOSED) != 0;
        info.seq = record.seq;
        info.sum = record.sum;
        info.page_count = record.page_count;
        info.at = record.at;
    }
    hw_free(dir);
    if (status < 0)
        return status;
    *out = info;
    return HW_OK;
}

/* ---------------------------------------------------------------------------- to another log */

enum hw_status hw_switch_read(struct hw_core *core, uint64_t seq, struct hw_switch *out,
                              struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    struct hw_entry_header header;
    struct hw_cursor body;
    enum hw_status status;

    if (seq >= hw_core_length(core))
        return hw_fail(err, HW_ENOTFOUND, "block %llu: there is none", (unsigned long long)seq);
    status = hw_block_read(core, seq, &buffer, &header, &body, err);
    if (status == HW_OK && header.type != HW_ENTRY_SWITCH)
        status = hw_fail(err, HW_ENOTFOUND, "block %llu: not a switch", (unsigned long long)seq);
    if (status == HW_OK && hw_switch_decode(&body, out) != HW_OK)
        status = hw_fail(err, HW_ECORRUPT, "block %llu: a bad switch", (unsigned long long)seq);
    hw_buffer_release(&buffer);
    return status;
}

static enum hw_relation relation_of(const struct hw_switch *switch_,
                                    const struct hw_replica_info *info)
{
    if (info->seq == UINT64_MAX)
        return HW_RELATION_BEHIND;
    if (info->sum == switch_->sum && info->page_count == switch_->page_count)
        return HW_RELATION_EQUAL;
    if (info->fork != switch_->fork)
        return info->fork < switch_->fork ? HW_RELATION_BEHIND : HW_RELATION_AHEAD;
    return info->seq < switch_->seq ? HW_RELATION_BEHIND : HW_RELATION_AHEAD;
}

enum hw_status hw_replica_relation(struct hw_core *core, const struct hw_replica_info *info,
                                   enum hw_relation *relation, struct hw_switch *out,
                                   struct hw_error *err)
{
    struct hw_switch switch_;
    enum hw_status status = hw_switch_read(core, SWITCH_SEQ, &switch_, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    if (status == HW_ENOTFOUND || switch_.role != HW_SWITCH_CONTINUES ||
        memcmp(switch_.key, info->key, HW_KEY_SIZE) != 0) {
        *relation = HW_RELATION_STRANGER;
        return HW_OK;
    }
    *relation = relation_of(&switch_, info);
    *out = switch_;
    return HW_OK;
}

static struct hw_replica_base base_next(const struct hw_replica_base *last,
                                        const struct hw_switch *switch_)
{
    return (struct hw_replica_base){
        .epoch = last->epoch < EPOCH_MAX ? last->epoch + 1 : 1, /* 4096 records remember fewer */
        .seq = SWITCH_SEQ,
        .sum = switch_->sum,
        .page_count = switch_->page_count,
    };
}

enum hw_status hw_replica_move(struct hw_env *env, const char *path, struct hw_core *core,
                               struct hw_replica_info *info, struct hw_error *err)
{
    static const char *const words[] = {"", "equal", "behind", "ahead"};
    char hex[2 * HW_KEY_SIZE + 1], old[2 * HW_KEY_SIZE + 1];
    char *dir = hw_format("%s-hyper", path);
    enum hw_relation relation = HW_RELATION_STRANGER;
    struct hw_replica_info own, moved;
    struct hw_switch switch_;
    enum hw_status status;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", path);
    hw_key_format(info->key, old);
    hw_key_format(hw_core_identity(core)->key, hex);
    status = hw_replica_info(env, path, &own, err);
    if (status == HW_OK)
        status = hw_replica_relation(core, &own, &relation, &switch_, err);
    if (status == HW_OK && relation == HW_RELATION_STRANGER)
        status =
            hw_fail(err, HW_EFORK, "%s: the replica of another log, %s, which %s does not continue",
                    path, old, hex);
    if (status == HW_OK) {
        moved = *info;
        memcpy(moved.key, hw_core_identity(core)->key, HW_KEY_SIZE);
        moved.fork = hw_core_head(core).fork;
        moved.base = base_next(&info->base, &switch_);
        status = hw_replica_binding_write(env, dir, &moved, err);
    }
    if (status == HW_OK) {
        *info = moved;
        hw_env_log(env, relation == HW_RELATION_AHEAD ? HW_LOG_WARN : HW_LOG_INFO,
                   "event=replica_moved path=%s from=%s to=%s seq=%lld switch_seq=%llu was=%s",
                   path, old, hex, own.seq == UINT64_MAX ? -1LL : (long long)own.seq,
                   (unsigned long long)switch_.seq, words[relation]);
    }
    hw_free(dir);
    return status;
}

/* --------------------------------------------------------------- from and to a log of its own */

enum hw_status hw_replica_lock(struct hw_env *env, const char *path, struct hw_file **out,
                               struct hw_error *err)
{
    char *name = hw_format("%s-hyper/follower.lock", path);
    struct hw_file *lock = NULL;
    enum hw_status status;

    if (name == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", path);
    status = env->ops->open(env, name,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                            &lock, err);
    if (status == HW_OK && env->ops->lock(lock, false, err) != HW_OK)
        status = hw_fail(err, HW_EBUSY, "%s: a follower has it open: stop it first", path);
    if (status == HW_OK)
        *out = lock;
    else
        env->ops->close(lock);
    hw_free(name);
    return status;
}

static enum hw_status remove_in(struct hw_env *env, const char *dir, const char *name,
                                struct hw_error *err)
{
    char *path = hw_format("%s/%s", dir, name);
    enum hw_status status = path == NULL ? hw_fail(err, HW_ENOMEM, "%s: no memory", dir)
                                         : env->ops->remove(env, path, err);

    hw_free(path);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_replica_strip(struct hw_env *env, const char *path, struct hw_error *err)
{
    static const char *const own[] = {"position", "id", "shared", "peers"};
    char *dir = hw_format("%s-hyper", path);
    enum hw_status status = HW_OK;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", path);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && status == HW_OK; i++)
        status = remove_in(env, dir, own[i], err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    hw_free(dir);
    return status;
}

enum hw_status hw_replica_release(struct hw_env *env, const char *path, struct hw_error *err)
{
    char *dir = hw_format("%s-hyper", path);
    enum hw_status status = hw_replica_strip(env, path, err);

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", path);
    if (status == HW_OK)
        status = remove_in(env, dir, "replica", err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    hw_free(dir);
    return status;
}

/* One record: the file, closed, is in the state of the switch. */
static enum hw_status record_state(struct hw_env *env, const char *dir, uint32_t epoch,
                                   const struct hw_switch *switch_, struct hw_error *err)
{
    struct hw_replica_record record = {.seq = SWITCH_SEQ,
                                       .sum = switch_->sum,
                                       .page_count = switch_->page_count,
                                       .flags = HW_RECORD_CLOSED};
    struct hw_positions *positions = NULL;
    enum hw_status status = hw_positions_open(env, dir, epoch, &positions, err);

    if (status == HW_OK)
        status = hw_positions_reset(positions, err);
    if (status == HW_OK)
        status = hw_positions_append(positions, &record, err);
    if (status == HW_OK)
        status = hw_positions_sync(positions, err);
    hw_positions_close(positions);
    return status;
}

enum hw_status hw_replica_adopt(struct hw_env *env, const char *path,
                                const uint8_t key[HW_KEY_SIZE], const struct hw_switch *switch_,
                                bool is_equal, struct hw_error *err)
{
    static const char *const own[] = {"position", "sums", "shared", "peers"};
    struct hw_replica_info info = {.fork = 0};
    char *dir = hw_format("%s-hyper", path);
    enum hw_status status = HW_OK;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", path);
    memcpy(info.key, key, HW_KEY_SIZE);
    info.base = base_next(&info.base, switch_);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && status == HW_OK; i++)
        status = remove_in(env, dir, own[i], err);
    if (status == HW_OK && is_equal)
        status = record_state(env, dir, info.base.epoch, switch_, err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, dir, err);
    if (status == HW_OK)
        status = hw_replica_binding_write(env, dir, &info, err);
    hw_free(dir);
    return status;
}
