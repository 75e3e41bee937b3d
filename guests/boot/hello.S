/* A boot sector: prints a line, and who booted it; then echoes keys until q, which switches the machine off (APM). */
    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    cld
    mov %dl, drive
    mov $text, %si
    call print
    mov drive, %al
    call hex
    mov $keys, %si
    call print
next:
    xor %ah, %ah                /* wait for a key */
    int $0x16
    cmp $'q', %al
    je off
    cmp $'\r', %al
    jne 1f
    mov $0x0e0a, %ax
    int $0x10
    mov $'\r', %al
1:  mov $0x0e, %ah
    int $0x10
    jmp next
off:
    mov $0x5301, %ax            /* connect, then off */
    xor %bx, %bx
    int $0x15
    mov $0x5307, %ax
    mov $1, %bx
    mov $3, %cx
    int $0x15
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

hex:                            /* AL */
    push %ax
    shr $4, %al
    call 1f
    pop %ax
1:  and $15, %al
    cmp $10, %al
    sbb $0x69, %al
    das
    mov $0x0e, %ah
    int $0x10
    ret

drive: .byte 0
text:  .asciz "hello from a boot sector, drive "
keys:  .asciz "\r\nkeys are echoed, q switches off\r\n"
    .org 510
    .word 0xaa55
