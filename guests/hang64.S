/* vmm --binary hang64.bin --entry 0x1000 --mode 64 --timeout 1; linked at 0x1000
   expect: "hanging" on COM1, then only the time-out ends it: the guest leaves the CPU by no exit */
    .code64
    .globl _start
_start:
    cli
    lea text(%rip), %rsi
    mov $(end - text), %ecx
    mov $0x3f8, %edx
    cld
    rep outsb
stop:
    jmp stop

text:
    .ascii "hanging\n"
end:
