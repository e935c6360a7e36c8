//! PCI configuration space by ports (PCI Local Bus Specification 3.0, 3.2.2.3.2).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use x86_64::instructions::port::Port;

/// The two ports: which word, and the word.
pub(crate) struct Ports {
    address: Port<u32>,
    data: Port<u32>,
}

impl Ports {
    /// Takes the ports.
    ///
    /// # Safety
    ///
    /// Nobody else uses them meanwhile.
    pub(crate) const unsafe fn new() -> Self {
        Self {
            address: Port::new(0xcf8),
            data: Port::new(0xcfc),
        }
    }
}

/// What the first port is told.
fn address(device: DeviceFunction, register: u8) -> u32 {
    let function = u32::from(device.device) << 11 | u32::from(device.function) << 8;
    1 << 31 | u32::from(device.bus) << 16 | function | u32::from(register & !3)
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        let (mut which, mut word) = (self.address.clone(), self.data.clone());
        // SAFETY: the ports are this value's (`new`): it only chooses the word.
        unsafe { which.write(address(device, register)) };
        // SAFETY: as above; what the driver reads has no effects by its own account.
        unsafe { word.read() }
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, data: u32) {
        // SAFETY: as above.
        unsafe { self.address.write(address(device, register)) };
        // SAFETY: as above; what is written is the driver's affair.
        unsafe { self.data.write(data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            data: self.data.clone(),
        }
    }
}
