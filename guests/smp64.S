/* vmm --binary smp64.bin --entry 0x1000 --mode 64 --cpus N; linked at 0x1000
   expect: COM1 "cpus N", status N (N from 1 to 9)

   The BSP wakes all others by INIT-SIPI-SIPI; each comes up in real mode and counts itself under a
   lock. A flat guest has no tables that say how many there are: the BSP waits until the count has
   not grown for SETTLE turns of its loop, each of which leaves the guest, so that the others get to
   run on a host with few CPUs. */
    .set LAPIC, 0xfee00000
    .set ICR, 0x300
    .set TRAMPOLINE, 0x8000     /* the SIPI vector is its page number, 8 */
    .set COUNT, 0x9000
    .set LOCK, 0x9004
    .set SETTLE, 20000

    .code64
    .globl _start
_start:
    cld
    lea ap_start(%rip), %rsi
    mov $TRAMPOLINE, %edi
    mov $(ap_end - ap_start), %ecx
    rep movsb
    movl $1, COUNT              /* the BSP itself */
    movl $0, LOCK

    mov $LAPIC, %ebx
    movl $0x1ff, 0xf0(%rbx)     /* spurious vector register: switch the LAPIC on */
    movl $0xc4500, ICR(%rbx)    /* all but self, assert, INIT */
    call breathe
    movl $0xc4608, ICR(%rbx)    /* all but self, SIPI, page 8 */
    call breathe
    movl $0xc4608, ICR(%rbx)    /* a CPU that is already running ignores the second */

    mov COUNT, %esi
restart:
    mov $SETTLE, %ecx
again:
    in $0x64, %al               /* an exit */
    mov COUNT, %edi
    cmp %edi, %esi
    mov %edi, %esi
    jne restart
    dec %ecx
    jnz again

    lea text(%rip), %rsi
    mov $(end - text), %ecx
    mov $0x3f8, %edx
    rep outsb
    mov %edi, %eax
    add $'0', %al
    out %al, %dx
    mov $'\n', %al
    out %al, %dx
    mov %edi, %eax
    out %al, $0xf4
stop:
    hlt
    jmp stop

/* The pause between INIT and SIPI: 10 ms on old hardware, here any. */
breathe:
    mov $1000, %ecx
1:  in $0x64, %al
    dec %ecx
    jnz 1b
    ret

text:
    .ascii "cpus "
end:

/* Copied to TRAMPOLINE; entered with CS = 0x0800, IP = 0. */
    .code16
ap_start:
    xor %ax, %ax
    mov %ax, %ds
    mov $1, %ax
1:  xchg %ax, LOCK              /* locked by itself: 0 was free, now it is ours */
    test %ax, %ax
    jnz 1b
    incw COUNT                  /* not atomic: the lock is what is tested here */
    movw $0, LOCK
2:  cli
    hlt
    jmp 2b
ap_end:
