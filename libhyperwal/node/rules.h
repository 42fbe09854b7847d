/*
 * node/rules.h - who may do what with which database: rules, and the text in which people keep them
 *
 * In the manner of ssh's authorized_keys; one rule a line, words between blanks:
 *
 *     RIGHTS        PATTERN[,PATTERN]...   KEY   what is left is a comment
 *     read,write    app-*,!app-secret      4f3c...   alice's laptop
 *     read          *                      any
 *
 * RIGHTS are words with commas between them: read; write, with which goes read; create, which is
 * write for databases that need not exist; promote, which is write and to hand the database over to
 * another primary.  In a PATTERN * stands for any characters, / among them, ? for one, %XX for the
 * byte XX; a pattern with ! in front takes away from the others of its line.  KEY is an identity
 * key as `hyperwal key` prints it, or `any`.  Lines that begin with # are comments.
 *
 * What several rules give adds up.
 */
#ifndef HW_NODE_RULES_H
#define HW_NODE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/noise.h"

enum hw_right {
    HW_RIGHT_READ = 1,
    HW_RIGHT_WRITE = 2,
    HW_RIGHT_CREATE = 4,
    HW_RIGHT_PROMOTE = 8,
    HW_RIGHTS_ALL = 15,
};

enum {
    HW_RULES_MAX = 65536,
    HW_RULES_TEXT_MAX = 8 << 20, /* bytes */
    HW_RULE_LINE_MAX = 4096,     /* bytes */
};

struct hw_rule;
struct hw_rules {          /* all zero: none */
    struct hw_rule *items; /* owned; those for anybody first, then by key */
    size_t count;
};
void hw_rules_release(struct hw_rules *rules);
/* The rules of a text; *out is made anew.  HW_EMISUSE names the line; HW_ELIMIT, HW_ENOMEM. */
enum hw_status hw_rules_decode(struct hw_slice text, struct hw_rules *out,
                               struct hw_error *err) HW_MUST_CHECK;
/* One more; `key` NULL: anybody.  HW_EMISUSE: `patterns` is malformed. */
enum hw_status hw_rules_add(struct hw_rules *rules, unsigned rights, struct hw_slice patterns,
                            const uint8_t *key, struct hw_error *err) HW_MUST_CHECK;

/* What this identity may do with this name: enum hw_right, those that follow from others too. */
unsigned hw_rules_rights(const struct hw_rules *rules, const uint8_t key[HW_IDENTITY_KEY_SIZE],
                         struct hw_slice name);
/* Is there any rule that is about it? */
bool hw_rules_know(const struct hw_rules *rules, const uint8_t key[HW_IDENTITY_KEY_SIZE]);

/* "read", "write", "create" or "promote". */
const char *hw_right_name(enum hw_right right);

#endif
