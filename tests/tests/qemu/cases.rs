//! What is booted in QEMU: machines that must come up, input that must be refused, and machines
//! on which the in-kernel tests run. Each line is what a user would type after `cargo run --`.

/// A machine on which the kernel must come up and run commands.
pub(crate) struct Boot {
    /// Name of the test, after `boot::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
}

/// The commands that each of them runs, and what they must print.
pub(crate) const BOOT_COMMANDS: &str =
    "cat /proc/buddyinfo; cat /proc/zoneinfo; stress 2000; echo up and running";
pub(crate) const BOOT_SAYS: &str = "\nup and running";

/// Machines that must come up.
pub(crate) const BOOTS: &[Boot] = &[
    boot("memory_16M", "--memory 16M"),
    boot("memory_64M", "--memory 64M"),
    boot("memory_512M", "--memory 512M"),
    boot("memory_3G", "--memory 3G"),
    boot("memory_4G", "--memory 4G"),
    boot("memory_6G", "--memory 6G"),
    boot("memory_64G", "--memory 64G"),
    boot("cpu_max", "--cpu max"),
    boot("cpu_Nehalem", "--cpu Nehalem"),
    boot("cpus_2", "--cpus 2"),
    boot("counting_instructions", "--icount"),
    boot("unoptimised", "--debug"),
    boot("profile_plain", "--profile plain"),
    boot("pc", "--machine pc"),
    boot("pc_4G", "--machine pc --memory 4G"),
    boot("microvm", "--machine microvm"),
    boot("microvm_4G_max", "--machine microvm --memory 4G --cpu max"),
    boot("q35_bios", "--machine q35 --firmware bios"),
    boot("q35_uefi", "--machine q35 --firmware uefi"),
    boot("q35_uefi_6G", "--machine q35 --firmware uefi --memory 6G"),
    boot("pc_bios", "--machine pc --firmware bios"),
    boot("pc_uefi", "--machine pc --firmware uefi"),
];

/// Machines on which the example kernel must come up.
pub(crate) const EXAMPLE_MACHINES: &[Boot] = &[
    boot("q35", ""),
    boot("microvm_max_6G", "--machine microvm --cpu max --memory 6G"),
    boot("pc_bios_64M", "--machine pc --firmware bios --memory 64M"),
];

/// A boot that must end with a message and a status, not in a hang or a crash.
pub(crate) struct Ending {
    /// Name of the test, after its group's.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
    /// The value of `--exec`; none when the options alone are wrong.
    pub(crate) exec: Option<&'static str>,
    /// The runner's exit status.
    pub(crate) status: u8,
    /// Part of what the user is told.
    pub(crate) says: &'static str,
}

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
        "is too little: with --firmware bios it takes 24M",
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

/// Machines whose memory is used up, and comes back.
pub(crate) const PRESSURES: &[Ending] = &[
    pressure("memory_16M", "--memory 16M"),
    pressure("memory_64M", "--memory 64M"),
    pressure("cpus_2_migrate", "--cpus 2 --cmdline sched=migrate"),
    pressure("cma_64M", "--memory 256M --cmdline cma=64M"),
    // More pages than fit into a list of them.
    pressure("two_nodes_2G", "--cpus 2 --numa 2 --memory 2G"),
];

/// Machines with memory that devices can have in one piece.
pub(crate) const CONTIGUOUS: &[Ending] = &[
    contiguous(
        "too_little_to_lend",
        "--cmdline cma=64M",
        " they would borrow",
    ),
    contiguous("some", "--cmdline cma=64M", "CmaFree:           65536 kB"),
    contiguous("most", "--memory 256M --cmdline cma=160M", "frame 0x"),
    contiguous(
        "on_a_node",
        "--cpus 2 --numa 2 --memory 512M --cmdline cma=50M",
        "cma: Reserved 52 MiB at 0x",
    ),
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

/// Command lines that change what memory there is and how it is divided.
pub(crate) const DIVISIONS: &[Ending] = &[
    division("mem_64M", "--cmdline mem=64M", "K/65144K available"),
    // The last of the 636 KiB is reserved by the firmware, and so not mapped: it is left out.
    division(
        "exactmap_inside_the_firmwares",
        "--cmdline memmap=exactmap,636K@4K,100M@1M",
        "K/103032K available",
    ),
    // Half of 511.9 MiB, and the 256 MiB at the top less the firmware's 128 KiB.
    division(
        "kernelcore_half",
        "--cmdline kernelcore=50%",
        "present  64480",
    ),
    division(
        "movablecore_256M",
        "--cmdline movablecore=256M",
        "present  65504",
    ),
];

/// What is done to pages on their way, on small machines.
pub(crate) const TREATMENTS: &[Treatment] = &[
    treatment("plain", "--profile plain", ""),
    treatment("plain_poison", "--profile plain", "page_poison=1"),
    treatment("none", "", "init_on_alloc=0 init_on_free=0 page_poison=0"),
    treatment("alloc", "", "init_on_alloc=1 init_on_free=0 page_poison=0"),
    treatment("free", "", "init_on_alloc=0 init_on_free=1 page_poison=0"),
    treatment(
        "alloc_free",
        "",
        "init_on_alloc=1 init_on_free=1 page_poison=0",
    ),
    treatment("poison", "", "init_on_alloc=0 init_on_free=0 page_poison=1"),
    treatment(
        "alloc_poison",
        "",
        "init_on_alloc=1 init_on_free=0 page_poison=1",
    ),
    treatment(
        "free_poison",
        "",
        "init_on_alloc=0 init_on_free=1 page_poison=1",
    ),
    treatment(
        "alloc_free_poison",
        "",
        "init_on_alloc=1 init_on_free=1 page_poison=1",
    ),
    treatment("debug", "--profile debug", ""),
    treatment(
        "debug_without_poison",
        "--profile debug",
        "page_poison=0 init_on_free=1",
    ),
];

/// Options of a boot that runs `stress` and the in-kernel tests of memory.
pub(crate) struct Treatment {
    /// Name of the test, after `treatment::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
    /// The kernel's parameters.
    pub(crate) parameters: &'static str,
}

/// Machines whose page allocator must answer as a simulated one with the same free memory.
pub(crate) const REPLAYS: &[Boot] = &[
    boot("memory_64M", "--memory 64M"),
    boot("memory_6G", "--memory 6G"),
    boot(
        "pc_bios_debug",
        "--machine pc --firmware bios --profile debug --memory 96M",
    ),
    // The stacks of further CPUs would leave pageblocks of another type behind.
    boot("two_nodes", "--numa-node 256M,0 --numa-node 256M"),
    boot(
        "three_nodes",
        "--numa-node 96M,0 --numa-node 160M --numa-node 128M",
    ),
];

/// A machine on which every in-kernel test runs.
pub(crate) struct KtestMachine {
    /// Name of the tests, after `ktest::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
}

/// Machines on which every in-kernel test runs. The first one is asked for their names.
pub(crate) const KTEST_MACHINES: &[KtestMachine] = &[
    ktest("q35", ""),
    ktest("pc_Nehalem_64M", "--machine pc --cpu Nehalem --memory 64M"),
    ktest("microvm_max_6G", "--machine microvm --cpu max --memory 6G"),
    ktest("q35_debug_profile", "--profile debug"),
    ktest("q35_uefi_2G", "--firmware uefi --memory 2G"),
    ktest("q35_2_cpus", "--cpus 2"),
    ktest(
        "pc_4_cpus_debug_profile",
        "--machine pc --cpus 4 --profile debug",
    ),
    ktest("q35_4_cpus_migrate", "--cpus 4 --cmdline sched=migrate"),
    ktest("q35_16_cpus", "--cpus 16"),
];

const fn boot(name: &'static str, options: &'static str) -> Boot {
    Boot { name, options }
}

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

const fn pressure(name: &'static str, options: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("oomtest; oomtest; stress 2000"),
        status: 0,
        says: "one that must not fail was served from the reserves",
    }
}

const fn contiguous(name: &'static str, options: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("cat meminfo; cmatest; stress 2000; cmatest; cat zoneinfo"),
        status: 0,
        says,
    }
}

const fn division(name: &'static str, options: &'static str, says: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("cat /proc/zoneinfo; stress 20000"),
        status: 0,
        says,
    }
}

const fn treatment(
    name: &'static str,
    options: &'static str,
    parameters: &'static str,
) -> Treatment {
    Treatment {
        name,
        options,
        parameters,
    }
}

const fn ktest(name: &'static str, options: &'static str) -> KtestMachine {
    KtestMachine { name, options }
}
