/* Implements node/place.h. */
#include "node/place.h"

#include <string.h>

#include "base/alloc.h"
#include "node/names.h"

void hw_place_release(struct hw_place *place)
{
    if (place == NULL)
        return;
    for (size_t i = 0; i < place->count; i++)
        hw_free(place->urls[i]);
    hw_free(place->urls);
    hw_free(place->addresses);
    hw_free(place->path);
    hw_free(place->petname);
    *place = (struct hw_place){0};
}

static enum hw_status set_urls(struct hw_place *place, const char *const *urls, size_t count,
                               struct hw_error *err)
{
    enum hw_status status = HW_OK;

    place->addresses = hw_zalloc(count * sizeof(*place->addresses));
    place->urls = hw_zalloc(count * sizeof(*place->urls));
    if (place->addresses == NULL || place->urls == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for addresses");
    place->count = count;
    place->is_remote = true;
    for (size_t i = 0; i < count && status == HW_OK; i++) {
        struct hw_address *address = &place->addresses[i];

        status = hw_address_parse(urls[i], address, err);
        if (status != HW_OK)
            break;
        place->urls[i] = hw_strdup(urls[i]);
        if (place->urls[i] == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for addresses");
        if (!place->has_key && address->has_key) {
            place->has_key = true;
            memcpy(place->key, address->key, HW_KEY_SIZE);
        }
    }
    return status;
}

static enum hw_status set_path(struct hw_place *place, const char *path, struct hw_error *err)
{
    place->path = hw_strdup(path);
    return place->path != NULL ? HW_OK : hw_fail(err, HW_ENOMEM, "no memory for a path");
}

/* A database, a log's directory, or a database whose log alone is left. */
static bool is_something(struct hw_env *env, const char *path)
{
    struct hw_file_stat stat;
    char *log;
    bool is_there = env->ops->stat(env, path, &stat, NULL) == HW_OK;

    if (is_there)
        return true;
    log = hw_format("%s-hyper", path);
    is_there = log != NULL && env->ops->stat(env, log, &stat, NULL) == HW_OK;
    hw_free(log);
    return is_there;
}

static enum hw_status set_name(struct hw_env *env, struct hw_place *place,
                               const struct hw_name *name, struct hw_error *err)
{
    place->petname = hw_strdup(name->name);
    if (place->petname == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a name");
    place->has_key = name->has_key;
    memcpy(place->key, name->key, HW_KEY_SIZE);
    if (name->path != NULL && (name->url_count == 0 || is_something(env, name->path)))
        return set_path(place, name->path, err);
    return set_urls(place, name->urls, name->url_count, err);
}

/* HW_END: it is no petname. */
static enum hw_status find_name(struct hw_env *env, const char *text, struct hw_place *place,
                                struct hw_error *err)
{
    struct hw_names *names = NULL;
    struct hw_name *name = NULL;
    enum hw_status status;

    if (hw_petname_check(text, NULL) != HW_OK)
        return HW_END;
    status = hw_names_open(env, NULL, false, &names, err);
    if (status == HW_OK)
        status = hw_names_find(names, text, &name, err);
    if (status == HW_OK)
        status = set_name(env, place, name, err);
    else if (status == HW_ENOTFOUND && names != NULL)
        hw_names_near(names, text, place->hint, sizeof(place->hint));
    hw_free(name);
    hw_names_close(names);
    return status == HW_ENOTFOUND ? HW_END : status;
}

enum hw_status hw_place_find(struct hw_env *env, const char *text, struct hw_place *out,
                             struct hw_error *err)
{
    struct hw_place place = {0};
    const char *rest = text;
    bool is_hyper = strncmp(text, "hyper:", 6) == 0;
    enum hw_status status;

    if (hw_address_is_remote(text)) {
        status = set_urls(&place, &text, 1, err);
        goto done;
    }
    if (is_hyper) {
        rest += 6;
        if (strncmp(rest, "//", 2) == 0)
            rest += 2;
    }
    if (rest[0] == '\0') {
        status = hw_fail(err, HW_EMISUSE, "%s: names nothing", is_hyper ? text : "an empty path");
        goto done;
    }
    status = HW_END;
    if (is_hyper || !is_something(env, rest))
        status = find_name(env, rest, &place, err);
    if (status == HW_END)
        status = set_path(&place, rest, err);
done:
    if (status != HW_OK) {
        hw_place_release(&place);
        return status;
    }
    *out = place;
    return HW_OK;
}
