/* fuzz_main.c - replays inputs through a fuzz target without libFuzzer   MIT licence, see LICENSE

   fuzz_x [-r N SEED] PATH...     PATH is a file, or a directory whose files are all replayed.
   With -r, N mutated inputs follow: each is one of the files (or nothing) with a few bytes changed,
   inserted, removed or spliced; the same SEED gives the same inputs. The target must not return
   on a bug: it aborts, so a program that comes back from main has passed. When the environment has
   FUZZ_KEEP set, the input under way is kept in ./fuzz-crash, so that a crash can be replayed. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { MAX_INPUTS = 4096, MAX_LEN = 1 << 20 };

static struct {
    uint8_t *data;
    size_t len;
} inputs[MAX_INPUTS];
static unsigned ninputs;

/* A read error ends the program: a corpus that cannot be read must not count as passed. */
static void fail(const char *path, const char *why)
{
    fprintf(stderr, "fuzz_main: %s: %s\n", path, why);
    exit(2);
}

static void keep(const uint8_t *buf, size_t len)
{
    FILE *f = fopen("fuzz-crash", "wb");

    if (!f || fwrite(buf, 1, len, f) != len)
        fail("fuzz-crash", "cannot be written");
    fclose(f);
}

/* Copies each input to a block of exactly its size, so that a sanitizer sees a read beyond it. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        fail("input", "out of memory");
    if (len)
        memcpy(copy, data, len);
    if (getenv("FUZZ_KEEP"))
        keep(copy, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void add_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *buf = malloc(MAX_LEN);
    size_t len;

    if (!f || !buf)
        fail(path, "cannot be opened");
    if (ninputs == MAX_INPUTS)
        fail(path, "more files than MAX_INPUTS");
    len = fread(buf, 1, MAX_LEN, f);
    if (ferror(f))
        fail(path, "cannot be read");
    fclose(f);
    run(buf, len);
    inputs[ninputs].data = realloc(buf, len ? len : 1);
    if (!inputs[ninputs].data)
        fail(path, "out of memory");
    inputs[ninputs++].len = len;
}

static void add(const char *path)
{
    struct stat st;
    struct dirent **names;
    char child[4096];
    int n;

    if (stat(path, &st))
        fail(path, "does not exist");
    if (!S_ISDIR(st.st_mode)) {
        add_file(path);
        return;
    }
    n = scandir(path, &names, NULL, alphasort); /* sorted: the same order on every machine */
    if (n < 0)
        fail(path, "cannot be listed");
    for (int i = 0; i < n; i++) {
        snprintf(child, sizeof child, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            add(child);
        free(names[i]);
    }
    free(names);
}

static uint64_t rng_state;

/* xorshift64*: good enough, and the same everywhere. A number below n. */
static size_t below(size_t n)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (size_t)((rng_state * 0x2545f4914f6cdd1du >> 11) % (n ? n : 1));
}

static uint8_t interesting(void)
{
    static const uint8_t v[] = {0, 1, 2, 4, 8, 16, 32, 64, 127, 128, 254, 255};
    return below(2) ? v[below(sizeof v)] : (uint8_t)below(256);
}

/* One small change of buf[0..len), which has room for MAX_LEN; returns the new length. */
static size_t mutate(uint8_t *buf, size_t len)
{
    size_t at = below(len + 1), n = 1 + below(8), from, other;

    switch (below(5)) {
    case 0: /* change a byte */
        if (at < len)
            buf[at] = interesting();
        return len;
    case 1: /* flip a bit */
        if (at < len)
            buf[at] ^= (uint8_t)(1 << below(8));
        return len;
    case 2: /* insert bytes */
        if (len + n > MAX_LEN)
            return len;
        memmove(buf + at + n, buf + at, len - at);
        for (size_t i = 0; i < n; i++)
            buf[at + i] = interesting();
        return len + n;
    case 3: /* remove bytes, now and then all the rest */
        n = below(8) ? n : len;
        n = n > len - at ? len - at : n;
        memmove(buf + at, buf + at + n, len - at - n);
        return len - n;
    default: /* go on with a part of another input */
        other = below(ninputs);
        if (!ninputs || !inputs[other].len)
            return len;
        from = below(inputs[other].len);
        n = inputs[other].len - from;
        n = n > MAX_LEN - at ? MAX_LEN - at : n;
        memcpy(buf + at, inputs[other].data + from, n);
        return at + n;
    }
}

static void mutations(unsigned long n)
{
    uint8_t *buf = malloc(MAX_LEN);

    if (!buf)
        fail("input", "out of memory");
    for (unsigned long i = 0; i < n; i++) {
        size_t len = 0, base = below(ninputs);
        if (ninputs) {
            len = inputs[base].len;
            memcpy(buf, inputs[base].data, len);
        }
        for (size_t k = 1 + below(16); k > 0; k--)
            len = mutate(buf, len);
        run(buf, len);
    }
    free(buf);
}

int main(int argc, char **argv)
{
    unsigned long n = 0;
    int arg = 1;

    if (argc > 3 && !strcmp(argv[1], "-r")) {
        n = strtoul(argv[2], NULL, 0);
        rng_state = strtoull(argv[3], NULL, 0);
        arg = 4;
    }
    rng_state = rng_state * 2 + 1; /* never 0, where the generator would stand still */
    for (; arg < argc; arg++)
        add(argv[arg]);
    mutations(n);
    printf("%s: %u inputs, %lu mutations\n", argv[0], ninputs, n);
    for (unsigned i = 0; i < ninputs; i++)
        free(inputs[i].data);
    return 0;
}
