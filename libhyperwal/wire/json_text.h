/*
 * wire/json_text.h - is what a peer calls JSON one object, and one line?
 *
 * It is passed on as it is, inside of our own JSON and to terminals: so it must not end what is
 * around it, nor steer a terminal.  RFC 8259, with no white space but blanks.
 */
#ifndef HW_WIRE_JSON_TEXT_H
#define HW_WIRE_JSON_TEXT_H

#include <stdbool.h>

#include "base/bytes.h"

enum { HW_JSON_DEPTH_MAX = 16 };

bool hw_json_is_object(struct hw_slice text);

#endif
