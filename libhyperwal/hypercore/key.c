/* The written forms of keys: hex, z-base-32, and the discovery key. */
#include <string.h>

#include "hypercore/hypercore.h"
#include "hypercore/manifest.h"

static const char zbase32[] = "ybndrfg8ejkmcpqxot1uwisza345h769";

void hw_key_format(const uint8_t key[HW_KEY_SIZE], char out[2 * HW_KEY_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (unsigned i = 0; i < HW_KEY_SIZE; i++) {
        out[2 * i] = digits[key[i] >> 4];
        out[2 * i + 1] = digits[key[i] & 15];
    }
    out[2 * HW_KEY_SIZE] = 0;
}

void hw_discovery_key(const uint8_t key[HW_HASH_SIZE], uint8_t out[HW_HASH_SIZE])
{
    static const char name[] = "hypercore";

    hw_hash_keyed(key, (struct hw_slice){(const uint8_t *)name, sizeof(name) - 1}, out);
}

/* Bit `i` of the key, from the most significant of its first byte; 0 beyond the end. */
static unsigned key_bit(const uint8_t key[HW_HASH_SIZE], unsigned i)
{
    return i < 8 * HW_HASH_SIZE ? (unsigned)key[i / 8] >> (7 - i % 8) & 1U : 0;
}

void hw_key_id_format(const uint8_t key[HW_HASH_SIZE], char out[HW_KEY_ID_SIZE + 1])
{
    for (unsigned i = 0; i < HW_KEY_ID_SIZE; i++) {
        unsigned digit = 0;

        for (unsigned bit = 0; bit < 5; bit++)
            digit = digit << 1 | key_bit(key, 5 * i + bit);
        out[i] = zbase32[digit];
    }
    out[HW_KEY_ID_SIZE] = 0;
}

static bool parse_zbase32(const char *text, uint8_t out[HW_HASH_SIZE])
{
    uint8_t key[HW_HASH_SIZE] = {0};

    for (unsigned i = 0; i < HW_KEY_ID_SIZE; i++) {
        const char *digit = strchr(zbase32, text[i]);
        unsigned value;

        if (digit == NULL)
            return false;
        value = (unsigned)(digit - zbase32);
        for (unsigned bit = 0; bit < 5; bit++) {
            unsigned at = 5 * i + bit;

            if ((value >> (4 - bit) & 1) == 0)
                continue;
            if (at >= 8 * HW_HASH_SIZE)
                return false; /* the last character holds one bit */
            key[at / 8] |= (uint8_t)(0x80U >> at % 8);
        }
    }
    memcpy(out, key, sizeof(key));
    return true;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

static bool parse_hex(const char *text, uint8_t out[HW_HASH_SIZE])
{
    uint8_t key[HW_HASH_SIZE];

    for (unsigned i = 0; i < HW_HASH_SIZE; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(out, key, sizeof(key));
    return true;
}

bool hw_key_parse(const char *text, uint8_t out[HW_HASH_SIZE])
{
    size_t size = strlen(text);

    if (size == 2 * HW_HASH_SIZE)
        return parse_hex(text, out);
    return size == HW_KEY_ID_SIZE && parse_zbase32(text, out);
}
