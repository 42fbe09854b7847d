/* Tests node/names.h and node/place.h: what this user calls a database, and where it is then. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sqlite.h"
#include "node/names.h"
#include "node/place.h"
#include "node_fixture.h"

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static const char *const two_urls[] = {"hyper://one/orders", "ws://two:80/p/o"};

static void registry_path(const struct place *f, char out[128])
{
    (void)snprintf(out, 128, "%s/in/names.db", f->dir);
}

static struct hw_names *registry(struct place *f)
{
    struct hw_names *names = NULL;
    char path[128];

    registry_path(f, path);
    assert_ok(hw_names_open(f->env, path, true, &names, &f->err));
    return names;
}

/* The user's, for those who look for it themselves. */
static void use_registry(struct place *f)
{
    char path[128];

    registry_path(f, path);
    assert_int_equal(setenv("HYPERWAL_NAMES", path, 1), 0);
}

static enum hw_status put(struct place *f, struct hw_names *names, const char *name,
                          const char *path, size_t urls, bool replaces)
{
    struct hw_name entry = {
        .name = name, .path = path, .urls = two_urls, .url_count = urls, .has_key = urls == 2};

    memset(entry.key, 7, sizeof(entry.key));
    return hw_names_put(names, &entry, replaces, &f->err);
}

static void name_is_kept_with_all_that_it_says(void **state)
{
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_name *name = NULL;
    uint8_t key[HW_KEY_SIZE];

    memset(key, 7, sizeof(key));
    assert_ok(put(f, names, "orders", NULL, 2, false));
    assert_ok(put(f, names, "my own", "/srv/own.db", 0, false));
    hw_names_close(names);
    names = registry(f);
    assert_ok(hw_names_find(names, "orders", &name, &f->err));
    assert_string_equal(name->name, "orders");
    assert_true(name->has_key);
    assert_memory_equal(name->key, key, sizeof(key));
    assert_null(name->path);
    assert_int_equal(name->url_count, 2);
    assert_string_equal(name->urls[0], two_urls[0]);
    assert_string_equal(name->urls[1], two_urls[1]);
    hw_free(name);
    assert_ok(hw_names_find(names, "my own", &name, &f->err));
    assert_string_equal(name->path, "/srv/own.db");
    assert_false(name->has_key);
    assert_int_equal(name->url_count, 0);
    hw_free(name);

    assert_status(put(f, names, "orders", NULL, 1, false), HW_EEXIST, &f->err);
    assert_ok(put(f, names, "orders", NULL, 1, true));
    assert_ok(hw_names_find(names, "orders", &name, &f->err));
    assert_int_equal(name->url_count, 1);
    hw_free(name);
    assert_ok(hw_names_remove(names, "orders", &f->err));
    assert_status(hw_names_find(names, "orders", &name, &f->err), HW_ENOTFOUND, &f->err);
    hw_names_close(names);
}

static void unknown_name_is_told_with_those_that_are_near(void **state)
{
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_name *name = NULL;

    assert_ok(put(f, names, "orders", NULL, 1, false));
    assert_ok(put(f, names, "customers", NULL, 1, false));
    assert_status(hw_names_find(names, "oders", &name, &f->err), HW_ENOTFOUND, &f->err);
    assert_string_equal(f->err.message, "oders: no such name; perhaps `orders'");
    assert_status(hw_names_remove(names, "cust", &f->err), HW_ENOTFOUND, &f->err);
    assert_string_equal(f->err.message, "cust: no such name; perhaps `customers'");
    assert_status(hw_names_remove(names, "something else", &f->err), HW_ENOTFOUND, &f->err);
    assert_string_equal(f->err.message, "something else: no such name");
    for (char extra[] = "orders0"; extra[6] < '9'; extra[6]++)
        assert_ok(put(f, names, extra, NULL, 1, false));
    assert_status(hw_names_find(names, "order", &name, &f->err), HW_ENOTFOUND, &f->err);
    assert_string_equal(f->err.message,
                        "order: no such name; perhaps `orders' or `orders0' or `orders1'");
    hw_names_close(names);
}

static void what_is_no_name_is_refused(void **state)
{
    static const struct {
        const char *name, *says;
    } cases[] = {
        {"", "1 to 128"},
        {"a/b", "no /"},
        {"hyper:a", "without hyper:"},
        {"a\nb", "control"},
        {"file:a", "without file:"},
        {KEY, "a key"},
        {"a?b", "? # and %"},
        {"a%20b", "? # and %"},
        {"..", "a path"},
    };
    struct place *f = *state;
    struct hw_names *names = registry(f);
    static const char *const bad_url[] = {"hyper://h:99999/a"};
    struct hw_name entry = {.name = "a", .urls = bad_url, .url_count = 1};
    char longest[HW_PETNAME_MAX + 2];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_status(put(f, names, cases[i].name, NULL, 1, false), HW_EMISUSE, &f->err);
        if (strstr(f->err.message, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].name, f->err.message);
    }
    memset(longest, 'a', sizeof(longest));
    longest[HW_PETNAME_MAX + 1] = '\0';
    assert_status(put(f, names, longest, NULL, 1, false), HW_EMISUSE, &f->err);
    longest[HW_PETNAME_MAX] = '\0';
    assert_ok(put(f, names, longest, NULL, 1, false));
    assert_status(hw_names_put(names, &entry, false, &f->err), HW_EMISUSE, &f->err);
    assert_non_null(strstr(f->err.message, "port"));
    assert_status(put(f, names, "a", "relative", 0, false), HW_EMISUSE, &f->err);
    assert_status(put(f, names, "a", NULL, 0, false), HW_EMISUSE, &f->err);
    hw_names_close(names);
}

static void registry_of_another_kind_or_time_is_refused(void **state)
{
    static const struct {
        const char *sql;
        enum hw_status status;
        const char *says;
    } cases[] = {
        {"PRAGMA user_version=2", HW_EVERSION, "later version"},
        {"PRAGMA user_version=1; PRAGMA application_id=5", HW_ECORRUPT, "not one of names"},
    };
    struct place *f = *state;
    struct hw_names *names = NULL;
    sqlite3 *db = NULL;
    char path[128];

    registry_path(f, path);
    assert_status(hw_names_open(f->env, path, false, &names, &f->err), HW_ENOTFOUND, &f->err);
    hw_names_close(registry(f));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, cases[i].sql, NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        assert_status(hw_names_open(f->env, path, true, &names, &f->err), cases[i].status, &f->err);
        assert_non_null(strstr(f->err.message, cases[i].says));
    }
    assert_ok(hw_env_replace_file(f->env, path, "no database at all", 18, 0, &f->err));
    assert_status(hw_names_open(f->env, path, true, &names, &f->err), HW_ECORRUPT, &f->err);
}

static void rows_that_others_wrote_are_checked(void **state)
{
    static const char *const rows[] = {
        ("INSERT INTO names VALUES('a/b', NULL, NULL, 0); INSERT INTO addresses VALUES('a/b', 0, "
         "'hyper://h/a')"),
        "INSERT INTO names VALUES('b', NULL, NULL, 0)",
        "INSERT INTO names VALUES('c', NULL, NULL, 0); INSERT INTO addresses VALUES('c', 0, 'x')",
        "PRAGMA ignore_check_constraints=1; INSERT INTO names VALUES('d', x'00', '/d', 0)",
    };
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_name *name = NULL;
    sqlite3 *db = NULL;
    char path[128];
    static const char *const wanted[] = {"a/b", "b", "c", "d"};

    registry_path(f, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(sqlite3_exec(db, rows[i], NULL, NULL, NULL), SQLITE_OK);
        assert_status(hw_names_find(names, wanted[i], &name, &f->err), HW_ECORRUPT, &f->err);
        assert_non_null(strstr(f->err.message, "names.db"));
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    hw_names_close(names);
}

enum { WRITERS = 4, NAMES_EACH = 5 };

static void processes_at_once_make_one_registry(void **state)
{
    struct place *f = *state;
    struct hw_names *names;
    struct hw_name *name = NULL;
    pid_t children[WRITERS];
    char text[32];

    for (unsigned w = 0; w < WRITERS; w++) {
        children[w] = fork();
        assert_true(children[w] >= 0);
        if (children[w] == 0) {
            bool is_right = true;

            names = registry(f);
            for (unsigned i = 0; i < NAMES_EACH && is_right; i++) {
                (void)snprintf(text, sizeof(text), "name-%u-%u", w, i);
                is_right = put(f, names, text, NULL, 2, false) == HW_OK;
            }
            hw_names_close(names);
            _exit(is_right ? 0 : 1);
        }
    }
    for (unsigned w = 0; w < WRITERS; w++) {
        int status;

        assert_int_equal(waitpid(children[w], &status, 0), children[w]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    names = registry(f);
    for (unsigned w = 0; w < WRITERS; w++) {
        for (unsigned i = 0; i < NAMES_EACH; i++) {
            (void)snprintf(text, sizeof(text), "name-%u-%u", w, i);
            assert_ok(hw_names_find(names, text, &name, &f->err));
            assert_int_equal(name->url_count, 2);
            hw_free(name);
        }
    }
    hw_names_close(names);
}

static void killed_writer_leaves_whole_names(void **state)
{
    enum { KILLS = 8 };
    struct place *f = *state;
    char text[32];

    for (unsigned k = 0; k < KILLS; k++) {
        struct hw_names *names;
        struct hw_name *name = NULL;
        unsigned told = 0;
        int ends[2], status;
        char byte;
        pid_t child;

        assert_int_equal(pipe(ends), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            names = registry(f);
            for (unsigned i = 0;; i++) {
                (void)snprintf(text, sizeof(text), "name-%u-%u", k, i);
                if (put(f, names, text, NULL, 2, false) != HW_OK || write(ends[1], "x", 1) != 1)
                    _exit(1);
            }
        }
        (void)close(ends[1]);
        while (told <= k && read(ends[0], &byte, 1) == 1)
            told++;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        (void)close(ends[0]);
        names = registry(f);
        for (unsigned i = 0; i < told; i++) {
            (void)snprintf(text, sizeof(text), "name-%u-%u", k, i);
            assert_ok(hw_names_find(names, text, &name, &f->err));
            assert_int_equal(name->url_count, 2);
            hw_free(name);
        }
        hw_names_close(names);
    }
}

/* -------------------------------------------------------------------------------- places */

static void assert_path(struct place *f, const char *text, const char *path)
{
    struct hw_place place;

    assert_ok(hw_place_find(f->env, text, &place, &f->err));
    assert_false(place.is_remote);
    assert_string_equal(place.path, path);
    hw_place_release(&place);
}

static void place_is_a_path_unless_it_is_a_url_or_a_petname(void **state)
{
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_place place = {0};
    char own[160];

    use_registry(f);
    assert_ok(put(f, names, "orders", NULL, 2, false));
    (void)snprintf(own, sizeof(own), "%s/own.db", f->dir);
    assert_ok(put(f, names, "own", own, 1, false));
    assert_ok(put(f, names, "gone", "/nowhere/gone.db", 0, false));
    hw_names_close(names);

    assert_path(f, "app.db", "app.db");
    assert_path(f, "hyper:app.db", "app.db");
    assert_path(f, "hyper:dir/app.db", "dir/app.db");
    assert_path(f, "hyper:./orders", "./orders");
    assert_path(f, "hyper:///full/path.db", "/full/path.db");
    assert_path(f, "./orders", "./orders");
    assert_path(f, "hyper:gone", "/nowhere/gone.db");

    for (unsigned i = 0; i < 2; i++) {
        assert_ok(hw_place_find(f->env, i == 0 ? "orders" : "hyper:orders", &place, &f->err));
        assert_true(place.is_remote && place.has_key);
        assert_string_equal(place.petname, "orders");
        assert_int_equal(place.count, 2);
        assert_string_equal(place.urls[1], two_urls[1]);
        assert_string_equal(place.addresses[0].dial, "tcp://one:4970");
        assert_string_equal(place.addresses[0].name, "orders");
        hw_place_release(&place);
    }
    /* Its file is not there: then where it is served. */
    assert_ok(hw_place_find(f->env, "hyper:own", &place, &f->err));
    assert_true(place.is_remote);
    hw_place_release(&place);
    assert_ok(hw_env_replace_file(f->env, own, "x", 1, 0, &f->err));
    assert_path(f, "hyper:own", own);

    assert_ok(hw_place_find(f->env, "hyper:oders", &place, &f->err));
    assert_false(place.is_remote);
    assert_string_equal(place.path, "oders");
    assert_string_equal(place.hint, "; perhaps `orders'");
    hw_place_release(&place);
    assert_ok(hw_place_find(f->env, "hyper://h/" KEY, &place, &f->err));
    assert_true(place.is_remote && place.has_key && place.petname == NULL);
    assert_int_equal(place.count, 1);
    hw_place_release(&place);
    assert_status(hw_place_find(f->env, "hyper://h:x/a", &place, &f->err), HW_EMISUSE, &f->err);
    assert_status(hw_place_find(f->env, "hyper:", &place, &f->err), HW_EMISUSE, &f->err);
    assert_status(hw_place_find(f->env, "", &place, &f->err), HW_EMISUSE, &f->err);
    hw_place_release(NULL);
}

static void file_goes_before_a_petname_that_is_not_marked_as_one(void **state)
{
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_place place;

    use_registry(f);
    assert_ok(put(f, names, "thing", NULL, 2, false));
    hw_names_close(names);
    assert_int_equal(chdir(f->dir), 0);
    assert_ok(hw_place_find(f->env, "thing", &place, &f->err));
    assert_true(place.is_remote);
    hw_place_release(&place);
    assert_int_equal(mkdir("thing-hyper", 0755), 0); /* the log of a database that is gone */
    assert_path(f, "thing", "thing");
    assert_ok(hw_place_find(f->env, "hyper:thing", &place, &f->err));
    assert_true(place.is_remote);
    hw_place_release(&place);
    assert_int_equal(chdir("/"), 0);
}

static unsigned unseen; /* looks at files of this place that fail */

static enum hw_status stat_that_fails(struct hw_env *env, const char *path,
                                      struct hw_file_stat *out, struct hw_error *err)
{
    struct hw_env *posix = hw_env_posix();

    (void)env;
    if (strstr(path, "names.db") == NULL && unseen > 0 && --unseen == 0)
        return hw_fail(err, HW_EIO, "%s: cannot look at it", path);
    return posix->ops->stat(posix, path, out, err);
}

static void file_that_cannot_be_looked_at_is_not_taken_for_missing(void **state)
{
    struct place *f = *state;
    struct hw_names *names = registry(f);
    struct hw_env_ops ops = *f->env->ops;
    struct hw_env failing = {&ops};
    struct hw_place place;
    char path[128];

    ops.stat = stat_that_fails;
    use_registry(f);
    (void)snprintf(path, sizeof(path), "%s/own.db", f->dir);
    assert_ok(put(f, names, "thing", NULL, 2, false));
    assert_ok(put(f, names, "own", path, 2, false)); /* there is nothing at that path yet */
    hw_names_close(names);
    assert_int_equal(chdir(f->dir), 0);
    for (unsigned n = 1; n <= 2; n++) { /* the file, its log */
        unseen = n;
        assert_status(hw_place_find(&failing, "thing", &place, &f->err), HW_EIO, &f->err);
        unseen = n;
        assert_status(hw_place_find(&failing, "hyper:own", &place, &f->err), HW_EIO, &f->err);
        assert_int_equal(unseen, 0);
    }
    assert_ok(hw_place_find(&failing, "hyper:own", &place, &f->err));
    assert_true(place.is_remote);
    hw_place_release(&place);
    assert_int_equal(chdir("/"), 0);
}

static void no_registry_is_no_names(void **state)
{
    struct place *f = *state;

    use_registry(f);
    assert_path(f, "hyper:orders", "orders");
    assert_path(f, "orders", "orders");
    assert_int_equal(mkdir(f->a, 0755), 0);
    assert_int_equal(setenv("HYPERWAL_NAMES", f->a, 1), 0); /* a directory: not to be read */
    {
        struct hw_place place;

        assert_status(hw_place_find(f->env, "hyper:orders", &place, &f->err), HW_EIO, &f->err);
    }
}

/* --------------------------------------------------------------------- SQLite's memory */

static struct {
    sqlite3_mem_methods real;
    unsigned left; /* allocations until one fails; 0: none does */
} memory;

static bool is_the_one(void)
{
    return memory.left > 0 && --memory.left == 0;
}

static void *take(int size)
{
    return is_the_one() ? NULL : memory.real.xMalloc(size);
}

static void *resize(void *old, int size)
{
    return is_the_one() ? NULL : memory.real.xRealloc(old, size);
}

/* Before SQLite is used at all; its own reserves for small things would hide what fails. */
static void memory_begin(void)
{
    sqlite3_mem_methods methods;

    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real), SQLITE_OK);
    methods = memory.real;
    methods.xMalloc = take;
    methods.xRealloc = resize;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods), SQLITE_OK);
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK);
}

static void check_whole(const struct hw_name *name)
{
    uint8_t key[HW_KEY_SIZE];

    memset(key, 7, sizeof(key));
    assert_string_equal(name->name, "all");
    assert_true(name->has_key);
    assert_memory_equal(name->key, key, sizeof(key));
    assert_non_null(name->path);
    assert_string_equal(name->path, "/srv/a.db");
    assert_int_equal(name->url_count, 2);
    assert_string_equal(name->urls[0], two_urls[0]);
    assert_string_equal(name->urls[1], two_urls[1]);
}

static void name_is_written_whole_or_not_at_all(void **state)
{
    struct place *f = *state;
    bool failed = true;

    for (unsigned n = 1; failed; n++) {
        struct hw_names *names = registry(f);
        struct hw_name *name = NULL;
        enum hw_status status;

        memory.left = n;
        status = put(f, names, "all", "/srv/a.db", 2, true);
        failed = memory.left == 0;
        memory.left = 0;
        hw_names_close(names);
        names = registry(f);
        if (status == HW_OK) {
            assert_ok(hw_names_find(names, "all", &name, &f->err));
            check_whole(name);
            assert_ok(hw_names_remove(names, "all", &f->err));
        } else {
            assert_int_equal(status, HW_ENOMEM);
            assert_status(hw_names_find(names, "all", &name, &f->err), HW_ENOTFOUND, &f->err);
        }
        hw_free(name);
        hw_names_close(names);
    }
}

static void name_is_read_whole_or_not_at_all(void **state)
{
    struct place *f = *state;
    struct hw_names *names;
    sqlite3 *db = NULL;
    char path[128], in[96];
    bool failed = true;

    /* Of another encoding, so that its texts take memory when they are read. */
    (void)snprintf(in, sizeof(in), "%s/in", f->dir);
    assert_int_equal(mkdir(in, 0755), 0);
    registry_path(f, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA encoding='UTF-16le'; CREATE TABLE t(a); DROP TABLE t",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    names = registry(f);
    assert_ok(put(f, names, "all", "/srv/a.db", 2, true));
    hw_names_close(names);
    for (unsigned n = 1; failed; n++) {
        struct hw_name *name = NULL;
        enum hw_status status;

        names = registry(f);
        memory.left = n;
        status = hw_names_find(names, "all", &name, &f->err);
        failed = memory.left == 0;
        memory.left = 0;
        if (status == HW_OK)
            check_whole(name);
        else
            assert_status(status, HW_ENOMEM, &f->err);
        hw_free(name);
        hw_names_close(names);
    }
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(name_is_kept_with_all_that_it_says),
        TEST(unknown_name_is_told_with_those_that_are_near),
        TEST(what_is_no_name_is_refused),
        TEST(registry_of_another_kind_or_time_is_refused),
        TEST(rows_that_others_wrote_are_checked),
        TEST(processes_at_once_make_one_registry),
        TEST(killed_writer_leaves_whole_names),
        TEST(place_is_a_path_unless_it_is_a_url_or_a_petname),
        TEST(file_goes_before_a_petname_that_is_not_marked_as_one),
        TEST(file_that_cannot_be_looked_at_is_not_taken_for_missing),
        TEST(no_registry_is_no_names),
        TEST(name_is_written_whole_or_not_at_all),
        TEST(name_is_read_whole_or_not_at_all),
    };

    memory_begin();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
