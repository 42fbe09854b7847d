/* The table of verbs, their options, and what all of them say in the same way. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "program.h"

static const struct verb *const verbs[] = {
    &verb_init,   &verb_serve,  &verb_follow,   &verb_restore, &verb_log,
    &verb_status, &verb_verify, &verb_snapshot, &verb_label,   &verb_prune,
    &verb_key,    &verb_name,   &verb_promote,
};
enum { VERB_COUNT = sizeof(verbs) / sizeof(verbs[0]) };

/* ------------------------------------------------------------------------------ messages */

int usage_error(const struct verb *verb, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "hyperwal %s: ", verb->name);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nusage: hyperwal %s %s\n(hyperwal %s --help says more)\n", verb->name,
            verb->synopsis, verb->name);
    return USAGE;
}

static char **kept_words; /* borrowed; NULL: failure() says what it is told */

void failure_keep(char **words)
{
    kept_words = words;
}

/* False: without memory it cannot be kept, and is said. */
static __attribute__((format(printf, 1, 0))) bool words_keep(const char *format, va_list args)
{
    char *line = NULL, *all = NULL;
    const char *before = *kept_words != NULL ? *kept_words : "";

    if (vasprintf(&line, format, args) < 0)
        return false;
    if (asprintf(&all, "%shyperwal: %s\n", before, line) < 0)
        all = NULL;
    free(line);
    if (all == NULL)
        return false;
    free(*kept_words);
    *kept_words = all;
    return true;
}

int failure(const char *format, ...)
{
    bool is_kept = false;
    va_list args;

    if (kept_words != NULL) {
        va_start(args, format);
        is_kept = words_keep(format, args);
        va_end(args);
    }
    if (is_kept)
        return FAILED;
    va_start(args, format);
    fputs("hyperwal: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return FAILED;
}

int failure_code(int code, const char *message)
{
    (void)failure("%s", message != NULL && message[0] != '\0' ? message : sqlite3_errstr(code));
    switch (code) {
    case HYPERWAL_CORRUPT:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return CORRUPT;
    case HYPERWAL_NOTARGET:
        return NO_TARGET;
    case SQLITE_MISUSE:
        return USAGE;
    default:
        return FAILED;
    }
}

/* ------------------------------------------------------------------------------- options */

static void verb_help(const struct verb *verb)
{
    printf("usage: hyperwal %s %s\n\n%s", verb->name, verb->synopsis, verb->help);
}

int option_next(const struct verb *verb, int argc, char **argv, const struct option *options)
{
    int c;

    opterr = 0; /* our own words, with the verb in front */
    c = getopt_long(argc, argv, ":h", options, NULL);
    if (c == 'h') {
        verb_help(verb);
        return OPTION_HELP;
    }
    if (c != '?' && c != ':')
        return c;
    if (optind > 0 && optind <= argc && argv[optind - 1][0] == '-')
        (void)usage_error(verb,
                          c == ':' ? "%s needs a value"
                                   : "%s: no such option, or it is "
                                     "ambiguous, or takes no value",
                          argv[optind - 1]);
    else
        (void)usage_error(verb, "no such option");
    return OPTION_BAD;
}

int option_exit(int option)
{
    return option == OPTION_HELP ? DONE : USAGE;
}

/* ------------------------------------------------------------------------------- signals */

static volatile sig_atomic_t stop_flag;
static hyperwal_follower *volatile stop_follower; /* borrowed; interrupted by the handler */

static void stop_handler(int number)
{
    int saved = errno;
    hyperwal_follower *follower = stop_follower;

    if (stop_flag != 0) /* somebody is in a hurry */
        _exit(128 + number);
    stop_flag = 1;
    if (follower != NULL)
        hyperwal_follow_interrupt(follower);
    errno = saved;
}

void stop_watch(void)
{
    struct sigaction action = {.sa_handler = stop_handler};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL); /* without SA_RESTART: waits end */
    sigaction(SIGTERM, &action, NULL);
}

bool stop_asked(void)
{
    return stop_flag != 0;
}

void stop_interrupts(hyperwal_follower *follower)
{
    stop_follower = follower;
}

/* ---------------------------------------------------------------------------------- main */

static void help(FILE *out)
{
    fputs("usage: hyperwal VERB ...\n\n"
          "SQLite databases whose every committed transaction is an entry of a signed log.\n\n",
          out);
    for (size_t i = 0; i < VERB_COUNT; i++)
        fprintf(out, "  %-9s %s\n", verbs[i]->name, verbs[i]->summary);
    fputs("\n  hyperwal VERB --help   what a verb does\n"
          "  hyperwal --version\n\n"
          "SRC is the path of a database, of a log directory, hyper:PATH, a name that `hyperwal "
          "name'\n"
          "knows, or the URL of a log that somebody serves: hyper://HOST[:PORT]/NAME,\n"
          "ws://HOST:PORT/PATH/NAME, ipc://SOCKET/NAME.\n"
          "Exit codes: 0 done, 1 failed, 2 usage, 3 data corrupt, 4 no such seq, time or label.\n",
          out);
}

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < VERB_COUNT; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

/* Events of the library that an operator should see. */
static void log_line(void *ctx, int level, const char *line)
{
    (void)ctx;
    if (level >= 2)
        fprintf(stderr, "hyperwal: %s\n", line);
}

/* What the library last told SQLite's log in this thread, without the "hyperwal: " before it. */
static _Thread_local char last_words[512];

static void sqlite_log_line(void *ctx, int code, const char *line)
{
    (void)ctx;
    (void)code;
    if (strncmp(line, "hyperwal: ", 10) == 0)
        snprintf(last_words, sizeof(last_words), "%s", line + 10);
}

const char *failure_words(sqlite3 *db, int code)
{
    if (last_words[0] != '\0')
        return last_words;
    return sqlite3_errcode(db) != SQLITE_OK ? sqlite3_errmsg(db) : sqlite3_errstr(code);
}

/* Peers may hold a thousand connections: the log's own files are to be opened all the same. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer must do */
}

/* Whoever closed one of the three for us would have us write messages into the next file. */
static bool open_standard(void)
{
    for (int file = STDIN_FILENO; file <= STDERR_FILENO; file++)
        if (fcntl(file, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != file)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    const struct verb *verb;
    int result;

    if (!open_standard())
        return failure("/dev/null: %s", strerror(errno));
    if (argc < 2) {
        help(stderr);
        return USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        (strcmp(argv[1], "help") == 0 && argc == 2)) {
        help(stdout);
        return DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("hyperwal %s (SQLite %s)\n", hyperwal_version(), sqlite3_libversion());
        return DONE;
    }
    verb = verb_find(strcmp(argv[1], "help") == 0 ? argv[2] : argv[1]);
    if (verb == NULL) {
        fprintf(stderr, "hyperwal: no verb `%s'; hyperwal --help lists them\n",
                strcmp(argv[1], "help") == 0 ? argv[2] : argv[1]);
        return USAGE;
    }
    if (strcmp(argv[1], "help") == 0) {
        verb_help(verb);
        return DONE;
    }
    allow_descriptors();
    /* What waited for peers who took nothing goes back to the system when they are gone. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    sqlite3_config(SQLITE_CONFIG_LOG, sqlite_log_line, NULL);
    hyperwal_set_log(log_line, NULL);
    result = verb->run(argc - 1, argv + 1);
    /* Facts that were not written are not given: a full disk below a redirection is a failure. */
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return result == DONE ? failure("standard output: %s", strerror(errno)) : result;
    return result;
}
