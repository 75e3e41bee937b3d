/* fuzz_unzstd.c - disk.h's decoder of zstd on any input; room for the output is scarce at times   MIT licence, see LICENSE */
#define DISK_IMPLEMENTATION
#include "../disk.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct disk_zstd work;
    size_t cap = len % 3 ? (size_t)1 << 20 : len;
    uint8_t *dst = malloc(cap ? cap : 1);
    int64_t n = dst ? disk_unzstd(&work, dst, cap, data, len) : 0;

    if (n > (int64_t)cap || (n < 0 && n != -EIO && n != -ENOSPC))
        abort();
    free(dst);
    return 0;
}
