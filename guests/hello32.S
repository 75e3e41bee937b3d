/* vmm --binary hello32.bin --entry 0x1000 --mode 32; linked at 0x1000
   expect: COM1 "hello from 32 bits", status 32 */
    .code32
    .globl _start
_start:
    mov $text, %esi
    mov $(end - text), %ecx
    mov $0x3f8, %edx
    cld
    rep outsb                   /* string output: one exit may carry many bytes */
    mov $32, %al
    out %al, $0xf4
stop:
    hlt
    jmp stop

text:
    .ascii "hello from 32 bits\n"
end:
