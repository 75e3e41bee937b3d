/* embed_disk.c - disk.h as an outsider uses it                     MIT licence, see LICENSE

   Its quick start, over an image in memory. */
#include <stdio.h>

#define DISK_IMPLEMENTATION
#include "../disk.h"

/* quick start */
static uint8_t file[1 << 20];
static int file_rw(void *ctx, bool write, const struct disk_iov *iov, unsigned n, uint64_t off)
{
    (void)ctx;
    for (; n; off += iov->len, iov++, n--) {
        uint8_t *mine = file + off;
        memcpy(write ? mine : iov->base, write ? iov->base : mine, iov->len);
    }
    return 0;
}
static int first_sector(void *sector)
{
    static struct disk_image disk;
    struct disk_desc desc = {.name = "file", .format = DISK_RAW, .read_only = true};
    struct disk_iov iov = {sector, 512};
    desc.store.rw = file_rw;
    desc.store.len = sizeof file;
    int err = disk_open(&disk, &desc);
    if (!err)
        err = disk_read(&disk, &iov, 1, 0);
    disk_close(&disk);
    return err;
}
/* end */

int main(void)
{
    uint8_t sector[512] = {0};
    int err;

    memcpy(file, "hello", 6);
    err = first_sector(sector);
    printf("embed_disk: the first sector says %s\n", (char *)sector);
    return err || strcmp((char *)sector, "hello");
}
