/* The process's own hub, there while listen= or a cache uses it (node/hub.h). */
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"
#include "node/hub_internal.h"
#include "vfs/vfs.h"

/* A URL that is listened at; for as long as the hub lives. */
struct listened {
    struct listened *next;
    char url[HW_URL_MAX], bound[HW_URL_MAX];
};

/* One a database. */
struct handle {
    struct hw_hub *hub; /* whose; a forked child makes its own */
    char *name;         /* owned */
    bool has_access;
    char address[HW_URL_MAX];
};

/* The only state that belongs to the process, because listen= does.  Guarded by its mutex. */
static struct {
    struct hw_mutex mutex;
    struct hw_hub *hub;
    uint32_t process_id;
    unsigned uses;
    struct listened *listened;
    char *access;       /* owned; the file that says who may do what; NULL: the user's */
    unsigned accessing; /* handles that asked for that */
} node = {.mutex = HW_MUTEX_INIT};

static void node_forget(void)
{
    while (node.listened != NULL) {
        struct listened *l = node.listened;

        node.listened = l->next;
        hw_free(l);
    }
    hw_free(node.access);
    node.access = NULL;
    node.hub = NULL;
    node.uses = node.accessing = 0;
}

static enum hw_status node_open(struct hw_env *env, struct hw_error *err)
{
    enum hw_status status;

    if (node.hub != NULL && node.process_id != env->ops->process_id(env))
        node_forget(); /* the parent's: its thread and sockets stay there */
    if (node.hub != NULL)
        return HW_OK;
    status = hw_hub_open_for_user(env, NULL, &node.hub, err);
    if (status == HW_OK) {
        status = hw_hub_authorize(node.hub, NULL, err);
        if (status != HW_OK) {
            hw_hub_close(node.hub);
            node.hub = NULL;
        }
    }
    node.process_id = env->ops->process_id(env);
    return status;
}

/* Who held it is not in the child; the rest is forgotten when it is needed. */
void hw_hub_process_forked(void)
{
    hw_mutex_init(&node.mutex);
}

static void node_close_unused(void)
{
    struct hw_hub *hub = node.hub;

    if (node.uses != 0 || hub == NULL)
        return;
    node_forget();
    hw_hub_close(hub);
}

/* Databases of one process may share a listener. */
static enum hw_status node_listen(const char *url, const char **bound, struct hw_error *err)
{
    struct listened *l;
    char full[HW_URL_MAX];
    enum hw_status status = hw_address_parse_listen(url, full, err);

    if (status != HW_OK)
        return status;
    for (l = node.listened; l != NULL; l = l->next) {
        if (strcmp(l->url, full) == 0) {
            *bound = l->bound;
            return HW_OK;
        }
    }
    l = hw_zalloc(sizeof(*l));
    if (l == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to listen", url);
    memcpy(l->url, full, sizeof(full));
    status = hw_hub_listen(node.hub, full, l->bound, err);
    if (status != HW_OK) {
        hw_free(l);
        return status;
    }
    l->next = node.listened;
    node.listened = l;
    *bound = l->bound;
    return HW_OK;
}

/*
 * Who may do what says this file from now on, for all that the process serves: they share their
 * listeners, and names in it tell them apart.  It stays when those who asked for it are gone, so
 * that nobody gets in who could not.
 */
static enum hw_status node_authorize(const char *access, struct hw_error *err)
{
    char *copy;
    enum hw_status status;

    if (access == NULL || (node.access != NULL && strcmp(node.access, access) == 0))
        return HW_OK;
    if (node.accessing > 0)
        return hw_fail(err, HW_EMISUSE,
                       "access: '%s', but this process serves with '%s': one file for all of it",
                       access, node.access);
    copy = hw_strdup(access);
    if (copy == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the path of the rules");
    status = hw_hub_authorize_instead(node.hub, access, err);
    if (status != HW_OK) {
        hw_free(copy);
        return hw_prefix(err, status, "access");
    }
    hw_free(node.access);
    node.access = copy;
    return HW_OK;
}

static enum hw_status serve(const struct hw_vfs_served *served, struct handle *handle,
                            struct hw_error *err)
{
    const char *bound = NULL;
    enum hw_status status = node_authorize(served->access, err);

    if (status == HW_OK)
        status = node_listen(served->url, &bound, err);
    if (status == HW_OK)
        status = hw_hub_serve(node.hub, served->name, served->dir, err);
    if (status == HW_OK && served->access != NULL) {
        status = hw_hub_take_writes(node.hub, served->name, served->path, served->vfs, err);
        if (status != HW_OK)
            hw_hub_unserve(node.hub, served->name);
    }
    if (status != HW_OK)
        return status;
    handle->hub = node.hub;
    handle->has_access = served->access != NULL;
    hw_address_format(bound, served->name, handle->address);
    return HW_OK;
}

static enum hw_status start(const struct hw_vfs_served *served, void **out, struct hw_error *err)
{
    struct handle *handle = hw_zalloc(sizeof(*handle)); /* owned */
    enum hw_status status;

    if (handle != NULL)
        handle->name = hw_strdup(served->name);
    if (handle == NULL || handle->name == NULL) {
        hw_free(handle);
        return hw_fail(err, HW_ENOMEM, "%s: no memory to serve %s", served->url, served->name);
    }
    hw_mutex_lock(&node.mutex);
    status = node_open(hw_env_posix(), err);
    if (status == HW_OK)
        status = serve(served, handle, err);
    if (status == HW_OK) {
        node.uses++;
        node.accessing += handle->has_access;
        *out = handle;
    } else {
        node_close_unused();
    }
    hw_mutex_unlock(&node.mutex);
    if (status != HW_OK) {
        hw_free(handle->name);
        hw_free(handle);
    }
    return status;
}

/* The node is there as long as the handle; in a forked child it does nothing. */
static void rest(void *ctx, bool rests)
{
    const struct handle *handle = ctx;

    hw_hub_rest_writes(handle->hub, handle->name, rests);
}

static void stop(void *ctx)
{
    struct handle *handle = ctx;
    struct hw_env *env = hw_env_posix();

    if (handle == NULL)
        return;
    hw_mutex_lock(&node.mutex);
    if (handle->hub == node.hub && node.process_id == env->ops->process_id(env)) {
        hw_hub_unserve(node.hub, handle->name);
        node.uses--;
        node.accessing -= handle->has_access;
        node_close_unused();
    }
    hw_mutex_unlock(&node.mutex);
    hw_free(handle->name);
    hw_free(handle);
}

enum hw_status hw_hub_borrow(struct hw_hub **out, struct hw_error *err)
{
    enum hw_status status;

    hw_mutex_lock(&node.mutex);
    status = node_open(hw_env_posix(), err);
    if (status == HW_OK) {
        node.uses++;
        *out = node.hub;
    }
    hw_mutex_unlock(&node.mutex);
    return status;
}

void hw_hub_give_back(struct hw_hub *hub)
{
    struct hw_env *env = hw_env_posix();

    if (hub == NULL)
        return;
    hw_mutex_lock(&node.mutex);
    if (hub == node.hub && node.process_id == env->ops->process_id(env)) {
        node.uses--;
        node_close_unused();
    }
    hw_mutex_unlock(&node.mutex);
}

static const char *address(const void *handle)
{
    return ((const struct handle *)handle)->address;
}

const struct hw_vfs_listener *hw_hub_listener(void)
{
    static const struct hw_vfs_listener listener = {
        .start = start,
        .rest = rest,
        .stop = stop,
        .address = address,
        .forked = hw_hub_process_forked,
    };

    return &listener;
}
