/* The file of known servers: every line of it is read, or says what is wrong. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "node/known.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_slice rest = {bytes, size};
    struct hw_known_server server;
    unsigned line = 0, last = 0;

    while (hw_known_decode(&rest, &line, &server, NULL) == HW_OK) {
        if (server.line != line || line <= last || server.address.size == 0 ||
            server.address.bytes < bytes ||
            server.address.bytes + server.address.size > server.text.bytes + server.text.size ||
            rest.size > size)
            abort();
        last = line;
    }
    return 0;
}
