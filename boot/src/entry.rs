//! The entry code: a Multiboot2 header, a PVH note, and the way from 32-bit protected mode to
//! the first Rust instruction.
//!
//! All of it is a macro that a kernel's own binary expands: a library with `.code32` assembly
//! and fixed low relocations would not link into host tests. `extern` symbols used here come
//! from the linker script of `boot/build`.
//!
//! The early page tables map the first 4 GiB at 0 and its first 2 GiB at −2 GiB, by 2 MiB pages,
//! all rights; [`start`](crate::start()) replaces them. They have four levels. Where the kernel is to have
//! five, `start` calls `__boot_use_five_levels`: the number can be changed only with paging off, hence out of
//! long mode, so the call goes through 32-bit code on the identity map and comes back with one table more
//! on top. To know in the first 32-bit code already would take two parsers of loader structures
//! in assembly.

/// The size of the boot stack of a kernel that says nothing else: 128 KiB, and 512 KiB where nobody optimises, as values that are
/// moved are copied on the stack then. (`mm` takes 112 KiB of it to come up, and 384 KiB.)
pub const DEFAULT_STACK_SIZE: usize = if cfg!(debug_assertions) {
    512 * 1024
} else {
    128 * 1024
};

/// Makes a `bootloader_api` kernel boot by itself, through PVH and Multiboot2.
///
/// To be expanded once, at module level of the kernel's binary, beside
/// `bootloader_api::entry_point!`. It defines the boot headers, the entry code, the boot stack
/// above an unmapped page, and the symbols a kernel without a C library must have: `memcpy`,
/// `memmove`, `memset`, `memcmp`, `bcmp`, `strlen`, `rust_eh_personality`, `_Unwind_Resume`. The
/// panic handler stays the kernel's.
///
/// Options, each at most once, in this order:
///
/// - `memory_map = disjoint` (default): `BootInfo::memory_regions` is what `bootloader_api`
///   promises: sorted, disjoint, page-aligned, and whatever is `Usable` is free.
/// - `memory_map = firmware`: the firmware's regions as they came, even unsorted, overlapping,
///   empty or wrapping (`end < start`), then what `boot` occupies as `Bootloader` regions that
///   overlap them. For kernels that sanitise the map themselves and honour
///   [`reserved_ranges`](crate::reserved_ranges).
/// - `stack_size = N`: bytes of the boot stack, [`DEFAULT_STACK_SIZE`] if not given; at least
///   what the kernel's `BootloaderConfig` asks for.
#[macro_export]
macro_rules! entry {
    () => {
        $crate::entry!(memory_map = disjoint);
    };
    (stack_size = $stack_size:expr) => {
        $crate::entry!(memory_map = disjoint, stack_size = $stack_size);
    };
    (memory_map = $form:ident) => {
        $crate::entry!(memory_map = $form, stack_size = $crate::DEFAULT_STACK_SIZE);
    };
    (memory_map = disjoint, stack_size = $stack_size:expr) => {
        $crate::__boot_entry!(0, $stack_size);
    };
    (memory_map = firmware, stack_size = $stack_size:expr) => {
        $crate::__boot_entry!(1, $stack_size);
    };
}

/// All parts of [`entry!`](crate::entry!).
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_entry {
    ($map_form:literal, $stack_size:expr) => {
        $crate::__boot_headers!();
        $crate::__boot_code!($map_form, $stack_size);
        $crate::__boot_five_levels!();
        $crate::__boot_memory_symbols!("");
        $crate::__boot_unwind_symbols!();
    };
}

/// The two headers that loaders look for.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_headers {
    () => {
        ::core::arch::global_asm!(
            // Xen ELF note 18, PHYS32_ENTRY: a 32-bit physical entry address.
            ".section .note.boot.pvh, \"a\", @note",
            ".balign 4",
            ".long 4",
            ".long 4",
            ".long 18",
            ".asciz \"Xen\"",
            ".balign 4",
            ".long __boot_enter_pvh - 0xffffffff80000000",
            // Multiboot2 header; architecture 0 is 32-bit protected mode of i386.
            ".section .boot.multiboot2, \"a\", @progbits",
            ".balign 8",
            "1: .long 0xe85250d6",
            ".long 0",
            ".long 2f - 1b",
            ".long -(0xe85250d6 + 0 + (2f - 1b))",
            // Entry address.
            ".balign 8",
            ".short 3, 0",
            ".long 12",
            ".long __boot_enter_multiboot2 - 0xffffffff80000000",
            // Framebuffer, optional; no wish for size or depth.
            ".balign 8",
            ".short 5, 1",
            ".long 20",
            ".long 0, 0, 0",
            // Modules are page-aligned.
            ".balign 8",
            ".short 6, 0",
            ".long 8",
            ".balign 8",
            ".short 0, 0",
            ".long 8",
            "2:",
            ".text",
            options(att_syntax),
        );
    };
}

/// The entry code and its data.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_code {
    ($map_form:literal, $stack_size:expr) => {
        ::core::arch::global_asm!(
            ".section .text.boot, \"ax\", @progbits",
            ".code32",
            // ebp: protocol, esi: physical address of what the loader says.
            ".globl __boot_enter_pvh, __boot_enter_multiboot2",
            "__boot_enter_pvh:",
            "movl $1, %ebp",
            "jmp 1f",
            "__boot_enter_multiboot2:",
            "movl $2, %ebp",
            "cmpl $0x36d76289, %eax",
            "je 1f",
            "movl $0, %ebp",
            "1: cli",
            "cld",
            "movl %ebx, %esi",
            // Is there memory under the stack, and up to the end of the image?
            "movl $(__boot_stack_top - 0xffffffff80000000), %esp",
            "movl $(__kernel_end - 0xffffffff80000000), %edi",
            "movl $0x5aa5c33c, %eax",
            "movl %eax, -4(%esp)",
            "movl %eax, -4(%edi)",
            "cmpl %eax, -4(%esp)",
            "jne __boot_no_memory",
            "cmpl %eax, -4(%edi)",
            "jne __boot_no_memory",
            // CPUID exists if the ID flag of EFLAGS can be changed.
            "pushfl",
            "popl %eax",
            "movl %eax, %ecx",
            "xorl $0x200000, %eax",
            "pushl %eax",
            "popfl",
            "pushfl",
            "popl %eax",
            "cmpl %ecx, %eax",
            "je __boot_no_long_mode",
            "movl $0x80000000, %eax",
            "cpuid",
            "cmpl $0x80000001, %eax",
            "jb __boot_no_long_mode",
            "movl $0x80000001, %eax",
            "cpuid",
            "btl $29, %edx",
            "jnc __boot_no_long_mode",
            "btl $20, %edx",
            "jnc __boot_no_nx",
            // Loaders clear .bss by the ELF rules; not all do so on a warm restart.
            "xorl %eax, %eax",
            "movl $(__bss_start - 0xffffffff80000000), %edi",
            "movl $(__bss_end - 0xffffffff80000000), %ecx",
            "subl %edi, %ecx",
            "shrl $2, %ecx",
            "rep stosl",
            // 4 GiB by 2048 pages of 2 MiB: present, writable, large.
            "movl $(__boot_page_directories - 0xffffffff80000000), %edi",
            "movl $0x83, %eax",
            "movl $2048, %ecx",
            "2: movl %eax, (%edi)",
            "addl $0x200000, %eax",
            "addl $8, %edi",
            "loop 2b",
            "movl $(__boot_low_pointers - 0xffffffff80000000), %edi",
            "movl $(__boot_page_directories - 0xffffffff80000000 + 3), %eax",
            "movl %eax, (%edi)",
            "movl %eax, (__boot_high_pointers - 0xffffffff80000000 + 510 * 8)",
            "addl $0x1000, %eax",
            "movl %eax, 8(%edi)",
            "movl %eax, (__boot_high_pointers - 0xffffffff80000000 + 511 * 8)",
            "addl $0x1000, %eax",
            "movl %eax, 16(%edi)",
            "addl $0x1000, %eax",
            "movl %eax, 24(%edi)",
            "movl $(__boot_low_pointers - 0xffffffff80000000 + 3), %eax",
            "movl %eax, (__boot_top_table - 0xffffffff80000000)",
            "movl $(__boot_high_pointers - 0xffffffff80000000 + 3), %eax",
            "movl %eax, (__boot_top_table - 0xffffffff80000000 + 511 * 8)",
            "movl $(__boot_top_table - 0xffffffff80000000), %eax",
            "movl %eax, %cr3",
            // PAE, OSFXSR, OSXMMEXCPT: the precompiled `core` uses SSE. Not LA57, which firmware may have left on: these
            // tables have four levels.
            "movl %cr4, %eax",
            "andl $0xffffefff, %eax",
            "orl $0x620, %eax",
            "movl %eax, %cr4",
            // EFER: LME, NXE.
            "movl $0xc0000080, %ecx",
            "rdmsr",
            "orl $0x900, %eax",
            "wrmsr",
            // CR0: PG, WP, NE, MP, PE; not CD, NW, TS, EM.
            "movl %cr0, %eax",
            "andl $0x9ffffff3, %eax",
            "orl $0x80010023, %eax",
            "movl %eax, %cr0",
            "lgdtl (__boot_gdt_low - 0xffffffff80000000)",
            "ljmpl $0x08, $(__boot_enter_64 - 0xffffffff80000000)",
            "__boot_no_long_mode:",
            "movl $(__boot_text_no_long_mode - 0xffffffff80000000), %esi",
            "movl $0x13, %ebp",
            "jmp 3f",
            "__boot_no_memory:",
            "movl $(__boot_text_no_memory - 0xffffffff80000000), %esi",
            "movl $0x14, %ebp",
            "jmp 3f",
            "__boot_no_nx:",
            "movl $(__boot_text_no_nx - 0xffffffff80000000), %esi",
            "movl $0x13, %ebp",
            "3: lodsb",
            "testb %al, %al",
            "jz 5f",
            "movb %al, %ah",
            "movl $0x10000, %ecx",
            "movw $0x3fd, %dx",
            "4: inb %dx, %al",
            "testb $0x20, %al",
            "loopz 4b",
            "movb %ah, %al",
            "movw $0x3f8, %dx",
            "outb %al, %dx",
            "jmp 3b",
            "5: movl %ebp, %eax",
            "movw $0xf4, %dx",
            "outl %eax, %dx",
            "6: cli",
            "hlt",
            "jmp 6b",
            ".code64",
            "__boot_enter_64:",
            "movw $0x10, %ax",
            "movw %ax, %ds",
            "movw %ax, %es",
            "movw %ax, %ss",
            "xorl %eax, %eax",
            "movw %ax, %fs",
            "movw %ax, %gs",
            "movq $7f, %rax",
            "jmp *%rax",
            "7: movq $__boot_stack_top, %rsp",
            "lgdt __boot_gdt_high(%rip)",
            "movl %ebp, %edi",
            "movl %esi, %esi",
            "leaq __boot_image(%rip), %rdx",
            "xorl %ebp, %ebp",
            "call {start}",
            "ud2",
            ".section .rodata.boot, \"a\", @progbits",
            "__boot_text_no_long_mode:",
            ".asciz \"boot: error: this CPU has no 64-bit mode\\r\\n\"",
            "__boot_text_no_memory:",
            ".asciz \"boot: error: the kernel image reaches beyond memory\\r\\n\"",
            "__boot_text_no_nx:",
            ".asciz \"boot: error: this CPU has no NX (execute disable), or the firmware hides it\\r\\n\"",
            // The layout of `RawImage`.
            ".balign 8",
            "__boot_image:",
            ".quad __kernel_start, __kernel_end",
            ".quad __text_start, __text_end",
            ".quad __rodata_start, __rodata_end",
            ".quad __data_start, __kernel_end",
            ".quad __boot_stack_guard, __boot_stack_bottom, __boot_stack_top",
            ".quad __bootloader_config_start, __bootloader_config_end",
            ".quad _start",
            ".quad __boot_low_pointers",
            ".quad {map_form}",
            ".quad __boot_use_five_levels",
            ".quad __boot_early_tables_start, __boot_early_tables_end",
            // Writable: descriptors are marked accessed already, other kernels may add theirs.
            ".section .data.boot, \"aw\", @progbits",
            ".balign 8",
            "8: .quad 0",
            ".quad 0x00af9b000000ffff",
            ".quad 0x00cf93000000ffff",
            // 32-bit code: the way to five levels.
            ".quad 0x00cf9b000000ffff",
            "9:",
            ".balign 8",
            "__boot_gdt_low: .short 9b - 8b - 1",
            ".long 8b - 0xffffffff80000000",
            ".balign 8",
            "__boot_gdt_high: .short 9b - 8b - 1",
            ".quad 8b",
            ".section .bss.boot, \"aw\", @nobits",
            ".balign 4096",
            ".globl __boot_stack_guard, __boot_stack_bottom, __boot_stack_top",
            "__boot_stack_guard: .skip 4096",
            "__boot_stack_bottom: .skip {stack_size}",
            ".balign 4096",
            "__boot_stack_top:",
            "__boot_early_tables_start:",
            "__boot_root_of_five: .skip 4096",
            "__boot_top_table: .skip 4096",
            "__boot_low_pointers: .skip 4096",
            "__boot_high_pointers: .skip 4096",
            "__boot_page_directories: .skip 4 * 4096",
            "__boot_early_tables_end:",
            ".text",
            start = sym $crate::start,
            map_form = const $map_form,
            stack_size = const $stack_size,
            options(att_syntax),
        );
    };
}

/// The way from four levels of page tables to five: a function without arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! __boot_five_levels {
    () => {
        ::core::arch::global_asm!(
            ".section .text.boot, \"ax\", @progbits",
            ".code64",
            "__boot_use_five_levels:",
            "pushq %rbx",
            "pushq %rbp",
            "pushq %r12",
            "pushq %r13",
            "pushq %r14",
            "pushq %r15",
            // The upper halves of registers do not survive 32-bit code.
            "movq %rsp, __boot_stack_of_caller(%rip)",
            "pushq $0x18",
            "pushq $(1f - 0xffffffff80000000)",
            "lretq",
            ".code32",
            "1: movw $0x10, %ax",
            "movw %ax, %ds",
            "movw %ax, %es",
            "movw %ax, %ss",
            // CR0.PG off: out of long mode. The code lies at the same address with and without paging.
            "movl %cr0, %eax",
            "andl $0x7fffffff, %eax",
            "movl %eax, %cr0",
            // The four-level tables map the lowest and the highest 256 TiB.
            "movl $(__boot_top_table - 0xffffffff80000000 + 3), %eax",
            "movl %eax, (__boot_root_of_five - 0xffffffff80000000)",
            "movl %eax, (__boot_root_of_five - 0xffffffff80000000 + 511 * 8)",
            "movl $(__boot_root_of_five - 0xffffffff80000000), %eax",
            "movl %eax, %cr3",
            // CR4.LA57.
            "movl %cr4, %eax",
            "orl $0x1000, %eax",
            "movl %eax, %cr4",
            // CR0.PG on: EFER.LME is still set.
            "movl %cr0, %eax",
            "orl $0x80000000, %eax",
            "movl %eax, %cr0",
            "lgdtl (__boot_gdt_low - 0xffffffff80000000)",
            "ljmpl $0x08, $(2f - 0xffffffff80000000)",
            ".code64",
            "2: movq $3f, %rax",
            "jmp *%rax",
            "3: lgdt __boot_gdt_high(%rip)",
            "movq __boot_stack_of_caller(%rip), %rsp",
            "popq %r15",
            "popq %r14",
            "popq %r13",
            "popq %r12",
            "popq %rbp",
            "popq %rbx",
            "ret",
            ".section .bss.boot, \"aw\", @nobits",
            ".balign 8",
            "__boot_stack_of_caller: .skip 8",
            ".text",
            options(att_syntax),
        );
    };
}
