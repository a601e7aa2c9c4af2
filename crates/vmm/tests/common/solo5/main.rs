//! A guest that believes that it runs at privilege level 0, as images of Solo5 do: it loads tables
//! of its own, sets thread-local storage up, says its command line, and then does what the first
//! letter of that says. Its handlers tell of exceptions and halt with 255.

#![no_std]
#![no_main]

use core::arch::global_asm;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

global_asm!(
    r#"
    .section .interp, "a", @progbits
    .asciz "/nonexistent/solo5/"

    .section .note.abi, "a", @note
    .balign 4
    .long 6, 16, 0x31494241
    .asciz "Solo5"
    .balign 4
    .long 1, 2, 0, 0

    .section .note.manifest, "a", @note
    .balign 4
    .long 6, 4 + 8 + 2 * 104, 0x3154464d
    .asciz "Solo5"
    .balign 4
    .long 0
    .long 1, 2
    .fill 68, 1, 0
    .long 1 << 30
    .fill 32, 1, 0
    .asciz "storage"
    .fill 60, 1, 0
    .long 1
    .fill 32, 1, 0

    .text
    .global _start
_start:
    mov r12, rdi
    lgdt [rip + gdt_pointer]
    push 8
    lea rax, [rip + reloaded]
    push rax
    retfq
reloaded:
    mov eax, 16
    mov ss, eax
    mov ds, eax
    mov es, eax
    # The task state segment: stack of the handlers as its second one, and its descriptor.
    lea rax, [rip + handler_stack_end]
    mov [rip + task + 44], rax
    lea rax, [rip + task]
    mov [rip + gdt + 24 + 2], ax
    shr rax, 16
    mov [rip + gdt + 24 + 4], al
    mov [rip + gdt + 24 + 7], ah
    mov eax, 24
    ltr ax
    # A gate for page faults, on that stack.
    lea rax, [rip + page_fault]
    lea rbx, [rip + idt + 14 * 16]
    mov [rbx], ax
    mov word ptr [rbx + 2], 8
    mov word ptr [rbx + 4], 0x8e02
    shr rax, 16
    mov [rbx + 6], eax
    lidt [rip + idt_pointer]
    # Thread-local storage.
    lea rax, [rip + storage]
    xor edx, edx
    mov ecx, 0xc0000100
    wrmsr
    mov rax, qword ptr fs:[0]
    cmp rax, 0x77
    jne failed
    # The command line, and what it says.
    mov rsi, [r12 + 24]
    mov rdi, rsi
length:
    inc rdi
    cmp byte ptr [rdi - 1], 0
    jne length
    dec rdi
    sub rdi, rsi
    call say
    mov rsi, [r12 + 24]
    mov al, [rsi]
    cmp al, 'n'
    je null
    cmp al, 'c'
    je code
    cmp al, 'h'
    je halts
    cmp al, 'd'
    je disk
    cmp al, 'g'
    je foreign
    cmp al, 'r'
    je random
    xor edi, edi
    jmp halt
null:
    mov qword ptr [8], 1
code:
    mov byte ptr [rip + _start], 1
halts:
    cli
    hlt
foreign:
    # A request whose structure is not the guest's.
    mov eax, 0x1000
    mov dx, 0x502
    out dx, eax
failed:
    mov edi, 1
    jmp halt

    # Requests of random words, until one of them is refused. The seed is the clock.
random:
    rdtsc
    shl rdx, 32
    or rax, rdx
    or rax, 1
    mov rbx, rax
    mov r13d, 3000
attack:
    lea rdi, [rip + block]
    mov ecx, 6
next_word:
    call chance
    mov rdx, rax
    mov rax, rbx
    shr rax, 20
    and edx, 3
    jz small_word
    cmp edx, 1
    je close_by
    cmp edx, 2
    je within
    jmp put_word
small_word:
    and eax, 3
    jmp put_word
close_by:
    and eax, 0x1ff
    lea rdx, [rip + sector]
    add rax, rdx
    jmp put_word
within:
    and eax, 0x1fffff
put_word:
    mov [rdi], rax
    add rdi, 8
    dec ecx
    jnz next_word
    call chance
    and eax, 7
    lea edx, [rax + 0x501]
    # To poll for long, or to halt, would be a valid wish.
    cmp edx, 0x503
    jne not_poll
    and qword ptr [rip + block], 0xfff
not_poll:
    cmp edx, 0x508
    je next_request
    lea eax, [rip + block]
    out dx, eax
next_request:
    dec r13d
    jnz attack
    xor edi, edi
    jmp halt
    # Xorshift in rbx; its low bits in rax.
chance:
    mov rax, rbx
    shl rax, 13
    xor rbx, rax
    mov rax, rbx
    shr rax, 7
    xor rbx, rax
    mov rax, rbx
    shl rax, 17
    xor rbx, rax
    mov rax, rbx
    ret

    # Says what the manifest says of the disk, writes a sector, reads it, and compares.
disk:
    mov rax, [r12 + 32]
    cmp byte ptr [rax + 8 + 104 + 96], 1
    jne failed
    cmp qword ptr [rax + 8 + 104 + 72], 8192
    jne failed
    mov rax, 0x1234567890abcdef
    mov [rip + sector], rax
    mov qword ptr [rip + block], 1
    mov qword ptr [rip + block + 8], 512
    lea rax, [rip + sector]
    mov [rip + block + 16], rax
    mov qword ptr [rip + block + 24], 512
    lea eax, [rip + block]
    mov dx, 0x504
    out dx, eax
    mov qword ptr [rip + sector], 0
    lea eax, [rip + block]
    mov dx, 0x505
    out dx, eax
    mov rax, 0x1234567890abcdef
    cmp [rip + sector], rax
    jne failed
    cmp dword ptr [rip + block + 32], 0
    jne failed
    # Beyond the end: an error, not the end of the guest.
    mov qword ptr [rip + block + 8], 8192
    lea eax, [rip + block]
    mov dx, 0x505
    out dx, eax
    cmp dword ptr [rip + block + 32], 2
    jne failed
    xor edi, edi
    jmp halt

    # On entry: error code, rip, cs, flags, rsp, ss.
page_fault:
    mov rbx, cr2
    cmp rbx, 8
    jne failed
    cmp qword ptr [rsp + 16], 8
    jne failed
    lea rsi, [rip + fault_text]
    mov edi, 15
    call say
    # Goes on by iretq, as a handler does that has mended what was wrong.
    lea rax, [rip + mended]
    mov [rsp + 8], rax
    add rsp, 8
    iretq
mended:
    mov edi, 255

halt:
    mov qword ptr [rip + request], 0
    mov [rip + request + 8], edi
    lea eax, [rip + request]
    mov dx, 0x508
    out dx, eax
    ud2

    # Text in rsi, its size in rdi.
say:
    mov [rip + request], rsi
    mov [rip + request + 8], rdi
    lea eax, [rip + request]
    mov dx, 0x502
    out dx, eax
    ret

    .section .rodata
fault_text:
    .ascii "a page fault.\n\n"
gdt_pointer:
    .short 5 * 8 - 1
    .quad gdt
idt_pointer:
    .short 16 * 16 - 1
    .quad idt

    .data
    .balign 16
gdt:
    .quad 0, 0x00af99000000ffff, 0x00cf93000000ffff
    .quad 0x0000890000000068, 0
storage:
    .quad 0x77

    .bss
    .balign 16
idt:
    .fill 16 * 16, 1, 0
task:
    .fill 104, 1, 0
    .balign 16
request:
    .fill 32, 1, 0
block:
    .fill 48, 1, 0
sector:
    .fill 512, 1, 0
    .balign 16
    .fill 1024, 1, 0
handler_stack_end:
"#
);
