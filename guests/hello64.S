/* vmm --binary hello64.bin --entry 0x1000 --mode 64 --console; linked at 0x1000
   expect: COM1 "hello from 64 bits", port 0xe9 "hello, debugger", status 64
   Without --console nobody listens at port 0xe9, and the guest notices: it prints only to COM1. */
    .code64
    .globl _start
_start:
    call where                  /* needs the stack that a flat guest is promised */
where:
    pop %rbx
    mov $0x3f8, %edx
    lea text - where(%rbx), %rsi
    call print
    mov $0xe9, %edx
    in %dx, %al
    cmp $0xe9, %al
    jne done
    lea debug_text - where(%rbx), %rsi
    call print
done:
    mov $64, %al
    out %al, $0xf4
stop:
    hlt
    jmp stop

/* The text at rsi to port dx. */
print:
    lodsb
    test %al, %al
    jz printed
    out %al, %dx
    jmp print
printed:
    ret

text:
    .asciz "hello from 64 bits\n"
debug_text:
    .asciz "hello, debugger\n"
