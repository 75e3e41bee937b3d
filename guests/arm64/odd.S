/* vmm --binary odd.bin --entry 0x40001000; a load that moves its base along, from a device: hardware
   does not describe that, and nobody emulates it. Ends the VM, status 6. */
.globl _start
_start:
    mov x1, #0x09000000
    ldr w0, [x1], #4
    b .
