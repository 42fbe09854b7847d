/*
 * A remote that says anything on a core's channel, to a log and to a mirror that has half of it.
 *
 * The first byte picks the listener, then messages follow: type | size 16 bits LE | payload.  The
 * signer is known, so that true answers can be in the corpus and be spoiled from there.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/replication.h"

enum { LENGTH = 24, HALF = 12 };

static const struct hw_env_ops *real_ops;
static struct hw_env_ops known_ops;
static struct hw_env known_env;
static struct hw_core *log_core;

static void known_random(struct hw_env *env, void *buf, size_t size)
{
    (void)env;
    memset(buf, 1, size);
}

static uint64_t no_time(struct hw_env *env)
{
    static uint64_t now;

    (void)env;
    return now += 1000;
}

static void append(unsigned count)
{
    bool good = hw_core_batch_begin(log_core, NULL) == HW_OK;

    for (unsigned i = 0; i < count && good; i++) {
        uint64_t block = hw_core_batch_next(log_core);

        good = hw_core_batch_add(log_core, &block, block % 7, NULL) == HW_OK;
    }
    if (!good || hw_core_batch_commit(log_core, "", 0, NULL) != HW_OK)
        abort();
}

static void build(void)
{
    known_env = *hw_env_posix();
    real_ops = known_env.ops;
    known_ops = *real_ops;
    known_ops.random = known_random;
    known_ops.monotonic_ns = no_time;
    known_env.ops = &known_ops;
    if (hw_core_create(&known_env, NULL, &log_core, NULL) != HW_OK)
        abort();
    append(LENGTH);
}

/* What the first HALF blocks prove to an empty mirror. */
static struct hw_core *make_mirror(void)
{
    struct hw_proof_request request = {
        .has_upgrade = true, .upgrade_length = HALF, .wants_manifest = true};
    struct hw_accepted accepted;
    struct hw_core *mirror = NULL;
    struct hw_proof proof = {0};

    if (hw_core_create_mirror(&known_env, NULL, hw_core_identity(log_core)->key, &mirror, NULL) !=
            HW_OK ||
        hw_core_prove(log_core, &request, &proof, NULL) != HW_OK ||
        hw_core_accept(mirror, &proof, &accepted, NULL) != HW_OK)
        abort();
    hw_proof_release(&proof);
    return mirror;
}

static enum hw_status swallow(void *ctx, enum hw_message_type type, struct hw_slice head,
                              struct hw_slice body, struct hw_error *err)
{
    size_t *queued = ctx;

    (void)type;
    (void)err;
    *queued += head.size + body.size;
    return HW_OK;
}

static size_t queued_bytes(void *ctx)
{
    const size_t *queued = ctx;

    return *queued;
}

static void talk(struct hw_link *link, struct hw_slice bytes)
{
    enum hw_status status = HW_OK;

    while (status == HW_OK && bytes.size >= 3) {
        size_t size = hw_get_le16(bytes.bytes + 1);

        if (size > bytes.size - 3)
            size = bytes.size - 3;
        status = hw_link_receive(link, bytes.bytes[0] % 12,
                                 (struct hw_slice){bytes.bytes + 3, size}, NULL);
        bytes.bytes += 3 + size;
        bytes.size -= 3 + size;
    }
}

static void never_overtaken(void *ctx, const struct hw_link *link, uint64_t fork, uint64_t length)
{
    (void)ctx;
    (void)link;
    (void)fork;
    (void)length;
    abort(); /* nobody signs by chance */
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_replication_options options = {.env = &known_env};
    struct hw_replication *replication = NULL;
    struct hw_link *link = NULL, *dropped;
    struct hw_core *mirror = NULL;
    size_t queued = 0;
    struct hw_link_sink sink = {.ctx = &queued, .send = swallow, .queued = queued_bytes};
    uint64_t deadline_ns;

    if (size == 0)
        return 0;
    if (log_core == NULL)
        build();
    if (bytes[0] % 2 == 0)
        mirror = make_mirror();
    options.core = mirror == NULL ? log_core : mirror;
    options.fetches = mirror != NULL;
    options.overtaken = mirror == NULL ? never_overtaken : NULL;
    if (hw_replication_new(&options, &replication, NULL) != HW_OK ||
        hw_link_open(replication, &sink, &link, NULL) != HW_OK)
        abort();
    if (mirror != NULL)
        hw_replication_want_tail(replication, 3);
    talk(link, (struct hw_slice){bytes + 1, size - 1});
    if (hw_replication_tick(replication, no_time(NULL), &dropped, &deadline_ns, NULL) == HW_OK &&
        dropped != link)
        abort();
    if (mirror == NULL) /* now it may have been asked to prove what it claimed */
        talk(link, (struct hw_slice){bytes + 1, size - 1});
    (void)hw_replication_availability(replication, LENGTH);
    if (hw_core_length(options.core) > LENGTH || queued > HW_LINK_OUTPUT_MAX + (1 << 16))
        abort(); /* nobody signs by chance, and what nobody reads has an end */
    hw_link_close(link);
    hw_replication_free(replication);
    hw_core_close(mirror);
    return 0;
}
