#ifndef STUB_NVMM_H
#define STUB_NVMM_H
#include <stdbool.h>
#include <stub.h>

/* Where DragonFly has it. NetBSD 10's, elsewhere, is the same but for what each system's version of the
   interface has; Haiku's, which it does not install, is DragonFly's. */

struct nvmm_vcpu_exit {
    uint64_t reason;
    union {
        struct {
            int prot;
            uint64_t gpa;
            uint8_t inst_len, inst_bytes[15];
        } mem;
        struct {
            bool in;
            uint16_t port;
            int8_t seg;
            uint8_t address_size, operand_size;
            bool rep, str;
            uint64_t npc;
        } io;
        struct {
            uint32_t msr;
            uint64_t val, npc;
        } wrmsr;
    } u;
    struct {
        uint64_t rflags, cr8, bits;
    } exitstate;
};

struct nvmm_vcpu_event {
    unsigned int type;
    uint8_t vector;
    union {
        uint64_t error;
    } u;
};

struct nvmm_x64_state {
    struct {
        uint16_t selector, attrib;
        uint32_t limit;
        uint64_t base;
    } segs[10];
    uint64_t gprs[18], crs[6], drs[6], msrs[11], intr;
    struct {
        uint8_t room[512];
    } __attribute__((aligned(16))) fpu;
};

struct nvmm_vcpu_conf_cpuid {
    uint32_t flags, leaf;
    struct {
        uint32_t eax, ebx, ecx, edx;
    } set, del;
};

struct nvmm_comm_page {
    uint64_t state_wanted, state_cached, state_commit;
    struct nvmm_x64_state state;
    bool event_commit;
    struct nvmm_vcpu_event event;
#if defined(__NetBSD__)
    int stop;
#endif
};

struct nvmm_capability {
    uint32_t version, state_size;
#if !defined(__NetBSD__)
    uint32_t comm_size;
#endif
    uint32_t max_machines, max_vcpus;
    uint64_t max_ram;
    struct {
        uint64_t mach_conf_support, vcpu_conf_support, xcr0_mask;
        uint32_t mxcsr_mask, conf_cpuid_maxops;
        uint64_t rsvd[6];
    } arch;
};

#endif
