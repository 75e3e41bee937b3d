/* minibios.S - vmm's mini BIOS: the last KiB below 1 MiB. MIT licence, see LICENSE

   A write to port N, whatever the value, has the monitor carry out INT N (dev_legacy.h, >>bios): it reads and
   changes registers, the flags that IRET will bring back, and memory. Carry after the write: not done yet, so again;
   with zero: after the next interrupt. Ports 0x1e and 0x1f are a scan code and the power-on self-test.
   dev_legacy.h holds these bytes as pc_bios_rom; guests/bios/embed writes them, and tests/test_bios compares. */
    .code16
    .text
    .globl _start
_start:
    .ascii "vmm mini BIOS 1\0"
    .word post, config

/* Where the monitor starts CPU 0. */
post:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7c00, %sp
    mov %ax, %es
    xor %di, %di
    push %cs
    pop %ds
    mov $256, %cx               /* every vector: nothing */
1:  mov $nothing, %ax
    stosw
    mov %cs, %ax
    stosw
    loop 1b
    mov $vectors, %si
    mov $8 * 4, %di
    mov $(end_of_vectors - vectors) / 2, %cx
1:  movsw
    scasw                       /* past the segment */
    loop 1b
    mov $0x70 * 4, %di
    mov $8, %cl
1:  mov $slave_irq, %ax
    stosw
    scasw
    loop 1b
    movw $diskette, %es:0x1e * 4
    out %al, $0x1f              /* the BIOS data area and its extension */

    mov $0x11, %al              /* 8259s: IRQ 0-7 are vectors 8-15, IRQ 8-15 are 0x70-0x77 */
    out %al, $0x20
    out %al, $0xa0
    mov $8, %al
    out %al, $0x21
    mov $0x70, %al
    out %al, $0xa1
    mov $4, %al
    out %al, $0x21
    mov $2, %al
    out %al, $0xa1
    mov $1, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xf8, %al              /* timer, keyboard, cascade */
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1
    mov $0x36, %al              /* 8254: 18.2 Hz */
    out %al, $0x43
    xor %al, %al
    out %al, $0x40
    out %al, $0x40
    sti
    int $0x19

/* INT 19h: the first sector of the first disk to 0:0x7c00, its number to DL. */
int19:
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7c00, %sp
    mov %ax, %ds
    mov %ax, %es
    out %al, $0x19
    jc 1f
    sti
    ljmp $0, $0x7c00
1:  int $0x18

.macro service n
int\n:
    out %al, $0x\n
    jc 1f
    iret
1:  jnz int\n
    sti
    hlt
    cli
    jmp int\n
.endm
    service 10
    service 11
    service 12
    service 13
    service 14
    service 15
    service 16
    service 17
    service 18
    service 1a

/* IRQ 0: the tick count since midnight, and INT 1Ch for whoever wants it. */
irq0:
    push %ax
    push %dx
    push %ds
    mov $0x40, %ax
    mov %ax, %ds
    incl 0x6c
    cmpl $0x1800b0, 0x6c
    jb 1f
    movl $0, 0x6c
    incb 0x70
1:  int $0x1c
    pop %ds
    pop %dx
    jmp eoi

/* IRQ 1: INT 15h, AH=4Fh may change the scan code, or swallow it by clearing carry. */
irq1:
    push %ax
    in $0x60, %al
    mov $0x4f, %ah
    stc
    int $0x15
    jnc eoi
    out %al, $0x1e
    jmp eoi

slave_irq:
    push %ax
    mov $0x20, %al
    out %al, $0xa0
    jmp 1f
master_irq:
    push %ax
eoi:
    mov $0x20, %al
1:  out %al, $0x20
    pop %ax
nothing:
    iret

/* FFFF:0 resets the machine. */
reset:
    mov $0xcf9, %dx
    mov $6, %al
    out %al, %dx
1:  cli
    hlt
    jmp 1b

    .balign 2
vectors:                        /* from INT 8 */
    .word irq0, irq1, master_irq, master_irq, master_irq, master_irq, master_irq, master_irq
    .word int10, int11, int12, int13, int14, int15, int16, int17, int18, int19, int1a, nothing, nothing
end_of_vectors:
config:                         /* INT 15h, AH=C0h: length, model, submodel, revision, features */
    .word 8
    .byte 0xfc, 0, 0, 0x74, 0, 0, 0, 0 /* two 8259s, clock, INT 15h AH=4Fh, EBDA */
diskette:                       /* INT 1Eh: parameters of a 1.44 MB drive */
    .byte 0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08

    .org 0x3f0
    jmp reset
    .org 0x3f5
    .ascii "11/24/26"
    .byte 0, 0xfc, 0
