/* Implements env/shared_page.h, which has the picture and the memory order. */
#include "env/shared_page.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "env/thread.h"

enum {
    MAGIC = 0x50535748,
    VERSION = 4,
    SLOT_COUNT = HW_MAILBOX_SLOTS,
    READ_TRIES = 100,
    NS_PER_MS = 1000000
};
enum { REMOTE_WAIT_NS = 1000000000 };
enum slot_state { FREE, FILLING, POSTED, TAKEN, DONE };

struct position_words {
    _Atomic uint64_t salts;
    _Atomic uint64_t frame;
    _Atomic uint64_t seq;
};

struct positions {
    _Atomic uint64_t generation; /* the slot generation % 2 is the one to read */
    struct position_words slots[2];
};

struct mail_slot {
    _Atomic uint64_t word;        /* ticket << 8 | slot_state; 0: free */
    _Atomic uint64_t deadline_ns; /* of who asks */
    _Atomic uint64_t answered_ns;
    uint64_t argument, result;
    uint32_t kind;
    int32_t status;
    char text[HW_SHARED_TEXT_SIZE]; /* the request's */
    char why[HW_SHARED_TEXT_SIZE];  /* the answer's */
};

/* The bytes of the file.  Also in the picture of the header. */
struct layout {
    uint32_t magic, version;
    uint8_t boot_id[16];
    _Atomic uint32_t delaying;
    _Atomic uint32_t watched;
    _Atomic uint64_t remote_durable_ns;
    _Atomic uint64_t remote_applied_ns;
    _Atomic uint64_t first_fork;
    _Atomic uint32_t handover;
    uint8_t reserved[4];
    _Alignas(64) _Atomic uint32_t news;
    _Atomic uint32_t work;
    _Atomic uint32_t idle;
    _Atomic uint32_t urgent;
    _Atomic uint32_t yield;
    _Atomic uint32_t worker;
    _Atomic uint64_t durable_length;
    _Atomic uint64_t wanted_length;
    _Atomic uint64_t applied_seq;
    _Atomic uint64_t committed;
    struct positions position;
    struct positions door;
    struct positions round;
    struct positions synced;
    struct positions gap_before;
    struct positions gap_after;
    _Alignas(512) _Atomic uint32_t alarm_generation;
    _Atomic uint32_t alarm[HW_SHARED_TEXT_SIZE / 4]; /* its bytes, four in a word */
    _Alignas(1024) struct mail_slot slots[SLOT_COUNT];
};

static_assert(sizeof(struct layout) <= HW_SHARED_PAGE_SIZE, "one page");

struct hw_shared_page {
    struct hw_env *env;
    struct layout *layout; /* mapped, or in `memory` */
    void *memory;          /* owned; NULL unless the page is the caller's own */
    char *bell_path;       /* owned; NULL if `memory` is not */
    struct hw_mutex bell_mutex;
    struct hw_file *bell; /* bell_mutex: open from the first ring on */
};

static bool layout_is_valid(const struct layout *layout, const uint8_t boot_id[16])
{
    return layout->magic == MAGIC && layout->version == VERSION &&
           memcmp(layout->boot_id, boot_id, sizeof(layout->boot_id)) == 0;
}

/* Only while nobody else can have a valid page: under the lock of the file, or private. */
static void layout_reset(struct layout *layout, const uint8_t boot_id[16])
{
    memset(layout, 0, sizeof(*layout));
    memcpy(layout->boot_id, boot_id, sizeof(layout->boot_id));
    layout->version = VERSION;
    atomic_thread_fence(memory_order_release);
    layout->magic = MAGIC;
}

static enum hw_status map_file(struct hw_env *env, const char *path, bool create,
                               struct layout **out, struct hw_error *err)
{
    unsigned flags = HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK;
    struct hw_file *file = NULL;
    struct hw_file_stat stat;
    void *memory = NULL;
    uint8_t boot_id[16];
    bool locked = false;
    enum hw_status status = env->ops->boot_id(env, boot_id, err);

    if (status != HW_OK)
        return status;
    status = env->ops->open(env, path, create ? flags | HW_OPEN_CREATE : flags, &file, err);
    if (status != HW_OK)
        return status;
    status = env->ops->lock(file, true, err); /* held for microseconds, by whoever looks as we do */
    if (status != HW_OK)
        goto done;
    locked = true;
    status = env->ops->stat_file(file, &stat, err);
    if (status != HW_OK)
        goto done;
    if (stat.size < HW_SHARED_PAGE_SIZE) {
        status = create ? env->ops->allocate(file, HW_SHARED_PAGE_SIZE, err)
                        : hw_fail(err, HW_ENOTFOUND, "%s: too short", path);
        if (status != HW_OK)
            goto done;
    }
    status = env->ops->map(file, HW_SHARED_PAGE_SIZE, &memory, err);
    if (status != HW_OK)
        goto done;
    if (!layout_is_valid(memory, boot_id)) {
        if (create) {
            layout_reset(memory, boot_id);
        } else {
            env->ops->unmap(env, memory, HW_SHARED_PAGE_SIZE);
            status = hw_fail(err, HW_ENOTFOUND, "%s: not of this boot", path);
            goto done;
        }
    }
    *out = memory;
done:
    if (locked)
        env->ops->unlock(file); /* the mapping keeps the open file, and its lock, beyond close */
    env->ops->close(file);
    return status;
}

/* A page of the heap begins at any multiple of 16, the layout at one of its own. */
static struct layout *align(void *memory)
{
    uintptr_t size = _Alignof(struct layout);

    return (struct layout *)(((uintptr_t)memory + size - 1) & ~(size - 1));
}

enum hw_status hw_shared_page_open(struct hw_env *env, const char *dir, bool create,
                                   struct hw_shared_page **out, struct hw_error *err)
{
    struct hw_shared_page *page = hw_zalloc(sizeof(*page));
    static const uint8_t nobodys[16]; /* boot: a page of one's own is never found again */
    char *path = NULL;
    enum hw_status status;

    if (page == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the shared page");
    page->env = env;
    hw_mutex_init(&page->bell_mutex);
    if (dir == NULL) {
        page->memory = hw_zalloc(HW_SHARED_PAGE_SIZE + _Alignof(struct layout));
        if (page->memory == NULL) {
            status = hw_fail(err, HW_ENOMEM, "no memory for the shared page");
            goto fail;
        }
        page->layout = align(page->memory);
        layout_reset(page->layout, nobodys);
        *out = page;
        return HW_OK;
    }
    path = hw_format("%s/shared", dir);
    page->bell_path = hw_format("%s/bell", dir);
    if (path == NULL || page->bell_path == NULL) {
        status = hw_fail(err, HW_ENOMEM, "no memory for the shared page");
        goto fail;
    }
    status = map_file(env, path, create, &page->layout, err);
    if (status != HW_OK)
        goto fail;
    hw_free(path);
    *out = page;
    return HW_OK;

fail:
    hw_free(path);
    hw_free(page->bell_path);
    hw_mutex_release(&page->bell_mutex);
    hw_free(page);
    return status;
}

void hw_shared_page_close(struct hw_shared_page *page)
{
    if (page == NULL)
        return;
    if (page->memory != NULL)
        hw_free(page->memory);
    else
        page->env->ops->unmap(page->env, page->layout, HW_SHARED_PAGE_SIZE);
    page->env->ops->close(page->bell);
    hw_free(page->bell_path);
    hw_mutex_release(&page->bell_mutex);
    hw_free(page);
}

/* ---------------------------------------------------------------------------------- news */

/* Futexes are plain words to the kernel; atomic ones have the same bytes. */
static uint32_t *word(_Atomic uint32_t *atomic)
{
    return (uint32_t *)(uintptr_t)atomic;
}

uint32_t hw_shared_wake_count(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->news);
}

void hw_shared_wait(struct hw_shared_page *page, uint32_t seen, uint64_t timeout_ns)
{
    page->env->ops->wait_word(page->env, word(&page->layout->news), seen, timeout_ns);
}

void hw_shared_wake(struct hw_shared_page *page)
{
    atomic_fetch_add(&page->layout->news, 1);
    page->env->ops->wake_word(page->env, word(&page->layout->news));
}

/* ----------------------------------------------------------------------------------- bell */

static enum hw_status bell_write(struct hw_shared_page *page, unsigned flags, struct hw_error *err)
{
    struct hw_env *env = page->env;
    enum hw_status status = HW_OK;

    hw_mutex_lock(&page->bell_mutex);
    if (page->bell == NULL)
        status = env->ops->open(env, page->bell_path, flags, &page->bell, err);
    if (status == HW_OK)
        status = env->ops->write_at(page->bell, 0, "", 1, err);
    hw_mutex_unlock(&page->bell_mutex);
    return status;
}

/* As with the worker's sleep: we publish and then look who watches, who watches says so first. */
static void bell_ring(struct hw_shared_page *page)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&page->layout->watched) == 0 || page->bell_path == NULL)
        return;
    /* A bell that cannot be rung now is rung at the next batch; the log is not the worse for it. */
    (void)bell_write(page, HW_OPEN_READ | HW_OPEN_WRITE, NULL);
}

enum hw_status hw_shared_watch(struct hw_shared_page *page, struct hw_error *err)
{
    enum hw_status status;

    if (page->bell_path == NULL)
        return hw_fail(err, HW_EMISUSE, "a shared page in memory has no bell");
    status = bell_write(page, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, err);
    if (status == HW_OK)
        atomic_store(&page->layout->watched, 1);
    return status;
}

uint64_t hw_shared_durable_length(struct hw_shared_page *page)
{
    return atomic_load_explicit(&page->layout->durable_length, memory_order_acquire);
}

void hw_shared_set_durable_length(struct hw_shared_page *page, uint64_t length)
{
    atomic_store_explicit(&page->layout->durable_length, length, memory_order_release);
    hw_shared_wake(page);
    bell_ring(page);
}

/* --------------------------------------------------------------------------------- remote */

void hw_shared_set_remote_wait(struct hw_shared_page *page, unsigned level)
{
    struct layout *layout = page->layout;
    uint64_t now = page->env->ops->monotonic_ns(page->env), before;

    if (level == 0) {
        atomic_store(&layout->remote_durable_ns, 0);
        atomic_store(&layout->remote_applied_ns, 0);
        return;
    }
    before =
        atomic_exchange(level > 1 ? &layout->remote_applied_ns : &layout->remote_durable_ns, now);
    /* A server that was told lately will look again when the log grows: no need to ring. */
    if (now - before > REMOTE_WAIT_NS / 2)
        bell_ring(page);
}

unsigned hw_shared_remote_wait(struct hw_shared_page *page, uint64_t *since_ns)
{
    uint64_t durable = atomic_load(&page->layout->remote_durable_ns);
    uint64_t applied = atomic_load(&page->layout->remote_applied_ns);

    *since_ns = durable > applied ? durable : applied;
    if (*since_ns == 0)
        return 0;
    return applied != 0 && *since_ns - applied <= REMOTE_WAIT_NS ? 2 : 1;
}

void hw_shared_want_length(struct hw_shared_page *page, uint64_t length)
{
    uint64_t wanted = atomic_load(&page->layout->wanted_length);

    while (wanted < length + 1 &&
           !atomic_compare_exchange_weak(&page->layout->wanted_length, &wanted, length + 1)) {
        /* somebody else raised it: look again */
    }
    if (wanted >= length + 1)
        return;
    /* A worker about to delay its sync must not sleep on; one that is idle need not wake. */
    atomic_fetch_add(&page->layout->work, 1);
    if (atomic_load(&page->layout->delaying) != 0)
        page->env->ops->wake_word(page->env, word(&page->layout->work));
}

bool hw_shared_is_wanted(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->wanted_length) > hw_shared_durable_length(page);
}

/* ---------------------------------------------------------------------------------- forks */

void hw_shared_end_fork(struct hw_shared_page *page, uint64_t fork)
{
    uint64_t first = atomic_load(&page->layout->first_fork);

    while (first <= fork &&
           !atomic_compare_exchange_weak(&page->layout->first_fork, &first, fork + 1)) {
        /* somebody else raised it: look again */
    }
    hw_shared_ring(page);
}

bool hw_shared_may_sign(struct hw_shared_page *page, uint64_t fork)
{
    return fork >= atomic_load(&page->layout->first_fork);
}

/* ------------------------------------------------------------------------------- handover */

struct hw_env *hw_shared_env(const struct hw_shared_page *page)
{
    return page->env;
}

void hw_shared_set_handover(struct hw_shared_page *page, enum hw_handover handover)
{
    if (atomic_exchange(&page->layout->handover, (uint32_t)handover) != (uint32_t)handover)
        hw_shared_wake(page);
}

enum hw_handover hw_shared_handover(struct hw_shared_page *page)
{
    uint32_t handover = atomic_load(&page->layout->handover);

    return handover > HW_HANDOVER_DONE ? HW_HANDOVER_NONE : (enum hw_handover)handover;
}

/* ------------------------------------------------------------------------------ positions */

static struct hw_shared_position positions_get(struct positions *positions)
{
    struct hw_shared_position out = {.seq = UINT64_MAX};

    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t generation = atomic_load(&positions->generation);
        struct position_words *slot = &positions->slots[generation % 2];
        uint64_t salts = atomic_load(&slot->salts);
        uint64_t frame = atomic_load(&slot->frame);
        uint64_t seq = atomic_load(&slot->seq);

        if (generation == 0)
            return out; /* never set */
        if (atomic_load(&positions->generation) != generation)
            continue;
        hw_put_le64(out.salts, salts);
        out.frame = (uint32_t)frame;
        out.seq = seq;
        return out;
    }
    return out; /* as if nothing were known: the caller waits or asks again */
}

static void positions_set(struct positions *positions, const uint8_t salts[8], uint64_t frame,
                          uint64_t seq)
{
    uint64_t next = atomic_load(&positions->generation) + 1;
    struct position_words *slot = &positions->slots[next % 2];

    atomic_store(&slot->salts, hw_get_le64(salts));
    atomic_store(&slot->frame, frame);
    atomic_store(&slot->seq, seq);
    atomic_store(&positions->generation, next);
}

struct hw_shared_position hw_shared_position(struct hw_shared_page *page)
{
    return positions_get(&page->layout->position);
}

void hw_shared_set_position(struct hw_shared_page *page, const struct hw_shared_position *position)
{
    positions_set(&page->layout->position, position->salts, position->frame, position->seq);
}

void hw_shared_publish(struct hw_shared_page *page, const struct hw_shared_position *position,
                       uint64_t durable_length)
{
    atomic_store_explicit(&page->layout->durable_length, durable_length, memory_order_release);
    hw_shared_set_position(page, position);
    hw_shared_wake(page);
    bell_ring(page);
}

/* Other salts travel in the field of a seq. */
struct hw_shared_door hw_shared_door(struct hw_shared_page *page)
{
    struct hw_shared_position position = positions_get(&page->layout->door);
    struct hw_shared_door door = {.frame = position.frame};

    memcpy(door.salts, position.salts, sizeof(door.salts));
    hw_put_le64(door.empty_salts, position.seq);
    return door;
}

void hw_shared_set_door(struct hw_shared_page *page, const struct hw_shared_door *door)
{
    positions_set(&page->layout->door, door->salts, door->frame, hw_get_le64(door->empty_salts));
}

struct hw_shared_round hw_shared_round(struct hw_shared_page *page)
{
    struct hw_shared_position position = positions_get(&page->layout->round);
    struct hw_shared_round round = {.is_known = position.frame != 0};

    memcpy(round.empty_salts, position.salts, sizeof(round.empty_salts));
    hw_put_le64(round.salts, position.seq);
    return round;
}

void hw_shared_set_round(struct hw_shared_page *page, const struct hw_shared_round *round)
{
    positions_set(&page->layout->round, round->empty_salts, round->is_known,
                  hw_get_le64(round->salts));
}

uint64_t hw_shared_gaps(struct hw_shared_page *page, struct hw_shared_gap *newest)
{
    uint64_t count = atomic_load(&page->layout->gap_after.generation);

    if (count == 0)
        return 0;
    newest->before = positions_get(&page->layout->gap_before);
    newest->after = positions_get(&page->layout->gap_after);
    return count;
}

void hw_shared_add_gap(struct hw_shared_page *page, const struct hw_shared_gap *gap)
{
    positions_set(&page->layout->gap_before, gap->before.salts, gap->before.frame, 0);
    positions_set(&page->layout->gap_after, gap->after.salts, gap->after.frame, gap->after.seq);
}

uint64_t hw_shared_wal_synced(struct hw_shared_page *page, const uint8_t salts[8])
{
    struct hw_shared_position synced = positions_get(&page->layout->synced);

    if (synced.seq == UINT64_MAX || memcmp(synced.salts, salts, sizeof(synced.salts)) != 0)
        return 0;
    return synced.seq; /* the size travels in this field */
}

void hw_shared_set_wal_synced(struct hw_shared_page *page, const uint8_t salts[8], uint64_t size)
{
    positions_set(&page->layout->synced, salts, 0, size);
}

/* --------------------------------------------------------------------------------- worker */

void hw_shared_ring(struct hw_shared_page *page)
{
    atomic_fetch_add(&page->layout->work, 1);
    page->env->ops->wake_word(page->env, word(&page->layout->work));
}

void hw_shared_commit(struct hw_shared_page *page)
{
    atomic_fetch_add(&page->layout->committed, 1);
    if (atomic_load(&page->layout->idle) != 0)
        hw_shared_ring(page);
}

void hw_shared_look(struct hw_shared_page *page)
{
    /* What was committed before is seen by a worker that says after this that it is idle. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&page->layout->idle) != 0)
        hw_shared_ring(page);
}

uint64_t hw_shared_commits(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->committed);
}

void hw_shared_urge(struct hw_shared_page *page)
{
    atomic_store(&page->layout->urgent, 1);
    hw_shared_ring(page);
}

bool hw_shared_take_urgent(struct hw_shared_page *page)
{
    return atomic_exchange(&page->layout->urgent, 0) != 0;
}

uint32_t hw_shared_work_count(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->work);
}

void hw_shared_worker_sleep(struct hw_shared_page *page, uint32_t seen,
                            bool (*is_needed)(void *ctx), void *ctx, uint64_t timeout_ns)
{
    _Atomic uint32_t *announced = is_needed != NULL ? &page->layout->idle : &page->layout->delaying;

    atomic_store(announced, 1);
    if (is_needed == NULL || !is_needed(ctx))
        page->env->ops->wait_word(page->env, word(&page->layout->work), seen, timeout_ns);
    atomic_store(announced, 0);
}

void hw_shared_set_worker(struct hw_shared_page *page, uint32_t process_id)
{
    atomic_store(&page->layout->worker, process_id);
}

uint32_t hw_shared_worker(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->worker);
}

void hw_shared_set_yield(struct hw_shared_page *page, uint32_t process_id)
{
    atomic_store(&page->layout->yield, process_id);
    hw_shared_ring(page);
}

uint32_t hw_shared_yield(struct hw_shared_page *page)
{
    return atomic_load(&page->layout->yield);
}

uint64_t hw_shared_applied_seq(struct hw_shared_page *page)
{
    return atomic_load_explicit(&page->layout->applied_seq, memory_order_acquire) - 1;
}

void hw_shared_set_applied_seq(struct hw_shared_page *page, uint64_t seq)
{
    atomic_store_explicit(&page->layout->applied_seq, seq + 1, memory_order_release);
    hw_shared_wake(page);
}

/* The alarm is for people: a text mixed by a race is shown again in full the next time. */
void hw_shared_set_alarm(struct hw_shared_page *page, const char *text)
{
    struct layout *layout = page->layout;
    char bytes[HW_SHARED_TEXT_SIZE] = "", before[HW_SHARED_TEXT_SIZE];

    (void)snprintf(bytes, sizeof(bytes), "%s", text); /* cut is fine */
    hw_shared_alarm(page, before);
    if (strcmp(bytes, before) == 0)
        return;
    for (size_t i = 0; i < sizeof(bytes) / 4; i++) {
        uint32_t word;

        memcpy(&word, bytes + 4 * i, 4);
        atomic_store_explicit(&layout->alarm[i], word, memory_order_relaxed);
    }
    atomic_fetch_add(&layout->alarm_generation, 1);
}

void hw_shared_alarm(struct hw_shared_page *page, char out[HW_SHARED_TEXT_SIZE])
{
    struct layout *layout = page->layout;

    (void)atomic_load(&layout->alarm_generation); /* orders the read after the write */
    for (size_t i = 0; i < HW_SHARED_TEXT_SIZE / 4; i++) {
        uint32_t word = atomic_load_explicit(&layout->alarm[i], memory_order_relaxed);

        memcpy(out + 4 * i, &word, 4);
    }
    out[HW_SHARED_TEXT_SIZE - 1] = '\0';
}

/* -------------------------------------------------------------------------------- mailbox */

/* Each use of a slot has a ticket, so that who was stopped for long does not take it for its own:
 * milliseconds (32 bits) and chance (24 bits), never 0. */
static uint64_t ticket_make(struct hw_env *env)
{
    uint32_t ms = (uint32_t)(env->ops->monotonic_ns(env) / NS_PER_MS);
    uint8_t chance[3];

    env->ops->random(env, chance, sizeof(chance));
    return (uint64_t)ms << 24 | (uint64_t)chance[0] << 16 | (uint64_t)chance[1] << 8 | chance[2] |
           1;
}

static uint64_t word_of(uint64_t ticket, enum slot_state state)
{
    return ticket << 8 | state;
}

static bool slot_move(struct mail_slot *slot, uint64_t ticket, enum slot_state from,
                      enum slot_state to)
{
    uint64_t word = word_of(ticket, from);

    return atomic_compare_exchange_strong(&slot->word, &word, to == FREE ? 0 : word_of(ticket, to));
}

static struct mail_slot *slot_of(struct hw_shared_page *page, uint64_t mail)
{
    return &page->layout->slots[(mail & 0xff) % SLOT_COUNT];
}

static uint64_t ticket_of(uint64_t mail)
{
    return mail >> 8;
}

/* Its owner died, or gave up: who lives fetches an answer soon, and fills a slot at once. */
static bool is_abandoned(struct hw_shared_page *page, struct mail_slot *slot, uint64_t word)
{
    uint64_t now = page->env->ops->monotonic_ns(page->env);
    uint32_t age_ms = (uint32_t)(now / NS_PER_MS) - (uint32_t)(word >> 32);

    switch ((enum slot_state)(word & 0xff)) {
    case FREE:
        return true;
    case FILLING: /* its deadline is not written yet */
        return age_ms > HW_MAILBOX_ABANDONED_MS;
    case DONE:
        return now >
               atomic_load(&slot->answered_ns) + (uint64_t)HW_MAILBOX_ABANDONED_MS * NS_PER_MS;
    case POSTED:
    case TAKEN:
        break;
    }
    return now > atomic_load(&slot->deadline_ns);
}

static bool slot_claim(struct hw_shared_page *page, struct mail_slot *slot, uint64_t ticket)
{
    uint64_t word = atomic_load(&slot->word);

    return is_abandoned(page, slot, word) &&
           atomic_compare_exchange_strong(&slot->word, &word, word_of(ticket, FILLING));
}

enum hw_status hw_mailbox_post(struct hw_shared_page *page, const struct hw_request *request,
                               uint64_t deadline_ns, uint64_t *mail)
{
    uint64_t ticket = ticket_make(page->env);

    for (uint32_t i = 0; i < SLOT_COUNT; i++) {
        struct mail_slot *slot = &page->layout->slots[i];

        if (!slot_claim(page, slot, ticket))
            continue;
        atomic_store(&slot->deadline_ns, deadline_ns);
        slot->kind = request->kind;
        slot->argument = request->argument;
        memcpy(slot->text, request->text, sizeof(slot->text));
        if (!slot_move(slot, ticket, FILLING, POSTED))
            continue; /* we were stopped for long */
        hw_shared_urge(page);
        *mail = ticket << 8 | i;
        return HW_OK;
    }
    return HW_AGAIN;
}

enum hw_status hw_mailbox_collect(struct hw_shared_page *page, uint64_t mail,
                                  struct hw_answer *answer)
{
    struct mail_slot *slot = slot_of(page, mail);
    uint64_t word = atomic_load(&slot->word);

    if (word >> 8 != ticket_of(mail))
        return HW_END;
    if ((word & 0xff) != DONE)
        return HW_AGAIN;
    answer->status = (enum hw_status)slot->status;
    answer->result = slot->result;
    memcpy(answer->text, slot->why, sizeof(answer->text));
    answer->text[sizeof(answer->text) - 1] = '\0';
    return slot_move(slot, ticket_of(mail), DONE, FREE) ? HW_OK : HW_END;
}

void hw_mailbox_cancel(struct hw_shared_page *page, uint64_t mail)
{
    struct mail_slot *slot = slot_of(page, mail);

    if (!slot_move(slot, ticket_of(mail), POSTED, FREE) &&
        !slot_move(slot, ticket_of(mail), TAKEN, FREE))
        (void)slot_move(slot, ticket_of(mail), DONE, FREE); /* or it is somebody else's */
}

bool hw_mailbox_is_wanted(struct hw_shared_page *page, uint64_t mail)
{
    uint64_t deadline = atomic_load(&slot_of(page, mail)->deadline_ns); /* the word says whose */

    return atomic_load(&slot_of(page, mail)->word) == word_of(ticket_of(mail), TAKEN) &&
           page->env->ops->monotonic_ns(page->env) <= deadline;
}

enum hw_status hw_mailbox_take(struct hw_shared_page *page, struct hw_request *request,
                               uint64_t *mail)
{
    for (uint32_t i = 0; i < SLOT_COUNT; i++) {
        struct mail_slot *slot = &page->layout->slots[i];
        uint64_t ticket = atomic_load(&slot->word) >> 8;

        if (!slot_move(slot, ticket, POSTED, TAKEN))
            continue;
        request->kind = slot->kind;
        request->argument = slot->argument;
        memcpy(request->text, slot->text, sizeof(request->text));
        request->text[sizeof(request->text) - 1] = '\0';
        *mail = ticket << 8 | i;
        if (hw_mailbox_is_wanted(page, *mail))
            return HW_OK;
        hw_mailbox_cancel(page, *mail); /* or it was, while it was read */
    }
    return HW_END;
}

uint64_t hw_mailbox_posted(struct hw_shared_page *page)
{
    uint64_t stamp = 0;

    for (uint32_t i = 0; i < SLOT_COUNT; i++) {
        uint64_t word = atomic_load(&page->layout->slots[i].word);

        if ((word & 0xff) == POSTED)
            stamp = stamp * 31 + word;
    }
    return stamp;
}

/* Only the worker answers, so that nobody else makes a slot DONE between the look and the move. */
void hw_mailbox_answer(struct hw_shared_page *page, uint64_t mail, const struct hw_answer *answer)
{
    struct mail_slot *slot = slot_of(page, mail);

    if (atomic_load(&slot->word) != word_of(ticket_of(mail), TAKEN))
        return;
    slot->status = answer->status;
    slot->result = answer->result;
    memcpy(slot->why, answer->text, sizeof(slot->why));
    atomic_store(&slot->answered_ns, page->env->ops->monotonic_ns(page->env));
    if (slot_move(slot, ticket_of(mail), TAKEN, DONE))
        hw_shared_wake(page);
}

void hw_mailbox_repost(struct hw_shared_page *page)
{
    for (uint32_t i = 0; i < SLOT_COUNT; i++) {
        struct mail_slot *slot = &page->layout->slots[i];

        /* Slots in another state are not the dead worker's, and stay as they are. */
        (void)slot_move(slot, atomic_load(&slot->word) >> 8, TAKEN, POSTED);
    }
}
