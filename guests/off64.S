/* vmm --binary off64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: the end by guest power-off, S5 in ACPI's PM1 control register */
    .code64
    .globl _start
_start:
    mov $0x604, %edx
    mov $0x2000, %ax   /* SLP_TYP 0, SLP_EN */
    out %ax, %dx
stop:
    hlt
    jmp stop
