//! What is booted in QEMU: machines that must come up, and machines on which the in-kernel tests
//! run. Each line is what a user would type after `cargo run --`.

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
    // What is moved is copied on the stack.
    boot("unoptimised", "--debug"),
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

/// Machines whose memory is used up, and comes back.
pub(crate) const PRESSURES: &[Ending] = &[
    pressure("memory_16M", "--memory 16M"),
    pressure("memory_64M", "--memory 64M"),
    pressure("cpus_2_migrate", "--cpus 2 --cmdline sched=migrate"),
    pressure("cma_64M", "--memory 256M --cmdline cma=64M"),
    // More pages than fit into a list of them.
    pressure("two_nodes_2G", "--cpus 2 --numa 2 --memory 2G"),
];

/// Machines on which objects come and go on all CPUs.
pub(crate) const OBJECTS: &[Ending] = &[
    Ending {
        name: "by_hand",
        options: "--cpus 2",
        exec: Some(
            "kmalloc 100; kmalloc 9000 KERNEL|ZERO; explain kmalloc 300; explain kmalloc 20000; slabtop; \
             slabinfo -v; kfree 1; kfree all; slabinfo kmalloc-512",
        ),
        status: 0,
        says: "52 caches, each slab and each free object: as recorded",
    },
    objects("cpus_4", "--cpus 4 --cmdline seed=4"),
    objects(
        "plain_cpus_4_numa_2",
        "--cpus 4 --numa 2 --memory 1G --profile plain",
    ),
    objects(
        "debug_cpus_4_migrate",
        "--cpus 4 --profile debug --cmdline sched=migrate",
    ),
    objects("64M", "--cpus 4 --memory 64M"),
    damage("damage_plain", "--profile plain"),
    damage("damage_debug", "--profile debug --cpus 2"),
    guard_pool(
        "guard_pool",
        "--cpus 2 --cmdline kfence.sample_interval=100",
    ),
    guard_pool(
        "guard_pool_plain_la57",
        "--profile plain --cpu max --cmdline kfence.sample_interval=10",
    ),
    guard_pool(
        "guard_pool_debug",
        "--profile debug --cpus 2 --cmdline kfence.sample_interval=50",
    ),
    objects(
        "debug_pagealloc_cpus_4",
        "--cpus 4 --memory 256M --cmdline debug_pagealloc=on",
    ),
    objects(
        "debug_pagealloc_debug_max",
        "--cpus 4 --memory 256M --profile debug --cpu max --cmdline debug_pagealloc=on",
    ),
    guard_pool(
        "guard_pool_debug_pagealloc",
        "--cpus 2 --cmdline 'kfence.sample_interval=50 debug_pagealloc=on'",
    ),
    damage("damage_all_caches", "--cmdline slub_debug --memory 256M"),
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
        "--machine pc --firmware bios --profile debug --memory 128M",
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
        "--machine pc --cpus 4 --profile debug --cmdline page_owner=on",
    ),
    ktest(
        "q35_4_cpus_2_nodes_migrate",
        "--cpus 4 --numa 2 --cmdline sched=migrate",
    ),
    ktest("q35_16_cpus", "--cpus 16"),
];

pub(crate) const fn boot(name: &'static str, options: &'static str) -> Boot {
    Boot { name, options }
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

const fn damage(name: &'static str, options: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("slabtest; leaks; stress slab 5000; slabtest"),
        status: 0,
        says: "the cache could not end: 1 objects of cache slabtest have not come back",
    }
}

const fn guard_pool(name: &'static str, options: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("kfencetest; stress slab 20000; kfencetest; kfence; programs 2"),
        status: 0,
        says: "the guard pool found 6 of 6 faults",
    }
}

const fn objects(name: &'static str, options: &'static str) -> Ending {
    Ending {
        name,
        options,
        exec: Some("stress slab --cpus 4 60000; cat slabinfo; stress slab 5000; stress 5000"),
        status: 0,
        says: "stress: no violations, every cache recounted",
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
