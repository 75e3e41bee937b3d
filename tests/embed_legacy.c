/* embed_legacy.c - dev_legacy.h as an outsider uses it: declarations first, then the
   implementation, and the doc block's quick start verbatim. MIT licence, see LICENSE */
#include "../dev_legacy.h"
#include <stdio.h>
#define DEV_LEGACY_IMPLEMENTATION
#include "../dev_legacy.h"

/* quick start */
static size_t put(void *ctx, const void *buf, size_t len)
{
    return fwrite(buf, 1, len, (FILE *)ctx);
}
static int com1_says_a(FILE *f)
{
    struct pc_uart com1;
    struct pc_uart_desc desc = {.out = {.write = put, .ctx = f}};
    struct vmm_io io = {0x3f8, 8, pc_uart_read, pc_uart_write, &com1, {0}};
    struct vmm_bus ports = {0};
    uint64_t val = 'A';

    pc_uart_init(&com1, &desc);
    vmm_bus_add(&ports, &io);
    return vmm_bus_access(&ports, 0x3f8, 1, true, &val) ? 0 : 1;
}
/* end */

int main(void)
{
    FILE *f = tmpfile();
    int failed = !f || com1_says_a(f) || fseek(f, 0, SEEK_SET) || getc(f) != 'A' || getc(f) != EOF;

    printf("embed_legacy: %s\n", failed ? "failed" : "ok");
    return failed;
}
