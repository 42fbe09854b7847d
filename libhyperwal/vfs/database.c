/* Implements the databases of vfs/shim.h: who has which file open in this process. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"
#include "vfs/shim.h"

static struct hw_mutex mutex = HW_MUTEX_INIT; /* guards what follows, and what shim.h says */
static struct hw_shim_database *databases;
static const struct hw_vfs_remotes *remotes; /* those of the shim that was used last */

void hw_shim_database_before_fork(void)
{
    hw_shim_guest_prepare_fork(); /* first: a guest may want the mutex before it is out */
    hw_mutex_lock(&mutex);
}

void hw_shim_database_forked(bool in_child)
{
    const struct hw_vfs_remotes *told = in_child ? remotes : NULL;

    for (struct hw_shim_database *d = databases; in_child && d != NULL; d = d->next) {
        if (d->claim != NULL)
            d->shim->env->ops->close(d->claim);
        d->claim = NULL;
    }
    if (in_child)
        databases = NULL; /* what they hold is lost to the child, and so are its connections */
    hw_mutex_unlock(&mutex);
    hw_shim_guest_forked(in_child);
    if (told != NULL)
        told->forked();
}

/* -------------------------------------------------------------------------------- claims */

struct leftovers {
    struct hw_env *env;
    const char *dir;
    char own[32];
};

/* Remove the claim of a process that died with it: nobody has it locked. */
static bool remove_leftover(void *ctx, const char *name)
{
    const struct leftovers *leftovers = ctx;
    struct hw_env *env = leftovers->env;
    struct hw_file *file = NULL;
    char *path;

    if (strncmp(name, "open.", 5) != 0 || strcmp(name, leftovers->own) == 0)
        return true;
    path = hw_format("%s/%s", leftovers->dir, name);
    if (path == NULL)
        return false;
    if (env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL) == HW_OK &&
        env->ops->lock(file, false, NULL) == HW_OK)
        (void)env->ops->remove(env, path, NULL); /* the next one tries again */
    env->ops->close(file);
    hw_free(path);
    return true;
}

/* Is the file at `path` the one that we have open?  Somebody may have taken it for a leftover. */
static bool is_named(struct hw_env *env, const char *path, struct hw_file *file)
{
    struct hw_file_stat own, named;

    return env->ops->stat_file(file, &own, NULL) == HW_OK &&
           env->ops->stat(env, path, &named, NULL) == HW_OK && own.inode == named.inode &&
           own.device == named.device;
}

/*
 * HW_EBUSY: another copy of SQLite in this process has it.  Who looks for leftovers locks a file
 * for a moment, too, and removes one that is made just then: so look again.
 */
static enum hw_status claim_lock(struct hw_env *env, const char *path, struct hw_file **out)
{
    enum { TRIES = 50, PAUSE_NS = 1000000 };
    unsigned flags = HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK;
    enum hw_status status = HW_EBUSY;
    uint32_t nobody = 0;

    for (int i = 0; i < TRIES && status == HW_EBUSY; i++) {
        struct hw_file *file = NULL;

        if (i > 0)
            env->ops->wait_word(env, &nobody, 0, PAUSE_NS);
        if (env->ops->open(env, path, flags, &file, NULL) != HW_OK)
            return HW_END; /* no log yet, or a directory that is not ours to write in */
        status = env->ops->lock(file, false, NULL);
        if (status == HW_OK && is_named(env, path, file)) {
            *out = file;
            return HW_OK;
        }
        env->ops->close(file);
        status = HW_EBUSY;
    }
    return status;
}

/*
 * Two copies of SQLite in one process (the host's own and a linked one) would drop each other's
 * POSIX locks.  They share no memory that either could find, but a lock of an open file description
 * tells them apart: DIR/open.PID is locked by the one that came first.
 */
static enum hw_status claim(struct hw_shim_database *database, struct hw_error *err)
{
    struct hw_env *env = database->shim->env;
    struct leftovers leftovers = {.env = env};
    enum hw_status status = HW_OK;
    char *dir = hw_format("%s-hyper", database->path);
    char *path = NULL;

    (void)snprintf(leftovers.own, sizeof(leftovers.own), "open.%u", env->ops->process_id(env));
    if (dir != NULL)
        path = hw_format("%s/%s", dir, leftovers.own);
    if (path == NULL) {
        status = hw_fail(err, HW_ENOMEM, "no memory to open it");
        goto done;
    }
    status = claim_lock(env, path, &database->claim);
    if (status == HW_EBUSY)
        (void)hw_fail(err, status,
                      "another copy of SQLite in this process has this database open, and each "
                      "would drop the other's locks: use one copy");
    if (status != HW_OK) {
        status = status == HW_END ? HW_OK : status;
        goto done;
    }
    database->claim_path = path;
    path = NULL;
    leftovers.dir = dir;
    (void)env->ops->list(env, dir, remove_leftover, &leftovers, NULL); /* only litter */
done:
    hw_free(dir);
    hw_free(path);
    return status;
}

static void unclaim(struct hw_shim_database *database)
{
    struct hw_env *env = database->shim->env;

    if (database->claim != NULL) {
        (void)env->ops->remove(env, database->claim_path, NULL); /* a leftover does no harm */
        env->ops->close(database->claim);
    }
    hw_free(database->claim_path);
}

/* ------------------------------------------------------------------------------ the list */

static struct hw_shim_database *find(const struct hw_shim *shim, const char *path)
{
    for (struct hw_shim_database *d = databases; d != NULL; d = d->next) {
        if (d->shim == shim && strcmp(d->path, path) == 0)
            return d;
    }
    return NULL;
}

static struct hw_shim_database *find_memory(const struct hw_shim *shim, const char *name)
{
    for (struct hw_shim_database *d = databases; d != NULL; d = d->next) {
        if (d->shim == shim && d->memory_name != NULL && strcmp(d->memory_name, name) == 0)
            return d;
    }
    return NULL;
}

/* With the mutex. */
static enum hw_status take(struct hw_shim_file *file, const char *path, struct hw_error *err)
{
    struct hw_shim *shim = file->shim;
    struct hw_shim_database *database = find(shim, path);
    enum hw_status status;

    if (shim->remotes != NULL)
        remotes = shim->remotes;
    if (database == NULL) {
        database = hw_zalloc(sizeof(*database));
        if (database != NULL)
            database->path = hw_strdup(path);
        if (database == NULL || database->path == NULL) {
            hw_free(database);
            return hw_fail(err, HW_ENOMEM, "no memory to open it");
        }
        database->shim = shim;
        status = claim(database, err);
        if (status != HW_OK) {
            hw_free(database->path);
            hw_free(database);
            return status;
        }
        database->next = databases;
        databases = database;
    }
    database->references++;
    database->guests += file->is_guest;
    file->database = database;
    return HW_OK;
}

enum hw_status hw_shim_database_open(struct hw_shim_file *file, const char *path,
                                     struct hw_error *err)
{
    enum hw_status status;

    hw_shim_watch_forks();
    hw_mutex_lock(&mutex);
    if (find_memory(file->shim, path) != NULL)
        status = hw_fail(err, HW_EMISUSE,
                         "this process has a database of this name in memory: open it with "
                         "storage=memory, or give the file another name");
    else
        status = take(file, path, err);
    hw_mutex_unlock(&mutex);
    return status;
}

/* With the mutex.  The place is moved into a database that is new in the list. */
static enum hw_status take_memory(struct hw_shim_file *file, const char *name,
                                  struct hw_memory_place **place, struct hw_error *err)
{
    const char *path = hw_memory_filename(*place);
    struct hw_shim_database *database = find(file->shim, path);
    char *copy = NULL;
    enum hw_status status;

    if (find(file->shim, name) != NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter storage: this process has the file of this name open: close "
                       "it, or give the database in memory another name");
    if (database != NULL && database->place == NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter storage: this process has it open as %s: close that first",
                       path);
    if (database == NULL) {
        copy = hw_strdup(name);
        if (copy == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory to open it");
    }
    status = take(file, path, err);
    if (status != HW_OK) {
        hw_free(copy);
        return status;
    }
    if (database == NULL) {
        file->database->memory_name = copy;
        file->database->place = *place;
        *place = NULL;
    }
    return HW_OK;
}

enum hw_status hw_shim_database_open_memory(struct hw_shim_file *file, const char *name,
                                            bool create, struct hw_error *err)
{
    struct hw_memory_place *place = NULL;
    enum hw_status status;

    hw_shim_watch_forks();
    /* Before the list: it waits for other processes. */
    status = hw_memory_join(file->shim->env, file->shim->base, name, create, &place, err);
    if (status != HW_OK)
        return status;
    hw_mutex_lock(&mutex);
    status = take_memory(file, name, &place, err);
    hw_mutex_unlock(&mutex);
    hw_memory_leave(place); /* the database has its own holder */
    if (status == HW_OK)
        file->path = hw_memory_filename(file->database->place);
    return status;
}

/* Is it the name that SQLite gave to a file beside `database`? */
static bool is_beside(const char *name, const char *database, const char *suffix)
{
    size_t size = strlen(database);

    return strncmp(name, database, size) == 0 && strcmp(name + size, suffix) == 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);

    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

/*
 * SQLite asks for a folder, too (PRAGMA temp_store_directory), with a mutex that a fork takes after
 * ours: so nothing is locked for any other name.
 */
const char *hw_shim_database_file_name(struct hw_shim *shim, const char *name)
{
    const char *found = name;

    if (!ends_with(name, "-wal") && !ends_with(name, "-journal"))
        return name;
    hw_mutex_lock(&mutex);
    for (struct hw_shim_database *d = databases; d != NULL && found == name; d = d->next) {
        if (d->shim != shim || d->memory_name == NULL)
            continue;
        if (is_beside(name, d->memory_name, "-wal"))
            found = sqlite3_filename_wal(hw_memory_filename(d->place));
        else if (is_beside(name, d->memory_name, "-journal"))
            found = sqlite3_filename_journal(hw_memory_filename(d->place));
    }
    hw_mutex_unlock(&mutex);
    return found;
}

/* The directory of the log as the user named it, made absolute; NULL if there is no memory. */
static char *absolute_dir(struct hw_shim *shim, const char *dir)
{
    size_t size = (size_t)shim->base->mxPathname + 1;
    char *full = hw_alloc(size);
    int code;

    if (full == NULL)
        return NULL;
    code = shim->base->xFullPathname(shim->base, dir, (int)size, full);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_OK) { /* SQLITE_OK_SYMLINK is fine */
        hw_free(full);
        return hw_strdup(dir); /* opening it will say what is wrong with it */
    }
    return full;
}

/* Does the capture that is open keep its log where this connection wants it? */
static enum hw_status check_same_log(const struct hw_capture *capture, const char *log_dir,
                                     struct hw_error *err)
{
    const char *now = hw_capture_log_dir(capture);

    if (log_dir != NULL && strcmp(now, log_dir) != 0)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter log: '%s', but this process has the database open with '%s'",
                       log_dir, now);
    return HW_OK;
}

/* How long a WAL may get whose log cannot be written, from the environment; 0: it does not say. */
static enum hw_status wal_cap(uint64_t *out, struct hw_error *err)
{
    const char *text = getenv("HYPERWAL_WAL_CAP");
    enum hw_status status = HW_OK;

    *out = 0;
    if (text == NULL)
        return HW_OK;
    if (hw_number_parse(text, out, NULL) != HW_OK || *out == 0)
        status = hw_fail(err, HW_EMISUSE,
                         "HYPERWAL_WAL_CAP in the environment: '%s' is not a number of bytes above "
                         "0: correct it, or unset it for the default of 1 GiB",
                         text);
    return status;
}

enum hw_status hw_shim_database_capture(struct hw_shim_database *database, const struct hw_uri *uri,
                                        struct hw_error *err)
{
    struct hw_shim *shim = database->shim;
    char *log_dir = uri->log_dir == NULL ? NULL : absolute_dir(shim, uri->log_dir);
    struct hw_capture_options options = {
        .env = shim->env,
        .base = shim->base,
        .path = database->path,
        .log_dir = log_dir,
        .threaded = shim->threaded,
    };
    struct hw_capture *capture = NULL;
    bool spare;
    enum hw_status status = wal_cap(&options.wal_cap, err);

    if (status == HW_OK && uri->log_dir != NULL && log_dir == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to open the log");
    if (status == HW_OK)
        status = hw_capture_open(&options, &capture, err);
    if (status == HW_OK) {
        status = check_same_log(capture, log_dir, err);
        if (status != HW_OK)
            hw_capture_close(capture);
    }
    hw_free(log_dir);
    if (status != HW_OK)
        return status;
    hw_mutex_lock(&mutex);
    spare = database->capture != NULL; /* every path has one capture: it is the same */
    assert(!spare || database->capture == capture);
    if (!spare)
        database->capture = capture; /* others of this database read it from now on, unlocked */
    if (database->claim == NULL)
        status = claim(database, err); /* the directory is there only now */
    hw_mutex_unlock(&mutex);
    if (spare)
        hw_capture_close(capture);
    return status;
}

void hw_shim_database_join(struct hw_shim_database *database, struct hw_shim_file *file)
{
    hw_mutex_lock(&mutex);
    file->next = database->files;
    database->files = file;
    hw_mutex_unlock(&mutex);
}

struct hw_shim_file *hw_shim_database_of_wal(struct hw_shim *shim, const char *wal_name)
{
    struct hw_shim_file *file = NULL;

    hw_mutex_lock(&mutex);
    for (struct hw_shim_database *d = databases; d != NULL && file == NULL; d = d->next) {
        for (file = d->shim == shim ? d->files : NULL; file != NULL; file = file->next) {
            if (file->wal_name == wal_name)
                break;
        }
    }
    hw_mutex_unlock(&mutex);
    return file;
}

void hw_shim_database_wal_deleted(struct hw_shim *shim, const char *wal_name)
{
    struct hw_shim_file *file = hw_shim_database_of_wal(shim, wal_name);

    if (file != NULL && file->lock == SQLITE_LOCK_EXCLUSIVE)
        hw_shim_wal_deleted(file);
}

void hw_shim_database_add_listen(struct hw_shim_database *database, struct hw_shim_listen *listen,
                                 struct hw_shim_listen **next)
{
    hw_mutex_lock(&mutex);
    *next = database->listens;
    database->listens = listen;
    hw_mutex_unlock(&mutex);
}

/* Does this thread close the application's last connection?  With the mutex. */
static bool is_applications_last(const struct hw_shim_database *database)
{
    return database->references - database->guests == 1;
}

/*
 * The application's last connection closes: nobody writes from afar any more, and when the capture
 * is closed nobody is served, unless somebody opens just now.
 */
static void rest_listening(struct hw_shim_database *database)
{
    bool is_last;

    hw_shim_listen_lock();
    hw_mutex_lock(&mutex);
    is_last = is_applications_last(database);
    hw_mutex_unlock(&mutex);
    if (is_last)
        hw_shim_listen_rest(database, true);
    hw_shim_listen_unlock();
}

static void stop_listening(struct hw_shim_database *database)
{
    struct hw_shim_listen *listens = NULL;
    bool is_last;

    hw_shim_listen_lock();
    hw_mutex_lock(&mutex);
    is_last = is_applications_last(database);
    if (is_last) {
        listens = database->listens;
        database->listens = NULL;
    }
    hw_mutex_unlock(&mutex);
    if (!is_last)
        hw_shim_listen_rest(database, false);
    hw_shim_listen_stop(database->shim, listens);
    hw_shim_listen_unlock();
}

/* The last one of all stays in the list while it closes.  Called, and returns, with the mutex. */
static void close_capture(struct hw_shim_database *database)
{
    struct hw_capture *capture = database->capture;

    if (capture == NULL || database->references != 1)
        return;
    database->capture = NULL;
    hw_mutex_unlock(&mutex);
    hw_capture_close(capture); /* followers get the end of the log if they are quick */
    hw_mutex_lock(&mutex);
}

static void forget(struct hw_shim_database *database)
{
    struct hw_shim_database **link = &databases;

    while (*link != database)
        link = &(*link)->next;
    *link = database->next;
    unclaim(database);
    hw_free(database->memory_name);
    hw_free(database->path);
    hw_free(database);
}

void hw_shim_database_leave(struct hw_shim_file *file)
{
    struct hw_shim_database *database = file->database;
    struct hw_memory_place *place = NULL;

    if (database == NULL || file->generation != hw_shim_generation())
        return; /* after a fork the list is not the one that this file is in */
    hw_mutex_lock(&mutex);
    for (struct hw_shim_file **f = &database->files; *f != NULL; f = &(*f)->next) {
        if (*f == file) {
            *f = file->next;
            break;
        }
    }
    /* Whoever opens meanwhile finds the claim; and should that one be gone again before, what it
     * made is closed here as well. */
    while (!file->is_guest && is_applications_last(database) && database->listens != NULL) {
        hw_mutex_unlock(&mutex);
        rest_listening(database); /* guests of ours close: they must not be the last */
        hw_mutex_lock(&mutex);
        close_capture(database);
        hw_mutex_unlock(&mutex);
        stop_listening(database);
        hw_mutex_lock(&mutex);
    }
    while (database->references == 1 && database->capture != NULL)
        close_capture(database);
    database->guests -= file->is_guest;
    if (--database->references == 0) {
        place = database->place;
        forget(database);
    }
    hw_mutex_unlock(&mutex);
    hw_memory_leave(place); /* it waits for other processes */
}
