/* Implements bench/lib_syncs.h. */
#include "lib_syncs.h"

#include "env/env.h"

#include <stdatomic.h>

enum { SYNCS_MAX = 400000 };

static struct {
    uint64_t start_ns, end_ns;
} syncs[SYNCS_MAX]; /* of this process, in turn */
static _Atomic size_t sync_count;
static const struct hw_env_ops *system_ops;

static enum hw_status sync_timed(struct hw_file *file, struct hw_error *err)
{
    uint64_t start = bench_now_ns();
    enum hw_status status = system_ops->sync(file, err);
    size_t at = atomic_fetch_add(&sync_count, 1);

    if (at >= SYNCS_MAX)
        bench_die("more than %d fdatasyncs", SYNCS_MAX);
    syncs[at].start_ns = start;
    syncs[at].end_ns = bench_now_ns();
    return status;
}

void bench_syncs_time(void)
{
    static struct hw_env_ops ops;
    struct hw_env *env = hw_env_posix();

    system_ops = env->ops;
    ops = *system_ops;
    ops.sync = sync_timed;
    env->ops = &ops;
}

void bench_syncs_forget(void)
{
    atomic_store(&sync_count, 0);
}

uint64_t bench_syncs_within(uint64_t from_ns, uint64_t to_ns)
{
    size_t low = 0, high = atomic_load(&sync_count);
    uint64_t sum = 0;

    while (low < high) { /* the first that ends within the span: they are in order */
        size_t middle = low + (high - low) / 2;

        if (syncs[middle].end_ns < from_ns)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t i = low; i < atomic_load(&sync_count) && syncs[i].start_ns < to_ns; i++) {
        uint64_t start = syncs[i].start_ns > from_ns ? syncs[i].start_ns : from_ns;
        uint64_t end = syncs[i].end_ns < to_ns ? syncs[i].end_ns : to_ns;

        sum += end > start ? end - start : 0;
    }
    return sum;
}

void bench_syncs_list(struct bench_series *series)
{
    for (size_t i = 0; i < atomic_load(&sync_count); i++)
        bench_series_add(series, (double)(syncs[i].end_ns - syncs[i].start_ns) / 1e3);
}
