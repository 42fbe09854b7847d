/* Who may do what, as people write it: rights never come from nothing, and all ends. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "node/rules.h"

/* The first byte says how much of the input is a name to be asked for. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const uint8_t key[HW_IDENTITY_KEY_SIZE];
    struct hw_rules rules;
    struct hw_slice name, text;
    unsigned rights;
    size_t name_size;

    if (size == 0 || size > 4096)
        return 0;
    name_size = bytes[0] < size - 1 ? bytes[0] : size - 1;
    name = (struct hw_slice){bytes + 1, name_size};
    text = (struct hw_slice){bytes + 1 + name_size, size - 1 - name_size};
    if (hw_rules_decode(text, &rules, NULL) != HW_OK)
        return 0;
    rights = hw_rules_rights(&rules, key, name);
    if ((rights != 0 && !hw_rules_know(&rules, key)) || (rights & ~(unsigned)HW_RIGHTS_ALL) != 0 ||
        (rights != 0 && (rights & HW_RIGHT_READ) == 0))
        abort();
    if (hw_rules_add(&rules, HW_RIGHT_WRITE, text, key, NULL) == HW_OK)
        (void)hw_rules_rights(&rules, key, name);
    hw_rules_release(&rules);
    return 0;
}
