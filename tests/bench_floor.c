/* bench_floor.c - the least that anybody can do to get a vCPU running: bare ioctls, no error
   messages, no features. It makes the same KVM objects as `vmm --mem 512M --binary` (VM, in-kernel
   interrupt controllers and PIT, 512 MiB of memory, one vCPU with CPUID), runs one OUT
   instruction, writes one byte to standard output when that has ended the first run, and waits to
   be killed. bench.sh compares the two. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEM = 512 << 20, CPUID_MAX = 256, CODE_AT = 0x1000 };

static struct {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[CPUID_MAX];
} cpuid = {.head.nent = CPUID_MAX};

/* An ioctl that must succeed; the line number is the exit status. */
static int must(int result, int line)
{
    if (result < 0)
        _exit(line & 0x7f);
    return result;
}
#define DO(fd, request, arg) must(ioctl(fd, (int)(request), arg), __LINE__)

static int create_vm(int kvm)
{
    static const unsigned char code[] = {0xba, 0xf8, 0x03, 0xb0, 'x', 0xee, 0xf4};
    uint64_t identity = 0xfeffc000;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int vm = DO(kvm, KVM_CREATE_VM, 0);
    unsigned char *ram =
        mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct kvm_userspace_memory_region slot = {.memory_size = MEM,
                                               .userspace_addr = (uintptr_t)ram};

    DO(vm, KVM_SET_TSS_ADDR, 0xfeffd000);
    DO(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    DO(vm, KVM_CREATE_IRQCHIP, 0);
    DO(vm, KVM_CREATE_PIT2, &pit);
    memcpy(ram + CODE_AT, code, sizeof code);
    DO(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    return vm;
}

static int create_cpu(int kvm, int vm)
{
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
    struct kvm_sregs sregs;
    int cpu = DO(vm, KVM_CREATE_VCPU, 0);

    DO(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
    DO(cpu, KVM_SET_CPUID2, &cpuid);
    DO(cpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    DO(cpu, KVM_SET_SREGS, &sregs);
    DO(cpu, KVM_SET_REGS, &regs);
    return cpu;
}

int main(void)
{
    int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), __LINE__);
    int cpu = create_cpu(kvm, create_vm(kvm));
    int len = DO(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);

    DO(cpu, KVM_RUN, 0);
    if (run->exit_reason != KVM_EXIT_IO)
        return 1;
    if (write(1, (char *)run + run->io.data_offset, 1) != 1)
        return 1;
    for (;;)
        pause();
}
