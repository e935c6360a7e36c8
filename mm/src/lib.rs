//! `mm`: a memory core for x86_64 kernels.
//!
//! From the firmware's memory map to pages: [`memblock`] puts the map right and serves early
//! allocations, [`zone`] and [`frame`] describe what there is, [`buddy`] hands it out, and
//! [`system::Memory`] wires it all. The architecture is Linux's; `docs/glossary.md` maps its
//! names to ours.
//!
//! | Level | Module | What | Linux counterpart |
//! |---|---|---|---|
//! | 0 | [`addr`] | addresses, frame numbers, orders, ranges; a direct map | `pfn.h`, `__va` |
//! | 0 | [`config`] | numbers that the architecture fixes | `page_types.h` |
//! | 0 | [`report`] | one type for damage of any kind | `bad_page` |
//! | 0 | [`platform`] | what the library asks of a machine | `arch/` |
//! | 1 | [`sync`] | locks, a cell that is filled once, counters | `spinlock.h`, `refcount.h` |
//! | 1 | [`mem`] | tokens for raw memory: [`RamClaim`](mem::RamClaim), [`EarlyRam`](mem::EarlyRam) | – |
//! | 1 | [`collections`] | sets with their smallest member at hand | – |
//! | 2 | [`memblock`] | memory before there are frames | `memblock.c`, `e820.c` |
//! | 2 | [`frame`] | the record of every frame | `struct page`, sparsemem |
//! | 3 | [`zone`] | nodes, zones and their [`Plan`](zone::plan::Plan) | `pg_data_t`, `mm_init.c` |
//! | 3 | [`buddy`] | free blocks, migrate types, [`Gfp`](buddy::Gfp) | `page_alloc.c` |
//! | 8 | [`system`] | [`Memory`](system::Memory) and its handles | `alloc_pages` and its kin |
//! | 8 | [`adapters`] | doors for code that keeps raw numbers | `free_pages`, `put_page` |
//! | 8 | [`proc`] | texts of the `/proc` files | `/proc` |
//!
//! A module uses modules of lower levels only.
//!
//! # Bringing memory up
//!
//! 1. Implement [`platform::Platform`]: where RAM is mapped, which CPU this is, interrupts off
//!    and on, where damage is reported. This is `unsafe`: the library believes each answer.
//! 2. Make a [`memblock::Memblock`] from a [`mem::RamClaim`]; reserve what is in use; give the
//!    firmware's map to [`memblock::setup::add_firmware_map`]. Making the claim is `unsafe`: it
//!    says that the map tells the truth about RAM, and that nobody else uses it.
//! 3. Compute a [`zone::plan::Plan`] and hand both to
//!    [`Memory::bring_up`](system::Memory::bring_up).
//! 4. Allocate: [`Memory::alloc_block`](system::Memory::alloc_block) gives an owning handle,
//!    [`Memory::alloc_pages`](system::Memory::alloc_pages) a plain frame number. The first needs
//!    no `unsafe` any more.
//!
//! All of it on the host, where RAM is a piece of the process; `examples/minimal-kernel` is the
//! same in a kernel that boots:
//!
//! ```
//! use core::ptr::NonNull;
//! use mm::addr::{DirectMap, Order, PhysAddr, PhysRange, VirtAddr};
//! use mm::buddy::Gfp;
//! use mm::mem::RamClaim;
//! use mm::memblock::Memblock;
//! use mm::memblock::firmware::{FirmwareKind, FirmwareRegion};
//! use mm::memblock::params::Params;
//! use mm::memblock::setup::{LowMemory, SetupPolicy, add_firmware_map};
//! use mm::platform::{CpuId, IrqState, Platform};
//! use mm::report::Corruption;
//! use mm::system::{Memory, Options};
//! use mm::zone::plan::{CoreWish, NodePlan, Plan};
//!
//! struct Machine(DirectMap);
//!
//! // SAFETY: (1, 2) the map holds one leaked piece of memory, which only the library uses;
//! // (3, 4) there are no interrupts and one thread; (5, 6, 7) the defaults promise nothing.
//! unsafe impl Platform for Machine {
//!     fn direct_map(&self, range: PhysRange) -> Option<NonNull<u8>> {
//!         self.0.phys_to_virt(range)
//!     }
//!     fn virt_to_phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
//!         self.0.virt_to_phys(addr)
//!     }
//!     fn current_cpu(&self) -> CpuId {
//!         CpuId(0)
//!     }
//!     fn irq_save(&self) -> IrqState {
//!         IrqState::new(0)
//!     }
//!     fn irq_restore(&self, _: IrqState) {}
//!     fn corruption(&self, report: &Corruption) {
//!         panic!("{report}");
//!     }
//! }
//!
//! // The machine: 16 MiB of RAM from physical address 1 MiB on, of which the kernel's image
//! // takes the first.
//! static RAM: [PhysRange; 1] = [PhysRange::from_size(PhysAddr::new(1 << 20), 16 << 20)];
//! let image = PhysRange::from_size(RAM[0].start(), 1 << 20);
//! let firmware_map = [FirmwareRegion {
//!     start: RAM[0].start().as_u64(),
//!     size: RAM[0].size(),
//!     kind: FirmwareKind::Usable.as_e820(),
//! }];
//! let bytes = vec![0_u8; 17 << 20].leak();
//! let first = bytes.as_mut_ptr().map_addr(|at| at.next_multiple_of(1 << 20));
//! let base = VirtAddr::new(first.expose_provenance() as u64 - RAM[0].start().as_u64());
//! let memory = Memory::new(Machine(DirectMap::new(base, &RAM)));
//! let platform = memory.platform();
//!
//! // SAFETY: (1, 2) the map names the RAM above, and what is in use of it is reserved; (3) there
//! // is no other claim; (4) none of the three is called; (5) there is one machine; (6) the
//! // memory was leaked.
//! let mut memblock = Memblock::new(unsafe { RamClaim::new() });
//! memblock.reserve(platform, image)?;
//! memblock.allow_growth();
//! let policy = SetupPolicy {
//!     phys_bits: 40,
//!     low_memory: LowMemory::Reserve,
//!     params: &Params::parse("kernelcore=50%", |refused| eprintln!("{refused}")),
//! };
//! add_firmware_map(&mut memblock, platform, &firmware_map, &policy, &mut |line| {
//!     println!("{line}");
//! })?;
//!
//! let mut nodes = [NodePlan::EMPTY; 1]; // one node: no NUMA
//! let plan = Plan::compute(&memblock, CoreWish::from(policy.params), &mut nodes)?;
//! memory.bring_up(memblock, &plan, Options::for_profile(Machine::PROFILE))?;
//!
//! let free = memory.free_frames();
//! let mut eight = memory.alloc_block(Gfp::KERNEL | Gfp::ZERO, Order::for_frames(8).unwrap())?;
//! eight.bytes_mut()[0] = 1; // nobody else can reach these bytes
//! assert_eq!(memory.free_frames(), free - 8);
//! drop(eight);
//! assert_eq!(memory.free_frames(), free);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here allocates, panics on bad input, or keeps state outside a
//! [`Memory`](system::Memory) value.
#![cfg_attr(not(test), no_std)]

pub mod adapters;
pub mod addr;
pub mod buddy;
pub mod collections;
pub mod config;
pub mod frame;
pub mod mem;
pub mod memblock;
pub mod platform;
pub mod proc;
pub mod report;
pub mod sync;
pub mod system;
pub mod zone;
