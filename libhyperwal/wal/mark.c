/* The mark of a transaction that was written from afar: hw_wal_mark_*() of wal/wal.h. */
#include <string.h>

#include "wal/wal.h"

/* No page of SQLite begins so: neither a database's first, nor one of a b-tree, nor an overflow. */
static const uint8_t magic[16] = {0xf4, 'h', 'y', 'p', 'e', 'r', 'w', 'a',
                                  'l',  ' ', 'o', 'r', 'i', 'g', 'i', 'n'};

void hw_wal_mark_encode(const struct hw_origin *origin, uint8_t *page, uint32_t page_size)
{
    memset(page, 0, page_size);
    memcpy(page, magic, sizeof(magic));
    memcpy(page + sizeof(magic), origin->bytes, sizeof(origin->bytes));
}

bool hw_wal_mark_decode(const uint8_t *page, uint32_t page_size, struct hw_origin *out)
{
    size_t end = sizeof(magic) + sizeof(out->bytes);

    if (memcmp(page, magic, sizeof(magic)) != 0)
        return false;
    for (size_t i = end; i < page_size; i++)
        if (page[i] != 0)
            return false;
    memcpy(out->bytes, page + sizeof(magic), sizeof(out->bytes));
    return true;
}
