//! Input that is not what it should be: what must be refused, and what the machine comes up with all the
//! same. Each line is what a user would type after `cargo run --`.

use super::cases::Ending;

/// Input that must be refused.
pub(crate) const REFUSALS: &[Ending] = &[
    usage(
        "unknown_option",
        "--frobnicate",
        "there is no option --frobnicate",
    ),
    usage(
        "unexpected_word",
        "frobnicate",
        "unexpected argument `frobnicate`",
    ),
    usage("nonsense_size", "--memory lots", "not an amount of memory"),
    usage("negative_size", "--memory -1G", "not an amount of memory"),
    usage("size_of_zero", "--memory 0", "needs some memory"),
    usage(
        "size_of_no_whole_pages",
        "--memory 16777217",
        "whole number of 4 KiB pages",
    ),
    usage(
        "size_beyond_52_bits",
        "--memory 5000T",
        "more than the 4096T",
    ),
    usage(
        "size_below_the_kernel",
        "--memory 2M",
        "--memory 2M is too little",
    ),
    usage(
        "size_of_the_bare_image",
        "--memory 5632K",
        "is too little: with --firmware direct it takes ",
    ),
    usage(
        "size_below_grubs_needs",
        "--memory 12M --firmware bios",
        "is too little: with --firmware bios it takes ",
    ),
    usage(
        "unknown_machine",
        "--machine vax",
        "`vax` is not q35, pc or microvm",
    ),
    usage(
        "microvm_under_uefi",
        "--machine microvm --firmware uefi",
        "microvm has no drive",
    ),
    usage(
        "microvm_under_bios",
        "--machine microvm --firmware bios",
        "microvm has no drive",
    ),
    usage(
        "distances_without_nodes",
        "--numa-dist 0,1,31",
        "--numa-dist is between nodes, and there are none",
    ),
    usage(
        "distance_of_a_node_that_is_not_there",
        "--numa 2 --numa-dist 0,5,31",
        "there is no node 5: the 2 nodes are numbered from 0",
    ),
    Ending {
        name: "unknown_command",
        options: "",
        exec: Some("frobnicate"),
        status: 1,
        says: "unknown command `frobnicate`",
    },
    Ending {
        name: "text_added_to_a_file",
        options: "",
        exec: Some("echo 7 >> /sys/kernel/mm/mempolicy/weighted_interleave/node0"),
        status: 1,
        says: "files of /sys are written with `>`, not added to",
    },
    Ending {
        name: "text_written_to_nothing",
        options: "",
        exec: Some("echo 7 >"),
        status: 1,
        says: "expected one file after `>`",
    },
    Ending {
        name: "text_written_without_blanks_to_a_file_that_is_not_there",
        options: "",
        exec: Some("echo 7>FILE"),
        status: 1,
        says: "no such file: FILE",
    },
    Ending {
        name: "failed_command_among_good_ones",
        options: "",
        exec: Some("echo one; frobnicate; echo two"),
        status: 1,
        says: "unknown command `frobnicate`",
    },
    Ending {
        name: "failed_command_before_poweroff",
        options: "",
        exec: Some("frobnicate; poweroff"),
        status: 1,
        says: "Powering off.",
    },
    Ending {
        name: "failed_command_inside_time",
        options: "",
        exec: Some("time frobnicate"),
        status: 1,
        says: "\nfrobnicate: error: unknown command `frobnicate`",
    },
    Ending {
        name: "seed_that_is_no_number",
        options: "--cmdline seed=seven",
        exec: Some("stress 10"),
        status: 1,
        says: "the kernel parameter `seed=seven` is not a number",
    },
    Ending {
        name: "restart_before_the_commands_are_done",
        options: "",
        exec: Some("reboot; echo not reached"),
        status: 105,
        says: "restarted or switched off before the commands were done",
    },
    Ending {
        name: "panic",
        options: "",
        exec: Some("crash panic"),
        status: 101,
        says: "kernel::shell::crash::panic_now (kernel/src/shell/crash.rs:",
    },
    Ending {
        name: "fault",
        options: "",
        exec: Some("crash ud"),
        status: 102,
        says: "kernel::shell::crash::crash (kernel/src/shell/crash.rs:",
    },
    Ending {
        name: "free_page",
        options: "--cmdline 'debug_pagealloc=on page_owner=on'",
        exec: Some("crash page"),
        status: 102,
        says: " is free, and its byte 0x0 was read; kernel/src/memory/pagealloc.rs:",
    },
    Ending {
        name: "free_page_of_the_debug_profile",
        options: "--profile debug --cmdline debug_pagealloc=on",
        exec: Some("crash page"),
        status: 101,
        says: "memory corruption: use after free: frame 0x",
    },
    Ending {
        name: "panic_on_another_cpu",
        options: "--cpus 4",
        exec: Some("on 3 crash panic"),
        status: 101,
        says: "in thread 8 `kworker/3`",
    },
    Ending {
        name: "stack_overflow_on_another_cpu",
        options: "--cpus 2",
        exec: Some("on 1 crash overflow"),
        status: 102,
        says: "KERNEL STACK OVERFLOW: that is the guard page of the thread's stack",
    },
    Ending {
        name: "terminal_locked_by_another_cpu",
        options: "--cpus 2",
        exec: Some("on 1 crash locked"),
        status: 102,
        says: "UNEXPECTED EXCEPTION on CPU 1: #PF page fault",
    },
    Ending {
        name: "panic_on_all_cpus_at_once",
        options: "--cpus 4",
        exec: Some("crash all"),
        status: 101,
        says: "crash panic: on purpose",
    },
    Ending {
        name: "command_on_a_cpu_that_is_not_there",
        options: "--cpus 2",
        exec: Some("on 2 echo"),
        status: 1,
        says: "there is no CPU 2",
    },
    Ending {
        name: "boot_cpu_offline",
        options: "--cpus 2",
        exec: Some("cpu 0 offline"),
        status: 1,
        says: "CPU 0: the boot CPU stays online",
    },
    Ending {
        name: "cpu_offline_from_itself",
        options: "--cpus 2",
        exec: Some("on 1 cpu 1 offline"),
        status: 1,
        says: "CPU 1: something that is bound to it has not finished",
    },
    Ending {
        name: "cpu_without_long_mode",
        options: "--cpu qemu32",
        exec: Some("help"),
        status: 104,
        says: "no 64-bit mode",
    },
    Ending {
        // The kernel comes up all the same, and single pages are not meant.
        name: "requests_that_fail_on_purpose",
        options: "--cpus 2 --cmdline fail_page_alloc=1,100,0,-1",
        exec: Some("alloc 0; alloc 1"),
        status: 1,
        says: "alloc: error: out of memory",
    },
    Ending {
        name: "map_without_usable_memory",
        options: "--cmdline memmap=exactmap",
        exec: Some("help"),
        status: 103,
        says: "leave nothing of the firmware's usable memory",
    },
    Ending {
        name: "too_little_for_the_frame_table",
        options: "--cmdline mem=4M",
        exec: Some("help"),
        status: 103,
        says: "no memory for the frame table",
    },
    Ending {
        name: "elf_loaded_over_a_range_that_is_no_memory",
        // GRUB takes the image's place out of the map that it hands to the kernel.
        options: "--firmware bios --grub-line 'insmod mmap' --grub-line 'cutmem 0x200000 0x280000'",
        exec: Some("help"),
        status: 103,
        says: "was loaded where the firmware reports no memory, at 0x200000",
    },
    Ending {
        name: "ram_past_the_cpus_width",
        options: "--cpu Nehalem,phys-bits=36 --memory 80G",
        exec: Some("help"),
        status: 125,
        says: "phys-bits too low (36)",
    },
    Ending {
        name: "unknown_cpu_model",
        options: "--cpu vax",
        exec: Some("help"),
        status: 125,
        says: "unable to find CPU model 'vax'",
    },
];

/// Values that are not what they should be: told, and the machine comes up all the same.
pub(crate) const ODDITIES: &[Ending] = &[
    odd(
        "mem_that_is_no_size",
        "--cmdline mem=lots",
        "kernel parameter ignored: `lots` is not a size",
    ),
    odd(
        "mem_of_nothing",
        "--cmdline mem=0",
        "kernel parameter ignored: `0`: a size of zero",
    ),
    odd(
        "fail_page_alloc_that_is_no_rule",
        "--cmdline fail_page_alloc=1,5",
        "kernel parameter ignored: `fail_page_alloc=1,5` has no such value",
    ),
    odd(
        "slub_debug_that_traces",
        "--cmdline slub_debug=FZT",
        "kernel parameter ignored: `slub_debug=FZT` has no such value",
    ),
    odd(
        "failslab_that_is_no_rule",
        "--cmdline failslab=1,5",
        "kernel parameter ignored: `failslab=1,5` has no such value",
    ),
    odd(
        "cma_that_is_no_size",
        "--cmdline cma=64Q",
        "kernel parameter ignored: `64Q`: unexpected text behind the number",
    ),
    odd(
        "cma_of_more_than_there_is",
        "--memory 256M --cmdline cma=1G",
        "cma: Failed to reserve 1024 MiB",
    ),
    odd(
        "cma_of_more_than_numbers_go",
        "--cmdline cma=15E",
        "cma: Failed to reserve 16492674416640 MiB",
    ),
    odd(
        "memmap_with_an_unknown_sign",
        "--cmdline memmap=4K?7",
        "kernel parameter ignored: `4K?7`: unexpected text behind the number",
    ),
    odd(
        "memmap_at_no_address",
        "--cmdline memmap=1G@0xzz",
        "kernel parameter ignored: `0xzz` is not a size",
    ),
    odd(
        "memmap_past_the_cpus_width",
        "--cmdline memmap=1G@0x400000000000",
        "beyond the CPU's physical addresses, dropped",
    ),
    odd(
        "memmap_that_the_firmware_does_not_know",
        "--cmdline memmap=1G@0x40000000",
        "[mem 0x0000000040000000-0x000000007fffffff] is not mapped: left out",
    ),
    odd(
        "kernelcore_above_100_per_cent",
        "--cmdline kernelcore=101%",
        "kernel parameter ignored: `101%` is more than 100 per cent",
    ),
    odd(
        "movablecore_below_nothing",
        "--cmdline movablecore=-3",
        "kernel parameter ignored: `-3` is not a size",
    ),
    odd(
        "switch_that_is_neither_on_nor_off",
        "--cmdline init_on_alloc=maybe",
        "kernel parameter ignored: `init_on_alloc=maybe` has no such value",
    ),
    odd(
        "sched_of_another_kind",
        "--cmdline sched=fair",
        "kernel parameter ignored: `sched=fair` has no such value",
    ),
    odd(
        "unknown_parameter",
        "--cmdline frobnicate=1",
        "kernel parameter ignored: `frobnicate` is unknown",
    ),
    odd(
        "loglevel_that_is_none",
        "--cmdline loglevel=loud",
        "kernel parameter ignored: `loglevel=loud` has no such value: off|error|warn|info|debug|trace",
    ),
    odd(
        "kswapd_that_is_neither_on_nor_off",
        "--cmdline kswapd=maybe",
        "kernel parameter ignored: `kswapd=maybe` has no such value: off|on",
    ),
    odd(
        "page_lists_of_no_kind",
        "--cmdline percpu_pagelists",
        "kernel parameter ignored: `percpu_pagelists` needs a value: off|tuned|classic",
    ),
    odd(
        "flag_with_a_value",
        "--cmdline movable_node=1",
        "kernel parameter ignored: `movable_node=1`: write `movable_node` alone",
    ),
    Ending {
        // The tests that it is for say so again.
        name: "seed_that_is_no_number",
        options: "--cmdline seed=x",
        exec: Some("stress 1000"),
        status: 1,
        says: "kernel parameter ignored: `seed=x` is not a number",
    },
];

const fn usage(name: &'static str, options: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: None,
        status: 2,
        says,
    }
}

/// A machine that comes up and says so.
const fn odd(name: &'static str, options: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("stress 1000"),
        status: 0,
        says,
    }
}
