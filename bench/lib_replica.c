/* Implements bench/lib_replica.h. */
#include "lib_replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signal.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t bench_catch_up(hyperwal_follower *follower)
{
    for (;;) {
        uint64_t seq = hyperwal_follow_seq(follower);
        int code = hyperwal_follow_step(follower, seq == HYPERWAL_SEQ_NONE ? 1000 : 0);

        seq = hyperwal_follow_seq(follower);
        if (code == SQLITE_DONE && seq != HYPERWAL_SEQ_NONE && hyperwal_follow_lag(follower) == 0)
            return seq;
        if (code != SQLITE_OK && code != SQLITE_DONE)
            bench_die("hyperwal_follow_step: %s", hyperwal_follow_errmsg(follower));
    }
}

hyperwal_follower *bench_follow(const char *source, const char *replica)
{
    hyperwal_follower *follower = NULL;
    char *error = NULL;

    if (hyperwal_follow_open(source, replica, NULL, NULL, &follower, &error) != SQLITE_OK)
        bench_die("hyperwal_follow_open: %s", error != NULL ? error : "no message");
    bench_catch_up(follower);
    return follower;
}

void bench_check_replica(const char *source, const char *replica)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    unsigned char key[32];
    uint64_t applied, sum;
    char *error = NULL;

    if (hyperwal_log_open(source, &log, &error) != SQLITE_OK)
        bench_die("hyperwal_log_open: %s", error != NULL ? error : "no message");
    if (hyperwal_log_head(log, &head) != SQLITE_OK)
        bench_die("hyperwal_log_head: %s", hyperwal_log_errmsg(log));
    if (hyperwal_replica_info(replica, 1, key, &applied, &sum, &error) != SQLITE_OK)
        bench_die("hyperwal_replica_info: %s", error != NULL ? error : "no message");
    if (applied != head.seq || sum != head.sum)
        bench_die("the replica is at seq %llu with sum %016llx, the log at %llu with %016llx",
                  (unsigned long long)applied, (unsigned long long)sum,
                  (unsigned long long)head.seq, (unsigned long long)head.sum);
    hyperwal_log_close(log);
}

/* -------------------------------------------------------------------------- processes */

void bench_child_start(struct bench_child *child, void (*body)(void *ctx, int in, int out),
                       void *ctx)
{
    int down[2], up[2];

    if (pipe(down) != 0 || pipe(up) != 0)
        bench_die("pipe: %s", strerror(errno));
    child->pid = fork();
    if (child->pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (child->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* do not outlive a parent that dies */
        close(down[1]);
        close(up[0]);
        body(ctx, down[0], up[1]);
        exit(0);
    }
    close(down[0]);
    close(up[1]);
    child->to = down[1];
    child->from = up[0];
}

void bench_tell(int out, uint64_t value)
{
    if (write(out, &value, sizeof(value)) != sizeof(value))
        bench_die("the other process is gone");
}

uint64_t bench_hear(int in)
{
    uint64_t value;

    if (read(in, &value, sizeof(value)) != sizeof(value))
        bench_die("the other process is gone");
    return value;
}

void bench_child_join(struct bench_child *child)
{
    int status;

    close(child->to);
    if (waitpid(child->pid, &status, 0) != child->pid || status != 0)
        bench_die("a process of the benchmark failed");
    close(child->from);
}
