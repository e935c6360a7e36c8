//! A disk, driven by the crate `virtio-drivers` on the memory of `mm`: [`hal`] is all that it takes.
//!
//! Each sector is read and checked; every other one is written, inverted, from a buffer on the stack, on the heap, or in an area of
//! `vmalloc`. At the end no page is missing.
#![no_std]
#![no_main]

extern crate alloc;

mod hal;
mod pci;

use alloc::boxed::Box;
use alloc::vec;
use core::error::Error;
use core::fmt;
use core::panic::PanicInfo;

use boot::{Exit, say};
use boot_memory::{OneCpu, settled_frames};
use bootloader_api::BootInfo;
use hal::MmHal;
use mm::adapters::{EarlyPages, KernelHeap, Vmalloc};
use mm::buddy::Gfp;
use mm::system::Memory;
use pci::Ports;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

type Disk = VirtIOBlk<MmHal, PciTransport>;

static MEMORY: Memory<OneCpu> = OneCpu::memory(|damage| say!("memory corruption: {damage}"));
static EARLY: EarlyPages<4> = EarlyPages::new();
#[global_allocator]
static HEAP: KernelHeap<&Memory<OneCpu>, 4> = KernelHeap::new(&MEMORY, &EARLY);

boot::entry!();
bootloader_api::entry_point!(main);

fn main(info: &'static mut BootInfo) -> ! {
    let done = run(info);
    say!("{done:?}");
    boot::exit(done.map_or(Exit::Failed, |()| Exit::Passed))
}

fn run(info: &BootInfo) -> Result<(), Box<dyn Error>> {
    // SAFETY: `boot` made the map and the page tables; nobody else changes them; one CPU runs.
    unsafe { boot_memory::bring_up(&MEMORY, info, "", &mut |line| say!("{line}")) }?;
    let before = settled_frames(&MEMORY);
    let mut disk = find_disk()?;
    check_all(&mut disk)?;
    drop(disk);
    // SAFETY: the disk was the only one, and has no driver any more.
    unsafe { hal::unmap_registers() };
    let after = settled_frames(&MEMORY);
    let areas = MEMORY.vmalloc_stats();
    // What lies ready for the next one is nobody's.
    let mapped = areas.areas.saturating_sub(areas.ready);
    say!("{before} pages were free, {after} are; {mapped} areas are mapped");
    MEMORY.validate()?;
    let all_back = after == before && mapped == 0;
    all_back.then_some(()).ok_or("a leak".into())
}

/// The first virtio disk on the first bus, ready for use.
fn find_disk() -> Result<Disk, Box<dyn Error>> {
    // SAFETY: nobody else uses the ports.
    let mut root = PciRoot::new(unsafe { Ports::new() });
    let mut devices = root.enumerate_bus(0);
    let is_disk = |info: &_| virtio_device_type(info) == Some(DeviceType::Block);
    let found = devices.find(|(_, info)| is_disk(info));
    let (place, info) = found.ok_or("there is no virtio disk")?;
    say!("{info} at {place}");
    root.set_command(place, Command::MEMORY_SPACE | Command::BUS_MASTER);
    let transport = PciTransport::new::<MmHal, _>(&mut root, place)?;
    Ok(Disk::new(transport)?)
}

/// What the test has put into a sector.
fn content(sector: usize) -> [u8; SECTOR_SIZE] {
    let byte = |index: usize| sector.wrapping_mul(31).wrapping_add(index).to_le_bytes()[0];
    core::array::from_fn(byte)
}

fn check_all(disk: &mut Disk) -> Result<(), Box<dyn Error>> {
    let sectors = usize::try_from(disk.capacity())?;
    let mut on_the_heap = vec![0; SECTOR_SIZE];
    // Across a border of pages that need not be neighbours.
    let mut area = Vmalloc::alloc(&MEMORY, 2 << 12, Gfp::KERNEL)?;
    let in_an_area = area.get_mut(0xf80..).ok_or("short")?;
    let in_an_area = in_an_area.get_mut(..SECTOR_SIZE).ok_or("short")?;
    let mut on_the_stack = [0; SECTOR_SIZE];
    for sector in 0..sectors {
        let buffer = match sector % 3 {
            0 => &mut on_the_heap[..],
            1 => &mut *in_an_area,
            _ => &mut on_the_stack[..],
        };
        disk.read_blocks(sector, buffer)?;
        if *buffer != content(sector) {
            return Err("a sector has other bytes".into());
        }
        if sector % 2 == 1 {
            buffer.iter_mut().for_each(|byte| *byte = !*byte);
            disk.write_blocks(sector, buffer)?;
            let written: [u8; SECTOR_SIZE] = content(sector).map(|byte| !byte);
            disk.read_blocks(sector, buffer)?;
            if *buffer != written {
                return Err("a sector was not written".into());
            }
        }
    }
    disk.flush()?;
    say!("{sectors} sectors read, every other one written");
    Ok(())
}

/// Ends the kernel where the driver knows no error.
fn stop(why: fmt::Arguments<'_>) -> ! {
    say!("{why}");
    boot::exit(Exit::Failed)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    boot::exit(Exit::Panicked)
}
