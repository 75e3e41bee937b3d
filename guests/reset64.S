/* vmm --binary reset64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: the end by guest reset, asked of the keyboard controller */
    .code64
    .globl _start
_start:
    in $0x64, %al
    test $2, %al                /* its input buffer is free? */
    jnz _start
    mov $0xfe, %al
    out %al, $0x64
stop:
    hlt
    jmp stop
