/* A boot sector that lists the memory map (INT 15h, AX=E820h), then goes to 32-bit protected mode and says so on COM1. */
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
    mov $0x2401, %ax            /* A20 */
    int $0x15
    jc failed
    xor %ebx, %ebx
next:
    mov $0xe820, %eax
    mov $0x534d4150, %edx
    mov $24, %ecx
    mov $0x8000, %di
    int $0x15
    jc failed
    cmp $0x534d4150, %eax
    jne failed
    push %ebx
    mov 0x8000 + 4, %eax
    call number
    mov 0x8000, %eax
    call number
    mov 0x8000 + 12, %eax
    call number
    mov 0x8000 + 8, %eax
    call number
    mov 0x8000 + 16, %eax
    call number
    mov $'\r', %al
    call char
    mov $'\n', %al
    call char
    pop %ebx
    test %ebx, %ebx
    jnz next

    cli
    lgdt gdtr
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmp $8, $protected
failed:
    mov $1, %al
    out %al, $0xf4
    hlt

number:                         /* EAX */
    mov $8, %cx
1:  rol $4, %eax
    push %eax
    and $15, %al
    cmp $10, %al
    sbb $0x69, %al
    das
    call char
    pop %eax
    loop 1b
    mov $' ', %al
char:
    pusha
    mov $0x0e, %ah
    mov $7, %bx
    int $0x10
    popa
    ret

    .code32
protected:
    mov $16, %ax
    mov %ax, %ds
    mov $text, %esi
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  mov $32, %al
    out %al, $0xf4
    hlt

text: .asciz "protected mode\n"
    .balign 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:
    .word 23
    .long gdt
    .org 510
    .word 0xaa55
