/* A boot sector that reads the disk it came from: sector 2 by cylinder, head and sector, sector 3 by packet, and writes
   what it read second to sector 4. What it read is text, which it prints. */
    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    cld
    mov %dl, drive

    mov $0x0201, %ax            /* one sector: cylinder 0, head 0, sector 2, to 0:0x8000 */
    mov $0x8000, %bx
    mov $2, %cx
    xor %dh, %dh
    int $0x13
    jc failed
    mov $0x8000, %si
    call print

    mov $0x41, %ah              /* are there services by packet? */
    mov $0x55aa, %bx
    mov drive, %dl
    int $0x13
    jc failed
    cmp $0xaa55, %bx
    jne failed
    mov $packet, %si
    mov $0x42, %ah
    mov drive, %dl
    int $0x13
    jc failed
    mov $0x9000, %si
    call print

    movl $3, packet + 8
    mov $packet, %si
    mov $0x4300, %ax
    mov drive, %dl
    int $0x13
    jc failed

    mov $0x48, %ah              /* how large is it? */
    mov $parameters, %si
    mov drive, %dl
    int $0x13
    jc failed
    mov parameters + 16, %al    /* sectors: the exit status */
    out %al, $0xf4
failed:
    mov $text, %si
    call print
    mov $1, %al
    out %al, $0xf4
    hlt

print:
    lodsb
    test %al, %al
    jz 1f
    mov $0x0e, %ah
    mov $7, %bx
    int $0x10
    jmp print
1:  ret

drive: .byte 0
text:  .asciz "the BIOS refused\r\n"
    .balign 4
packet:                         /* one sector from 2, which is the third, to 0:0x9000 */
    .byte 16, 0
    .word 1, 0x9000, 0
    .quad 2
parameters:
    .word 26
    .org 510
    .word 0xaa55
    .asciz "read by cylinder, head and sector\r\n"
    .org 1024
    .asciz "read by packet\r\n"
    .org 5 * 512
