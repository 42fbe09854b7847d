/*
 * The end of a log that another one goes on from, with nothing lost.
 *
 *   asked ──▶ CLOSING: nobody begins to write ──▶ WRITE is held ──▶ all is logged ──▶ the switch
 *                 │                                                                     │
 *                 └──── a writer does not end in time, or the log cannot be written     ▼
 *                       ──▶ writers go on, whoever asked is told why                   DONE
 *
 * What is DONE is what the log says: its last block is the switch.  The word in the shared page
 * only tells others; each worker that begins sets it anew.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

enum { SLICE_NS = 20000000, LOOK_NS = 10000000 };

static bool key_parse(const char *hex, uint8_t key[HW_KEY_SIZE])
{
    for (size_t i = 0; i < 2 * (size_t)HW_KEY_SIZE; i++) {
        char c = hex[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (digit < 0)
            return false;
        key[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : key[i / 2] | digit);
    }
    return hex[2 * HW_KEY_SIZE] == '\0';
}

/* ------------------------------------------------------------------------- the worker's side */

enum hw_status hw_handover_begin(struct hw_capture *capture, uint64_t mail,
                                 const struct hw_request *request, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    if (worker->handover.is_active)
        return hw_fail(err, HW_EBUSY, "%s: is being handed over already", capture->path);
    if (atomic_load(&capture->exclusive))
        return hw_fail(err, HW_EBUSY,
                       "it stays the primary: %s: a connection has it in exclusive locking mode, "
                       "and would write on",
                       capture->path);
    if (!key_parse(request->text, worker->handover.key))
        return hw_fail(err, HW_EMISUSE, "%s: handed over to no key", capture->path);
    worker->handover.is_active = true;
    worker->handover.mail = mail;
    worker->handover.deadline_ns =
        capture->env->ops->monotonic_ns(capture->env) + request->argument * 1000000U;
    hw_shared_set_handover(capture->shared, HW_HANDOVER_CLOSING);
    hw_env_log(capture->env, HW_LOG_INFO, "event=handover_asked db=%s", capture->path);
    return HW_OK;
}

static void unlock_write(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;

    if (worker->handover.holds_write)
        (void)capture->database->pMethods->xShmLock(capture->database, HW_SHM_WRITE, 1,
                                                    SQLITE_SHM_UNLOCK |
                                                        SQLITE_SHM_EXCLUSIVE); /* cannot fail */
    worker->handover.holds_write = false;
}

static enum hw_status lock_write(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint64_t now = capture->env->ops->monotonic_ns(capture->env);

    if (worker->handover.holds_write)
        return HW_OK;
    if (capture->database->pMethods->xShmLock(capture->database, HW_SHM_WRITE, 1,
                                              SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) ==
        SQLITE_OK) {
        worker->handover.holds_write = true;
        return HW_OK;
    }
    if (now < worker->handover.deadline_ns)
        return HW_AGAIN;
    return hw_fail(err, HW_ETIMEOUT, "%s: a transaction that writes did not end in time",
                   capture->path);
}

void hw_handover_give_up(struct hw_capture *capture, enum hw_status status,
                         const struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_error told = *err;

    if (!worker->handover.is_active)
        return;
    (void)hw_prefix(&told, status, "it stays the primary"); /* it only fills `told` */
    hw_env_log(capture->env, HW_LOG_WARN, "event=handover_failed db=%s reason=\"%s\"",
               capture->path, err->message);
    worker->handover.is_active = false;
    unlock_write(capture);
    hw_shared_set_handover(capture->shared, HW_HANDOVER_NONE);
    hw_request_answer(capture, worker->handover.mail, status, 0, &told);
}

void hw_handover_let_go(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;

    unlock_write(capture);
    if (worker->handover.is_active) /* the next worker finds who asked in the mailbox again */
        hw_shared_set_handover(capture->shared, HW_HANDOVER_NONE);
    worker->handover.is_active = false;
}

static void tell_ended(struct hw_capture *capture, const uint8_t key[HW_KEY_SIZE])
{
    char hex[2 * HW_KEY_SIZE + 1];

    hw_key_format(key, hex);
    capture->worker.is_ended = true;
    hw_shared_set_handover(capture->shared, HW_HANDOVER_DONE);
    hw_worker_alarm(capture,
                    "the log was handed over to %s: this database is only read here; "
                    "follow that one to get what it gets",
                    hex);
}

static enum hw_status finish(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_entry_header header = hw_worker_entry(capture, HW_ENTRY_SWITCH);
    struct hw_note note = worker->note;
    struct hw_switch switch_ = {.role = HW_SWITCH_CONTINUED,
                                .fork = hw_core_head(worker->core).fork,
                                .seq = note.seq,
                                .page_count = note.page_count,
                                .sum = note.sum};
    uint64_t seq;
    enum hw_status status;

    assert(worker->handover.holds_write);
    status = hw_core_batch_begin(worker->core, err);
    if (status != HW_OK)
        return status;
    seq = hw_core_batch_next(worker->core);
    note.time_ms = header.time_ms;
    memcpy(switch_.key, worker->handover.key, HW_KEY_SIZE);
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, seq, &worker->block);
    hw_switch_encode(&switch_, &worker->block);
    if (worker->block.failed)
        status = hw_fail(err, HW_ENOMEM, "no memory for a switch");
    else
        status = hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    status = hw_worker_commit(capture, &note, err);
    if (status != HW_OK) {
        /* It may be on the disk all the same: nobody writes until the log was read again. */
        worker->handover.is_active = false;
        hw_request_answer(capture, worker->handover.mail, status, 0, err);
        return status;
    }
    worker->handover.is_active = false; /* WRITE is held as long as the role */
    tell_ended(capture, switch_.key);
    hw_env_log(capture->env, HW_LOG_WARN, "event=handed_over db=%s seq=%llu", capture->path,
               (unsigned long long)seq);
    hw_request_answer(capture, worker->handover.mail, HW_OK, seq, NULL);
    return HW_OK;
}

enum hw_status hw_handover_keep_out(struct hw_capture *capture, uint64_t *deadline_ns,
                                    struct hw_error *err)
{
    enum hw_status status;

    if (hw_mailbox_is_wanted(capture->shared, capture->worker.handover.mail))
        status = lock_write(capture, err);
    else /* he goes by that it stays the primary, or nobody is there */
        status = hw_fail(err, HW_ETIMEOUT, "%s: who asked does not wait any more", capture->path);
    if (status == HW_AGAIN)
        *deadline_ns = capture->env->ops->monotonic_ns(capture->env) + LOOK_NS;
    else if (status != HW_OK)
        hw_handover_give_up(capture, status, err);
    return status;
}

enum hw_status hw_handover_end(struct hw_capture *capture, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (capture->env->ops->monotonic_ns(capture->env) >= capture->worker.handover.deadline_ns)
        status = hw_fail(err, HW_ETIMEOUT, "%s: what was committed could not be logged in time",
                         capture->path);
    if (status == HW_OK)
        status = finish(capture, err);
    if (status != HW_OK)
        hw_handover_give_up(capture, status, err);
    return status;
}

/* The switch that is the last block.  HW_END: the log goes on. */
static enum hw_status last_switch(struct hw_worker *worker, struct hw_switch *out,
                                  struct hw_error *err)
{
    uint64_t length = hw_core_length(worker->core);
    struct hw_entry_header header;
    struct hw_cursor cursor;
    enum hw_status status;

    if (length == 0)
        return HW_END;
    status = hw_core_read(worker->core, length - 1, &worker->block, err);
    if (status != HW_OK)
        return status;
    cursor = hw_cursor(worker->block.bytes, worker->block.size);
    if (hw_entry_header_decode(&cursor, length - 1, &header) != HW_OK ||
        header.type != HW_ENTRY_SWITCH || hw_switch_decode(&cursor, out) != HW_OK ||
        out->role != HW_SWITCH_CONTINUED)
        return HW_END;
    return HW_OK;
}

enum hw_status hw_handover_look(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_switch last;
    enum hw_status status = last_switch(&capture->worker, &last, err);

    capture->worker.is_ended = false;
    if (status == HW_OK)
        tell_ended(capture, last.key);
    else if (status == HW_END)
        hw_shared_set_handover(capture->shared, HW_HANDOVER_NONE);
    return status == HW_END ? HW_OK : status;
}

/* As long as we are here programs without the VFS are kept from writing, too. */
static void keep_closed(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;

    if (!worker->handover.holds_write && atomic_load(&capture->ready) && capture->database != NULL)
        worker->handover.holds_write = capture->database->pMethods->xShmLock(
                                           capture->database, HW_SHM_WRITE, 1,
                                           SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) == SQLITE_OK;
}

enum hw_status hw_handover_answer(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_request request;
    struct hw_switch last;
    uint8_t key[HW_KEY_SIZE];
    uint64_t mail;
    enum hw_status status = hw_mailbox_take(capture->shared, &request, &mail);

    keep_closed(capture);
    if (status != HW_OK)
        return HW_END;
    status = last_switch(worker, &last, err);
    if (status == HW_OK && request.kind == REQUEST_HANDOVER && key_parse(request.text, key) &&
        memcmp(key, last.key, HW_KEY_SIZE) == 0) { /* who asked did not hear it */
        hw_request_answer(capture, mail, HW_OK, hw_core_length(worker->core) - 1, NULL);
        return HW_OK;
    }
    if (status == HW_OK || status == HW_END)
        status =
            hw_fail(err, HW_EREADONLY, "%s: its log was handed over to another one", capture->path);
    hw_request_answer(capture, mail, status, 0, err);
    return HW_OK;
}

/* ------------------------------------------------------------------------- who asks, writers */

int hw_gate_may_write(struct hw_capture *capture, struct hw_error *err)
{
    switch (hw_shared_handover(capture->shared)) {
    case HW_HANDOVER_CLOSING:
        return SQLITE_BUSY;
    case HW_HANDOVER_DONE:
        (void)hw_fail(err, HW_EREADONLY,
                      "the log was handed over: another primary goes on, and this database is only "
                      "read; `hyperwal follow` makes it a replica of that one");
        return SQLITE_READONLY;
    case HW_HANDOVER_NONE:
        break;
    }
    return SQLITE_OK;
}

enum hw_status hw_handover_post(struct hw_shared_page *page, const uint8_t key[32],
                                uint64_t timeout_ms, uint64_t *mail, struct hw_error *err)
{
    struct hw_env *env = hw_shared_env(page);
    struct hw_request request = {.kind = REQUEST_HANDOVER, .argument = timeout_ms};
    uint64_t deadline = env->ops->monotonic_ns(env) + (timeout_ms + 1000) * 1000000U;
    enum hw_status status;

    hw_key_format(key, request.text);
    status = hw_mailbox_post(page, &request, deadline, mail);
    if (status != HW_OK)
        return hw_fail(err, HW_EBUSY, "too much is asked of the database's worker just now");
    hw_shared_ring(page);
    return HW_OK;
}

enum hw_status hw_handover_collect(struct hw_shared_page *page, uint64_t mail, uint64_t *seq,
                                   struct hw_error *err)
{
    struct hw_answer answer;
    enum hw_status status = hw_mailbox_collect(page, mail, &answer);

    if (status != HW_OK)
        return status;
    if (answer.status != HW_OK)
        return hw_fail(err, answer.status, "%s", answer.text);
    *seq = answer.result;
    return HW_OK;
}

enum hw_status hw_capture_hand_over(struct hw_env *env, const char *dir, const uint8_t key[32],
                                    uint64_t timeout_ms, uint64_t *seq, struct hw_error *err)
{
    uint64_t deadline = env->ops->monotonic_ns(env) + (timeout_ms + 500) * 1000000U;
    struct hw_shared_page *page = NULL;
    uint64_t mail = 0;
    enum hw_status status = hw_shared_page_open(env, dir, true, &page, err);

    if (status == HW_OK)
        status = hw_handover_post(page, key, timeout_ms, &mail, err);
    if (status != HW_OK) {
        hw_shared_page_close(page);
        return status;
    }
    for (;;) {
        uint32_t seen = hw_shared_wake_count(page);

        status = hw_handover_collect(page, mail, seq, err);
        if (status != HW_AGAIN || env->ops->monotonic_ns(env) >= deadline)
            break;
        hw_shared_wait(page, seen, SLICE_NS);
    }
    if (status == HW_AGAIN || status == HW_END) {
        hw_mailbox_cancel(page, mail);
        status = hw_fail(err, HW_ETIMEOUT,
                         "%s: nobody who writes the database answered in time; if its log ended "
                         "all the same, the next call goes on from there",
                         dir);
    }
    hw_shared_page_close(page);
    return status;
}
