/* Implements the scenario of sim/random_world.h: what happens in which order, from start to end. */
#include "sim/random_world.h"

#include <stdio.h>

#include "vfs/vfs.h"

static void configure(struct random_world *w)
{
    static const unsigned page_sizes[] = {512, 1024, 1024, 4096, 4096, 4096, 8192, 16384, 65536};
    static const int sector_sizes[] = {512, 4096, 4096, 4096, 16384};

    w->page_size = page_sizes[random_chance(w, sizeof(page_sizes) / sizeof(page_sizes[0]))];
    w->auto_vacuum = (unsigned)random_chance(w, 3);
    w->synchronous =
        random_chance(w, 8) == 0 ? (unsigned)RANDOM_OFF : 1 + (unsigned)random_chance(w, 3);
    w->has_foreign = random_chance(w, 4) == 0;
    w->has_savepoints = random_chance(w, 3) == 0;
    sim_set_sector_size(
        w->sim, sector_sizes[random_chance(w, sizeof(sector_sizes) / sizeof(sector_sizes[0]))]);
    sim_set_powersafe_overwrite(w->sim, random_chance(w, 4) > 0);
}

/* Somebody had the database before us. */
static void adopt_database(struct random_world *w)
{
    struct random_connection *stock = random_open(w, RANDOM_FOREIGN);
    char sql[80];

    if (stock == NULL)
        return;
    (void)snprintf(sql, sizeof(sql), "PRAGMA page_size=%u; PRAGMA auto_vacuum=%u", w->page_size,
                   w->auto_vacuum);
    (void)sqlite3_exec(stock->db, sql, NULL, NULL, NULL);
    stock->is_full = random_chance(w, 2) == 0; /* a journal's end lasts with EXTRA only */
    if (stock->is_full)
        (void)sqlite3_exec(stock->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    for (uint64_t i = random_chance(w, 6); i > 0 && w->failure[0] == '\0'; i--)
        random_commit(w, stock);
    random_close(w, stock);
    w->may_have_gaps = false; /* there was no log */
}

static void open_one(struct random_world *w)
{
    unsigned process = (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES);

    if (w->has_foreign && w->count > 0 && random_chance(w, 4) == 0)
        process = RANDOM_FOREIGN;
    (void)random_open(w, process);
}

static void run_worker(struct random_world *w)
{
    unsigned process = (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES);
    struct hw_error err;
    uint64_t deadline;

    if (w->captures[process] == NULL)
        return;
    random_act_as(w, process);
    for (uint64_t i = 1 + random_chance(w, 4); i > 0; i--)
        if (hw_capture_step(w->captures[process], &deadline, &err) != HW_OK)
            break; /* nothing to do, or a failure, which is an alarm */
    random_note_length(w);
}

static void do_something(struct random_world *w)
{
    struct random_connection *any = random_pick(w, false);
    uint64_t what = random_chance(w, 40);

    if (any == NULL || what == 0) {
        open_one(w);
        return;
    }
    if (what == 1) {
        random_close(w, any);
    } else if (what <= 4) {
        random_checkpoint(w, any);
    } else if (what <= 6) {
        random_read(w, any);
    } else if (what <= 9) {
        run_worker(w);
    } else if (what <= 12) {
        random_follow(w, RANDOM_FOLLOWER);
    } else if (what <= 15) {
        random_follow(w, RANDOM_MIRROR);
    } else if (what <= 21) {
        struct random_connection *ours = random_pick(w, true);

        if (ours == NULL)
            return;
        if (what <= 18)
            random_wait_logged(w, ours);
        else if (what == 19)
            random_label(w, ours);
        else if (what == 20)
            random_snapshot(w, ours);
        else
            random_prune(w);
    } else if (what == 22) {
        sim_advance(w->sim, random_chance(w, 10) * 100000000U);
    } else if (what == 23) {
        random_restore(w);
    } else {
        random_commit(w, any);
    }
}

static void close_all(struct random_world *w)
{
    unsigned start = (unsigned)random_chance(w, RANDOM_PROCESSES);

    for (unsigned i = 0; i < RANDOM_PROCESSES; i++)
        random_close_process(w, (start + i) % RANDOM_PROCESSES);
}

/* Work, until the machine dies, or all have had enough. */
static void live(struct random_world *w)
{
    unsigned steps = 3 + (unsigned)random_chance(w, 40);
    unsigned dies_at = (unsigned)random_chance(w, steps + 2);
    bool power = random_chance(w, 3) > 0;

    for (uint64_t i = random_chance(w, 3); i > 0; i--)
        open_one(w);
    for (unsigned step = 0; step < steps && !random_has_ended(w); step++) {
        if (step == dies_at && !w->has_savepoints)
            random_arm(w, power, 1ULL << random_chance(w, 11));
        do_something(w);
        if (!random_is_down(w))
            continue;
        if (random_bury(w))
            return;
        random_settle(w);
    }
    if (random_chance(w, 3) == 0 && !w->has_savepoints)
        random_arm(w, true, 1ULL << random_chance(w, 8));
    close_all(w);
    (void)random_bury(w);
    sim_set_fault(w->sim, NULL);
}

/* The log's directory is taken over as if it were a copy. */
static void adopt_log(struct random_world *w)
{
    struct hw_error err = {0};

    random_act_as(w, 0);
    if (hw_core_adopt(sim_env(w->sim), "/app.db-hyper", &err) != HW_OK)
        random_fail(w, "adopt: %s", err.message);
}

static void run(struct random_world *w)
{
    random_oracle_open(w);
    configure(w);
    w->totals.scenarios++;
    if (random_chance(w, 5) == 0)
        adopt_database(w);
    for (uint64_t lives = 1 + random_chance(w, 3); lives > 0 && !random_has_ended(w); lives--) {
        live(w);
        if (!random_has_ended(w))
            random_check(w);
        if (!random_has_ended(w) && w->announced > 0 && random_chance(w, 15) == 0)
            adopt_log(w);
    }
    w->is_over = true;
    if (!random_has_ended(w))
        random_check_restore(w);
    for (unsigned process = RANDOM_FOLLOWER; process <= RANDOM_MIRROR; process++)
        if (!random_has_ended(w))
            random_check_follower(w, process);
    close_all(w);
    if (!random_has_ended(w) && (hw_capture_count() != 0 || sim_open_handles(w->sim) != 0))
        random_fail(w, "something was left open");
}

void random_run(struct random_world *w, uint64_t seed)
{
    random_reset(w, seed);
    run(w);
}

void random_run_choices(struct random_world *w, const uint8_t *choices, size_t size)
{
    enum { SEED_SIZE = 2 }; /* of what no choice decides: which unsynced writes survive */
    uint64_t seed = size < SEED_SIZE ? 0 : (uint64_t)(choices[0] | choices[1] << 8);

    random_reset(w, seed);
    w->choices = choices + (size < SEED_SIZE ? size : SEED_SIZE);
    w->choices_end = choices + size;
    run(w);
    w->choices = NULL;
}

/* ----------------------------------------------------------------------------------- the world */

bool random_init(struct random_world *w)
{
    bool is_done = true;

    *w = (struct random_world){.sim = sim_new(1)};
    random_oracle_open(w);
    for (unsigned process = 0; process < RANDOM_SHIM_PROCESSES; process++) {
        char name[16];
        struct hw_vfs_options options = {
            .name = name, .base = sim_vfs(w->sim), .env = sim_env(w->sim)};

        (void)snprintf(name, sizeof(name), "hwsim%u", process);
        is_done = is_done && hw_vfs_register(&options, NULL) == HW_OK;
    }
    return is_done;
}

void random_release(struct random_world *w)
{
    random_reset(w, 1);
    random_oracle_close(w);
    hw_vfs_unregister("hwsim0");
    hw_vfs_unregister("hwsim1");
    sim_free(w->sim);
}
