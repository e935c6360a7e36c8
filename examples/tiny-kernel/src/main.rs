//! A kernel with a heap, DMA buffers, stacks with guard pages and devices, which gives all of it back.
#![no_std]
#![no_main]
extern crate alloc;

use alloc::{boxed::Box, collections::BTreeMap, format, string::String};
use boot::{Exit, say};
use boot_memory::{OneCpu, Stack, settled_frames};
use bootloader_api::BootInfo;
use core::error::Error;
use mm::adapters::{EarlyPages, KernelHeap};
use mm::system::{DmaRequest, Memory};
use mm::{addr::PhysAddr, buddy::Gfp, pagetable::Cache, proc};

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
    use_memory()?;
    let after = settled_frames(&MEMORY);
    say!("{before} pages were free, {after} are");
    MEMORY.validate()?;
    (after == before).then_some(()).ok_or("a leak".into())
}

fn use_memory() -> Result<(), Box<dyn Error>> {
    let names: BTreeMap<u32, String> = (0..1000).map(|n| (n, format!("number {n}"))).collect();
    let buffer = MEMORY.dma_alloc(DmaRequest::new(10_000).bits(32), Gfp::KERNEL)?;
    Stack::alloc(&MEMORY, 16 << 10)?.call(|| say!("{} names, {buffer:?}", names.len()));
    // SAFETY: the local APIC's version register (SDM vol. 3A, 11.4.1); nobody else uses it.
    let apic = unsafe { MEMORY.ioremap(PhysAddr::new(0xfee0_0030), 4, Cache::Uncached) }?;
    // SAFETY: as above; it is mapped.
    let version = unsafe { apic.cast::<u32>().read_volatile() };
    // SAFETY: it is used no more.
    unsafe { MEMORY.iounmap(apic) }?;
    let mut text = format!("APIC version {version:#x}\n");
    proc::meminfo(&MEMORY, &mut text)?;
    say!("{text}");
    Ok(())
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("{info}");
    boot::exit(Exit::Panicked)
}
