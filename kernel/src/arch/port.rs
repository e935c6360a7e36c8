//! Port input and output, eight bits at a time.

use x86_64::instructions::port::Port;

/// Reads a byte.
///
/// # Safety
///
/// Reading `port` has no effect that breaks memory safety, and the caller owns the device.
pub(super) unsafe fn read(port: u16) -> u8 {
    // SAFETY: the caller vouches for the port.
    unsafe { Port::<u8>::new(port).read() }
}

/// Writes a byte.
///
/// # Safety
///
/// Writing `value` to `port` has no effect that breaks memory safety, and the caller owns the
/// device.
pub(super) unsafe fn write(port: u16, value: u8) {
    // SAFETY: the caller vouches for port and value.
    unsafe { Port::<u8>::new(port).write(value) }
}

/// Writes to the POST code port, which takes about a microsecond on real hardware: old devices
/// (the PIC) need that long between two accesses.
pub(super) fn pause() {
    // SAFETY: port 0x80 only shows a diagnostic code.
    unsafe { write(0x80, 0) };
}
