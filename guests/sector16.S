/* vmm --bios FIRMWARE --guest sector16.bin; a boot sector and one more, run at 0x7c00
   expect: COM1 "hello from a boot sector" and "the second sector, twice read and once written", status 7

   Reads the second sector by INT 13h in CHS, writes it to the third, and reads that by address (EDD). */
    .set BUFFER, 0x8000
    .code16
    .globl _start
_start:
    ljmp $0, $(0x7c00 + start - _start)
start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    cld
    mov %dl, 0x7c00 + drive - _start
    mov $(0x7c00 + hello - _start), %si
    call print

    mov $0x0201, %ax            /* read one sector: cylinder 0, head 0, sector 2 */
    mov $0x0002, %cx
    mov $0, %dh
    call disk
    mov $0x0301, %ax            /* write it to the next */
    mov $0x0003, %cx
    mov $0, %dh
    call disk
    mov $BUFFER, %di            /* forget it */
    mov $256, %cx
    xor %ax, %ax
    rep stosw
    mov $0x4200, %ax            /* and read it by its address */
    mov $(0x7c00 + packet - _start), %si
    call disk
    mov $BUFFER, %si
    call print
    mov $7, %al
end:
    out %al, $0xf4              /* debug exit: the status */
    hlt
    jmp end

disk:
    mov $BUFFER, %bx
    mov 0x7c00 + drive - _start, %dl
    int $0x13
    mov $1, %al
    jc end
    ret

print:
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  ret

packet:
    .byte 16, 0
    .word 1, BUFFER, 0
    .quad 2
drive:
    .byte 0
hello:
    .asciz "hello from a boot sector\n"
    .org 510
    .word 0xaa55
    .asciz "the second sector, twice read and once written\n"
    .org 2048
