/* Tests node/identity.c: the file that tells this user from others. */
#include <sys/stat.h>
#include <unistd.h>

#include "node_fixture.h"
#include "sim/sim.h"

static void file_path(const struct place *f, char out[128])
{
    (void)snprintf(out, 128, "%s/deep/in/identity", f->dir);
}

static void identity_is_made_once_and_found_again(void **state)
{
    struct place *f = *state;
    struct hw_identity first, second;
    struct hw_file_stat stat;
    char path[128];

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &first, &f->err));
    assert_ok(hw_identity_load(f->env, path, &second, &f->err));
    assert_memory_equal(&first, &second, sizeof(first));
    assert_ok(f->env->ops->stat(f->env, path, &stat, &f->err));
    assert_int_equal(stat.mode & 0777, 0600);
}

static void identity_that_others_can_read_is_refused(void **state)
{
    struct place *f = *state;
    struct hw_identity identity;
    char path[128];

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    assert_int_equal(chmod(path, 0644), 0);
    assert_status(hw_identity_load(f->env, path, &identity, &f->err), HW_EREADONLY, &f->err);
    assert_non_null(strstr(f->err.message, "chmod 600"));
}

/* Whoever learned to trust it knows it again, although power is lost the moment after. */
static void identity_that_was_given_survives_a_power_loss(void **state)
{
    struct sim *sim = sim_new(0);
    struct hw_env *env = sim_env(sim);
    struct hw_identity first, second;
    struct place *f = *state;

    assert_ok(env->ops->make_dir(env, "/user", &f->err));
    assert_ok(env->ops->sync_dir(env, "/", &f->err));
    assert_ok(hw_identity_load(env, "/user/identity", &first, &f->err));
    sim_crash(sim, SIM_DROP);
    assert_ok(hw_identity_load(env, "/user/identity", &second, &f->err));
    assert_memory_equal(&first, &second, sizeof(first));
    sim_free(sim);
}

static void file_that_a_crash_left_short_is_made_anew(void **state)
{
    struct place *f = *state;
    struct hw_identity identity, again;
    char path[128];

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    assert_int_equal(truncate(path, 20), 0);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    assert_ok(hw_identity_load(f->env, path, &again, &f->err));
    assert_memory_equal(&identity, &again, sizeof(identity));
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void check_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "r");
    char found[128];

    assert_non_null(file);
    assert_int_equal(fread(found, 1, sizeof(found), file), size);
    assert_int_equal(fclose(file), 0);
    assert_memory_equal(found, bytes, size);
}

/* As a power loss may leave it on some file systems. */
static void file_of_zeros_that_a_crash_left_is_made_anew(void **state)
{
    struct place *f = *state;
    struct hw_identity identity, again;
    char path[128];

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    write_file(path, "0123\0\0\0\0", 8);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    assert_ok(hw_identity_load(f->env, path, &again, &f->err));
    assert_memory_equal(&identity, &again, sizeof(identity));
}

/* Copied from where secrets are kept, for one. */
static void identity_without_a_newline_is_the_same(void **state)
{
    struct place *f = *state;
    struct hw_identity identity, again;
    char path[128], text[64];
    FILE *file;

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof(text), file), sizeof(text));
    assert_int_equal(fclose(file), 0);
    write_file(path, text, sizeof(text));
    assert_ok(hw_identity_load(f->env, path, &again, &f->err));
    assert_memory_equal(&identity, &again, sizeof(identity));
    check_file(path, text, sizeof(text));
}

static void file_that_is_something_else_is_refused_and_left_alone(void **state)
{
    static const char *const others[] = {
        "a secret of somebody else's\n", "0123456789\n", "x",
        "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
    struct place *f = *state;
    struct hw_identity identity;
    char path[128];

    file_path(f, path);
    assert_ok(hw_identity_load(f->env, path, &identity, &f->err));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        write_file(path, others[i], strlen(others[i]));
        assert_status(hw_identity_load(f->env, path, &identity, &f->err), HW_ECORRUPT, &f->err);
        check_file(path, others[i], strlen(others[i]));
    }
}

static void environment_says_where_it_is(void **state)
{
    struct place *f = *state;
    struct hw_identity first, second;
    char path[128];

    file_path(f, path);
    assert_int_equal(setenv("HYPERWAL_IDENTITY", path, 1), 0);
    assert_ok(hw_identity_load(f->env, NULL, &first, &f->err));
    assert_ok(hw_identity_load(f->env, path, &second, &f->err));
    assert_memory_equal(&first, &second, sizeof(first));
    assert_int_equal(unsetenv("HYPERWAL_IDENTITY"), 0);
    assert_int_equal(setenv("XDG_CONFIG_HOME", f->dir, 1), 0);
    assert_ok(hw_identity_load(f->env, NULL, &first, &f->err));
    assert_memory_not_equal(&first, &second, sizeof(first));
    (void)snprintf(path, sizeof(path), "%s/hyperwal/identity", f->dir);
    assert_ok(hw_identity_load(f->env, path, &second, &f->err));
    assert_memory_equal(&first, &second, sizeof(first));
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(identity_is_made_once_and_found_again),
        TEST(identity_that_others_can_read_is_refused),
        TEST(identity_that_was_given_survives_a_power_loss),
        TEST(file_that_a_crash_left_short_is_made_anew),
        TEST(file_of_zeros_that_a_crash_left_is_made_anew),
        TEST(identity_without_a_newline_is_the_same),
        TEST(file_that_is_something_else_is_refused_and_left_alone),
        TEST(environment_says_where_it_is),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
