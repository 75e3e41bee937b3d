/* vmm --binary badinsn64.bin --entry 0x1000 --mode 64; linked at 0x1000
   expect: the hypervisor gives up (KVM internal error): there is no memory where the guest goes on,
   and instructions cannot be fetched from a device */
    .code64
    .globl _start
_start:
    mov $0xe0000000, %eax
    jmp *%rax
