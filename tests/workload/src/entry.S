// Where Linux enters a program: the stack pointer is at the number of arguments.

    .global _start
_start:
    mov x29, xzr
    mov x30, xzr
    mov x0, sp
    bl main
    brk #1

// start_sharing(stack's end, function, its argument): starts a process that has this one's memory,
// with clone(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | SIGCHLD). Returns what it returns.
    .global start_sharing
start_sharing:
    mov x9, x1
    mov x10, x2
    mov x1, x0
    mov x0, #0xf11
    mov x2, xzr
    mov x3, xzr
    mov x4, xzr
    mov x8, #220
    svc #0
    cbnz x0, 1f
    mov x29, xzr
    mov x0, x10
    blr x9
    mov x0, xzr
    mov x8, #93
    svc #0
1:  ret
