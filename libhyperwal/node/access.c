/* Who may come in, and where: the part of node/hub.h about access. */
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"

enum hw_status access_check(struct hw_hub *hub, const uint8_t *key, struct hw_error *err)
{
    if (!hub->has_allowed || hub->allows_any)
        return HW_OK;
    for (size_t i = 0; i < hub->allowed_count; i++)
        if (memcmp(hub->allowed[i], key, HW_IDENTITY_KEY_SIZE) == 0)
            return HW_OK;
    return hw_fail(err, HW_EREFUSED, "this identity is not among those let in");
}

static enum hw_status allow(struct hw_hub *hub, const uint8_t *key, struct hw_error *err)
{
    size_t size = (hub->allowed_count + 1) * HW_IDENTITY_KEY_SIZE;
    uint8_t(*grown)[HW_IDENTITY_KEY_SIZE];

    if (key == NULL) {
        hub->has_allowed = hub->allows_any = true;
        return HW_OK;
    }
    if (hub->allowed_count == HUB_ALLOWED_MAX)
        return hw_fail(err, HW_ELIMIT, "%d identities are let in already", HUB_ALLOWED_MAX);
    grown = hw_realloc(hub->allowed, size);
    if (grown == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to let an identity in");
    hub->allowed = grown;
    memcpy(hub->allowed[hub->allowed_count++], key, HW_IDENTITY_KEY_SIZE);
    hub->has_allowed = true;
    return HW_OK;
}

enum hw_status hw_hub_allow(struct hw_hub *hub, const uint8_t *identity_key, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = allow(hub, identity_key, err);
    hub_leave(hub);
    return status;
}

enum hw_status hw_hub_listen(struct hw_hub *hub, const char *url, char bound[HW_URL_MAX],
                             struct hw_error *err)
{
    char taken[HW_URL_MAX];
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    if (!hub->has_allowed && !hw_address_is_local(url))
        status = hw_fail(err, HW_EREFUSED,
                         "%s: other machines can reach it, and nobody was allowed in; allow "
                         "identity keys, or any",
                         url);
    else
        status = hub->transport->ops->listen(hub->transport, url, taken, sizeof(taken), err);
    hub_leave(hub);
    if (status == HW_OK && bound != NULL)
        memcpy(bound, taken, sizeof(taken));
    return status;
}
