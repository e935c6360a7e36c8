//! The symbols that compiled Rust code expects from a C library.
//!
//! Written in assembly so that the compiler cannot turn a loop into a call of itself. They use
//! SSE, as the precompiled `core` does: blocks of 64 bytes, ends by overlapping moves. `memcpy`
//! is `memmove`, which costs two instructions and forgives overlap.
//!
//! The macros take a prefix for the names, so that host tests can check the same text beside the
//! C library.

/// The symbols, for the kernel's own binary.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_memory_symbols {
    ($prefix:literal) => {
        $crate::__boot_memmove!($prefix);
        $crate::__boot_memset!($prefix);
        $crate::__boot_memcmp!($prefix);
    };
}

/// `memcpy` and `memmove`.
///
/// Up to 64 bytes, everything is loaded before the first store. Above, the end (forwards) or the
/// start (backwards) is loaded before the loop can overwrite it.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_memmove {
    ($prefix:literal) => {
        ::core::arch::global_asm!(
            ".section .text.boot.memmove, \"ax\", @progbits",
            concat!(".globl ", $prefix, "memcpy, ", $prefix, "memmove"),
            concat!(".type ", $prefix, "memcpy, @function"),
            concat!(".type ", $prefix, "memmove, @function"),
            ".balign 16",
            concat!($prefix, "memcpy:"),
            concat!($prefix, "memmove:"),
            "mov rax, rdi",
            "cmp rdx, 16",
            "jb 3f",
            "cmp rdx, 32",
            "ja 2f",
            // 16 to 32 bytes.
            "movups xmm0, [rsi]",
            "movups xmm1, [rsi + rdx - 16]",
            "movups [rdi], xmm0",
            "movups [rdi + rdx - 16], xmm1",
            "ret",
            "2: cmp rdx, 64",
            "ja 6f",
            // 33 to 64 bytes.
            "movups xmm0, [rsi]",
            "movups xmm1, [rsi + 16]",
            "movups xmm2, [rsi + rdx - 32]",
            "movups xmm3, [rsi + rdx - 16]",
            "movups [rdi], xmm0",
            "movups [rdi + 16], xmm1",
            "movups [rdi + rdx - 32], xmm2",
            "movups [rdi + rdx - 16], xmm3",
            "ret",
            // 8 to 15 bytes.
            "3: cmp edx, 8",
            "jb 4f",
            "mov rcx, [rsi]",
            "mov r8, [rsi + rdx - 8]",
            "mov [rdi], rcx",
            "mov [rdi + rdx - 8], r8",
            "ret",
            // 4 to 7 bytes.
            "4: cmp edx, 4",
            "jb 5f",
            "mov ecx, [rsi]",
            "mov r8d, [rsi + rdx - 4]",
            "mov [rdi], ecx",
            "mov [rdi + rdx - 4], r8d",
            "ret",
            // 0 to 3 bytes: first, middle, last.
            "5: test edx, edx",
            "jz 5f",
            "mov r10, rdx",
            "shr r10, 1",
            "movzx ecx, byte ptr [rsi]",
            "movzx r8d, byte ptr [rsi + r10]",
            "movzx r9d, byte ptr [rsi + rdx - 1]",
            "mov [rdi], cl",
            "mov [rdi + r10], r8b",
            "mov [rdi + rdx - 1], r9b",
            "5: ret",
            // Above 64 bytes: backwards where the destination starts inside the source.
            "6: mov rcx, rdi",
            "sub rcx, rsi",
            "cmp rcx, rdx",
            "jb 8f",
            "movups xmm4, [rsi + rdx - 64]",
            "movups xmm5, [rsi + rdx - 48]",
            "movups xmm6, [rsi + rdx - 32]",
            "movups xmm7, [rsi + rdx - 16]",
            "lea r8, [rdi + rdx - 64]",
            "7: movups xmm0, [rsi]",
            "movups xmm1, [rsi + 16]",
            "movups xmm2, [rsi + 32]",
            "movups xmm3, [rsi + 48]",
            "movups [rdi], xmm0",
            "movups [rdi + 16], xmm1",
            "movups [rdi + 32], xmm2",
            "movups [rdi + 48], xmm3",
            "add rsi, 64",
            "add rdi, 64",
            "cmp rdi, r8",
            "jb 7b",
            "movups [r8], xmm4",
            "movups [r8 + 16], xmm5",
            "movups [r8 + 32], xmm6",
            "movups [r8 + 48], xmm7",
            "ret",
            "8: movups xmm4, [rsi]",
            "movups xmm5, [rsi + 16]",
            "movups xmm6, [rsi + 32]",
            "movups xmm7, [rsi + 48]",
            "9: movups xmm0, [rsi + rdx - 64]",
            "movups xmm1, [rsi + rdx - 48]",
            "movups xmm2, [rsi + rdx - 32]",
            "movups xmm3, [rsi + rdx - 16]",
            "movups [rdi + rdx - 64], xmm0",
            "movups [rdi + rdx - 48], xmm1",
            "movups [rdi + rdx - 32], xmm2",
            "movups [rdi + rdx - 16], xmm3",
            "sub rdx, 64",
            "cmp rdx, 64",
            "ja 9b",
            "movups [rdi], xmm4",
            "movups [rdi + 16], xmm5",
            "movups [rdi + 32], xmm6",
            "movups [rdi + 48], xmm7",
            "ret",
            ".text",
        );
    };
}

/// `memset`.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_memset {
    ($prefix:literal) => {
        ::core::arch::global_asm!(
            ".section .text.boot.memset, \"ax\", @progbits",
            concat!(".globl ", $prefix, "memset"),
            concat!(".type ", $prefix, "memset, @function"),
            ".balign 16",
            concat!($prefix, "memset:"),
            "mov rax, rdi",
            "movzx esi, sil",
            "movabs rcx, 0x0101010101010101",
            "imul rcx, rsi",
            "cmp rdx, 16",
            "jb 4f",
            "movq xmm0, rcx",
            "punpcklqdq xmm0, xmm0",
            "lea r8, [rdi + rdx - 16]",
            "cmp rdx, 64",
            "jb 3f",
            "lea r9, [rdi + rdx - 64]",
            "2: movups [rdi], xmm0",
            "movups [rdi + 16], xmm0",
            "movups [rdi + 32], xmm0",
            "movups [rdi + 48], xmm0",
            "add rdi, 64",
            "cmp rdi, r9",
            "jbe 2b",
            // Up to 64 bytes are left, and at least 16 are behind: r8 never lies below the start.
            "cmp rdi, r8",
            "jae 5f",
            "3: movups [rdi], xmm0",
            "add rdi, 16",
            "cmp rdi, r8",
            "jb 3b",
            "5: movups [r8], xmm0",
            "ret",
            "4: cmp edx, 8",
            "jb 6f",
            "mov [rdi], rcx",
            "mov [rdi + rdx - 8], rcx",
            "ret",
            "6: cmp edx, 4",
            "jb 7f",
            "mov [rdi], ecx",
            "mov [rdi + rdx - 4], ecx",
            "ret",
            "7: test edx, edx",
            "jz 8f",
            "mov [rdi], cl",
            "mov [rdi + rdx - 1], cl",
            "shr edx, 1",
            "mov [rdi + rdx], cl",
            "8: ret",
            ".text",
        );
    };
}

/// `memcmp`, `bcmp` and `strlen`.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_memcmp {
    ($prefix:literal) => {
        ::core::arch::global_asm!(
            ".section .text.boot.memcmp, \"ax\", @progbits",
            concat!(".globl ", $prefix, "memcmp, ", $prefix, "bcmp"),
            concat!(".type ", $prefix, "memcmp, @function"),
            concat!(".type ", $prefix, "bcmp, @function"),
            ".balign 16",
            concat!($prefix, "memcmp:"),
            concat!($prefix, "bcmp:"),
            "cmp rdx, 8",
            "jb 4f",
            "lea r8, [rdx - 8]",
            "xor ecx, ecx",
            // Eight bytes at a time; the last eight may overlap those before.
            "2: mov rax, [rdi + rcx]",
            "mov r9, [rsi + rcx]",
            "cmp rax, r9",
            "jne 3f",
            "add rcx, 8",
            "cmp rcx, r8",
            "jbe 2b",
            "cmp rcx, rdx",
            "je 6f",
            "mov rcx, r8",
            "jmp 2b",
            // The lowest address decides: compare as big-endian.
            "3: bswap rax",
            "bswap r9",
            "cmp rax, r9",
            "sbb eax, eax",
            "or eax, 1",
            "ret",
            "4: xor ecx, ecx",
            "5: cmp rcx, rdx",
            "je 6f",
            "movzx eax, byte ptr [rdi + rcx]",
            "movzx r9d, byte ptr [rsi + rcx]",
            "inc rcx",
            "sub eax, r9d",
            "jz 5b",
            "ret",
            "6: xor eax, eax",
            "ret",
            concat!(".globl ", $prefix, "strlen"),
            concat!(".type ", $prefix, "strlen, @function"),
            ".balign 16",
            concat!($prefix, "strlen:"),
            "xor eax, eax",
            "2: cmp byte ptr [rdi + rax], 0",
            "je 3f",
            "inc rax",
            "jmp 2b",
            "3: ret",
            ".text",
        );
    };
}

/// What the precompiled `core` refers to for unwinding, which never happens (`panic = "abort"`).
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_unwind_symbols {
    () => {
        ::core::arch::global_asm!(
            ".section .text.boot.unwind, \"ax\", @progbits",
            ".globl rust_eh_personality, _Unwind_Resume",
            ".type rust_eh_personality, @function",
            ".type _Unwind_Resume, @function",
            "rust_eh_personality:",
            "_Unwind_Resume:",
            "ud2",
            ".text",
        );
    };
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests;
