/* vmm --binary halt64.bin --entry 0x1000 --mode 64 --timeout 1; linked at 0x1000
   expect: nothing; halted for good, with interrupts off: the time-out must reach a sleeping vCPU */
    .code64
    .globl _start
_start:
    cli
    hlt
    jmp _start
