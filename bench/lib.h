/*
 * bench/lib.h - what every benchmark needs: options, a place for files, time, percentiles, JSON
 *
 * A benchmark that cannot go on ends with a line on stderr and exit code 1 (bench_die): it has no
 * caller that could do better.  Its files are removed at exit.
 */
#ifndef HW_BENCH_LIB_H
#define HW_BENCH_LIB_H

#include <hyperwal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_options {
    const char *name;   /* of the benchmark */
    const char *dir;    /* where a directory for the files is made; default $TMPDIR or /tmp */
    const char *vfs;    /* the VFS under test; "unix" compares plain SQLite with itself */
    const char *only;   /* run the cases whose name begins so; NULL: all */
    double seconds;     /* about what one case may take */
    uint64_t size_mib;  /* of the database, where it matters */
    bool random_values; /* values no compressor can shrink, instead of text */
    bool keep;          /* leave the files */
};

/*
 * Parse the command line, make the directory for the files and register the VFS.  `options` has
 * the defaults.  Exits on --help and on wrong usage.
 */
void bench_start(struct bench_options *options, int argc, char **argv);

/* A path in that directory; valid until the end of the program. */
const char *bench_path(const char *name);
/* May this case run, as far as --only goes? */
bool bench_selected(const struct bench_options *options, const char *case_name);

void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

uint64_t bench_now_ns(void);
void bench_sleep_until(uint64_t monotonic_ns);
/* Median of fdatasync after a write of 4 KiB inside an allocated file, in microseconds. */
double bench_fdatasync_us(void);
uint64_t bench_file_size(const char *path);
void bench_copy_file(const char *from, const char *to);
void bench_remove_database(const char *path); /* with -wal, -shm and log directory */
/* A "Key: 123 kB" line of /proc/PID/status; pid 0: this process. */
uint64_t bench_proc_status(int pid, const char *key);

/* A growing list of measurements. */
struct bench_series {
    double *values; /* owned */
    size_t count, capacity;
};

void bench_series_add(struct bench_series *series, double value);
void bench_series_release(struct bench_series *series);
/* `part` from 0 to 1, nearest rank; sorts the values.  0 if there are none. */
double bench_series_percentile(struct bench_series *series, double part);
double bench_series_sum(const struct bench_series *series);

/* One line of JSON on stdout, from begin to end. */
void bench_json_begin(const struct bench_options *options);
void bench_json_text(const char *key, const char *value);
void bench_json_number(const char *key, double value);
void bench_json_bool(const char *key, bool value);
/* "ratio", "target" and "met": at_least says on which side of the target the ratio should be. */
void bench_json_ratio(double ratio, double target, bool at_least);
void bench_json_end(void);

#endif
