/* Implements listen=URL of vfs/shim.h: a database served from inside the process that writes it. */
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"
#include "vfs/shim.h"

struct hw_shim_listen {
    struct hw_shim_listen *next;
    char *url, *access; /* owned; as the user wrote them; access NULL: nobody writes from afar */
    void *handle;       /* the listener's */
};

/* One start or stop at a time: who opens while the last one closes finds the address free again. */
static struct hw_mutex listen_mutex = HW_MUTEX_INIT;
static const struct hw_vfs_listener *used; /* the one that was used last; set with the mutex */

/* Who held it is not in the child, and what it guards is lost to the child (database.c). */
void hw_shim_listen_forked(void)
{
    hw_mutex_init(&listen_mutex);
    if (used != NULL && used->forked != NULL)
        used->forked();
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

static void listen_free(struct hw_shim_listen *listen)
{
    if (listen == NULL)
        return;
    hw_free(listen->url);
    hw_free(listen->access);
    hw_free(listen);
}

/* A name that stays good when the process goes to another directory; links in it stay links. */
static char *absolute(const struct hw_shim *shim, const char *path)
{
    size_t size = (size_t)shim->base->mxPathname + 1;
    char *here, *full = NULL;
    int code;

    if (*path == '/')
        return hw_strdup(path);
    here = hw_zalloc(size);
    if (here == NULL)
        return NULL;
    code = shim->base->xFullPathname(shim->base, ".", (int)size, here);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_OK) /* SQLITE_OK_SYMLINK is fine */
        full = hw_strdup(path);                          /* reading it will say what is wrong */
    else
        full = hw_format("%s/%s", here, path);
    hw_free(here);
    return full;
}

static enum hw_status start(struct hw_shim_database *database, const struct hw_uri *uri,
                            struct hw_shim_listen **out, struct hw_error *err)
{
    struct hw_shim *shim = database->shim;
    struct hw_shim_listen *listen = hw_zalloc(sizeof(*listen));
    struct hw_vfs_served served = {.url = uri->listen,
                                   .name = file_name(database->path),
                                   .dir = hw_capture_log_dir(database->capture),
                                   .path = database->path,
                                   .vfs = shim->name};
    enum hw_status status;

    if (listen != NULL)
        listen->url = hw_strdup(uri->listen);
    if (listen != NULL && uri->access != NULL)
        listen->access = absolute(shim, uri->access);
    if (listen == NULL || listen->url == NULL || (uri->access != NULL && listen->access == NULL)) {
        status = hw_fail(err, HW_ENOMEM, "no memory to serve it");
        goto fail;
    }
    served.access = listen->access;
    status = shim->listener->start(&served, &listen->handle, err);
    if (status != HW_OK)
        goto fail;
    *out = listen;
    return HW_OK;
fail:
    listen_free(listen);
    return status;
}

/* Another connection serves it: so that they agree who may write. */
static enum hw_status check_access(const struct hw_shim *shim, const struct hw_shim_listen *listen,
                                   const struct hw_uri *uri, struct hw_error *err)
{
    char *access = uri->access == NULL ? NULL : absolute(shim, uri->access);
    enum hw_status status = HW_OK;

    if (uri->access != NULL && access == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to serve it");
    else if (access != NULL && (listen->access == NULL || strcmp(listen->access, access) != 0))
        status = hw_fail(err, HW_EMISUSE, "access: '%s', but this process serves it with %s%s",
                         access, listen->access == NULL ? "none" : "access=",
                         listen->access == NULL ? "" : listen->access);
    hw_free(access);
    return status;
}

static enum hw_status check_threads(const struct hw_uri *uri, struct hw_error *err)
{
    if (uri->access == NULL || hw_sqlite_has_threads())
        return HW_OK;
    return hw_fail(err, HW_EMISUSE,
                   "access: this program has SQLite without threads: nobody can write from afar; "
                   "leave access out, or use `hyperwal serve`");
}

enum hw_status hw_shim_listen(struct hw_shim_database *database, const struct hw_uri *uri,
                              struct hw_error *err)
{
    struct hw_shim_listen *listen;
    enum hw_status status = check_threads(uri, err);

    if (database->shim->listener == NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter listen: '%s': this program has hyperwal without its network: "
                       "use `hyperwal serve`",
                       uri->listen);
    hw_mutex_lock(&listen_mutex);
    used = database->shim->listener;
    for (listen = database->listens; listen != NULL; listen = listen->next)
        if (strcmp(listen->url, uri->listen) == 0)
            break;
    if (status == HW_OK && listen != NULL) {
        status = check_access(database->shim, listen, uri, err);
    } else if (status == HW_OK) {
        status = start(database, uri, &listen, err);
        if (status == HW_OK)
            hw_shim_database_add_listen(database, listen, &listen->next);
    }
    hw_mutex_unlock(&listen_mutex);
    return status == HW_OK ? HW_OK
                           : hw_prefix(err, status, "URI parameter listen: '%s'", uri->listen);
}

void hw_shim_listen_each(struct hw_shim_database *database,
                         void (*each)(void *ctx, const char *address), void *ctx)
{
    hw_mutex_lock(&listen_mutex);
    for (struct hw_shim_listen *l = database->listens; l != NULL; l = l->next)
        each(ctx, database->shim->listener->address(l->handle));
    hw_mutex_unlock(&listen_mutex);
}

void hw_shim_listen_rest(struct hw_shim_database *database, bool rests)
{
    for (struct hw_shim_listen *l = database->listens; l != NULL; l = l->next)
        if (l->access != NULL)
            database->shim->listener->rest(l->handle, rests);
}

void hw_shim_listen_stop(struct hw_shim *shim, struct hw_shim_listen *listens)
{
    while (listens != NULL) {
        struct hw_shim_listen *next = listens->next;

        shim->listener->stop(listens->handle);
        listen_free(listens);
        listens = next;
    }
}
