//! What a kernel's `BootloaderConfig` wishes for and does not get.

use bootloader_api::BootloaderConfig;
use bootloader_api::config::Mapping;

use crate::handoff::Handoff;
use crate::warning::{Warning, Wish};

/// Warns about every wish that `boot` does not fulfil.
pub(crate) fn check(config: &BootloaderConfig, handoff: &mut Handoff) {
    let wants = &config.mappings;
    let is_fixed = |mapping: Mapping| matches!(mapping, Mapping::FixedAddress(_));
    let wishes = [
        (is_fixed(wants.kernel_stack), Wish::KernelStack),
        (is_fixed(wants.kernel_base), Wish::KernelBase),
        (is_fixed(wants.boot_info), Wish::BootInfo),
        (is_fixed(wants.framebuffer), Wish::Framebuffer),
        (is_fixed(wants.ramdisk_memory), Wish::Ramdisk),
        (wants.page_table_recursive.is_some(), Wish::RecursiveTables),
        (wants.aslr, Wish::Aslr),
    ];
    for (wished, wish) in wishes {
        if wished {
            handoff.warn(Warning::WishIgnored(wish));
        }
    }
}

#[cfg(test)]
mod tests {
    use bootloader_api::BootloaderConfig;
    use bootloader_api::config::Mapping;

    use super::check;
    use crate::handoff::Handoff;
    use crate::warning::{Warning, Wish};

    #[test]
    fn what_is_not_done_is_said() {
        let mut config = BootloaderConfig::new_default();
        let mut handoff = Handoff::new();
        config.mappings.physical_memory = Some(Mapping::FixedAddress(0x1000));
        check(&config, &mut handoff);
        assert_eq!(handoff.warnings(), []);

        config.mappings.aslr = true;
        config.mappings.kernel_stack = Mapping::FixedAddress(0x1000);
        check(&config, &mut handoff);
        let expected = [Wish::KernelStack, Wish::Aslr].map(Warning::WishIgnored);
        assert_eq!(handoff.warnings(), expected);
    }
}
