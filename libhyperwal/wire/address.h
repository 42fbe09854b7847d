/*
 * wire/address.h - where a log is: URLs, as users write them
 *
 *   hyper://HOST[:PORT]/NAME       TCP; port 4970; NAME is what the server calls it, or a log's key
 *   tcp://HOST:PORT/NAME           the same
 *   ws://HOST:PORT/PATH/NAME       WebSocket: the last part is the name
 *   ipc://SOCKET/NAME              a socket of this machine: likewise (ipc:///run/hw.sock/app.db)
 *
 * In NAME %XX stands for the byte XX.  With hyper:// and tcp:// it may have folders, a/b/app.db;
 * with the others their / is %2F.  A key is 64 hex digits or 52 characters of z-base-32.  Behind
 * NAME may come ?server=KEY, the identity key of the server that is to answer, and of no other.  A
 * listen URL has no NAME; its host may be "*" or nothing, for all addresses of the machine.
 */
#ifndef HW_WIRE_ADDRESS_H
#define HW_WIRE_ADDRESS_H

#include "base/error.h"
#include "hypercore/hypercore.h"

enum { HW_PORT_DEFAULT = 4970, HW_URL_MAX = 512, HW_NAME_MAX = 128 };

struct hw_address {
    char dial[HW_URL_MAX]; /* as the transport wants it: tcp://HOST:PORT, ipc://PATH, ws://... */
    char name[HW_NAME_MAX + 1]; /* percent-decoded; "" if it is a key */
    bool has_key;
    uint8_t key[HW_KEY_SIZE];
    bool has_server;
    uint8_t server[HW_KEY_SIZE]; /* identity key that is to answer, if has_server */
};

bool hw_address_is_remote(const char *src); /* does it begin like one of the above? */
/* HW_EMISUSE says what is wrong with it. */
enum hw_status hw_address_parse(const char *url, struct hw_address *out,
                                struct hw_error *err) HW_MUST_CHECK;
/* The same without a name: of a server, HOST[:PORT] or what is before the name. */
enum hw_status hw_address_parse_server(const char *url, struct hw_address *out,
                                       struct hw_error *err) HW_MUST_CHECK;
/* "tcp://127.0.0.1" gets the default port; HW_EMISUSE. */
enum hw_status hw_address_parse_listen(const char *url, char out[HW_URL_MAX],
                                       struct hw_error *err) HW_MUST_CHECK;
/* Is it a socket of this machine, ipc? */
bool hw_address_is_socket(const char *url);
/* Can only this machine reach it? */
bool hw_address_is_local(const char *listen_url);
/*
 * The URL under which a database of this name is found at a listen URL, hyper:// for TCP; on this
 * machine, if it listens at all addresses.  "": it would be too long.
 */
void hw_address_format(const char *listen_url, const char *name, char out[HW_URL_MAX]);

#endif
