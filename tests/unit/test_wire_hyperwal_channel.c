/* Tests wire/hyperwal_channel.h. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "wire/hyperwal_channel.h"

static struct hw_slice slice(const char *text)
{
    return (struct hw_slice){(const uint8_t *)text, strlen(text)};
}

static struct hw_slice content(const struct hw_buffer *buffer)
{
    assert_false(buffer->failed);
    return (struct hw_slice){buffer->bytes, buffer->size};
}

/* Every prefix that lacks a byte is malformed; more bytes behind it are ignored. */
#define check_prefixes(buffer, call)                                                               \
    do {                                                                                           \
        struct hw_slice bytes = content(buffer);                                                   \
        for (size_t cut = bytes.size; cut-- > 0;) {                                                \
            bytes.size = cut;                                                                      \
            assert_int_equal(call, HW_EPROTOCOL);                                                  \
        }                                                                                          \
        hw_buffer_add_u8(buffer, 9);                                                               \
        bytes = content(buffer);                                                                   \
        assert_int_equal(call, HW_OK);                                                             \
        hw_buffer_release(buffer);                                                                 \
    } while (0)

static void handshake_comes_back_and_has_one_version(void **state)
{
    struct hw_hyperwal_handshake handshake = {.version = 1, .flags = 0x1234}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    memset(handshake.replica_id, 7, sizeof(handshake.replica_id));
    hw_hyperwal_handshake_encode(&handshake, &buffer);
    assert_int_equal(buffer.size, 1 + 3 + HW_REPLICA_ID_SIZE);
    assert_int_equal(hw_hyperwal_handshake_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.version, 1);
    assert_int_equal(out.flags, 0x1234);
    assert_memory_equal(out.replica_id, handshake.replica_id, HW_REPLICA_ID_SIZE);
    check_prefixes(&buffer, hw_hyperwal_handshake_decode(bytes, &out, &err));

    handshake.version = 2;
    hw_hyperwal_handshake_encode(&handshake, &buffer);
    assert_int_equal(hw_hyperwal_handshake_decode(content(&buffer), &out, &err), HW_EVERSION);
    hw_buffer_release(&buffer);
}

static void queries_come_back_with_and_without_a_name(void **state)
{
    struct hw_hyperwal_query query = {.request = 300, .name = slice("app.db")}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    hw_hyperwal_query_encode(&query, true, &buffer);
    assert_int_equal(buffer.size, 3 + 1 + 6);
    assert_int_equal(hw_hyperwal_query_decode(content(&buffer), true, &out, &err), HW_OK);
    assert_int_equal(out.request, 300);
    assert_int_equal(out.name.size, 6);
    assert_memory_equal(out.name.bytes, "app.db", 6);
    check_prefixes(&buffer, hw_hyperwal_query_decode(bytes, true, &out, &err));

    hw_hyperwal_query_encode(&query, false, &buffer);
    assert_int_equal(buffer.size, 3);
    assert_int_equal(hw_hyperwal_query_decode(content(&buffer), false, &out, &err), HW_OK);
    assert_int_equal(out.name.size, 0);
    check_prefixes(&buffer, hw_hyperwal_query_decode(bytes, false, &out, &err));
}

static void long_names_are_refused(void **state)
{
    char name[200];
    struct hw_hyperwal_query query = {.request = 1, .name = {(const uint8_t *)name, 128}}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    memset(name, 'a', sizeof(name));
    hw_hyperwal_query_encode(&query, true, &buffer);
    assert_int_equal(hw_hyperwal_query_decode(content(&buffer), true, &out, &err), HW_OK);
    hw_buffer_clear(&buffer);
    query.name.size++;
    hw_hyperwal_query_encode(&query, true, &buffer);
    assert_int_equal(hw_hyperwal_query_decode(content(&buffer), true, &out, &err), HW_EPROTOCOL);
    hw_buffer_release(&buffer);
}

static void answers_to_lookups_come_back(void **state)
{
    struct hw_hyperwal_found found = {.request = 5, .status = HW_LOOKUP_FOUND}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    memset(found.key, 3, sizeof(found.key));
    hw_hyperwal_found_encode(&found, &buffer);
    assert_int_equal(buffer.size, 2 + HW_KEY_SIZE);
    assert_int_equal(hw_hyperwal_found_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.request, 5);
    assert_int_equal(out.status, HW_LOOKUP_FOUND);
    assert_memory_equal(out.key, found.key, HW_KEY_SIZE);
    check_prefixes(&buffer, hw_hyperwal_found_decode(bytes, &out, &err));

    found.status = HW_LOOKUP_REFUSED;
    hw_hyperwal_found_encode(&found, &buffer);
    assert_int_equal(buffer.size, 2);
    assert_int_equal(hw_hyperwal_found_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.status, HW_LOOKUP_REFUSED);
    buffer.bytes[1] = HW_LOOKUP_REFUSED + 1;
    assert_int_equal(hw_hyperwal_found_decode(content(&buffer), &out, &err), HW_EPROTOCOL);
    hw_buffer_release(&buffer);
}

static void wishes_for_databases_come_back(void **state)
{
    struct hw_hyperwal_create create = {.request = 300, .name = slice("new.db"), .page_size = 512},
                              out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    hw_hyperwal_create_encode(&create, &buffer);
    assert_int_equal(hw_hyperwal_create_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.request, 300);
    assert_int_equal(out.page_size, 512);
    assert_int_equal(out.name.size, 6);
    assert_memory_equal(out.name.bytes, "new.db", 6);
    check_prefixes(&buffer, hw_hyperwal_create_decode(bytes, &out, &err));
    hw_buffer_release(&buffer);
}

static void answers_to_wishes_come_back(void **state)
{
    struct hw_hyperwal_created created = {.request = 5, .status = HW_CREATE_MADE}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;
    char why[HW_CREATE_WHY_MAX + 1];

    (void)state;
    memset(created.key, 3, sizeof(created.key));
    hw_hyperwal_created_encode(&created, &buffer);
    assert_int_equal(hw_hyperwal_created_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.status, HW_CREATE_MADE);
    assert_memory_equal(out.key, created.key, HW_KEY_SIZE);
    check_prefixes(&buffer, hw_hyperwal_created_decode(bytes, &out, &err));

    hw_buffer_clear(&buffer);
    memset(why, 'y', sizeof(why)); /* one byte is cut off */
    created.status = HW_CREATE_FAILED;
    created.why = (struct hw_slice){(const uint8_t *)why, sizeof(why)};
    hw_hyperwal_created_encode(&created, &buffer);
    assert_int_equal(hw_hyperwal_created_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.status, HW_CREATE_FAILED);
    assert_int_equal(out.why.size, HW_CREATE_WHY_MAX);
    buffer.bytes[1] = HW_CREATE_FAILED + 1;
    assert_int_equal(hw_hyperwal_created_decode(content(&buffer), &out, &err), HW_EPROTOCOL);
    buffer.bytes[1] = HW_CREATE_FAILED;
    check_prefixes(&buffer, hw_hyperwal_created_decode(bytes, &out, &err));
}

static void states_come_back(void **state)
{
    struct hw_hyperwal_state told = {.request = 5, .json = slice("{}")}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    hw_hyperwal_state_encode(&told, &buffer);
    assert_int_equal(hw_hyperwal_state_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.json.size, 2);
    assert_memory_equal(out.json.bytes, "{}", 2);
    check_prefixes(&buffer, hw_hyperwal_state_decode(bytes, &out, &err));

    told.status = HW_LOOKUP_UNKNOWN;
    hw_hyperwal_state_encode(&told, &buffer);
    assert_int_equal(buffer.size, 2);
    assert_int_equal(hw_hyperwal_state_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.status, HW_LOOKUP_UNKNOWN);
    assert_int_equal(out.json.size, 0);
    hw_buffer_release(&buffer);
}

static void names_come_back_and_false_counts_do_not(void **state)
{
    static const char *const names[] = {"a", "", "app.db"};
    struct hw_buffer buffer = {0};
    struct hw_name_entry entry = {.key = {1}};
    struct hw_cursor entries;
    struct hw_error err;
    uint64_t request;
    size_t count;

    (void)state;
    hw_hyperwal_names_begin(8, 3, &buffer);
    for (unsigned i = 0; i < 3; i++) {
        entry.name = slice(names[i]);
        entry.key[1] = (uint8_t)i;
        hw_hyperwal_names_add(&entry, &buffer);
    }
    assert_int_equal(hw_hyperwal_names_decode(content(&buffer), &request, &count, &entries, &err),
                     HW_OK);
    assert_int_equal(request, 8);
    assert_int_equal(count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(hw_hyperwal_names_next(&entries, &entry, &err), HW_OK);
        assert_int_equal(entry.name.size, strlen(names[i]));
        assert_memory_equal(entry.name.bytes, names[i], entry.name.size);
        assert_int_equal(entry.key[1], i);
    }
    assert_int_equal(hw_hyperwal_names_next(&entries, &entry, &err), HW_EPROTOCOL);

    buffer.bytes[1] = 200; /* of which there are bytes for four at most */
    assert_int_equal(hw_hyperwal_names_decode(content(&buffer), &request, &count, &entries, &err),
                     HW_EPROTOCOL);
    hw_buffer_clear(&buffer);
    hw_hyperwal_names_begin(8, SIZE_MAX, &buffer);
    assert_int_equal(hw_hyperwal_names_decode(content(&buffer), &request, &count, &entries, &err),
                     HW_EPROTOCOL);
    hw_buffer_release(&buffer);
}

static void acknowledgements_and_urges_come_back(void **state)
{
    struct hw_ack ack = {.received = 70000, .durable = 300, .applied = 7}, out;
    struct hw_buffer buffer = {0};
    struct hw_error err;
    bool durable = false;

    (void)state;
    hw_ack_encode(&ack, &buffer);
    assert_int_equal(hw_ack_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.received, 70000);
    assert_int_equal(out.durable, 300);
    assert_int_equal(out.applied, 7);
    check_prefixes(&buffer, hw_ack_decode(bytes, &out, &err));

    hw_urge_encode(true, &buffer);
    assert_int_equal(hw_urge_decode(content(&buffer), &durable, &err), HW_OK);
    assert_true(durable);
    hw_buffer_clear(&buffer);
    hw_urge_encode(false, &buffer);
    assert_int_equal(hw_urge_decode(content(&buffer), &durable, &err), HW_OK);
    assert_false(durable);
    check_prefixes(&buffer, hw_urge_decode(bytes, &durable, &err));
}

static void handover_and_its_answers_come_back(void **state)
{
    struct hw_hyperwal_handover in = {.request = 300, .name = slice("app.db")}, out;
    struct hw_hyperwal_handed answers[] = {
        {.request = 1, .status = HW_HANDED_DONE, .seq = 70000},
        {.request = 2, .status = HW_HANDED_UNKNOWN},
        {.request = 3, .status = HW_HANDED_REFUSED},
        {.request = 4, .status = HW_HANDED_FAILED, .text = slice("a writer did not end")},
    };
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    memset(in.key, 0x3c, sizeof(in.key));
    hw_hyperwal_handover_encode(&in, &buffer);
    assert_int_equal(hw_hyperwal_handover_decode(content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.request, 300);
    assert_int_equal(out.name.size, 6);
    assert_memory_equal(out.key, in.key, sizeof(in.key));
    check_prefixes(&buffer, hw_hyperwal_handover_decode(bytes, &out, &err));
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct hw_hyperwal_handed told;

        buffer = (struct hw_buffer){0};
        hw_hyperwal_handed_encode(&answers[i], &buffer);
        assert_int_equal(hw_hyperwal_handed_decode(content(&buffer), &told, &err), HW_OK);
        assert_true(told.request == answers[i].request && told.status == answers[i].status &&
                    told.seq == answers[i].seq && told.text.size == answers[i].text.size);
        check_prefixes(&buffer, hw_hyperwal_handed_decode(bytes, &told, &err));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake_comes_back_and_has_one_version),
        cmocka_unit_test(queries_come_back_with_and_without_a_name),
        cmocka_unit_test(long_names_are_refused),
        cmocka_unit_test(answers_to_lookups_come_back),
        cmocka_unit_test(wishes_for_databases_come_back),
        cmocka_unit_test(answers_to_wishes_come_back),
        cmocka_unit_test(states_come_back),
        cmocka_unit_test(names_come_back_and_false_counts_do_not),
        cmocka_unit_test(handover_and_its_answers_come_back),
        cmocka_unit_test(acknowledgements_and_urges_come_back),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
