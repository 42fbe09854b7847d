/* Implements hypercore/flat_tree.h. */
#include "hypercore/flat_tree.h"

unsigned hw_flat_full_roots(uint64_t length, uint64_t out[HW_TREE_ROOTS_MAX])
{
    uint64_t first = 0; /* block */
    unsigned count = 0;

    while (length > 0) {
        uint64_t leaves = UINT64_C(1) << (63 - __builtin_clzll(length));

        out[count++] = 2 * first + leaves - 1;
        first += leaves;
        length -= leaves;
    }
    return count;
}
