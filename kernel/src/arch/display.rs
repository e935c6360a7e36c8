//! QEMU's display adapter (`-vga std`, Bochs' VBE extensions): found on the PCI bus, and set to a mode.
//!
//! Registers and the identification are those of QEMU's "Standard VGA" documentation (`docs/specs/standard-vga`): an index in port
//! 0x1ce, a value in port 0x1cf. PCI configuration space is reached through ports 0xcf8 and 0xcfc (PCI Local Bus
//! Specification 3.0, 3.2.2.3.2).

use crate::arch::lock::IrqLock;
use mm::addr::PhysAddr;
use x86_64::instructions::port::Port;

/// Who accesses the two ports has them for two accesses.
static CONFIG: IrqLock<()> = IrqLock::new(());

/// Vendor and device of the adapter.
const BOCHS: u32 = 0x1111_1234;
/// Devices of a bus. The adapter is on the first one: QEMU puts it there.
const DEVICES: u32 = 32;

/// Registers of the VBE extensions, by index.
mod register {
    /// The version, 0xb0c0 to 0xb0c5.
    pub(super) const ID: u16 = 0;
    /// Pixels from side to side.
    pub(super) const WIDTH: u16 = 1;
    /// Pixels from top to bottom.
    pub(super) const HEIGHT: u16 = 2;
    /// Bits of a pixel.
    pub(super) const BITS: u16 = 3;
    /// What is on.
    pub(super) const ENABLE: u16 = 4;
    /// Pixels from a row to the one below.
    pub(super) const STRIDE: u16 = 6;
    /// Units of 64 KiB of memory.
    pub(super) const MEMORY: u16 = 10;
}

/// In `ENABLE`: the extensions, and memory in one piece.
const ON: u16 = 1 | 1 << 6;

/// An adapter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adapter {
    /// Where its memory starts.
    pub(crate) memory: PhysAddr,
    /// Bytes of memory.
    pub(crate) bytes: u64,
}

/// Reads a register of a device's configuration space, on the first bus.
fn config(device: u32, offset: u32) -> u32 {
    let _ports = CONFIG.lock();
    let address = 1 << 31 | device << 11 | offset;
    // SAFETY: selects a register; the lock is held until it is read.
    unsafe { Port::<u32>::new(0xcf8).write(address) };
    // SAFETY: reading configuration registers has no effect; where there is no bus, all bits are set.
    unsafe { Port::<u32>::new(0xcfc).read() }
}

fn vbe(index: u16) -> u16 {
    // SAFETY: the caller has found the adapter; selects a register.
    unsafe { Port::<u16>::new(0x1ce).write(index) };
    // SAFETY: as above; reading has no effect.
    unsafe { Port::<u16>::new(0x1cf).read() }
}

fn set_vbe(index: u16, value: u16) {
    // SAFETY: as in `vbe`.
    unsafe { Port::<u16>::new(0x1ce).write(index) };
    // SAFETY: the adapter shows another part of its own memory, which nobody but the holder of `Adapter` draws to.
    unsafe { Port::<u16>::new(0x1cf).write(value) };
}

/// The adapter, if there is one.
///
/// # Context
/// Task.
pub(crate) fn find() -> Option<Adapter> {
    let device = (0..DEVICES).find(|device| config(*device, 0) == BOCHS)?;
    // The first base address: memory, prefetchable, of 32 bits or, with type 2, of 64.
    let (low, high) = (config(device, 0x10), config(device, 0x14));
    let high = if low & 0b110 == 0b100 { high } else { 0 };
    let memory = u64::from(high) << 32 | u64::from(low & !0xf);
    let is_known = (0xb0c0..=0xb0c5).contains(&vbe(register::ID));
    (is_known && low & 1 == 0 && memory != 0).then(|| Adapter {
        memory: PhysAddr::new(memory),
        bytes: u64::from(vbe(register::MEMORY)) << 16,
    })
}

impl Adapter {
    /// Shows so many pixels, each of four bytes: blue, green, red and nothing. Answers the pixels from a row to the next, if the
    /// adapter has such a mode.
    pub(crate) fn show(self, width: u16, height: u16) -> Option<u16> {
        set_vbe(register::ENABLE, 0);
        set_vbe(register::WIDTH, width);
        set_vbe(register::HEIGHT, height);
        set_vbe(register::BITS, 32);
        set_vbe(register::ENABLE, ON);
        let is_shown = vbe(register::WIDTH) == width && vbe(register::HEIGHT) == height;
        let stride = vbe(register::STRIDE);
        (is_shown && stride >= width).then_some(stride)
    }

    /// Ends that.
    pub(crate) fn hide(self) {
        set_vbe(register::ENABLE, 0);
    }
}
