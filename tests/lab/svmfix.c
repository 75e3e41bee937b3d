/* svmfix.c - mends QEMU's SVM for the lab's x86_64 machine: a library for LD_PRELOAD       MIT licence, see LICENSE

   When the machine's KVM injects an interrupt (VMRUN with EVENTINJ), QEMU (as of 7.2 and 10.0) delivers it at once, in
   helper_vmrun, but leaves its vector in exception_index. If nothing else ends this run of the emulated processor before
   its time is up (with -icount a few hundred times a second), the main loop takes that for an exception to be delivered:
   the guest gets the interrupt a second time, whether it has interrupts disabled or not, and now and then spins for ever
   on a lock that the first one holds. Seen in a dump of such a guest: the second frame lay on the first handler's, with
   IF clear.

   The cure is what QEMU does for injected exceptions: leave for the main loop, only with nothing left to deliver. The one
   call in helper_vmrun is led here. Where QEMU does not look like that, nothing is changed. */
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

__attribute__((constructor)) static void mend(void)
{
    uint8_t *vmrun = dlsym(RTLD_DEFAULT, "helper_vmrun"), *call, *to;
    const ElfW(Sym) *symbol = NULL;
    Dl_info info;
    long page = sysconf(_SC_PAGESIZE);

    *(void **)&deliver = dlsym(RTLD_DEFAULT, "do_interrupt_x86_hardirq");
    *(void **)&leave = dlsym(RTLD_DEFAULT, "cpu_loop_exit_noexc");
    *(void **)&cpu_by_index = dlsym(RTLD_DEFAULT, "qemu_get_cpu");
    if (!vmrun || !deliver || !leave || !cpu_by_index || !dladdr1(vmrun, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return;
    call = find_call(vmrun, symbol->st_size, *(void **)&deliver);
    to = call ? trampoline(call) : NULL;
    if (to) {
        int32_t rel = (int32_t)(to - (call + 4));
        uint8_t *start = (uint8_t *)((uintptr_t)call & -(uintptr_t)page);
        if (mprotect(start, 2 * (size_t)page, PROT_READ | PROT_WRITE | PROT_EXEC))
            return;
        memcpy(call, &rel, sizeof rel);
        mprotect(start, 2 * (size_t)page, PROT_READ | PROT_EXEC);
    }
}
