/*
 * hypercore/proof.h - what a peer asks of a log, what is answered, and whether the answer is true
 *
 * A reader holds roots, some nodes and some blocks of a log.  It asks for a block, or a node, with
 * the nodes that lead from there to one it holds; for an upgrade, the nodes that lead from its
 * roots to those of a longer, signed tree; or for where a byte is.  Nothing is taken from an answer
 * that does not hash to a node the reader holds or to a tree that the log's signers signed.
 *
 * Requests and answers come from peers: all sizes are bounded by those of the message, all indices
 * are checked.  Source of the rules: Hypercore 11.37.
 */
#ifndef HW_HYPERCORE_PROOF_H
#define HW_HYPERCORE_PROOF_H

#include "base/buffer.h"
#include "base/error.h"
#include "hypercore/hypercore.h"
#include "hypercore/signature.h"
#include "hypercore/tree.h"

/* A list of nodes that grows. */
struct hw_nodes {
    struct hw_buffer buffer; /* struct hw_node each */
};
static inline size_t hw_nodes_count(const struct hw_nodes *nodes)
{
    return nodes->buffer.size / sizeof(struct hw_node);
}
static inline const struct hw_node *hw_nodes_at(const struct hw_nodes *nodes, size_t i)
{
    return (const struct hw_node *)(const void *)nodes->buffer.bytes + i;
}
void hw_nodes_add(struct hw_nodes *nodes, const struct hw_node *node); /* failure shows in buffer */
/* The node with this index, or NULL. */
const struct hw_node *hw_nodes_find(const struct hw_nodes *nodes, uint64_t index);
void hw_nodes_release(struct hw_nodes *nodes);

struct hw_proof_request {
    uint64_t id, fork;
    bool has_block, has_hash, has_seek, has_upgrade, wants_manifest;
    uint64_t block_index, block_nodes; /* nodes: levels up to a node that the reader holds */
    uint64_t hash_index, hash_nodes;
    uint64_t seek_bytes, seek_padding;
    uint64_t upgrade_start, upgrade_length; /* blocks */
};

/* The answer; all-zero is empty. */
struct hw_proof {
    uint64_t id, fork;
    bool has_block, has_hash, has_seek, has_upgrade, has_manifest;
    uint64_t block_index;
    struct hw_buffer block; /* its data */
    uint64_t hash_index, seek_bytes;
    struct hw_nodes target_nodes; /* of block or hash */
    struct hw_nodes seek_nodes;
    uint64_t upgrade_start, upgrade_length;
    struct hw_nodes upgrade_nodes, additional_nodes;
    struct hw_buffer signature; /* as in signature.h; empty within a prologue */
    struct hw_buffer manifest;  /* encoded */
};
void hw_proof_release(struct hw_proof *proof);

/* Where nodes are looked up.  HW_ENOTFOUND: it is not held. */
struct hw_node_source {
    enum hw_status (*get)(void *ctx, uint64_t index, struct hw_node *out, struct hw_error *err);
    void *ctx;
};

/* ------------------------------------------------------------------------------- messages */

void hw_proof_request_encode(const struct hw_proof_request *request, struct hw_buffer *out);
enum hw_status hw_proof_request_decode(struct hw_slice bytes, struct hw_proof_request *out,
                                       struct hw_error *err) HW_MUST_CHECK;
void hw_proof_encode(const struct hw_proof *proof, struct hw_buffer *out);
/* Copies what it keeps.  HW_EPROTOCOL, HW_ENOMEM; *out is empty then. */
enum hw_status hw_proof_decode(struct hw_slice bytes, struct hw_proof *out,
                               struct hw_error *err) HW_MUST_CHECK;

/* -------------------------------------------------------------------------------- the answer */

struct hw_proof_server {
    uint64_t length, fork;
    uint64_t prologue_length; /* of the manifest; 0: none */
    struct hw_node_source source;
};
/*
 * The nodes of the answer: everything but block data, signature and manifest.  HW_EPROTOCOL: a
 * request that no log of this length can answer.
 */
enum hw_status hw_proof_make(const struct hw_proof_request *request,
                             const struct hw_proof_server *server, struct hw_proof *out,
                             struct hw_error *err) HW_MUST_CHECK;
/*
 * The whole answer of a log of ours, or of a mirror.  Also HW_EPRUNED: it has not got the block any
 * more; HW_EMISSING: a mirror has not got the block, or a node; HW_EFORK: about another fork.
 */
enum hw_status hw_core_prove(struct hw_core *core, const struct hw_proof_request *request,
                             struct hw_proof *out, struct hw_error *err) HW_MUST_CHECK;

/* -------------------------------------------------------------------------------- the check */

struct hw_proof_reader {
    uint64_t fork;
    struct hw_roots roots;        /* of what it holds */
    struct hw_node_source source; /* nodes it holds */
    uint8_t key[HW_HASH_SIZE];
    const struct hw_authority *authority; /* NULL: only the key is known so far */
};

/* What a true answer adds to what the reader holds.  All-zero is empty. */
struct hw_proof_outcome {
    struct hw_nodes nodes; /* met or computed; to be stored */
    bool is_upgrade;       /* roots, and the proof's signature, are new */
    struct hw_roots roots;
    bool has_authority; /* the manifest came along, or its absence tells a compat log */
    struct hw_authority authority;
};
void hw_proof_outcome_release(struct hw_proof_outcome *outcome);

/* Levels from the node `index` up to one that the reader holds: what to ask for. */
enum hw_status hw_proof_missing_nodes(const struct hw_proof_reader *reader, uint64_t index,
                                      uint64_t *out, struct hw_error *err) HW_MUST_CHECK;
/*
 * Is the answer true?  HW_EPROOF: no.  HW_EFORK: it is about another fork: hw_reorg_begin().  The
 * manifest of the outcome borrows from the proof.
 */
enum hw_status hw_proof_check(const struct hw_proof_reader *reader, const struct hw_proof *proof,
                              struct hw_proof_outcome *out, struct hw_error *err) HW_MUST_CHECK;

/* ----------------------------------------------------------------------------- a higher fork */

/*
 *   begin ─▶ is_done? ─▶ adopt
 *     ▲         │ no: ask for hash {2 * want_start, want_nodes} under the new fork
 *     └── feed ◀┘
 */
struct hw_reorg {
    uint64_t fork;
    struct hw_roots roots; /* of the new fork */
    struct hw_nodes nodes; /* of the new fork, met so far */
    bool is_done;
    uint64_t common;     /* blocks that both forks have: right when done, a lower bound before */
    uint64_t difference; /* node below which the first difference is */
    uint64_t want_start, want_end, want_nodes;
    bool has_authority; /* as in hw_proof_outcome */
    struct hw_authority authority;
};
/* From an answer with an upgrade from 0 under a fork above the reader's. */
enum hw_status hw_reorg_begin(const struct hw_proof_reader *reader, const struct hw_proof *proof,
                              struct hw_reorg *out, struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_reorg_feed(const struct hw_proof_reader *reader, struct hw_reorg *reorg,
                             const struct hw_proof *proof, struct hw_error *err) HW_MUST_CHECK;
void hw_reorg_release(struct hw_reorg *reorg);

#endif
