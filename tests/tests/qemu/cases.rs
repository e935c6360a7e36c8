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

/// Boots whose output tells how the CPUs came up.
pub(crate) struct Cpus {
    /// Name of the test, after `cpus::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
    /// The commands.
    pub(crate) commands: &'static str,
    /// Lines that must be printed.
    pub(crate) says: &'static [&'static str],
}

/// Machines with so and so many CPUs, all of which work at once.
pub(crate) const CPUS: &[Cpus] = &[
    cpus(
        "one",
        "--cpus 1",
        "cpus; stress 10000",
        &["1 CPUs online", "stress: no violations"],
    ),
    cpus(
        "two_on_pc",
        "--cpus 2 --machine pc",
        "cpus; stress --cpus 2 20000",
        &["2 CPUs online", "stress: no violations"],
    ),
    cpus(
        "four_on_microvm",
        "--cpus 4 --machine microvm --memory 128M",
        "cpus; stress --cpus 4 40000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        "four_under_uefi",
        "--cpus 4 --firmware uefi --memory 1G",
        "cpus; stress --cpus 4 20000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        "sixty_four",
        "--cpus 64",
        "cpus; stress --cpus 64 32000",
        &["64 CPUs online", "stress: no violations"],
    ),
    cpus(
        "counting_instructions",
        "--cpus 4 --icount",
        "cpus; stress --cpus 4 4000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        "one_does_not_answer",
        "--cpus 4 --cmdline deaf=2",
        "cpus; on 2 echo third of three; stress --cpus 3 3000",
        &[
            "-     2  does not answer",
            "3 CPUs online",
            "third of three",
            "stress: no violations",
        ],
    ),
    cpus(
        "some_left_out",
        "--cpus 4 --cmdline maxcpus=2",
        "cpus",
        &["-     3  left out", "2 CPUs online"],
    ),
    cpus(
        "some_not_there_yet",
        "--qemu-arg -smp --qemu-arg 2,maxcpus=4",
        "cpus",
        &["-     3  disabled by the firmware", "2 CPUs online"],
    ),
];

/// Input that must end in a message and a status, not in a hang or a crash.
pub(crate) struct Refusal {
    /// Name of the test, after `bad_input::`.
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
pub(crate) const REFUSALS: &[Refusal] = &[
    usage(
        "unknown_option",
        "--frobnicate",
        "there is no option --frobnicate",
    ),
    usage(
        "unknown_subcommand",
        "frobnicate",
        "neither an option nor a command",
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
    Refusal {
        name: "unknown_command",
        options: "",
        exec: Some("frobnicate"),
        status: 1,
        says: "unknown command `frobnicate`",
    },
    Refusal {
        name: "failed_command_among_good_ones",
        options: "",
        exec: Some("echo one; frobnicate; echo two"),
        status: 1,
        says: "unknown command `frobnicate`",
    },
    Refusal {
        name: "panic",
        options: "",
        exec: Some("crash panic"),
        status: 101,
        says: "kernel::shell::crash::panic_now (kernel/src/shell/crash.rs:",
    },
    Refusal {
        name: "fault",
        options: "",
        exec: Some("crash ud"),
        status: 102,
        says: "kernel::shell::crash::crash (kernel/src/shell/crash.rs:",
    },
    Refusal {
        name: "panic_on_another_cpu",
        options: "--cpus 4",
        exec: Some("on 3 crash panic"),
        status: 101,
        says: "PANIC on CPU 3: crash panic",
    },
    Refusal {
        name: "stack_overflow_on_another_cpu",
        options: "--cpus 2",
        exec: Some("on 1 crash overflow"),
        status: 102,
        says: "KERNEL STACK OVERFLOW: that is the guard page of the main stack",
    },
    Refusal {
        name: "terminal_locked_by_another_cpu",
        options: "--cpus 2",
        exec: Some("on 1 crash locked"),
        status: 102,
        says: "UNEXPECTED EXCEPTION on CPU 1: #PF page fault",
    },
    Refusal {
        name: "panic_on_all_cpus_at_once",
        options: "--cpus 4",
        exec: Some("crash all"),
        status: 101,
        says: "crash panic: on purpose",
    },
    Refusal {
        name: "command_on_a_cpu_that_is_not_there",
        options: "--cpus 2",
        exec: Some("on 2 echo"),
        status: 1,
        says: "there is no CPU 2",
    },
    Refusal {
        name: "cpu_without_long_mode",
        options: "--cpu qemu32",
        exec: Some("help"),
        status: 104,
        says: "no 64-bit mode",
    },
    Refusal {
        name: "unknown_cpu_model",
        options: "--cpu vax",
        exec: Some("help"),
        status: 125,
        says: "unable to find CPU model 'vax'",
    },
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
    ktest("q35_64_cpus", "--cpus 64"),
];

const fn cpus(
    name: &'static str,
    options: &'static str,
    commands: &'static str,
    says: &'static [&'static str],
) -> Cpus {
    Cpus {
        name,
        options,
        commands,
        says,
    }
}

const fn boot(name: &'static str, options: &'static str) -> Boot {
    Boot { name, options }
}

const fn usage(name: &'static str, options: &'static str, says: &'static str) -> Refusal {
    Refusal {
        name,
        options,
        exec: None,
        status: 2,
        says,
    }
}

const fn ktest(name: &'static str, options: &'static str) -> KtestMachine {
    KtestMachine { name, options }
}
