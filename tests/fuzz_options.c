/* fuzz_options.c - the option parser of vmm.c: words separated by newlines  MIT licence, see LICENSE */
#define VMM_NO_MAIN
#define VMM_BACKEND "tests/hv_fake.h"
#include "../vmm.c"

static unsigned sentences;

static void count(void *ctx, enum vmm_level level, const char *fmt, va_list args)
{
    char buf[256];

    (void)ctx;
    (void)level;
    sentences++;
    vsnprintf(buf, sizeof buf, fmt, args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1), *argv[34] = {"vmm"}, *p = text;
    int argc = 1, err;
    struct config c;

    if (!text)
        return 0;
    if (len)
        memcpy(text, data, len);
    text[len] = 0;
    while (*p && argc < 33) {
        argv[argc++] = p;
        p += strcspn(p, "\n");
        if (*p)
            *p++ = 0;
    }
    config_init(&c);
    c.log.sink = count;
    sentences = 0;
    err = config_parse(&c, argc, argv);
    /* either it is understood, silently, or refused in one sentence; --log none hears nothing */
    if (!err && c.command == CMD_RUN) {
        char *line = NULL;
        static struct vm vm_stub; /* some MiB */
        memset(&vm_stub, 0, offsetof(struct vm, slot));
        vm_stub.nslots = 3;
        vm_stub.cfg = &c;
        line = make_cmdline(&vm_stub);
        if (!line || c.mem < MEM_MIN || c.mem > MEM_MAX || !c.ncpus || c.ncpus > 1024)
            abort();
        free(line);
    }
    if (!err ? sentences != 0 : sentences > 1)
        abort();
    config_free(&c);
    free(text);
    return 0;
}
