/* What users write as an address: what is taken is found again under the URL made from it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char text[1024], listen[HW_URL_MAX], url[HW_URL_MAX];
    struct hw_address address, again;

    if (size >= sizeof(text))
        return 0;
    memcpy(text, bytes, size);
    text[size] = 0;
    (void)hw_address_is_remote(text);
    (void)hw_address_is_local(text);
    (void)hw_address_is_socket(text);
    if (hw_address_parse_server(text, &address, NULL) == HW_OK && address.name[0] != 0)
        abort();
    if (hw_address_parse_listen(text, listen, NULL) == HW_OK)
        hw_address_format(listen, text, url);
    if (hw_address_parse(text, &address, NULL) != HW_OK || address.has_key)
        return 0;
    hw_address_format(address.dial, address.name, url);
    if (url[0] == 0 || strstr(address.dial, "//0.0.0.0:") != NULL ||
        strstr(address.dial, "//[::]:") != NULL)
        return 0; /* too long, or said otherwise */
    if (hw_address_parse(url, &again, NULL) != HW_OK || strcmp(again.dial, address.dial) != 0 ||
        strcmp(again.name, address.name) != 0)
        abort();
    return 0;
}
