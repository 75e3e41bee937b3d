/* svmfix.c - mends QEMU's SVM for the lab's x86_64 machine: a library for LD_PRELOAD       MIT licence, see LICENSE

   When the machine's KVM injects an interrupt (VMRUN with EVENTINJ), QEMU (as of 7.2 and 10.0) delivers it at once, in
   helper_vmrun, but leaves its vector in exception_index. If nothing else ends this run of the emulated processor before
   its time is up (with -icount a few hundred times a second), the main loop takes that for an exception to be delivered:
   the guest gets the interrupt a second time, whether it has interrupts disabled or not, and now and then spins for ever
   on a lock that the first one holds. Seen in a dump of such a guest: the second frame lay on the first handler's, with
   IF clear.

   The cure is what QEMU does for injected exceptions: leave for the main loop, only with nothing left to deliver. The one
   call in helper_vmrun is led here.

   Beside that, PAUSE gives the processor away as if others waited for it, which costs as much as some thousand
   instructions; a guest that waits in such a loop (udelay, or another CPU's lock) makes the lab crawl. It now only goes
   back to the loop around the processor's own. Where QEMU does not look like that, nothing is changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void (*deliver)(void *env, int vector, int is_hardware);
static void (*leave)(void *cpu);
static void *(*cpu_by_index)(int index);

static void deliver_once(void *env, int vector, int is_hardware)
{
    deliver(env, vector, is_hardware);
    leave(cpu_by_index(0)); /* with -icount, and in the lab anyway, the machine has one processor */
}

/* The operand of the only call of `to` in a function, or NULL. */
static uint8_t *find_call(uint8_t *code, size_t len, const void *to)
{
    uint8_t *found = NULL;

    for (size_t i = 0; len >= 5 && i <= len - 5; i++) {
        int32_t rel;
        memcpy(&rel, code + i + 1, sizeof rel);
        if (code[i] != 0xe8 || code + i + 5 + rel != (const uint8_t *)to)
            continue;
        if (found)
            return NULL;
        found = code + i + 1;
    }
    return found;
}

/* A jump to deliver_once in reach of a call at `near`. */
static uint8_t *trampoline(uint8_t *near)
{
    const uint8_t jump[12] = {0x48, 0xb8, [10] = 0xff, 0xe0}; /* mov $deliver_once, %rax; jmp *%rax */
    uintptr_t target = (uintptr_t)deliver_once;
    uint8_t *page = MAP_FAILED;

    for (uintptr_t at = ((uintptr_t)near & ~0xfffffful) - 0x1000000; page == MAP_FAILED && at > (uintptr_t)near - 0x60000000;
         at -= 0x1000000)
        page = mmap((void *)at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    memcpy(page, jump, sizeof jump);
    memcpy(page + 2, &target, sizeof target);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC) ? NULL : page;
}

/* The one call of `from` in a function goes to `to`, or to a jump to deliver_once (NULL). */
static void redirect(const char *function, const void *from, uint8_t *to)
{
    const ElfW(Sym) *symbol = NULL;
    uint8_t *code = dlsym(RTLD_DEFAULT, function), *call = NULL, *page;
    long len = sysconf(_SC_PAGESIZE);
    Dl_info info;

    if (code && dladdr1(code, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol)
        call = find_call(code, symbol->st_size, from);
    if (call && !to)
        to = trampoline(call);
    page = (uint8_t *)((uintptr_t)call & -(uintptr_t)len);
    if (call && to && !mprotect(page, 2 * (size_t)len, PROT_READ | PROT_WRITE | PROT_EXEC)) {
        int32_t rel = (int32_t)(to - (call + 4));
        memcpy(call, &rel, sizeof rel);
        mprotect(page, 2 * (size_t)len, PROT_READ | PROT_EXEC);
    }
}

__attribute__((constructor)) static void mend(void)
{
    void *interrupt = dlsym(RTLD_DEFAULT, "do_interrupt_x86_hardirq");
    void *exit = dlsym(RTLD_DEFAULT, "cpu_loop_exit"), *clean = dlsym(RTLD_DEFAULT, "cpu_loop_exit_noexc");

    *(void **)&deliver = interrupt;
    *(void **)&leave = clean;
    *(void **)&cpu_by_index = dlsym(RTLD_DEFAULT, "qemu_get_cpu");
    if (!interrupt || !exit || !clean || !cpu_by_index)
        return;
    redirect("helper_vmrun", interrupt, NULL);
    redirect("helper_pause", exit, clean);
}
