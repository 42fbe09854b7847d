/* Implements support/mirror_log.h. */
#include "support/mirror_log.h"

static enum hw_status ask(struct hw_core *from, struct hw_core *to,
                          const struct hw_proof_request *request, struct hw_accepted *accepted,
                          struct hw_error *err)
{
    struct hw_proof proof = {0};
    enum hw_status status = hw_core_prove(from, request, &proof, err);

    if (status == HW_OK)
        status = hw_core_accept(to, &proof, accepted, err);
    hw_proof_release(&proof);
    return status;
}

static void request_upgrade(struct hw_core *from, struct hw_core *to,
                            struct hw_proof_request *request)
{
    request->fork = hw_core_head(from).fork;
    request->has_upgrade = true;
    request->upgrade_start = hw_core_length(to);
    request->upgrade_length = hw_core_length(from) - hw_core_length(to);
    request->wants_manifest = hw_core_length(to) == 0;
}

enum hw_status mirror_log_upgrade(struct hw_core *from, struct hw_core *to,
                                  struct hw_accepted *accepted, struct hw_error *err)
{
    struct hw_proof_request request = {.id = 0};

    request_upgrade(from, to, &request);
    return ask(from, to, &request, accepted, err);
}

enum hw_status mirror_log_request(struct hw_core *to, uint64_t index, struct hw_proof_request *out,
                                  struct hw_error *err)
{
    *out = (struct hw_proof_request){
        .fork = hw_core_head(to).fork, .has_block = true, .block_index = index};
    return hw_core_missing_nodes(to, 2 * index, &out->block_nodes, err);
}

enum hw_status mirror_log_block(struct hw_core *from, struct hw_core *to, uint64_t index,
                                struct hw_accepted *accepted, struct hw_error *err)
{
    struct hw_proof_request request;
    enum hw_status status = mirror_log_request(to, index, &request, err);

    return status == HW_OK ? ask(from, to, &request, accepted, err) : status;
}

enum hw_status mirror_log_push(struct hw_core *from, struct hw_core *to,
                               struct hw_accepted *accepted, struct hw_error *err)
{
    struct hw_proof_request request = {.has_block = true, .block_index = hw_core_length(to)};

    request_upgrade(from, to, &request);
    return ask(from, to, &request, accepted, err);
}

/* Ask for hashes until it is known where the forks differ. */
static enum hw_status find_common(struct hw_core *from, const struct hw_proof_reader *reader,
                                  struct hw_reorg *reorg, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    while (status == HW_OK && !reorg->is_done) {
        struct hw_proof_request request = {.fork = reorg->fork,
                                           .has_hash = true,
                                           .hash_index = 2 * reorg->want_start,
                                           .hash_nodes = reorg->want_nodes};
        struct hw_proof proof = {0};

        status = hw_core_prove(from, &request, &proof, err);
        if (status == HW_OK)
            status = hw_reorg_feed(reader, reorg, &proof, err);
        hw_proof_release(&proof);
    }
    return status;
}

enum hw_status mirror_log_reorg(struct hw_core *from, struct hw_core *to, struct hw_error *err)
{
    struct hw_proof_request request = {.fork = hw_core_head(from).fork,
                                       .has_upgrade = true,
                                       .upgrade_length = hw_core_length(from),
                                       .wants_manifest = true};
    struct hw_proof_reader reader;
    struct hw_proof proof = {0};
    struct hw_reorg reorg = {.fork = 0};
    enum hw_status status = hw_core_reader(to, &reader, err);

    if (status == HW_OK)
        status = hw_core_prove(from, &request, &proof, err);
    if (status == HW_OK)
        status = hw_reorg_begin(&reader, &proof, &reorg, err);
    if (status == HW_OK)
        status = find_common(from, &reader, &reorg, err);
    if (status == HW_OK)
        status = hw_core_reorg(to, &reorg,
                               (struct hw_slice){proof.signature.bytes, proof.signature.size},
                               (struct hw_slice){proof.manifest.bytes, proof.manifest.size}, err);
    hw_reorg_release(&reorg);
    hw_proof_release(&proof);
    return status;
}
