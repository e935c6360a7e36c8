//! The two 8259 interrupt controllers: moved off the exception vectors and masked.
//!
//! Nothing uses them. But after reset they deliver at vectors 8..=15 and 0x70..=0x77, and even a
//! masked PIC can raise its spurious interrupt, which must not look like a double fault.

use super::port::{pause, write};

/// First vector of the first controller's eight inputs.
pub const FIRST_VECTOR: u8 = 0x20;
/// The vectors at which the two controllers report a spurious interrupt (their input 7).
pub const SPURIOUS: [u8; 2] = [0x27, 0x2f];

const COMMAND: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];

/// Remaps both controllers to vectors 0x20..=0x2f and masks every input.
pub(super) fn init() {
    // The four initialisation words of the 8259A data sheet, then the mask.
    const MASTER: [u8; 3] = [FIRST_VECTOR, 1 << 2, 0x01];
    const SLAVE: [u8; 3] = [0x28, 2, 0x01];
    let [master_command, slave_command] = COMMAND;
    let [master_data, slave_data] = DATA;

    send(master_command, 0x11);
    send(slave_command, 0x11);
    for (to_master, to_slave) in MASTER.into_iter().zip(SLAVE) {
        send(master_data, to_master);
        send(slave_data, to_slave);
    }
    send(master_data, 0xff);
    send(slave_data, 0xff);
}

fn send(port: u16, value: u8) {
    // SAFETY: only this module talks to the PICs, and a masked PIC touches no memory. Machines
    // without one (microvm) ignore the write.
    unsafe { write(port, value) };
    pause();
}
