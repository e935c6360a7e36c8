//! The reference kernel's binary: the boot entry and the panic handler, and nothing else.
#![no_std]
#![no_main]

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig, entry_point};
use core::panic::PanicInfo;

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(0xffff_8800_0000_0000));
    config
};

boot::entry!(memory_map = firmware);
entry_point!(main, config = &CONFIG);

fn main(boot_info: &'static mut BootInfo) -> ! {
    kernel::kmain(boot_info, boot::command_line().unwrap_or(""))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    kernel::panic::panic(info)
}
