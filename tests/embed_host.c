/* embed_host.c - host.h as an outsider uses it: the quick start, an echo over a socket */
#define HOST_IMPLEMENTATION
#include "../host.h"
#include <stdio.h>

/* quick start */
// an echo: what comes in goes out again, until the loop has run for 50 ms
static struct host_loop loop;
static struct host_stream console;
static struct host_timer timer;
static size_t echo(void *ctx, const void *buf, size_t len)
{
    return host_stream_write((struct host_stream *)ctx, buf, len);
}
static void done(void *ctx)
{
    host_loop_stop((struct host_loop *)ctx);
}
static int run(const char *spec) // "stdio", "unix:/tmp/console", ...
{
    struct host_stream_desc desc = {&loop, spec, echo, 0, 0, 0, &console, 0};
    if (host_loop_init(&loop, NULL) || host_stream_open(&console, &desc))
        return -1;
    host_timer_set(&loop, &timer, 50000000, done, &loop);
    return host_loop_run(&loop);
}
/* end */

int main(void)
{
    static const char text[] = "echo this";
    char back[sizeof text] = "";
    int sv[2], rc;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) || dup2(sv[1], 0) < 0 || dup2(sv[1], 1) < 0)
        return 2;
    if (write(sv[0], text, sizeof text) != (ssize_t)sizeof text)
        return 2;
    rc = run("stdio");
    host_stream_close(&console);
    host_timer_cancel(&timer);
    host_loop_fini(&loop);
    if (!rc && read(sv[0], back, sizeof back) == (ssize_t)sizeof back && !strcmp(text, back))
        return fprintf(stderr, "embed_host: ok\n"), 0;
    return fprintf(stderr, "embed_host: %d, got '%s'\n", rc, back), 1;
}
