/*
 * A hub with logs and mirrors of plain blocks, led by lines on its standard input, for the tests
 * with Node peers.
 *
 *   peer_tool DIRECTORY
 *
 *   make NAME | append NAME COUNT SIZE     a log of our own; sizes 1 to SIZE, or all SIZE with '='
 *   listen URL | serve NAME
 *   mirror NAME KEY all|sparse URL...
 *   wait NAME LENGTH | whole NAME LENGTH   until it knows of so many blocks, or has them
 *   get NAME INDEX                         fetch one block
 *   hashes NAME | stat NAME | leave NAME | quit
 *
 * Every line is answered with one JSON object; "error" tells of a failure.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "env/shared_page.h"
#include "hypercore/mirror.h"
#include "node/hub.h"

enum { LOGS_MAX = 16, WORDS_MAX = 12, LINE_MAX_SIZE = 4096, WAIT_MS = 60000, HASH_SIZE = 32 };

struct log {
    char name[64];
    char dir[600];
    struct hw_core *core;        /* of our own, open for writing */
    struct hw_shared_page *page; /* of the directory */
    struct hw_mirror *mirror;
};

struct tool {
    struct hw_env *env;
    const char *directory;
    struct hw_hub *hub;
    struct log logs[LOGS_MAX];
    unsigned count;
    struct hw_error err;
};

static struct log *find(struct tool *tool, const char *name)
{
    for (unsigned i = 0; i < tool->count; i++)
        if (strcmp(tool->logs[i].name, name) == 0)
            return &tool->logs[i];
    (void)hw_fail(&tool->err, HW_ENOTFOUND, "no log '%s'", name);
    return NULL;
}

static struct log *add(struct tool *tool, const char *name)
{
    struct log *log = &tool->logs[tool->count];

    if (tool->count == LOGS_MAX) {
        (void)hw_fail(&tool->err, HW_ELIMIT, "too many logs");
        return NULL;
    }
    *log = (struct log){0};
    (void)snprintf(log->name, sizeof(log->name), "%s", name);
    (void)snprintf(log->dir, sizeof(log->dir), "%s/%s", tool->directory, name);
    tool->count++;
    return log;
}

static void print_hex(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        (void)printf("%02x", bytes[i]);
}

/* ------------------------------------------------------------------------- logs of our own */

static enum hw_status make(struct tool *tool, char **words)
{
    struct log *log = add(tool, words[1]);
    enum hw_status status;

    if (log == NULL)
        return tool->err.status;
    status = hw_core_create(tool->env, log->dir, &log->core, &tool->err);
    if (status == HW_OK)
        status = hw_shared_page_open(tool->env, log->dir, true, &log->page, &tool->err);
    if (status != HW_OK)
        return status;
    hw_shared_set_durable_length(log->page, 0);
    (void)printf("{\"key\":\"");
    print_hex(hw_core_identity(log->core)->key, HW_KEY_SIZE);
    (void)printf("\"}\n");
    return HW_OK;
}

/* One batch of blocks of random bytes. */
static enum hw_status append(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    unsigned long count = strtoul(words[2], NULL, 10);
    bool is_exact = words[3][0] == '=';
    size_t most = strtoul(words[3] + is_exact, NULL, 10);
    uint8_t *block;
    enum hw_status status;

    if (log == NULL || log->core == NULL)
        return hw_fail(&tool->err, HW_EMISUSE, "no log of ours '%s'", words[1]);
    block = hw_alloc(most);
    if (block == NULL)
        return hw_fail(&tool->err, HW_ENOMEM, "no memory for a block");
    status = hw_core_batch_begin(log->core, &tool->err);
    for (unsigned long i = 0; i < count && status == HW_OK; i++) {
        size_t size = is_exact ? most : 1 + randombytes_uniform((uint32_t)most);

        randombytes_buf(block, size);
        status = hw_core_batch_add(log->core, block, size, &tool->err);
    }
    if (status == HW_OK)
        status = hw_core_batch_commit(log->core, NULL, 0, &tool->err);
    hw_free(block);
    if (status != HW_OK)
        return status;
    hw_shared_set_durable_length(log->page, hw_core_length(log->core));
    (void)printf("{\"length\":%" PRIu64 "}\n", hw_core_length(log->core));
    return HW_OK;
}

/* -------------------------------------------------------------------------------- network */

static enum hw_status listen_at(struct tool *tool, char **words)
{
    char bound[HW_URL_MAX];
    enum hw_status status = hw_hub_listen(tool->hub, words[1], bound, &tool->err);

    if (status == HW_OK)
        (void)printf("{\"url\":\"%s\"}\n", bound);
    return status;
}

static enum hw_status serve(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    enum hw_status status = tool->err.status;

    if (log != NULL)
        status = hw_hub_serve(tool->hub, log->name, log->dir, &tool->err);
    if (status == HW_OK)
        (void)printf("{}\n");
    return status;
}

static enum hw_status mirror(struct tool *tool, char **words, unsigned count)
{
    struct log *log = add(tool, words[1]);
    struct hw_address sources[WORDS_MAX];
    struct hw_mirror_options options = {.sources = sources};
    enum hw_status status = HW_OK;

    if (log == NULL)
        return tool->err.status;
    options.dir = log->dir;
    if (strlen(words[2]) != 2 * HW_KEY_SIZE ||
        sodium_hex2bin(options.key, HW_KEY_SIZE, words[2], 2 * HW_KEY_SIZE, NULL, NULL, NULL) != 0)
        return hw_fail(&tool->err, HW_EMISUSE, "not a key: %s", words[2]);
    for (unsigned i = 4; i < count && status == HW_OK; i++)
        status = hw_address_parse(words[i], &sources[options.source_count++], &tool->err);
    if (status == HW_OK)
        status = hw_hub_mirror_open(tool->hub, &options, &log->mirror, &tool->err);
    if (status != HW_OK)
        return status;
    if (strcmp(words[3], "all") == 0)
        hw_mirror_want_tail(log->mirror, 0);
    (void)printf("{}\n");
    return HW_OK;
}

static enum hw_status leave(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);

    if (log == NULL)
        return tool->err.status;
    hw_hub_mirror_close(log->mirror);
    hw_shared_page_close(log->page);
    hw_core_close(log->core);
    *log = (struct log){0};
    (void)printf("{}\n");
    return HW_OK;
}

/* ------------------------------------------------------------------------- what is there */

static enum hw_status wait_length(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    enum hw_status status;

    if (log == NULL || log->mirror == NULL)
        return hw_fail(&tool->err, HW_EMISUSE, "no mirror '%s'", words[1]);
    status = hw_mirror_wait_length(log->mirror, strtoull(words[2], NULL, 10), WAIT_MS, &tool->err);
    if (status == HW_OK)
        (void)printf("{}\n");
    return status;
}

/* Waits in small steps: nobody wakes for a block. */
static enum hw_status whole(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    uint64_t length = strtoull(words[2], NULL, 10), first = 0, checked;
    uint64_t end = tool->env->ops->monotonic_ns(tool->env) + WAIT_MS * UINT64_C(1000000);
    uint32_t word = 0;
    enum hw_status status = HW_OK;

    if (log == NULL)
        return tool->err.status;
    while (status == HW_OK && first < length) {
        struct hw_core *core = NULL;

        status = hw_core_open(tool->env, log->dir, HW_CORE_READ, UINT64_MAX, &core, &tool->err);
        if (status == HW_OK && hw_core_length(core) >= length)
            do
                status = hw_core_find(core, first, length, false, &first, &checked, &tool->err);
            while (status == HW_OK && first == length && checked < length);
        hw_core_close(core);
        if (status == HW_OK && first < length) {
            if (tool->env->ops->monotonic_ns(tool->env) > end)
                return hw_fail(&tool->err, HW_ETIMEOUT, "block %" PRIu64 " did not come", first);
            tool->env->ops->wait_word(tool->env, &word, 0, 5000000);
        }
    }
    if (status == HW_OK)
        (void)printf("{}\n");
    return status;
}

static void hash_block(const struct hw_buffer *block)
{
    uint8_t hash[HASH_SIZE];

    (void)crypto_generichash(hash, sizeof(hash), block->bytes, block->size, NULL, 0);
    print_hex(hash, sizeof(hash));
}

static enum hw_status get(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    struct hw_core_fetcher fetcher = {.fetch = hw_mirror_fetch};
    struct hw_buffer block = {0};
    struct hw_core *core = NULL;
    enum hw_status status;

    if (log == NULL)
        return tool->err.status;
    status = hw_core_open(tool->env, log->dir, HW_CORE_READ, UINT64_MAX, &core, &tool->err);
    if (status == HW_OK) {
        fetcher.ctx = log->mirror;
        hw_core_set_fetcher(core, &fetcher);
        status = hw_core_read(core, strtoull(words[2], NULL, 10), &block, &tool->err);
    }
    if (status == HW_OK) {
        (void)printf("{\"hash\":\"");
        hash_block(&block);
        (void)printf("\"}\n");
    }
    hw_core_close(core);
    hw_buffer_release(&block);
    return status;
}

/* Of every block: its hash, or null if it is not held. */
static enum hw_status hashes(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    struct hw_buffer block = {0};
    struct hw_core *core = NULL;
    enum hw_status status;

    if (log == NULL)
        return tool->err.status;
    status = hw_core_open(tool->env, log->dir, HW_CORE_READ, UINT64_MAX, &core, &tool->err);
    if (status != HW_OK)
        return status;
    (void)printf("{\"hashes\":[");
    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        (void)printf(i == 0 ? "" : ",");
        if (!hw_core_has(core, i) || hw_core_read(core, i, &block, &tool->err) != HW_OK) {
            (void)printf("null");
            continue;
        }
        (void)printf("\"");
        hash_block(&block);
        (void)printf("\"");
    }
    (void)printf("]}\n");
    hw_core_close(core);
    hw_buffer_release(&block);
    return HW_OK;
}

static enum hw_status stat(struct tool *tool, char **words)
{
    struct log *log = find(tool, words[1]);
    struct hw_mirror_status mirror_status = {0};
    struct hw_core_head head;
    struct hw_core *core = NULL;
    enum hw_status status;

    if (log == NULL)
        return tool->err.status;
    if (log->mirror != NULL)
        hw_mirror_status(log->mirror, &mirror_status);
    status = hw_core_open(tool->env, log->dir, HW_CORE_READ, UINT64_MAX, &core, &tool->err);
    if (status != HW_OK)
        return status;
    head = hw_core_head(core);
    (void)printf("{\"length\":%" PRIu64 ",\"byteLength\":%" PRIu64 ",\"fork\":%" PRIu64
                 ",\"connected\":%u,\"received\":%" PRIu64 ",\"problem\":\"%s\",\"tree\":\"",
                 head.length, head.byte_length, head.fork, mirror_status.connected,
                 mirror_status.bytes_received, mirror_status.problem);
    print_hex(head.tree_hash, HW_KEY_SIZE);
    (void)printf("\"}\n");
    hw_core_close(core);
    return HW_OK;
}

/* ---------------------------------------------------------------------------------- lines */

static enum hw_status obey(struct tool *tool, char **words, unsigned count)
{
    static const struct {
        const char *name;
        unsigned words;
        enum hw_status (*run)(struct tool *tool, char **words);
    } verbs[] = {
        {"make", 2, make},   {"append", 4, append}, {"listen", 2, listen_at},
        {"serve", 2, serve}, {"leave", 2, leave},   {"wait", 3, wait_length},
        {"whole", 3, whole}, {"get", 3, get},       {"hashes", 2, hashes},
        {"stat", 2, stat},
    };

    if (strcmp(words[0], "mirror") == 0 && count >= 4)
        return mirror(tool, words, count);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, words[0]) == 0 && verbs[i].words == count)
            return verbs[i].run(tool, words);
    return hw_fail(&tool->err, HW_EMISUSE, "not understood: %s with %u words", words[0], count);
}

static void log_line(void *ctx, enum hw_log_level level, const char *line)
{
    (void)ctx;
    (void)fprintf(stderr, "%d %s\n", (int)level, line);
}

/* The message as JSON: it may quote. */
static void print_error(const struct hw_error *err)
{
    (void)printf("{\"error\":\"");
    for (const char *p = err->message; *p != '\0'; p++)
        (void)printf(*p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    (void)printf("\",\"status\":\"%s\"}\n", hw_status_name(err->status));
}

int main(int argc, char **argv)
{
    struct tool tool = {.env = hw_env_posix()};
    struct hw_hub_options options = {.env = tool.env, .threaded = true};
    char line[LINE_MAX_SIZE], *words[WORDS_MAX], *rest;

    if (argc != 2 || sodium_init() < 0)
        return 2;
    tool.directory = argv[1];
    hw_env_posix_set_log(log_line, NULL);
    hw_identity_random(tool.env, &options.identity);
    if (hw_hub_open(&options, &tool.hub, &tool.err) != HW_OK) {
        (void)fprintf(stderr, "%s\n", tool.err.message);
        return 1;
    }
    while (fgets(line, sizeof(line), stdin) != NULL) {
        unsigned count = 0;

        for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < WORDS_MAX;
             word = strtok_r(NULL, " \n", &rest))
            words[count++] = word;
        if (count == 0)
            continue;
        if (strcmp(words[0], "quit") == 0)
            break;
        if (obey(&tool, words, count) != HW_OK)
            print_error(&tool.err);
        (void)fflush(stdout);
    }
    for (unsigned i = 0; i < tool.count; i++)
        hw_hub_mirror_close(tool.logs[i].mirror);
    hw_hub_close(tool.hub);
    for (unsigned i = 0; i < tool.count; i++) {
        hw_shared_page_close(tool.logs[i].page);
        hw_core_close(tool.logs[i].core);
    }
    return 0;
}
