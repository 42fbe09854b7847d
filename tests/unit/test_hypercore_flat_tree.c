/* The numbering of trees, against the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hypercore/flat_tree.h"
#include "support/json.h"

static void nodes_have_the_relatives_of_the_vectors(void **state)
{
    struct json *json = json_load("flat-tree.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *node = json_get(json, "nodes")->first; node != NULL;
         node = node->next) {
        uint64_t index = json_integer(node, "index");
        const struct json *children = json_find(node, "children");
        const struct json *spans = json_get(node, "spans")->first;

        assert_int_equal(hw_flat_depth(index), json_integer(node, "depth"));
        assert_int_equal(hw_flat_offset(index), json_integer(node, "offset"));
        assert_int_equal(hw_flat_parent(index), json_integer(node, "parent"));
        assert_int_equal(hw_flat_sibling(index), json_integer(node, "sibling"));
        assert_int_equal(hw_flat_left_span(index), spans->integer);
        assert_int_equal(hw_flat_right_span(index), spans->next->integer);
        if (children != NULL) {
            assert_int_equal(hw_flat_left_child(index), children->first->integer);
            assert_int_equal(hw_flat_right_child(index), children->first->next->integer);
        }
        assert_int_equal(hw_flat_index(hw_flat_depth(index), hw_flat_offset(index)), index);
        seen++;
    }
    assert_int_equal(seen, 64);
    json_free(json);
}

static void roots_are_those_of_the_vectors(void **state)
{
    struct json *json = json_load("flat-tree.json");
    unsigned seen = 0;

    (void)state;
    for (const struct json *line = json_get(json, "roots")->first; line != NULL;
         line = line->next) {
        uint64_t roots[HW_TREE_ROOTS_MAX];
        const struct json *root = json_get(line, "roots")->first;
        unsigned count = hw_flat_full_roots(json_integer(line, "length"), roots);

        assert_int_equal(count, json_get(line, "roots")->count);
        for (unsigned i = 0; i < count; i++, root = root->next)
            assert_int_equal(roots[i], root->integer);
        seen++;
    }
    assert_int_equal(seen, 67);
    json_free(json);
}

static void indices_at_the_limits_are_answered(void **state)
{
    (void)state;
    for (unsigned depth = 0; depth < 64; depth++) {
        uint64_t index = hw_flat_index(depth, 0);

        assert_int_equal(hw_flat_depth(index), depth);
        assert_int_equal(hw_flat_left_span(index), 0);
        assert_true(hw_flat_contains(index, index));
    }
    assert_int_equal(hw_flat_depth(UINT64_MAX), 64);
    assert_int_equal(hw_flat_offset(UINT64_MAX), 0);
    assert_int_equal(hw_flat_parent(UINT64_MAX), UINT64_MAX);
    assert_int_equal(hw_flat_parent(UINT64_MAX / 2), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_have_the_relatives_of_the_vectors),
        cmocka_unit_test(roots_are_those_of_the_vectors),
        cmocka_unit_test(indices_at_the_limits_are_answered),
    };

    return cmocka_run_group_tests_name("hypercore/flat_tree", tests, NULL, NULL);
}
