/* Implements node/known.h. */
#include "node/known.h"

#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "base/buffer.h"
#include "hypercore/manifest.h"
#include "node/hub.h"

enum { KEY_TEXT_MAX = 64, LOCK_TRIES = 600, TRY_NS = 5000000 };

/* ---------------------------------------------------------------------------------- text */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct hw_slice word_take(struct hw_slice *text)
{
    struct hw_slice word;
    size_t size = 0;

    while (text->size > 0 && is_blank(text->bytes[0])) {
        text->bytes++;
        text->size--;
    }
    while (size < text->size && !is_blank(text->bytes[size]))
        size++;
    word = (struct hw_slice){text->bytes, size};
    text->bytes += size;
    text->size -= size;
    return word;
}

/* Also what follows the last newline. */
static struct hw_slice line_take(struct hw_slice *rest)
{
    const uint8_t *newline = memchr(rest->bytes, '\n', rest->size);
    size_t size = newline == NULL ? rest->size : (size_t)(newline - rest->bytes) + 1;
    struct hw_slice line = {rest->bytes, size};

    rest->bytes += size;
    rest->size -= size;
    return line;
}

enum hw_status hw_known_decode(struct hw_slice *rest, unsigned *line, struct hw_known_server *out,
                               struct hw_error *err)
{
    while (rest->size > 0) {
        struct hw_known_server server = {.text = line_take(rest), .line = ++*line};
        struct hw_slice left = server.text, key;
        char text[KEY_TEXT_MAX + 1] = "";

        server.address = word_take(&left);
        if (server.address.size == 0 || server.address.bytes[0] == '#')
            continue;
        key = word_take(&left);
        server.since = word_take(&left);
        if (key.size <= KEY_TEXT_MAX)
            memcpy(text, key.bytes, key.size);
        if (!hw_key_parse(text, server.key))
            return hw_fail(err, HW_EMISUSE,
                           "line %u: after the address there is no key, which has 64 hex digits",
                           *line);
        *out = server;
        return HW_OK;
    }
    return HW_END;
}

/* Names of hosts are the same in capitals; what follows them is not. */
static bool is_address(struct hw_slice known, const char *address)
{
    const char *host = strstr(address, "//");
    const char *end = host != NULL ? strchr(host + 2, '/') : NULL;
    size_t size = strlen(address), folded = end != NULL ? (size_t)(end - address) : size;

    if (known.size != size)
        return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t a = known.bytes[i], b = (uint8_t)address[i];

        if (i < folded && a >= 'A' && a <= 'Z')
            a |= 0x20;
        if (i < folded && b >= 'A' && b <= 'Z')
            b |= 0x20;
        if (a != b)
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------------------------- file */

/* *is_kept: what is written there is there again.  A file that is missing is empty. */
static enum hw_status file_read(struct hw_env *env, const char *path, struct hw_buffer *out,
                                bool *is_kept, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = env->ops->stat(env, path, &stat, err);

    *is_kept = true;
    hw_buffer_clear(out);
    if (status == HW_ENOTFOUND)
        return HW_OK;
    if (status != HW_OK)
        return status;
    if (stat.is_special) {
        *is_kept = false;
        return HW_OK;
    }
    status = hw_env_check_ours(path, &stat, "", err);
    return status == HW_OK ? hw_env_read_text(env, path, HW_KNOWN_TEXT_MAX, out, err) : status;
}

/* Others hold it for one write; who was stopped with it keeps nobody waiting for long. */
static enum hw_status lock_take(struct hw_env *env, const char *path, struct hw_file **out,
                                struct hw_error *err)
{
    char *name = hw_format("%s.lock", path); /* owned */
    struct hw_file *file = NULL;             /* owned */
    enum hw_status status;

    if (name == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to lock it", path);
    hw_config_make_parents(env, name);
    status = env->ops->open(env, name,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_PRIVATE |
                                HW_OPEN_CLOSE_ON_FORK,
                            &file, err);
    hw_free(name);
    if (status != HW_OK)
        return status;
    status = env->ops->lock(file, false, err);
    for (unsigned i = 1; status == HW_EBUSY && i < LOCK_TRIES; i++) {
        uint32_t nobody_wakes = 0;

        env->ops->wait_word(env, &nobody_wakes, 0, TRY_NS);
        status = env->ops->lock(file, false, err);
    }
    if (status != HW_OK) {
        env->ops->close(file);
        return hw_prefix(err, status, "%s", path);
    }
    *out = file;
    return HW_OK;
}

/* ------------------------------------------------------------------------------ checking */

/* HW_END: nobody was known there. */
static enum hw_status look_up(const char *path, struct hw_slice text, const char *address,
                              const uint8_t key[HW_IDENTITY_KEY_SIZE], struct hw_error *err)
{
    struct hw_known_server server, other = {.line = 0};
    char is[2 * HW_KEY_SIZE + 1], was[2 * HW_KEY_SIZE + 1];
    unsigned line = 0;
    enum hw_status status;

    while ((status = hw_known_decode(&text, &line, &server, err)) == HW_OK) {
        if (!is_address(server.address, address))
            continue;
        if (memcmp(server.key, key, sizeof(server.key)) == 0)
            return HW_OK; /* several lines: any of them */
        if (other.line == 0)
            other = server;
    }
    if (status != HW_END)
        return hw_prefix(err, status, "%s", path);
    if (other.line == 0)
        return HW_END;
    hw_key_format(key, is);
    hw_key_format(other.key, was);
    return hw_fail(err, HW_EREFUSED,
                   "%s: another server than the one that was known there since %.*s: its key is "
                   "%s, and was %s. Does somebody stand in between? If it was made anew, `hyperwal "
                   "key --forget %s' (or remove %s:%u)",
                   address, other.since.size > 30 ? 30 : (int)other.since.size,
                   (const char *)other.since.bytes, is, was, address, path, other.line);
}

static void add_line(struct hw_env *env, struct hw_buffer *text, const char *address,
                     const uint8_t key[HW_IDENTITY_KEY_SIZE])
{
    char key_text[2 * HW_KEY_SIZE + 1], time[32];

    hw_key_format(key, key_text);
    hw_time_format(env->ops->realtime_ms(env), time);
    if (text->size > 0 && text->bytes[text->size - 1] != '\n')
        hw_buffer_add_u8(text, '\n');
    hw_buffer_add(text, address, strlen(address));
    hw_buffer_add_u8(text, ' ');
    hw_buffer_add(text, key_text, strlen(key_text));
    hw_buffer_add_u8(text, ' ');
    hw_buffer_add(text, time, strlen(time));
    hw_buffer_add_u8(text, '\n');
}

static enum hw_status file_write(struct hw_env *env, const char *path, struct hw_buffer *text,
                                 struct hw_error *err)
{
    if (text->failed)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to write it", path);
    if (text->size > HW_KNOWN_TEXT_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: it would have more than %d bytes", path,
                       HW_KNOWN_TEXT_MAX);
    return hw_env_replace_file(env, path, text->bytes, text->size, HW_OPEN_PRIVATE, err);
}

/* Under the lock: another process may have met it meanwhile, and somebody else. */
static enum hw_status remember(struct hw_env *env, const char *path, const char *address,
                               const uint8_t key[HW_IDENTITY_KEY_SIZE], struct hw_error *unwritten,
                               struct hw_error *err)
{
    struct hw_buffer text = {0};
    struct hw_file *lock = NULL;
    bool is_kept;
    enum hw_status status = lock_take(env, path, &lock, unwritten);

    if (status != HW_OK)
        return HW_OK; /* it is not written, which *unwritten tells */
    status = file_read(env, path, &text, &is_kept, err);
    if (status == HW_OK)
        status = look_up(path, (struct hw_slice){text.bytes, text.size}, address, key, err);
    if (status == HW_END) {
        add_line(env, &text, address, key);
        (void)file_write(env, path, &text, unwritten); /* *unwritten tells */
        status = HW_OK;
    }
    hw_buffer_release(&text);
    env->ops->close(lock);
    return status;
}

enum hw_status hw_known_check(struct hw_env *env, const char *path, const char *address,
                              const uint8_t key[HW_IDENTITY_KEY_SIZE], bool remembers,
                              struct hw_error *unwritten, struct hw_error *err)
{
    struct hw_buffer text = {0};
    bool is_kept;
    enum hw_status status;

    *unwritten = (struct hw_error){0};
    status = file_read(env, path, &text, &is_kept, err);
    if (status == HW_OK)
        status = look_up(path, (struct hw_slice){text.bytes, text.size}, address, key, err);
    else
        (void)hw_prefix(err, status, "cannot tell whether %s is the server that it was", address);
    hw_buffer_release(&text);
    if (status != HW_END)
        return status;
    return remembers && is_kept ? remember(env, path, address, key, unwritten, err) : HW_OK;
}

enum hw_status hw_known_forget(struct hw_env *env, const char *path, const char *address,
                               unsigned *count, struct hw_error *err)
{
    struct hw_buffer text = {0}, kept = {0};
    struct hw_file *lock = NULL;
    struct hw_slice rest;
    unsigned found = 0;
    bool is_kept;
    enum hw_status status = lock_take(env, path, &lock, err);

    if (status != HW_OK)
        return status;
    status = file_read(env, path, &text, &is_kept, err);
    rest = (struct hw_slice){text.bytes, text.size};
    while (status == HW_OK && rest.size > 0) {
        struct hw_slice line = line_take(&rest), words = line;

        if (is_address(word_take(&words), address))
            found++;
        else
            hw_buffer_add(&kept, line.bytes, line.size);
    }
    if (status == HW_OK && found > 0)
        status = file_write(env, path, &kept, err);
    if (status == HW_OK)
        *count = found;
    hw_buffer_release(&kept);
    hw_buffer_release(&text);
    env->ops->close(lock);
    return status;
}

enum hw_status hw_known_list(struct hw_env *env, const char *path,
                             bool (*each)(void *ctx, const struct hw_known_server *server),
                             void *ctx, struct hw_error *err)
{
    struct hw_buffer text = {0};
    struct hw_known_server server;
    struct hw_slice rest;
    unsigned line = 0;
    bool is_kept;
    enum hw_status status = file_read(env, path, &text, &is_kept, err);

    rest = (struct hw_slice){text.bytes, text.size};
    while (status == HW_OK && (status = hw_known_decode(&rest, &line, &server, err)) == HW_OK)
        if (!each(ctx, &server))
            break;
    hw_buffer_release(&text);
    if (status == HW_EMISUSE)
        return hw_prefix(err, status, "%s", path);
    return status == HW_END ? HW_OK : status;
}
