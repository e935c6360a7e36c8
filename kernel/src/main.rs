//! The reference kernel's binary: the boot entry, and nothing else.
#![no_std]
#![no_main]

use core::fmt::Write;
use core::panic::PanicInfo;

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig, entry_point};
use x86_64::instructions::port::Port;

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(0xffff_8800_0000_0000));
    config
};

boot::entry!();
entry_point!(main, config = &CONFIG);

/// COM1 as `boot` left it.
struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the only user of COM1.
            unsafe { Port::<u8>::new(0x3f8).write(byte) };
        }
        Ok(())
    }
}

fn main(boot_info: &'static mut BootInfo) -> ! {
    let _ = writeln!(Com1, "kernel: {boot_info:#x?}");
    let _ = writeln!(
        Com1,
        "kernel: protocol {:?}",
        boot::handoff().and_then(boot::Handoff::protocol)
    );
    let _ = writeln!(Com1, "kernel: command line {:?}", boot::command_line());
    for range in boot::reserved_ranges() {
        let _ = writeln!(
            Com1,
            "kernel: reserve {:#x}-{:#x} {}",
            range.start,
            range.end,
            range.kind.name()
        );
    }
    exit(0x10)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Com1, "kernel: {info}");
    exit(0x12)
}

fn exit(value: u32) -> ! {
    // SAFETY: QEMU's isa-debug-exit; nothing elsewhere.
    unsafe { Port::<u32>::new(0xf4).write(value) };
    loop {
        x86_64::instructions::hlt();
    }
}
