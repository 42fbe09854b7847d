/* system/hostile_attacks.h - what a hostile peer does on each of its connections */
#ifndef SYSTEM_HOSTILE_ATTACKS_H
#define SYSTEM_HOSTILE_ATTACKS_H

#include "system/hostile_wire.h"

enum {
    ATTACK_SHAKES = 1, /* acts when the handshake is done */
    ATTACK_LINKS = 2,  /* acts when the log's channel is open */
    ATTACK_DEAF = 4,   /* and reads nothing from then on */
    ATTACK_AGAIN = 8,  /* who is dropped comes back */

    FIRST_FRAME_SIZE = 3 + 32,  /* bytes: of the initiator */
    SECOND_FRAME_SIZE = 3 + 96, /* of the answer */
    HANDSHAKE_SIZE = 3 + 32 + 3 + 64 + 3 + 56,
};

struct attack {
    const char *name;
    unsigned flags;
    void (*begin)(struct wire *wire); /* just dialed; NULL: nothing */
    /* Called again and again while little waits to be sent; may close it.  NULL: nothing. */
    void (*act)(struct wire *wire, const struct target *target);
};

const struct attack *attack_find(const char *name); /* NULL: there is none */
void attacks_list(void);

#endif
