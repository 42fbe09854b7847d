/*
 * program.h - the program `hyperwal`: verbs, their options, the exit codes
 *
 * A verb is one file with one `const struct verb`.  It parses its own options, prints facts to
 * standard output (with --json one object a line) and everything else to standard error.
 */
#ifndef HYPERWAL_PROGRAM_H
#define HYPERWAL_PROGRAM_H

#include <getopt.h>
#include <hyperwal.h>
#include <stdbool.h>

/* Fixed: scripts rely on them. */
enum exit_code {
    DONE = 0,
    FAILED = 1,
    USAGE = 2,
    CORRUPT = 3,   /* verification failed, or data is corrupt */
    NO_TARGET = 4, /* the seq, time or label asked for does not exist */
};

struct verb {
    const char *name;
    const char *synopsis; /* what follows the name */
    const char *summary;  /* a few words for the list of verbs */
    const char *help;     /* the rest of --help */
    int (*run)(int argc, char **argv);
};

extern const struct verb verb_init, verb_serve, verb_follow, verb_restore, verb_log, verb_status,
    verb_verify, verb_snapshot, verb_label, verb_prune, verb_key, verb_name, verb_promote;

/*
 * The next option of `verb`, as getopt_long() gives it; -1: no more.  OPTION_HELP and OPTION_BAD:
 * what was to be said is said, the verb ends with DONE or USAGE (option_exit()).
 */
enum { OPTION_HELP = 0x1000, OPTION_BAD = 0x1001 };
int option_next(const struct verb *verb, int argc, char **argv, const struct option *options);
int option_exit(int option);

/* "hyperwal VERB: message", then where help is; returns USAGE. */
int usage_error(const struct verb *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* "hyperwal: message"; returns FAILED. */
int failure(const char *format, ...) __attribute__((format(printf, 1, 2)));
/*
 * From now on what failure() is told is added to *words, from malloc(), as lines, and not said;
 * NULL: it is said again.
 */
void failure_keep(char **words);
/* The same with the exit code for an SQLite result code; `message` may be NULL. */
int failure_code(int code, const char *message);
/* Why a call of the library on `db` just failed with `code`.  Borrowed until the next call. */
const char *failure_words(sqlite3 *db, int code);

/*
 * SIGINT and SIGTERM from now on: the first one sets the flag, and interrupts `follower` if set;
 * the second one ends the process, which loses nothing.
 */
void stop_watch(void);
bool stop_asked(void);
void stop_interrupts(hyperwal_follower *follower); /* NULL: nobody */

/* --------------------------------------------------------------------------- databases */

/*
 * Is `path` a database that could be opened and logged?  Says what is wrong with it and how to go
 * on, and returns FAILED or CORRUPT.  Looks at the file by a descriptor of its own, whose close
 * drops the locks of this process on it: only for a database that the process has not open.
 */
int database_check(const char *path);
/* Is there a log beside `path`? */
bool database_has_log(const char *path);
/* Does SRC name a log that is served, and not a path? */
bool source_is_remote(const char *src);
/* SRC without hyper: and petnames, if it is on this machine; from malloc(). */
char *source_path(const char *src);
/* Is `path` a replica?  Says why that cannot be told; returns an exit code. */
int database_is_replica(const char *path, bool *out);
/* Open a database that has a log, through the VFS.  Says why not; returns an exit code. */
int database_open(const char *path, sqlite3 **db);
/*
 * Wait until the first snapshot of a database that is open is in its log, for only then can
 * anything be restored.  Says why not; returns an exit code.
 */
int database_wait_adopted(const char *path, sqlite3 *db, hyperwal_head *head);
/* The full path of `path`, from malloc(); NULL: no memory or no such directory. */
char *path_full(const char *path);

/*
 * A point of a log as people write it: digits are a seq, everything else (and digits too large to
 * be one) a time.  For a time *seq is that of the last entry not later, or HYPERWAL_SEQ_NONE if
 * all are later.  SQLITE_MISUSE: neither.
 */
int point_parse(hyperwal_log *log, const char *text, uint64_t *seq);
/* All digits, and below 2^63. */
bool number_parse(const char *text, uint64_t *number);

#endif
