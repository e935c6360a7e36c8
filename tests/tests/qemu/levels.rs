//! Four levels of page tables and five: which there are, by the CPU and by the command line, and that all goes on as before.

use libtest_mimic::Failed;

use crate::cases::Boot;
use crate::{BOOT_COMMANDS, guest, succeeds_and_says};

/// A machine, and how many levels its kernel has.
pub(crate) struct Levels {
    /// Name of the test, after `levels::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    options: &'static str,
    levels: u8,
}

/// Machines with either number, through each protocol.
pub(crate) const LEVELS: &[Levels] = &[
    four("default_cpu", ""),
    five("max", "--cpu max"),
    four("max_off", "--cpu max --cmdline la57=off"),
    five("max_on", "--cpu max --cmdline 'la57=on loglevel=info'"),
    four("max_without_la57", "--cpu max,la57=off --cmdline la57=on"),
    four(
        "max_off_among_others",
        "--cpu max --cmdline 'loglevel=info la57=off page_owner=on'",
    ),
    five(
        "microvm_max_6G_4_cpus",
        "--machine microvm --cpu max --memory 6G --cpus 4",
    ),
    // Pages of 1 GiB, and a frame table of many tables.
    five("max_64G", "--cpu max --memory 64G --cpus 2"),
    five("max_debug_profile", "--cpu max --profile debug --cpus 2"),
    five("max_unoptimised", "--cpu max --debug"),
    five("max_counting", "--icount"),
    five("max_16_cpus", "--cpu max --cpus 16"),
    four("max_off_16_cpus", "--cpu max --cmdline la57=off --cpus 16"),
    four("default_cpu_16_cpus", "--cpus 16"),
    five("bios_max", "--firmware bios --cpu max --cpus 2"),
    four(
        "bios_max_off",
        "--firmware bios --cpu max --cmdline la57=off --cpus 2",
    ),
    five("uefi_max", "--firmware uefi --cpu max"),
    four(
        "uefi_max_off",
        "--firmware uefi --cpu max --cmdline la57=off",
    ),
];

/// The CPUs on which what page tables forbid is tried on each of 1, 4 and 16: SMAP, SMEP and five levels are there or not.
pub(crate) const FORBIDDING: [(&str, &str); 3] = [
    ("default_cpu", ""),
    ("max", "--cpu max"),
    ("max_la57_off", "--cpu max --cmdline la57=off"),
];

/// Nothing that is forbidden is done on any CPU, and what page tables are for goes on.
pub(crate) fn forbid(options: &str, cpus: u32) -> Result<(), Failed> {
    let options = format!("{options} --cpus {cpus}");
    let commands = "ktest selftest::forbidden::*,memory::vmalloc::*,selftest::stacks::*; ptdump";
    let says = [
        "\nKTEST done ",
        " 0\n---[ direct map ]---\n",
        "; 0 W+X pages, 0 of user code\n",
    ];
    succeeds_and_says(&options, commands, &says)
}

/// Machines on which the example kernel must come up: it does not know of levels.
pub(crate) const EXAMPLES: &[Boot] = &[
    example("q35_max", "--cpu max"),
    example("q35_max_la57_off", "--cpu max --cmdline la57=off"),
    example("pc_bios_max", "--machine pc --firmware bios --cpu max"),
    example(
        "pc_bios_max_la57_off",
        "--machine pc --firmware bios --cpu max --cmdline la57=off",
    ),
];

/// Where five levels reach and four do not, and where neither does.
const BETWEEN: &str = "0xffff7fffffff0000";
const NOWHERE: &str = "0xfeff000000000000";

/// The kernel has as many levels as it should, and says so wherever it says anything about them. The command line has
/// `la57=off` in its commands, where it means nothing.
pub(crate) fn come_up(case: &Levels) -> Result<(), Failed> {
    let commands = format!(
        "cpuinfo; vtop 0xffffffff80200000; explain fault {BETWEEN}; explain fault {NOWHERE}; ptdump vmemmap; \
         echo la57=off ; {BOOT_COMMANDS}; on {} vtop 0xfffffe0000000000",
        case.last_cpu()?
    );
    let levels = case.levels;
    // With the page that guards it.
    let stack = if case.options.contains("--debug") {
        516
    } else {
        132
    };
    let says = [
        format!("x86/mm: page tables of {levels} levels\n"),
        "x86/mm: Checked W+X mappings: passed, no W+X pages found.\n".to_owned(),
        format!("paging   {levels} levels\n"),
        format!("K page tables, 32K early page tables, {stack}K stack\n"),
        "2M page at 0x200000: present, read only, execute, global, WB, accessed".to_owned(),
        format!("not canonical with {levels} levels: any access is a general protection fault\n"),
        "tables, recounted; 0 W+X pages, 0 of user code\n".to_owned(),
        "\nup and running".to_owned(),
        "virtual 0xfffffe0000000000, fixmap\n".to_owned(),
    ];
    let of_five = [
        "virtual 0xffffffff80200000, kernel image\n  PGD  table 0x",
        "It is between the halves of 48 bits",
    ];
    let of_four = ["virtual 0xffffffff80200000, kernel image\n  P4D  table 0x"];
    let more: &[&str] = if levels == 5 { &of_five } else { &of_four };
    let texts: Vec<&str> = says
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    succeeds_and_says(case.options, &commands, &texts)
}

impl Levels {
    /// The number of the last CPU.
    fn last_cpu(&self) -> Result<u32, Failed> {
        let cpus: u32 = guest::options(self.options)?
            .machine
            .cpus
            .to_string()
            .parse()?;
        Ok(cpus - 1)
    }
}

const fn four(name: &'static str, options: &'static str) -> Levels {
    Levels {
        name,
        options,
        levels: 4,
    }
}

const fn five(name: &'static str, options: &'static str) -> Levels {
    Levels {
        name,
        options,
        levels: 5,
    }
}

const fn example(name: &'static str, options: &'static str) -> Boot {
    Boot { name, options }
}
