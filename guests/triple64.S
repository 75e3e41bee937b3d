/* vmm --binary triple64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: triple fault: no gate for the invalid opcode, none for the fault that
   follows from it, nor for the double fault */
    .code64
    .globl _start
_start:
    lidt nothing(%rip)
    ud2                         /* rather than int3, which not every software KVM can carry out */
    mov $1, %al                 /* not reached */
    out %al, $0xf4

nothing:
    .word 0                     /* limit 0: not even one gate fits */
    .quad 0
