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
