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

/// Machines whose page allocator must answer as a simulated one with the same free memory.
pub(crate) const REPLAYS: &[Boot] = &[
    boot("memory_64M", "--memory 64M"),
    boot("memory_6G", "--memory 6G"),
    boot(
        "pc_bios_debug",
        "--machine pc --firmware bios --profile debug --memory 96M",
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
];

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
