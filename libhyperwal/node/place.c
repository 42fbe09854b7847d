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

static enum hw_status look(struct hw_env *env, const char *path, bool *is_there,
                           struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = env->ops->stat(env, path, &stat, err);

    *is_there = status == HW_OK;
    return status == HW_ENOTFOUND ? HW_OK : status;
}

/* A database, a log's directory, or a database whose log alone is left. */
static enum hw_status is_something(struct hw_env *env, const char *path, bool *is_there,
                                   struct hw_error *err)
{
    enum hw_status status = look(env, path, is_there, err);
    char *log; /* owned */

    if (status != HW_OK || *is_there)
        return status;
    log = hw_format("%s-hyper", path);
    if (log == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    status = look(env, log, is_there, err);
    hw_free(log);
    return status;
}

static enum hw_status set_name(struct hw_env *env, struct hw_place *place,
                               const struct hw_name *name, struct hw_error *err)
{
    bool has_path = name->path != NULL;

    place->petname = hw_strdup(name->name);
    if (place->petname == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a name");
    place->has_key = name->has_key;
    memcpy(place->key, name->key, HW_KEY_SIZE);
    if (has_path && name->url_count > 0) {
        enum hw_status status = is_something(env, name->path, &has_path, err);

        if (status != HW_OK)
            return status;
    }
    if (has_path)
        return set_path(place, name->path, err);
    return set_urls(place, name->urls, name->url_count, err);
}

/* HW_END: it is no petname, or `files_first` and there is such a file. */
static enum hw_status find_name(struct hw_env *env, const char *text, bool files_first,
                                struct hw_place *place, struct hw_error *err)
{
    struct hw_names *names = NULL;
    struct hw_name *name = NULL;
    bool is_there = false;
    enum hw_status status;

    if (hw_petname_check(text, NULL) != HW_OK)
        return HW_END;
    status = files_first ? is_something(env, text, &is_there, err) : HW_OK;
    if (status == HW_OK && is_there)
        return HW_END;
    if (status == HW_OK)
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
    status = find_name(env, rest, !is_hyper, &place, err);
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
