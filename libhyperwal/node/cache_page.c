/* Implements node/cache_page.h. */
#include "node/cache_page.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

enum { VERSION = 1 };

static const char magic[8] = {'h', 'w', 'c', 'a', 'c', 'h', 'e', '1'};

static_assert(offsetof(struct cache_page, requests) == 128, "as in the picture");
static_assert(offsetof(struct cache_page, texts) == 1024, "as in the picture");
static_assert(sizeof(struct cache_page) <= CACHE_PAGE_SIZE, "one page");

static bool is_valid(const struct cache_page *page, const uint8_t boot[16])
{
    return memcmp(page->magic, magic, sizeof(magic)) == 0 &&
           hw_get_le32(page->version) == VERSION && page->order == 1 &&
           memcmp(page->boot, boot, sizeof(page->boot)) == 0;
}

/* Under the lock of the file: nobody has a valid page of another boot. */
static void reset(struct cache_page *page, const uint8_t boot[16])
{
    memset((void *)page, 0, sizeof(*page));
    hw_put_le32(page->version, VERSION);
    page->order = 1;
    memcpy(page->boot, boot, sizeof(page->boot));
    memcpy(page->magic, magic, sizeof(magic));
}

enum hw_status cache_page_open(struct hw_env *env, const char *dir, struct cache_page **out,
                               struct hw_error *err)
{
    const struct hw_env_ops *ops = env->ops;
    char *path = hw_format("%s/cache", dir);
    struct hw_file *file = NULL;
    struct hw_file_stat stat;
    void *memory = NULL;
    uint8_t boot[16];
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open a cache");
    status = ops->boot_id(env, boot, err);
    if (status == HW_OK)
        status = ops->open(env, path,
                           HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                           &file, err);
    if (status == HW_OK)
        status = ops->lock(file, true, err); /* held for a moment by whoever makes it */
    if (status == HW_OK)
        status = ops->stat_file(file, &stat, err);
    if (status == HW_OK && stat.size < CACHE_PAGE_SIZE)
        status = ops->truncate(file, CACHE_PAGE_SIZE, err);
    if (status == HW_OK)
        status = ops->map(file, CACHE_PAGE_SIZE, &memory, err);
    if (status == HW_OK && !is_valid(memory, boot))
        reset(memory, boot);
    if (status == HW_OK) {
        ops->unlock(file);
        *out = memory;
    }
    ops->close(file);
    hw_free(path);
    return status;
}

void cache_page_close(struct hw_env *env, struct cache_page *page)
{
    if (page != NULL)
        env->ops->unmap(env, page, CACHE_PAGE_SIZE);
}

/* ------------------------------------------------------------------------------------ text */

/* By words, as others may be looking. */
static void text_load(const _Atomic uint64_t *words, char out[HW_ERROR_SIZE])
{
    for (size_t i = 0; i < HW_ERROR_SIZE / 8; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);

        memcpy(out + 8 * i, &word, 8);
    }
    out[HW_ERROR_SIZE - 1] = '\0';
}

void cache_page_set_text(struct cache_page *page, const char *text)
{
    uint32_t turn = atomic_load(&page->turn);
    char now[HW_ERROR_SIZE], wanted[HW_ERROR_SIZE] = {0};
    size_t size = strlen(text);

    text_load(page->texts[turn % 2], now);
    if (strcmp(now, text) == 0)
        return;
    memcpy(wanted, text, size < sizeof(wanted) ? size : sizeof(wanted) - 1);
    turn++;
    for (size_t i = 0; i < HW_ERROR_SIZE / 8; i++) {
        uint64_t word;

        memcpy(&word, wanted + 8 * i, 8);
        atomic_store_explicit(&page->texts[turn % 2][i], word, memory_order_relaxed);
    }
    atomic_store(&page->turn, turn);
}

void cache_page_text(const struct cache_page *page, char out[HW_ERROR_SIZE])
{
    enum { TRIES = 8 }; /* a text for people: one that changes all the time may be mixed */

    for (int i = 0; i < TRIES; i++) {
        uint32_t turn = atomic_load(&page->turn);

        text_load(page->texts[turn % 2], out);
        if (atomic_load(&page->turn) == turn)
            break;
    }
}

/* -------------------------------------------------------------------------------- requests */

enum hw_status cache_request_post(struct cache_page *page, uint64_t block, uint64_t count,
                                  unsigned *slot, uint64_t *word)
{
    uint64_t wanted = (block + 1) << 12 |
                      (count < CACHE_REQUEST_AHEAD_MAX ? count : (uint64_t)CACHE_REQUEST_AHEAD_MAX);

    for (unsigned i = 0; i < CACHE_REQUESTS; i++) {
        uint64_t now = atomic_load(&page->requests[i]);

        /* One that was refused is taken over: who asked sees it, or is dead. */
        if (now != 0 && (now & CACHE_REQUEST_REFUSED) == 0)
            continue;
        if (atomic_compare_exchange_strong(&page->requests[i], &now, wanted)) {
            *slot = i;
            *word = wanted;
            return HW_OK;
        }
    }
    return HW_AGAIN;
}
