/* vmm --binary off64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: the end by guest power-off, ACPI S5 in the sleep control register */
    .code64
    .globl _start
_start:
    mov $0x600, %edx
    mov $(5 << 2 | 0x20), %al   /* SLP_TYP 5, SLP_EN */
    out %al, %dx
stop:
    hlt
    jmp stop
