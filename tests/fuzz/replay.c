/*
 * Runs a fuzz target without libFuzzer: `replay NAME CORPUS [RUNS]`; `replay NAME FILE 0` runs
 * one input.
 *
 * First every file of the folder CORPUS (which may be missing), then RUNS mutations of them from a
 * fixed seed: bits flipped, bytes set to the values that break lengths, cut short, grown, two files
 * joined.  No mutation needs luck twice: a crash here comes again at the next run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"

#pragma weak LLVMFuzzerCustomMutator /* few targets have one */

enum { INPUT_SIZE_MAX = 1 << 16, INPUT_COUNT_MAX = 1024, RUNS = 5000 };

struct input {
    uint8_t *bytes; /* owned */
    size_t size;
};

static struct input inputs[INPUT_COUNT_MAX];
static size_t input_count;
static uint64_t chance_state = 20240229;

static uint64_t chance(uint64_t bound)
{
    chance_state ^= chance_state << 13; /* xorshift64: Marsaglia 2003 */
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state % bound;
}

static void add_file(const char *path)
{
    FILE *file = fopen(path, "rb");

    if (file == NULL || input_count == INPUT_COUNT_MAX)
        abort();
    inputs[input_count].bytes = malloc(INPUT_SIZE_MAX);
    if (inputs[input_count].bytes == NULL)
        abort();
    inputs[input_count].size = fread(inputs[input_count].bytes, 1, INPUT_SIZE_MAX, file);
    input_count++;
    (void)fclose(file); /* only read */
}

static int compare(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* A folder's files in the order of names, so that a run can be repeated; or a single file. */
static void add_inputs(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, compare);
    char path[4096];

    if (count < 0 && errno == ENOTDIR)
        add_file(folder);
    /* no corpus: mutations start from nothing */
    for (int i = 0; i < count; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            add_file(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static size_t mutate_once(uint8_t *bytes, size_t size)
{
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xfc, 0xfd, 0xfe, 0xff};
    const struct input *other;
    size_t part;

    switch (chance(6)) {
    case 0:
        if (size > 0)
            bytes[chance(size)] ^= (uint8_t)(1U << chance(8));
        return size;
    case 1:
        if (size > 0)
            bytes[chance(size)] = values[chance(sizeof(values))];
        return size;
    case 2:
        return (size_t)chance(size + 1);
    case 3:
        part = (size_t)chance(16) + 1;
        if (size + part > INPUT_SIZE_MAX)
            return size;
        for (size_t i = 0; i < part; i++)
            bytes[size + i] = (uint8_t)chance(256);
        return size + part;
    case 4:
        if (size >= 8)
            memset(bytes + chance(size - 7), chance(2) ? 0xff : 0, 1 + (size_t)chance(8));
        return size;
    default:
        other = &inputs[chance(input_count)];
        part = other->size > 0 ? (size_t)chance(other->size) : 0;
        if (part > size)
            part = size;
        memcpy(bytes, other->bytes, part);
        return size;
    }
}

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t capacity)
{
    static uint8_t room[INPUT_SIZE_MAX];

    memcpy(room, bytes, size);
    size = mutate_once(room, size);
    size = size < capacity ? size : capacity;
    memcpy(bytes, room, size);
    return size;
}

static size_t mutate(uint8_t *bytes, size_t size)
{
    if (LLVMFuzzerCustomMutator != NULL)
        return LLVMFuzzerCustomMutator(bytes, size, INPUT_SIZE_MAX, (unsigned)chance(1U << 31));
    return mutate_once(bytes, size);
}

/* So that the one that breaks something is left behind. */
static void keep(const uint8_t *bytes, size_t size)
{
    const char *path = getenv("HYPERWAL_INPUT");
    FILE *file = path == NULL ? NULL : fopen(path, "wb");

    if (file == NULL)
        return;
    if (fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        abort();
}

/* A copy of exactly this size: a read beyond it is seen by the address sanitizer. */
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);

    if (copy == NULL)
        abort();
    memcpy(copy, bytes, size);
    keep(bytes, size);
    (void)LLVMFuzzerTestOneInput(copy, size); /* always 0 */
    free(copy);
}

int main(int argc, char **argv)
{
    static uint8_t bytes[INPUT_SIZE_MAX];
    long runs = argc > 3 ? strtol(argv[3], NULL, 10) : RUNS;

    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s NAME CORPUS [RUNS]\n", argv[0]);
        return 2;
    }
    add_inputs(argv[2]);
    if (input_count == 0)
        inputs[input_count++] = (struct input){.bytes = calloc(1, INPUT_SIZE_MAX), .size = 64};
    for (size_t i = 0; i < input_count; i++)
        run(inputs[i].bytes, inputs[i].size);
    for (long i = 0; i < runs; i++) {
        const struct input *from = &inputs[chance(input_count)];
        size_t size = from->size;

        memcpy(bytes, from->bytes, size);
        for (uint64_t times = 1 + chance(4); times > 0; times--)
            size = mutate(bytes, size);
        run(bytes, size);
    }
    (void)printf("ok %s bears its corpus of %zu and %ld mutations\n", argv[1], input_count, runs);
    for (size_t i = 0; i < input_count; i++)
        free(inputs[i].bytes);
    return 0;
}
