/* vmm --binary hello16.bin --entry 0x1000 --mode 16; linked at 0x1000
   expect: COM1 "hello from 16 bits", status 16 */
    .code16
    .globl _start
_start:
    xor %ax, %ax                /* real mode: segment 0 reaches everything that is linked here */
    mov %ax, %ds
    mov $text, %si
    mov $0x3f8, %dx
    cld
next:
    lodsb
    test %al, %al
    jz done
    out %al, %dx
    jmp next
done:
    mov $16, %al
    out %al, $0xf4              /* debug exit: the status */
stop:
    hlt
    jmp stop

text:
    .asciz "hello from 16 bits\n"
