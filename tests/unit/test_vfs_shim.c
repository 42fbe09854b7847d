/*
 * Tests of vfs/shim.c and vfs/file.c: the shim is a mirror of the VFS below.  Below is a VFS of the
 * test's own, which passes to unix and can be poorer than that, or fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sqlite.h"
#include "env/env.h"
#include "vfs/vfs.h"

/* --------------------------------------------------------------------- the VFS below */

static struct {
    sqlite3_vfs vfs;
    sqlite3_vfs *unix_vfs;
    sqlite3_io_methods methods; /* of files opened while `poorer` is set */
    bool poorer;
    int fail_open;         /* code; SQLITE_OK: do not */
    const char *main_name; /* the pointer that the last main database came with */
    const char *wal_name;  /* likewise */
    int opens, closes;
} below;

static int (*unix_close)(sqlite3_file *file);

static int below_close(sqlite3_file *file)
{
    below.closes++;
    return unix_close(file);
}

static int below_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    int code;

    (void)vfs;
    if (flags & SQLITE_OPEN_MAIN_DB && below.main_name == NULL)
        below.main_name = name;
    if (flags & SQLITE_OPEN_WAL)
        below.wal_name = name;
    if (below.fail_open != SQLITE_OK) {
        file->pMethods = NULL;
        return below.fail_open;
    }
    code = below.unix_vfs->xOpen(below.unix_vfs, name, file, flags, out);
    if (code != SQLITE_OK || !below.poorer)
        return code;
    below.opens++;
    unix_close = file->pMethods->xClose;
    below.methods = *file->pMethods;
    below.methods.iVersion = 1;
    below.methods.xSectorSize = NULL;
    below.methods.xClose = below_close;
    file->pMethods = &below.methods;
    return code;
}

static char directory[64];
static char path[128];

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "mirror", .env = hw_env_posix(), .base = &below.vfs};

    (void)state;
    memset(&below, 0, sizeof(below));
    below.unix_vfs = sqlite3_vfs_find("unix");
    below.vfs = *below.unix_vfs;
    below.vfs.zName = "below";
    below.vfs.pNext = NULL;
    below.vfs.xOpen = below_open;
    assert_int_equal(sqlite3_vfs_register(&below.vfs, 0), SQLITE_OK);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    /* Nothing here asks whether bytes survive: a disk would only be slow. */
    (void)snprintf(directory, sizeof(directory), "%s/hyperwal-shim-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    hw_vfs_unregister("mirror");
    assert_int_equal(sqlite3_vfs_unregister(&below.vfs), SQLITE_OK);
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static int open_uri(const char *parameters, int flags, sqlite3 **db)
{
    char uri[256];

    (void)snprintf(uri, sizeof(uri), "file:%s?vfs=mirror%s", path, parameters);
    return sqlite3_open_v2(uri, db, flags | SQLITE_OPEN_URI, NULL);
}

static sqlite3_file *file_of(sqlite3 *db)
{
    sqlite3_file *file = NULL;

    assert_int_equal(sqlite3_file_control(db, NULL, SQLITE_FCNTL_FILE_POINTER, &file), SQLITE_OK);
    return file;
}

static void execute(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    int code = sqlite3_exec(db, sql, NULL, NULL, &message);

    if (code != SQLITE_OK)
        print_error("%s: %s\n", sql, message);
    assert_int_equal(code, SQLITE_OK);
}

enum { CREATE = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE };

/* ---------------------------------------------------------------------- registration */

static void the_vfs_object_is_a_mirror_of_the_one_below(void **state)
{
    const sqlite3_vfs *shim = sqlite3_vfs_find("mirror");
    double now = 0;
    char bytes[8];

    (void)state;
    assert_int_equal(shim->iVersion, below.vfs.iVersion);
    assert_int_equal(shim->mxPathname, below.vfs.mxPathname);
    assert_true(shim->szOsFile > below.vfs.szOsFile);
    assert_int_equal(shim->szOsFile % 8, below.vfs.szOsFile % 8);
    assert_non_null(shim->xCurrentTimeInt64);
    assert_non_null(shim->xGetSystemCall);
    assert_ptr_equal(shim->xGetSystemCall(sqlite3_vfs_find("mirror"), "open"),
                     below.vfs.xGetSystemCall(&below.vfs, "open"));
    assert_int_equal(shim->xCurrentTime(sqlite3_vfs_find("mirror"), &now), SQLITE_OK);
    assert_true(now > 2400000);
    assert_int_equal(shim->xRandomness(sqlite3_vfs_find("mirror"), 8, bytes), 8);
}

static void registering_again_changes_nothing(void **state)
{
    struct hw_vfs_options options = {.name = "mirror", .env = hw_env_posix()};
    sqlite3_vfs *before = sqlite3_vfs_find("mirror");

    (void)state;
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    assert_ptr_equal(sqlite3_vfs_find("mirror"), before);
    assert_ptr_not_equal(sqlite3_vfs_find(NULL), before);
    options.make_default = true;
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    assert_ptr_equal(sqlite3_vfs_find(NULL), before);
    assert_int_equal(sqlite3_vfs_register(sqlite3_vfs_find("unix"), 1), SQLITE_OK);
}

static void the_name_of_another_vfs_is_refused(void **state)
{
    struct hw_vfs_options options = {.name = "below", .env = hw_env_posix()};
    struct hw_error error = {0};

    (void)state;
    assert_int_equal(hw_vfs_register(&options, &error), HW_EEXIST);
    assert_non_null(strstr(error.message, "below"));
    options.name = "a name that is longer than any name of a VFS that anybody ever would think of";
    assert_int_equal(hw_vfs_register(&options, &error), HW_ELIMIT);
}

/* ------------------------------------------------------------------------------ files */

static void names_are_passed_down_by_their_pointers(void **state)
{
    sqlite3 *db = NULL;

    (void)state;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
    execute(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)");
    assert_ptr_equal(below.main_name, sqlite3_db_filename(db, "main"));
    assert_ptr_equal(below.wal_name, sqlite3_filename_wal(below.main_name));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void an_open_that_fails_below_fails_alike_and_leaves_nothing(void **state)
{
    sqlite3 *db = NULL;

    (void)state;
    below.fail_open = SQLITE_NOMEM;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_NOMEM);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    below.fail_open = SQLITE_CANTOPEN;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_CANTOPEN);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    below.fail_open = SQLITE_OK;
    assert_int_not_equal(access(path, F_OK), 0);
}

static void methods_are_those_of_the_file_below_and_no_others(void **state)
{
    struct hw_vfs_options options = {.name = "without", .env = hw_env_posix()};
    const sqlite3_io_methods *methods;
    sqlite3 *db = NULL;

    (void)state;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
    methods = file_of(db)->pMethods;
    assert_int_equal(methods->iVersion, 3);
    assert_non_null(methods->xShmMap);
    assert_non_null(methods->xFetch);
    execute(db, "CREATE TABLE t(v)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);

    options.base = sqlite3_vfs_find("unix-none");
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "without"), SQLITE_OK);
    methods = file_of(db)->pMethods;
    assert_null(methods->xShmMap);
    assert_non_null(methods->xShmBarrier); /* RBU calls it all the same */
    methods->xShmBarrier(file_of(db));
    assert_int_equal(methods->xShmUnmap(file_of(db), 0), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    hw_vfs_unregister("without");
}

static void a_poorer_file_below_stays_poor(void **state)
{
    sqlite3 *db = NULL;

    (void)state;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
    execute(db, "CREATE TABLE t(v); SELECT * FROM t");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    below.poorer = true;
    assert_int_equal(open_uri("&mode=ro", SQLITE_OPEN_READONLY, &db), SQLITE_OK);
    assert_int_equal(file_of(db)->pMethods->iVersion, 1);
    assert_null(file_of(db)->pMethods->xSectorSize);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(below.opens, below.closes);
    /* Without shared memory there is no WAL, and without a WAL no log. */
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_CANTOPEN);
    assert_non_null(strstr(hw_vfs_last_error(), "no shared memory"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(below.opens, below.closes);
}

static void file_controls_that_nobody_knows_stay_unknown(void **state)
{
    sqlite3 *db = NULL;
    char *name = NULL;
    int value = 0;

    (void)state;
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
    assert_int_equal(sqlite3_file_control(db, NULL, 424242, &value), SQLITE_NOTFOUND);
    assert_int_equal(sqlite3_file_control(db, NULL, SQLITE_FCNTL_VFSNAME, &name), SQLITE_OK);
    assert_string_equal(name, "mirror/unix");
    sqlite3_free(name);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void the_words_of_a_failed_open_can_be_had(void **state)
{
    sqlite3_vfs *shim = sqlite3_vfs_find("mirror");
    sqlite3 *db = NULL;
    char words[200] = "";

    (void)state;
    assert_int_equal(open_uri("&storage=tape", CREATE, &db), SQLITE_CANTOPEN);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_non_null(strstr(hw_vfs_last_error(), "'tape': use file or memory"));
    (void)shim->xGetLastError(shim, sizeof(words), words);
    assert_string_equal(words, hw_vfs_last_error());
    assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
    assert_string_equal(hw_vfs_last_error(), "");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void one_database_has_one_log_in_a_process(void **state)
{
    sqlite3 *first = NULL, *second = NULL;

    (void)state;
    assert_int_equal(open_uri("&storage=memory", CREATE, &first), SQLITE_OK);
    assert_int_equal(open_uri("", CREATE, &second), SQLITE_CANTOPEN); /* a file of this name */
    assert_int_equal(sqlite3_close(second), SQLITE_OK);
    assert_int_equal(sqlite3_close(first), SQLITE_OK);
    assert_int_equal(open_uri("", CREATE, &first), SQLITE_OK);
    assert_int_equal(open_uri("&storage=memory", CREATE, &second), SQLITE_CANTOPEN);
    assert_int_equal(sqlite3_close(second), SQLITE_OK);
    assert_int_equal(open_uri("&log=elsewhere", CREATE, &second), SQLITE_CANTOPEN);
    assert_int_equal(sqlite3_close(second), SQLITE_OK);
    assert_int_equal(sqlite3_close(first), SQLITE_OK);
}

/* --------------------------------------------------------------------------- failures */

static struct {
    long countdown; /* allocations until one fails */
    bool failed;
} memory;

static bool allow(void *ctx, size_t size)
{
    (void)ctx, (void)size;
    if (memory.countdown > 0 && --memory.countdown == 0) {
        memory.failed = true;
        return false;
    }
    return true;
}

/* Whatever cannot be had, SQLite gets a code, and nothing is lost or leaked. */
static void without_memory_an_open_or_commit_fails_cleanly(void **state)
{
    long fault = 0;

    (void)state;
    do {
        sqlite3 *db = NULL;
        char command[160];
        int code;

        (void)snprintf(command, sizeof(command), "rm -rf %s/*", directory);
        assert_int_equal(system(command), 0);
        memory.countdown = ++fault;
        memory.failed = false;
        hw_alloc_set_hook(allow, NULL);
        code = open_uri("&durability=local&timeout=20", CREATE, &db);
        if (code == SQLITE_OK)
            code = sqlite3_exec(db, "CREATE TABLE t(v); INSERT INTO t VALUES(1)", NULL, NULL, NULL);
        if (!memory.failed)
            assert_int_equal(code, SQLITE_OK);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        if (hw_alloc_live() != 0)
            print_error("allocation %ld failed: %ld are left\n", fault, hw_alloc_live());
        assert_int_equal(hw_alloc_live(), 0);
        hw_alloc_set_hook(NULL, NULL);
        memory.countdown = 0;
        /* And the next one, with memory, finds all in order. */
        assert_int_equal(open_uri("", CREATE, &db), SQLITE_OK);
        execute(db, "CREATE TABLE IF NOT EXISTS t(v); INSERT INTO t VALUES(2)");
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
    } while (memory.failed);
    assert_true(fault > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_vfs_object_is_a_mirror_of_the_one_below, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(registering_again_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_name_of_another_vfs_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_passed_down_by_their_pointers, setup, teardown),
        cmocka_unit_test_setup_teardown(an_open_that_fails_below_fails_alike_and_leaves_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(methods_are_those_of_the_file_below_and_no_others, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_poorer_file_below_stays_poor, setup, teardown),
        cmocka_unit_test_setup_teardown(file_controls_that_nobody_knows_stay_unknown, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_words_of_a_failed_open_can_be_had, setup, teardown),
        cmocka_unit_test_setup_teardown(one_database_has_one_log_in_a_process, setup, teardown),
        cmocka_unit_test_setup_teardown(without_memory_an_open_or_commit_fails_cleanly, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
