/* shim_compare.h - what hv_x86.h makes of instructions, told to shim_nvmm.c       MIT licence, see LICENSE

   As VMM_BACKEND it is the backend that SHIM_BACKEND names, unmodified, whose calls of hv_x86.h come by
   here: each access and each end of an instruction is told, to be compared with KVM's own. */
#ifndef SHIM_COMPARE_H
#define SHIM_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

enum shim_kind { SHIM_ACCESS, SHIM_DONE, SHIM_FAULT, SHIM_UNKNOWN }; /* as enum x86_step */

struct shim_step {
    enum shim_kind kind;
    const uint8_t *insn; /* its bytes */
    unsigned len;
    struct shim_access { /* SHIM_ACCESS */
        uint64_t at;     /* guest-physical, or a port */
        unsigned size;
        bool write, port;
        const uint8_t *data; /* what is written */
    } access;
    uint64_t reg[18], cr2; /* afterwards: sixteen as encoded, RIP, RFLAGS */
    uint64_t undefined;    /* bits of RFLAGS that may be either */
    uint64_t count_mask;   /* of rCX, by which it repeats; 0: it does not */
    uint8_t vector;        /* SHIM_FAULT */
    bool has_error;
    uint32_t error;
};

void shim_step(const struct shim_step *s);
void shim_answer(uint8_t data[8]); /* the access was carried out */

#if defined(VMM_IMPLEMENTATION) && defined(SHIM_BACKEND)
#include "../hv_x86.h"

static uint64_t shim__undefined(const struct x86_emul *e)
{
    switch (e->i.op) {
    case X86__AND:
    case X86__OR:
    case X86__XOR:
    case X86__TEST:
        return X86__AF;
    case X86__BT:
    case X86__BTS:
    case X86__BTR:
    case X86__BTC:
        return X86__OF | X86__SF | X86__AF | X86__PF;
    default:
        return 0;
    }
}

static enum x86_step shim__tell(struct x86_emul *e, enum x86_step step)
{
    struct shim_step s = {.kind = (enum shim_kind)step,
                          .insn = e->insn,
                          .len = e->i.at,
                          .access = {.at = e->access.gpa,
                                     .size = e->access.size,
                                     .write = e->access.write,
                                     .port = e->is_port,
                                     .data = e->access.data},
                          .cr2 = e->regs->cr2,
                          .undefined = shim__undefined(e),
                          .count_mask = e->i.rep ? vmm_ones(e->i.asize) : 0,
                          .vector = e->vector,
                          .has_error = e->has_error,
                          .error = e->error};

    _Static_assert((int)SHIM_ACCESS == X86_ACCESS && (int)SHIM_DONE == X86_DONE &&
                       (int)SHIM_FAULT == X86_FAULT && (int)SHIM_UNKNOWN == X86_UNKNOWN,
                   "steps");
    memcpy(s.reg, e->regs->gpr, sizeof e->regs->gpr);
    s.reg[16] = e->regs->rip;
    s.reg[17] = e->regs->rflags;
    shim_step(&s);
    return step;
}

static enum x86_step shim__begin(struct x86_emul *e, const struct vmm_mem *mem,
                                 struct vmm_x86_regs *regs, const uint8_t *bytes, unsigned len)
{
    return shim__tell(e, x86_emul_begin(e, mem, regs, bytes, len));
}

static enum x86_step shim__next(struct x86_emul *e)
{
    shim_answer(e->access.data);
    return shim__tell(e, x86_emul_next(e));
}

#define x86_emul_begin shim__begin
#define x86_emul_next  shim__next
#include SHIM_BACKEND
#endif
#endif
