/* Implements listen=URL of vfs/shim.h: a database served from inside the process that writes it. */
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"
#include "vfs/shim.h"

struct hw_shim_listen {
    struct hw_shim_listen *next;
    char *url;    /* owned; as the user wrote it */
    void *handle; /* the listener's */
};

/* One start or stop at a time: who opens while the last one closes finds the address free again. */
static struct hw_mutex listen_mutex = HW_MUTEX_INIT;

/* Who held it is not in the child, and what it guards is lost to the child (database.c). */
void hw_shim_listen_forked(void)
{
    hw_mutex_init(&listen_mutex);
}

void hw_shim_listen_lock(void)
{
    hw_mutex_lock(&listen_mutex);
}

void hw_shim_listen_unlock(void)
{
    hw_mutex_unlock(&listen_mutex);
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static enum hw_status start(struct hw_shim_database *database, const char *url,
                            struct hw_shim_listen **out, struct hw_error *err)
{
    const struct hw_vfs_listener *listener = database->shim->listener;
    struct hw_shim_listen *listen = hw_zalloc(sizeof(*listen));
    enum hw_status status;

    if (listen != NULL)
        listen->url = hw_strdup(url);
    if (listen == NULL || listen->url == NULL) {
        status = hw_fail(err, HW_ENOMEM, "no memory to serve it");
        goto fail;
    }
    status = listener->start(url, file_name(database->path), hw_capture_log_dir(database->capture),
                             &listen->handle, err);
    if (status != HW_OK)
        goto fail;
    *out = listen;
    return HW_OK;
fail:
    if (listen != NULL)
        hw_free(listen->url);
    hw_free(listen);
    return status;
}

enum hw_status hw_shim_listen(struct hw_shim_database *database, const char *url,
                              struct hw_error *err)
{
    struct hw_shim_listen *listen;
    enum hw_status status = HW_OK;

    if (database->shim->listener == NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter listen: '%s': this program has hyperwal without its network: "
                       "use `hyperwal serve`",
                       url);
    hw_mutex_lock(&listen_mutex);
    for (listen = database->listens; listen != NULL; listen = listen->next) {
        if (strcmp(listen->url, url) == 0)
            goto done; /* another connection serves it */
    }
    status = start(database, url, &listen, err);
    if (status == HW_OK)
        hw_shim_database_add_listen(database, listen, &listen->next);
    else
        status = hw_prefix(err, status, "URI parameter listen: '%s'", url);
done:
    hw_mutex_unlock(&listen_mutex);
    return status;
}

void hw_shim_listen_each(struct hw_shim_database *database,
                         void (*each)(void *ctx, const char *address), void *ctx)
{
    hw_mutex_lock(&listen_mutex);
    for (struct hw_shim_listen *l = database->listens; l != NULL; l = l->next)
        each(ctx, database->shim->listener->address(l->handle));
    hw_mutex_unlock(&listen_mutex);
}

void hw_shim_listen_stop(struct hw_shim *shim, struct hw_shim_listen *listens)
{
    while (listens != NULL) {
        struct hw_shim_listen *next = listens->next;

        shim->listener->stop(listens->handle);
        hw_free(listens->url);
        hw_free(listens);
        listens = next;
    }
}
