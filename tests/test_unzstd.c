/* test_unzstd.c - disk.h's decoder of zstd, on stored frames and against libzstd   MIT licence, see LICENSE

   test_unzstd              runs the checks
   test_unzstd FILE...      frames made elsewhere: what they hold must be what libzstd says, and both
                            are timed
   Without TEST_LIBZSTD there are only the stored frames, whose sums say what they hold. */
#define _GNU_SOURCE
#define DISK_IMPLEMENTATION
#include "../disk.h"
#include "check.h"

#include <dirent.h>
#include <stdlib.h>
#include <time.h>
#ifdef TEST_LIBZSTD
#include <zstd.h>
#endif

static struct disk_zstd work;

/* >>stored: tests/corpus/unzstd, where good-* is in order, as its name says, and nothing else is */

static uint8_t *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    uint8_t *p = NULL;

    if (f && !fseek(f, 0, SEEK_END) && ftell(f) > 0) {
        *len = (size_t)ftell(f);
        p = malloc(*len);
        rewind(f);
        if (p && fread(p, 1, *len, f) != *len)
            exit(2);
    }
    if (f)
        fclose(f);
    return p;
}

static void test_stored(void)
{
    const char *where = "tests/corpus/unzstd";
    DIR *dir = opendir(where);
    static uint8_t out[1 << 20];
    unsigned good = 0, bad = 0;

    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[512];
        size_t len = 0;
        uint8_t *src;
        int64_t n;
        snprintf(path, sizeof path, "%s/%s", where, e->d_name);
        src = e->d_name[0] == '.' ? NULL : read_file(path, &len);
        if (!src)
            continue;
        n = disk_unzstd(&work, out, sizeof out, src, len);
        if (!CHECK(strncmp(e->d_name, "good-", 5) ? n < 0 : n >= 0))
            fprintf(stderr, "%s: %lld\n", path, (long long)n);
        n >= 0 ? good++ : bad++;
        free(src);
    }
    if (dir)
        closedir(dir);
    CHECK(good >= 8 && bad >= 4);
}

#ifdef TEST_LIBZSTD

/* >>samples */

enum { SAMPLE_MAX = 300000 };

static uint64_t dice_state = 88172645463325252u;

static unsigned dice(unsigned n)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (unsigned)(dice_state >> 33) % n;
}

/* Words that come again, as in text. */
static void make_words(uint8_t *p, size_t len)
{
    static uint8_t word[2000 + 12];

    for (unsigned i = 0; i < sizeof word; i++)
        word[i] = (uint8_t)("etaoin shrdlu.,\nxyz"[dice(1 + dice(19))]);
    for (size_t at = 0; at < len;) {
        unsigned n = 1 + dice(12), w = dice(1 + dice(2000));
        for (unsigned i = 0; i < n && at < len; i++)
            p[at++] = word[w + i];
    }
}

/* The kinds differ in how literals, lengths and offsets are best told. */
static size_t make_sample(uint8_t *p, unsigned kind, size_t len)
{
    size_t at = 0;

    switch (kind) {
    case 0: /* one byte alone, again and again */
        memset(p, 'x', len);
        break;
    case 1: /* nothing to be gained */
        for (; at < len; at++)
            p[at] = (uint8_t)dice(256);
        break;
    case 2: /* literals alone: few bytes, of very different frequency */
        for (; at < len; at++)
            p[at] = (uint8_t)dice(1 + dice(1 + dice(200)));
        break;
    case 3: /* bytes that need few bits, all alike */
        for (; at < len; at++)
            p[at] = (uint8_t)('a' + dice(7));
        break;
    case 4:
        make_words(p, len);
        break;
    case 5: /* short periods, broken now and then */
        for (unsigned period = 1; at < len; at++) {
            p[at] = at < period || !dice(500) ? (uint8_t)dice(256) : p[at - period];
            period = dice(2000) ? period : 1 + dice(40);
        }
        break;
    case 6: /* records with a counter: the last offsets come again */
        for (; at < len; at++)
            p[at] = (uint8_t)(at % 24 < 4   ? at / 24 >> (8 * (at % 24))
                              : at % 24 < 6 ? dice(256)
                                            : 7 * (at % 24));
        break;
    default: /* different ones in turn, so that tables change from block to block */
        for (size_t n; at < len; at += n) {
            n = 1 + dice(60000);
            n = n < len - at ? n : len - at;
            make_sample(p + at, dice(7), n);
        }
    }
    return len;
}

/* >>compare */

static ZSTD_CCtx *packer;
static uint8_t sample[SAMPLE_MAX], expected[SAMPLE_MAX + 64], packed[SAMPLE_MAX * 2];
static unsigned only_lib, only_ours;

/* Exactly sized copies, so that the sanitizer sees a step beyond. */
static int64_t unpack(const uint8_t *src, size_t len, uint8_t **dst, size_t cap)
{
    uint8_t *copy = malloc(len ? len : 1);
    int64_t n;

    *dst = malloc(cap ? cap : 1);
    memcpy(copy, src, len);
    n = disk_unzstd(&work, *dst, cap, copy, len);
    free(copy);
    return n;
}

/* Damaged in a few places. When both take it for good, it means the same to both. */
static void try_damage(size_t len)
{
    static uint8_t hurt[SAMPLE_MAX * 2];
    uint8_t *out;
    size_t lib;
    int64_t n;

    memcpy(hurt, packed, len);
    for (unsigned k = 1 + dice(3); k > 0; k--)
        hurt[4 + dice(dice(2) ? 60 : 1u << 30) % (len - 4)] ^= (uint8_t)(1 + dice(255));
    n = unpack(hurt, len, &out, sizeof expected);
    lib = ZSTD_decompress(expected, sizeof expected, hurt, len);
    if (n >= 0 && !ZSTD_isError(lib))
        CHECK((size_t)n == lib && !memcmp(out, expected, lib));
    only_lib += n < 0 && !ZSTD_isError(lib);
    only_ours += n >= 0 && ZSTD_isError(lib);
    free(out);
}

static void try_frame(size_t len, size_t size, unsigned damages)
{
    uint8_t *out;
    int64_t n = unpack(packed, len, &out, size);

    CHECK_EQ(n, size);
    CHECK(!memcmp(out, sample, size));
    free(out);
    n = unpack(packed, len, &out, size + 100); /* where room behind the end changes the way there */
    CHECK(n == (int64_t)size && !memcmp(out, sample, size));
    free(out);
    if (size) {
        CHECK_EQ(unpack(packed, len, &out, size - 1), -ENOSPC);
        free(out);
    }
    CHECK_EQ(unpack(packed, dice(2) ? len - 1 : dice((unsigned)len), &out, size), -EIO);
    free(out);
    while (damages-- > 0)
        try_damage(len);
}

/* level; and whether sum, length and window are told, and how: by the bits of mood */
static void try_sample(size_t size, int level, unsigned mood, unsigned damages)
{
    ZSTD_inBuffer in = {sample, size, 0};
    ZSTD_outBuffer out = {packed, sizeof packed, 0};

    ZSTD_CCtx_reset(packer, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(packer, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(packer, ZSTD_c_checksumFlag, damages ? mood & 1 : 1);
    ZSTD_CCtx_setParameter(packer, ZSTD_c_contentSizeFlag, mood >> 1 & 1);
    ZSTD_CCtx_setParameter(packer, ZSTD_c_enableLongDistanceMatching, mood >> 2 & 1);
    if (mood & 8)
        ZSTD_CCtx_setParameter(packer, ZSTD_c_windowLog, 10 + (int)dice(10));
    if (mood & 16) /* in pieces of unknown number, as the tool does with its input */
        while (in.pos < in.size) {
            in.size = in.pos + 1 + dice(100000);
            in.size = in.size < size ? in.size : size;
            ZSTD_compressStream2(packer, &out, &in,
                                 in.size < size ? ZSTD_e_flush : ZSTD_e_continue);
            in.size = size;
            if (in.pos == size)
                break;
        }
    if (!CHECK_EQ(ZSTD_compressStream2(packer, &out, &in, ZSTD_e_end), 0))
        return;
    try_frame(out.pos, size, damages);
}

static void test_against_library(void)
{
    packer = ZSTD_createCCtx();
    for (unsigned kind = 0; kind < 8; kind++)
        for (int level = -7; level <= 22; level++) {
            size_t size = make_sample(sample, kind, dice(4) ? dice(3000) : dice(30000));
            try_sample(size, level < 0 ? level * level * level : level, dice(32), 8);
        }
    for (unsigned kind = 2; kind < 8; kind++) /* of several blocks */
        for (int level = 1; level <= 22; level += 7)
            try_sample(make_sample(sample, kind, SAMPLE_MAX - dice(30000)), level, dice(32), 2);
    for (size_t size = 0; size < 40; size++)
        try_sample(make_sample(sample, (unsigned)size % 7, size), 1 + (int)size % 22, dice(32), 4);
    ZSTD_freeCCtx(packer);
    /* libzstd lets streams of literals end early, and refuses large windows and what follows */
    CHECK(only_lib + only_ours < 200);
    printf("damaged frames that only libzstd accepts: %u; that only disk.h accepts: %u\n", only_lib,
           only_ours);
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_file(const char *path)
{
    size_t len = 0, cap = (size_t)1 << 30, lib = 0;
    uint8_t *src = read_file(path, &len), *mine = malloc(cap), *theirs = malloc(cap);
    double best[2] = {1e9, 1e9};
    int64_t n = -1;

    for (int i = 0; i < 5 && src; i++) {
        double t[3] = {seconds()};
        n = disk_unzstd(&work, mine, cap, src, len);
        t[1] = seconds();
        lib = ZSTD_decompress(theirs, cap, src, ZSTD_findFrameCompressedSize(src, len));
        t[2] = seconds();
        for (int k = 0; k < 2; k++)
            best[k] = t[k + 1] - t[k] < best[k] ? t[k + 1] - t[k] : best[k];
    }
    CHECK(src && n >= 0 && (size_t)n == lib && !memcmp(mine, theirs, lib));
    printf("%s: %lld bytes, %.0f and %.0f MB/s\n", path, (long long)n, (double)lib / best[0] / 1e6,
           (double)lib / best[1] / 1e6);
    free(src);
    free(mine);
    free(theirs);
}
#else
static void test_against_library(void)
{
}

static void test_file(const char *path)
{
    (void)path;
}
#endif

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        test_file(argv[i]);
    if (argc < 2) {
        test_stored();
        test_against_library();
    }
    CHECK_DONE("test_unzstd");
}
