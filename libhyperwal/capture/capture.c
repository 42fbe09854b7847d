/* Implements the life, the events and the questions of capture/capture.h. */
#include "capture/capture.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

enum { SLICE_NS = 50000000 };
#define STALLED_NS (10 * (uint64_t)1000000000) /* an alarm that lasts so long answers who asks */

static struct hw_mutex registry_mutex = HW_MUTEX_INIT; /* guards registry and references */
static struct hw_capture *registry;                    /* mu: captures of this process */

/* ---------------------------------------------------------------------------------- life */

static void capture_free(struct hw_capture *capture)
{
    if (capture == NULL)
        return;
    capture->env->ops->close(capture->lock_file);
    hw_core_close(capture->reader);
    hw_peer_table_close(capture->peers);
    hw_shared_page_close(capture->shared);
    if (capture->filename != NULL)
        sqlite3_free_filename(capture->filename);
    hw_free(capture->path);
    hw_free(capture->wal_path);
    hw_free(capture->shm_path);
    hw_free(capture->directory);
    hw_free(capture->log_dir);
    hw_mutex_release(&capture->gate_mutex);
    hw_fair_mutex_release(&capture->step_mutex);
    hw_mutex_release(&capture->reader_mutex);
    hw_mutex_release(&capture->peers_mutex);
    hw_free(capture);
}

static enum hw_status capture_make(const struct hw_capture_options *options,
                                   struct hw_capture **out, struct hw_error *err)
{
    struct hw_capture *capture = hw_zalloc(sizeof(*capture));
    const char *slash;
    char *journal = NULL;

    if (capture == NULL)
        goto no_memory;
    hw_mutex_init(&capture->gate_mutex);
    hw_fair_mutex_init(&capture->step_mutex);
    hw_mutex_init(&capture->reader_mutex);
    hw_mutex_init(&capture->peers_mutex);
    capture->references = 1;
    capture->env = options->env;
    journal = hw_format("%s-journal", options->path);
    capture->base = options->base;
    capture->threaded = options->threaded;
    capture->wal_limit = options->wal_limit;
    capture->wal_cap = options->wal_cap != 0 ? options->wal_cap : WAL_CAP_DEFAULT;
    capture->process_id = options->env->ops->process_id(options->env);
    capture->path = hw_strdup(options->path);
    capture->wal_path = hw_format("%s-wal", options->path);
    capture->shm_path = hw_format("%s-shm", options->path);
    slash = strrchr(options->path, '/');
    capture->directory = slash == NULL || slash == options->path
                             ? hw_strdup(slash == NULL ? "." : "/")
                             : hw_format("%.*s", (int)(slash - options->path), options->path);
    capture->log_dir = options->log_dir != NULL ? hw_strdup(options->log_dir)
                                                : hw_format("%s-hyper", options->path);
    if (journal == NULL || capture->path == NULL || capture->directory == NULL ||
        capture->shm_path == NULL || capture->wal_path == NULL || capture->log_dir == NULL)
        goto no_memory;
    capture->filename = sqlite3_create_filename(capture->path, journal, capture->wal_path, 0, NULL);
    if (capture->filename == NULL)
        goto no_memory;
    hw_free(journal);
    *out = capture;
    return HW_OK;

no_memory:
    hw_free(journal);
    capture_free(capture);
    (void)hw_fail(err, HW_ENOMEM, "%s: no memory to capture it", options->path);
    return HW_ENOMEM; /* so that the compiler sees that it is not HW_OK */
}

/* The log's directory belongs to this database, as far as the last one who worked here knew. */
static enum hw_status check_belongs(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_position_file then, now;
    enum hw_status status = hw_position_read(capture->env, capture->log_dir, &then, err);

    if (status == HW_ENOTFOUND || status == HW_ECORRUPT || status == HW_ELIMIT)
        return HW_OK; /* nothing is known: reconciliation decides by content */
    if (status == HW_OK)
        status = hw_position_take(capture->env, capture->path, false, &now, err);
    if (status != HW_OK) /* what cannot be read now may say that it is another's */
        return status;
    if (strcmp(then.path, now.path) == 0 || (then.device == now.device && then.inode == now.inode))
        return HW_OK;
    return hw_fail(err, HW_EFORK,
                   "%s: this log belongs to the database %s, not to %s: if this is a copy of both, "
                   "`hyperwal init --adopt` makes the log its own; else use log=DIR with another "
                   "directory, or move this one away",
                   capture->log_dir, then.path, capture->path);
}

static enum hw_status open_lock_file(struct hw_capture *capture, struct hw_error *err)
{
    char *path = hw_format("%s/worker.lock", capture->log_dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to lock it", capture->log_dir);
    status = capture->env->ops->open(
        capture->env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
        &capture->lock_file, err);
    hw_free(path);
    return status;
}

static void *worker_main(void *ctx);

/* What opening checks at once, so that it can fail: the directory, the log, the key. */
static enum hw_status capture_start(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_env *env = capture->env;
    enum hw_status status;

    status = hw_env_make_dir_of(env, capture->log_dir, capture->path, err);
    if (status != HW_OK && status != HW_EEXIST)
        return hw_prefix(err, status, "cannot make the log's directory");
    status = check_belongs(capture, err);
    if (status != HW_OK)
        return status;
    status = hw_shared_page_open(env, capture->log_dir, true, &capture->shared, err);
    if (status == HW_OK)
        status = open_lock_file(capture, err);
    if (status != HW_OK)
        return status;
    hw_fair_mutex_lock(&capture->step_mutex);
    status = hw_worker_take_role(capture, err);
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (status != HW_OK && status != HW_EBUSY)
        return status;
    if (capture->threaded) {
        status = hw_thread_start(&capture->thread, worker_main, capture, err);
        if (status != HW_OK)
            return status;
        capture->thread_started = true;
    }
    return HW_OK;
}

static struct hw_capture *registry_find(const struct hw_capture_options *options, uint32_t pid)
{
    for (struct hw_capture *capture = registry; capture != NULL; capture = capture->next)
        if (capture->process_id == pid && capture->env == options->env &&
            strcmp(capture->path, options->path) == 0)
            return capture;
    return NULL;
}

enum hw_status hw_capture_open(const struct hw_capture_options *options, struct hw_capture **out,
                               struct hw_error *err)
{
    struct hw_capture *capture;
    enum hw_status status = HW_OK;

    hw_mutex_lock(&registry_mutex);
    capture = registry_find(options, options->env->ops->process_id(options->env));
    if (capture != NULL) {
        if (options->log_dir != NULL && capture->log_dir != NULL &&
            strcmp(options->log_dir, capture->log_dir) != 0)
            status = hw_fail(err, HW_EMISUSE, "%s: already open here with the log %s, not %s",
                             options->path, capture->log_dir, options->log_dir);
        else if (capture->base != options->base)
            status = hw_fail(err, HW_EMISUSE, "%s: already open here through the VFS '%s'",
                             options->path, capture->base->zName);
        else
            capture->references++;
        goto done;
    }
    status = capture_make(options, &capture, err);
    if (status != HW_OK)
        goto done;
    status = capture_start(capture, err);
    if (status != HW_OK) {
        hw_fair_mutex_lock(&capture->step_mutex);
        hw_worker_drop_role(capture);
        hw_fair_mutex_unlock(&capture->step_mutex);
        capture_free(capture);
        goto done;
    }
    capture->next = registry;
    registry = capture;
done:
    if (status == HW_OK)
        *out = capture;
    hw_mutex_unlock(&registry_mutex);
    return status;
}

unsigned hw_capture_count(void)
{
    unsigned count = 0;

    hw_mutex_lock(&registry_mutex);
    for (const struct hw_capture *capture = registry; capture != NULL; capture = capture->next)
        count++;
    hw_mutex_unlock(&registry_mutex);
    return count;
}

void hw_capture_forked(void)
{
    hw_mutex_init(&registry_mutex);
    registry = NULL;
}

bool hw_capture_is_forked(const struct hw_capture *capture)
{
    return capture->process_id != capture->env->ops->process_id(capture->env);
}

static uint32_t *useful_word(struct hw_capture *capture)
{
    return (uint32_t *)(uintptr_t)&capture->useful; /* atomic ones have the same bytes */
}

void hw_capture_wake_useful(struct hw_capture *capture)
{
    atomic_fetch_add(&capture->useful, 1);
    capture->env->ops->wake_word(capture->env, useful_word(capture));
}

void hw_capture_close(struct hw_capture *capture)
{
    bool last;

    if (capture == NULL || hw_capture_is_forked(capture))
        return; /* in a child it is the parent's: nothing of it may be touched */
    hw_mutex_lock(&registry_mutex);
    last = --capture->references == 0;
    if (last) {
        struct hw_capture **link = &registry;

        atomic_store(&capture->closing, true);
        if (capture->thread_started) {
            hw_shared_ring(capture->shared);
            hw_capture_wake_useful(capture);
            hw_thread_interrupt(&capture->thread);
            hw_thread_join(&capture->thread);
        }
        hw_fair_mutex_lock(&capture->step_mutex);
        hw_worker_drop_role(capture);
        hw_fair_mutex_unlock(&capture->step_mutex);
        hw_gate_close(capture);
        while (*link != capture)
            link = &(*link)->next;
        *link = capture->next;
    }
    hw_mutex_unlock(&registry_mutex);
    if (last)
        capture_free(capture);
}

/* --------------------------------------------------------------------------------- thread */

/* Is there something to do after all?  Asked once more after announcing sleep. */
static bool worker_is_needed(void *ctx)
{
    struct hw_capture *capture = ctx;
    uint32_t asker = hw_shared_yield(capture->shared);
    /* Of who is alone nobody gets the role, and it would ask itself this for ever. */
    bool is_asked = asker != 0 && atomic_load(&capture->alone) == ALONE_NOBODY;

    return atomic_load(&capture->closing) || is_asked ||
           (hw_capture_can_work(capture) &&
            (hw_mailbox_posted(capture->shared) != 0 ||
             (!hw_gate_is_logged(capture) &&
              hw_shared_handover(capture->shared) != HW_HANDOVER_DONE)));
}

/* At a WAL that could not be looked at when somebody began to read; not while it is deleted. */
static void look_again(struct hw_capture *capture)
{
    hw_fair_mutex_lock(&capture->step_mutex);
    if (atomic_load(&capture->unready))
        (void)hw_capture_ready(capture); /* a failure was said, and is tried again */
    hw_fair_mutex_unlock(&capture->step_mutex);
}

/* As long as nobody here reads the role is for other processes. */
static void wait_until_useful(struct hw_capture *capture)
{
    for (;;) {
        uint32_t seen = atomic_load(&capture->useful);
        bool has_role;

        hw_fair_mutex_lock(&capture->step_mutex);
        has_role = capture->worker.has_role;
        hw_fair_mutex_unlock(&capture->step_mutex);
        if (has_role || hw_capture_can_work(capture) || atomic_load(&capture->closing))
            return;
        capture->env->ops->wait_word(capture->env, useful_word(capture), seen,
                                     atomic_load(&capture->unready) ? RETRY_NS : UINT64_MAX);
        look_again(capture);
    }
}

/* Wait for the lock as long as it takes: a holder that dies wakes us through the kernel. */
static void wait_for_role(struct hw_capture *capture)
{
    uint32_t asker = hw_shared_yield(capture->shared);
    bool has_role;

    if (asker != 0 && asker != capture->process_id)
        return; /* it is somebody else's turn: the step stands back */
    hw_fair_mutex_lock(&capture->step_mutex);
    has_role = capture->worker.has_role;
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (!has_role && capture->lock_file != NULL)
        (void)capture->env->ops->lock(capture->lock_file, true, NULL); /* the step looks again */
}

static void *worker_main(void *ctx)
{
    struct hw_capture *capture = ctx;
    struct hw_env *env = capture->env;

    while (!atomic_load(&capture->closing)) {
        uint64_t deadline = UINT64_MAX, now;
        enum hw_status status;
        uint32_t seen;

        wait_until_useful(capture);
        wait_for_role(capture);
        seen = hw_shared_work_count(capture->shared);
        if (atomic_load(&capture->closing))
            break;
        status = hw_capture_step(capture, &deadline, NULL);
        now = env->ops->monotonic_ns(env);
        if (status == HW_OK || deadline <= now)
            continue;
        if (atomic_load(&capture->unready)) {
            hw_shared_worker_sleep(capture->shared, seen, NULL, NULL, RETRY_NS);
            look_again(capture);
        } else if (deadline == UINT64_MAX) {
            hw_shared_worker_sleep(capture->shared, seen, worker_is_needed, capture, UINT64_MAX);
        } else {
            hw_shared_worker_sleep(capture->shared, seen, NULL, NULL, deadline - now);
        }
    }
    return NULL;
}

enum hw_status hw_capture_step(struct hw_capture *capture, uint64_t *deadline_ns,
                               struct hw_error *err)
{
    enum hw_status status;

    hw_fair_mutex_lock(&capture->step_mutex);
    status = hw_worker_step(capture, deadline_ns, err);
    hw_fair_mutex_unlock(&capture->step_mutex);
    return status;
}

/* --------------------------------------------------------------------------------- events */

void hw_capture_committed(struct hw_capture *capture)
{
    hw_shared_commit(capture->shared);
}

void hw_capture_look(struct hw_capture *capture)
{
    hw_shared_look(capture->shared);
}

void hw_capture_hold(struct hw_capture *capture, bool held)
{
    atomic_store(&capture->held, held);
}

void hw_capture_held_since(struct hw_capture *capture)
{
    struct hw_error err;

    hw_fair_mutex_lock(&capture->step_mutex);
    if (hw_worker_take_role(capture, &err) == HW_OK) /* else it is said of another one's time */
        atomic_store(&capture->held_since, true);
    hw_fair_mutex_unlock(&capture->step_mutex);
}

void hw_capture_wal_synced(struct hw_capture *capture, const uint8_t salts[8], uint64_t size)
{
    hw_shared_set_wal_synced(capture->shared, salts, size);
}

/* ------------------------------------------------------------------------------ questions */

/* Of the one that is alone, as soon as all that it committed is in the private index. */
static enum hw_status private_header_now(struct hw_capture *capture,
                                         struct hw_wal_index_header *out, uint64_t deadline,
                                         struct hw_error *err)
{
    for (;;) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        uint64_t now = capture->env->ops->monotonic_ns(capture->env);
        enum hw_status status;

        hw_fair_mutex_lock(&capture->step_mutex);
        status = hw_exclusive_look(capture, err);
        if (status == HW_OK)
            *out = capture->worker.private_header;
        hw_fair_mutex_unlock(&capture->step_mutex);
        if (status == HW_OK)
            return HW_OK;
        if (now >= deadline)
            return hw_prefix(err, HW_ETIMEOUT, "%s: what is committed cannot be seen",
                             capture->path);
        hw_shared_wait(capture->shared, seen,
                       deadline - now < SLICE_NS ? deadline - now : SLICE_NS);
    }
}

static enum hw_status header_now(struct hw_capture *capture, struct hw_wal_index_header *out,
                                 uint64_t deadline, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (hw_capture_is_private(capture))
        return private_header_now(capture, out, deadline, err);
    while (hw_gate_header(capture, out) != HW_OK) {
        uint64_t now = capture->env->ops->monotonic_ns(capture->env);

        if (now >= deadline || !atomic_load(&capture->ready)) {
            status = hw_fail(err, HW_ETIMEOUT, "%s: its WAL is not open yet", capture->path);
            break;
        }
        hw_shared_wait(capture->shared, hw_shared_wake_count(capture->shared), 1000000);
    }
    return status;
}

/* Has the log come to `target`, or further, whatever became of it? */
static bool is_reached(struct hw_capture *capture, const struct hw_capture_target *target,
                       struct hw_shared_position *position)
{
    struct hw_wal_index_header now;

    *position = hw_shared_position(capture->shared);
    if (position->seq == UINT64_MAX || position->frame == UINT32_MAX)
        return false;
    if (memcmp(position->salts, target->salts, sizeof(target->salts)) == 0)
        return position->frame >= target->frame;
    if (hw_capture_is_private(capture) && target->frame == 0)
        return true;
    /* Another round: that which the WAL is in now is later.  In others the log may be behind. */
    return header_now(capture, &now, 0, NULL) == HW_OK &&
           !(target->frame > 0 && hw_header_same_round(&now, target->salts)) &&
           hw_round_is_at(capture, position, &now);
}

/*
 * The log has come to `target` or further; was it by a gap?  A commit that is in the gap's state
 * but in no entry is lost, too, but what is seen now (not `of_commit`) has that state's seq.
 */
static bool is_lost(struct hw_capture *capture, const struct hw_capture_target *target,
                    bool of_commit, uint64_t *seq)
{
    struct hw_shared_gap gap;

    if (hw_shared_gaps(capture->shared, &gap) == target->gaps)
        return false;
    *seq = gap.after.seq;
    if (memcmp(gap.before.salts, target->salts, 8) == 0 && gap.before.frame >= target->frame)
        return false; /* it was in the log before */
    if (memcmp(gap.after.salts, target->salts, 8) == 0)
        return of_commit && gap.after.frame >= target->frame;
    return !hw_round_begins_at(capture, gap.after.salts, gap.after.frame, target->salts);
}

/* Wait for news, at most until `deadline`; without a thread of our own: do the work. */
static void wait_for_news(struct hw_capture *capture, uint32_t seen, uint64_t deadline)
{
    uint64_t now = capture->env->ops->monotonic_ns(capture->env);
    uint64_t left = deadline > now ? deadline - now : 0;
    uint64_t next = UINT64_MAX;

    hw_shared_urge(capture->shared);
    if (!capture->threaded && hw_capture_step(capture, &next, NULL) == HW_OK)
        return;
    hw_shared_wait(capture->shared, seen, left < SLICE_NS ? left : SLICE_NS);
}

static uint64_t deadline_in(struct hw_capture *capture, uint64_t timeout_ms)
{
    return capture->env->ops->monotonic_ns(capture->env) + timeout_ms * 1000000U;
}

static enum hw_status target_now(struct hw_capture *capture, struct hw_capture_target *out,
                                 uint64_t deadline, struct hw_error *err)
{
    struct hw_shared_gap gap;
    struct hw_wal_index_header header;
    uint64_t gaps = hw_shared_gaps(capture->shared, &gap); /* a later one may be about it */
    enum hw_status status = header_now(capture, &header, deadline, err);

    if (status != HW_OK)
        return status;
    *out = (struct hw_capture_target){.is_known = true, .frame = header.max_frame, .gaps = gaps};
    memcpy(out->salts, header.salts, sizeof(out->salts));
    return HW_OK;
}

void hw_capture_target(struct hw_capture *capture, struct hw_capture_target *target)
{
    target->is_known =
        !hw_capture_is_private(capture) && target_now(capture, target, 0, NULL) == HW_OK;
}

enum hw_status hw_capture_wait_target(struct hw_capture *capture,
                                      const struct hw_capture_target *target, uint64_t timeout_ms,
                                      uint64_t *seq, struct hw_error *err)
{
    uint64_t deadline = deadline_in(capture, timeout_ms), gap;
    bool of_commit = target != NULL && target->is_known;
    struct hw_shared_position position;
    struct hw_capture_target now;
    char alarm[HW_SHARED_TEXT_SIZE];

    if (!of_commit) {
        enum hw_status status = target_now(capture, &now, deadline, err);

        if (status != HW_OK)
            return status;
        target = &now;
    }
    for (;;) {
        uint32_t seen = hw_shared_wake_count(capture->shared);

        if (is_reached(capture, target, &position)) {
            if (is_lost(capture, target, of_commit, &gap))
                return hw_fail(err, HW_EFORK,
                               "%s: what was committed last is in the gap at seq %llu: it was lost "
                               "to the log before it was in it",
                               capture->path, (unsigned long long)gap);
            *seq = position.seq;
            return HW_OK;
        }
        if (hw_shared_handover(capture->shared) == HW_HANDOVER_DONE)
            return hw_fail(err, HW_EREADONLY, "%s: its log was handed over, nothing is added to it",
                           capture->path);
        if (capture->env->ops->monotonic_ns(capture->env) >= deadline)
            break;
        wait_for_news(capture, seen, deadline);
    }
    hw_shared_alarm(capture->shared, alarm);
    return hw_fail(err, HW_ETIMEOUT, "%s: not in the log after %llu ms%s%s", capture->path,
                   (unsigned long long)timeout_ms, alarm[0] != '\0' ? ": " : "", alarm);
}

enum hw_status hw_capture_wait_logged(struct hw_capture *capture, uint64_t timeout_ms,
                                      uint64_t *seq, struct hw_error *err)
{
    return hw_capture_wait_target(capture, NULL, timeout_ms, seq, err);
}

/* Has the worker been in trouble for so long that who asked is told so instead?  *since is its. */
static bool is_stalled(struct hw_capture *capture, uint64_t *since)
{
    uint64_t now = capture->env->ops->monotonic_ns(capture->env);

    if (!hw_gate_is_alarmed(capture))
        *since = 0;
    else if (*since == 0)
        *since = now;
    return *since != 0 && now - *since >= STALLED_NS;
}

static enum hw_status ask(struct hw_capture *capture, const struct hw_request *request,
                          uint64_t timeout_ms, uint64_t *result, struct hw_error *err)
{
    uint64_t deadline = deadline_in(capture, timeout_ms);
    struct hw_answer answer;
    uint64_t mail = 0; /* 0: all slots are taken, and one gets free */
    uint64_t alarmed_since = 0;
    char alarm[HW_SHARED_TEXT_SIZE];

    for (;;) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        enum hw_status status = HW_AGAIN;

        if (mail == 0 && hw_mailbox_post(capture->shared, request, deadline, &mail) != HW_OK)
            mail = 0;
        if (mail != 0)
            status = hw_mailbox_collect(capture->shared, mail, &answer);
        if (status == HW_OK && answer.status != HW_OK)
            return hw_fail(err, answer.status, "%s", answer.text);
        if (status == HW_OK) {
            *result = answer.result;
            return HW_OK;
        }
        if (status == HW_END)
            return hw_fail(err, HW_ETIMEOUT,
                           "%s: this process was stopped for so long that the worker's answer is "
                           "gone: look whether it was done",
                           capture->path);
        if (is_stalled(capture, &alarmed_since) ||
            capture->env->ops->monotonic_ns(capture->env) >= deadline)
            break;
        wait_for_news(capture, seen, deadline);
    }
    if (mail != 0)
        hw_mailbox_cancel(capture->shared, mail);
    hw_shared_alarm(capture->shared, alarm);
    if (alarm[0] != '\0')
        return hw_fail(err, HW_ETIMEOUT, "%s: %s", capture->path, alarm);
    return hw_fail(err, HW_ETIMEOUT, "%s: the worker (process %u) did not answer in %llu ms",
                   capture->path, hw_shared_worker(capture->shared),
                   (unsigned long long)timeout_ms);
}

enum hw_status hw_capture_snapshot(struct hw_capture *capture, uint64_t timeout_ms, uint64_t *seq,
                                   struct hw_error *err)
{
    struct hw_request request = {.kind = REQUEST_SNAPSHOT};

    return ask(capture, &request, timeout_ms, seq, err);
}

enum hw_status hw_capture_label(struct hw_capture *capture, const char *name, uint64_t timeout_ms,
                                uint64_t *seq, struct hw_error *err)
{
    struct hw_request request = {.kind = REQUEST_LABEL};
    size_t size = strlen(name);

    if (size == 0 || size > HW_LABEL_SIZE_MAX)
        return hw_fail(err, HW_ELIMIT, "a label has 1 to %d bytes, not %zu", HW_LABEL_SIZE_MAX,
                       size);
    memcpy(request.text, name, size);
    return ask(capture, &request, timeout_ms, seq, err);
}

enum hw_status hw_capture_prune(struct hw_capture *capture, uint64_t keep_from_seq, bool dry_run,
                                uint64_t timeout_ms, uint64_t *freed, struct hw_error *err)
{
    struct hw_request request = {.kind = dry_run ? REQUEST_PRUNE_DRY : REQUEST_PRUNE,
                                 .argument = keep_from_seq};

    return ask(capture, &request, timeout_ms, freed, err);
}

void hw_capture_unconfirmed(struct hw_capture *capture, uint64_t seq)
{
    int64_t none = 0;

    atomic_fetch_add(&capture->unconfirmed_count, 1);
    atomic_store(&capture->unconfirmed_seq, seq);
    (void)atomic_compare_exchange_strong(&capture->unconfirmed_since_ms, &none,
                                         capture->env->ops->realtime_ms(capture->env));
}

const char *hw_capture_log_dir(const struct hw_capture *capture)
{
    return capture->log_dir;
}
