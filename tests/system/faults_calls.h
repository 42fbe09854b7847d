/*
 * faults_calls.h - allocations and calls of the operating system that fail in turn, in any thread
 *
 * Those of the library are wrapped when the test is linked (tests/CMakeLists.txt); SQLite's are
 * replaced through its VFS.  Nothing fails before the first faults_begin().
 */
#ifndef HW_TESTS_FAULTS_CALLS_H
#define HW_TESTS_FAULTS_CALLS_H

#include <stdbool.h>

enum faults_kind {
    FAULTS_MEMORY, /* allocations of the library */
    FAULTS_CALLS,  /* open, read, write, sync, map, lock, ...: EIO, EMFILE, ENOSPC, ENOLCK */
    FAULTS_SPACE,  /* only what takes room on the disk: ENOSPC */
};

/* Hook both in and out; call them while no other thread runs. */
void faults_install(void);
void faults_remove(void);

/* From the `first` of that kind on (from 1), `count` of them fail. */
void faults_begin(enum faults_kind kind, unsigned first, unsigned count);
/* None fails any more.  Were there so many that one did? */
bool faults_end(void);

#endif
