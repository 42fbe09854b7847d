/*
 * system/hostile_liar.h - a server that has no log: it passes on what another one says, and lies
 *
 *     follower ◀── stream, mux ──▶ liar ◀── stream, mux ──▶ real server
 *                                   alters Data on its way
 */
#ifndef SYSTEM_HOSTILE_LIAR_H
#define SYSTEM_HOSTILE_LIAR_H

#include "system/hostile_wire.h"

/*
 * Until it is killed.  Prints {"port":N} first; the first `after` answers of each connection are
 * true.  Result: what main() returns.
 */
int lie(const struct target *target, const char *how, unsigned after);
void lies_list(void);

#endif
