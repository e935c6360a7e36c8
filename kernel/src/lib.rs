//! The reference kernel of the `mm` memory core.
//!
//! It boots on x86_64 (PVH or Multiboot2, through the `boot` library), sets the CPU up, and gives
//! a shell on the serial port. Where things are:
//!
//! | Module | What |
//! |---|---|
//! | [`acpi`] | what the firmware says about CPUs and nodes |
//! | [`arch`] | the CPU and the PC: descriptor tables, traps, clock, serial port, exit |
//! | [`console`], [`logger`], [`panic`](mod@panic) | text out: the terminal, the log, last words |
//! | [`heap`] | the memory behind `alloc` |
//! | [`memory`] | the memory core `mm` in this kernel |
//! | [`params`] | the kernel command line |
//! | [`cpus`] | bringing up the other CPUs; commands about them |
//! | [`sched`] | threads |
//! | [`shell`], [`procfs`] | commands and `/proc` files |
//! | `programs` | programs that other people wrote |
//! | [`ktest`](mod@ktest), [`bench`](mod@bench), `selftest` | tests and benchmarks inside the kernel |
//! | `registry` | how commands, files, tests, benchmarks and parameters register |
//!
//! [`kmain`] tells the order of the boot. To add something, write it where it belongs and register
//! it there: [`command!`], [`proc_file!`], [`ktest!`], [`bench!`], [`kernel_param!`].
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod arch;
mod backtrace;
pub mod bench;
pub mod console;
pub mod cpus;
pub mod heap;
pub mod ktest;
pub mod logger;
mod logring;
pub mod memory;
mod num;
pub mod panic;
pub mod params;
pub mod procfs;
mod programs;
mod rate_limit;
mod registry;
pub mod sched;
mod selftest;
pub mod shell;

use arch::exit::Status;
use arch::time::RateSource;
use bootloader_api::BootInfo;
use log::LevelFilter;
use spin::Once;

static BOOT_INFO: Once<&'static BootInfo> = Once::new();

/// What the boot loader handed over, once [`kmain`] has it.
#[must_use]
pub fn boot_info() -> Option<&'static BootInfo> {
    BOOT_INFO.get().copied()
}

/// Boots: from the boot loader's hands to the shell. Runs on the boot loader's stack until the
/// kernel's own is guarded.
///
/// 1. terminal, command line, log: from here on the kernel can say what goes wrong;
/// 2. the boot CPU: features checked, interrupts, clock;
/// 3. guard pages under all stacks, and onto the kernel's own stack;
/// 4. the firmware's tables, memory;
/// 5. threads: from here on this is one, the shell;
/// 6. the other CPUs;
/// 7. shell.
pub fn kmain(boot_info: &'static mut BootInfo, command_line: &'static str) -> ! {
    arch::adopt_boot_cpu();
    let has_terminal = arch::init_terminal();
    params::init(command_line);
    BOOT_INFO.call_once(|| boot_info);

    if let Err(missing) = arch::cpu::check() {
        panic::fatal(Status::CpuUnsupported, format_args!("{missing}"));
    }
    arch::init_boot_cpu();
    let clock = arch::time::calibrate(params::is_set("icount"));
    let level = params::get("loglevel").and_then(|level| level.parse().ok());
    logger::init(level.unwrap_or(LevelFilter::Info));

    log::info!("mm version {}", env!("CARGO_PKG_VERSION"));
    log::info!("Command line: {}", params::line());
    params::warn_refused();
    for warning in boot::warnings() {
        // `boot` has printed them: only the log still needs them.
        logger::remember(format_args!(
            "{} boot: {warning}\n",
            logger::Stamp { ns: 0 }
        ));
    }
    if !has_terminal {
        log::warn!("no serial port answers at COM1: nobody can see this");
    }
    log_clock(clock);
    guard_stacks();
    arch::enter_main_stack(on_main_stack)
}

fn log_clock(source: RateSource) {
    let rate = arch::time::rate().unwrap_or(0);
    match source {
        RateSource::InstructionCount => {
            log::info!("clock: TSC at {rate} Hz, one tick per instruction");
        }
        RateSource::Cpuid => log::info!("clock: TSC at {rate} Hz, from CPUID"),
        RateSource::Pit => log::info!("clock: TSC at {rate} Hz, measured"),
        RateSource::Assumed => log::warn!("clock: TSC assumed to run at {rate} Hz"),
    }
}

fn guard_stacks() {
    let offset = boot_info().and_then(|info| info.physical_memory_offset.as_ref().copied());
    let Some(offset) = offset else {
        log::warn!("physical memory is not mapped: no guard pages under the kernel's stacks");
        return;
    };
    match arch::unmap_guard_pages(offset) {
        Ok(count) => log::info!("stacks: {count}, each above an unmapped guard page"),
        Err(error) => log::warn!("stacks: a guard page stays mapped: {error}"),
    }
}

/// The rest of the boot, on the kernel's own stack.
extern "sysv64" fn on_main_stack(_: *const ()) -> ! {
    log::info!(
        "cpu 0: {} {}",
        arch::cpu::vendor(),
        arch::cpu::model_name().unwrap_or_else(arch::cpu::vendor)
    );
    arch::tlb::log();
    if let Some(info) = boot_info() {
        acpi::init(info);
    }
    memory::bring_up();
    if let Err(error) = sched::init() {
        panic::fatal(Status::Panic, format_args!("no threads: {error}"));
    }
    cpus::bring_up();
    memory::kswapd::start();
    memory::populate::start();
    memory::grace::start();
    match params::get("exec") {
        Some(commands) => shell::execute_and_exit(commands),
        None => shell::interactive(),
    }
}
