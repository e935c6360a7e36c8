//! `oomtest`: memory is used up, and everybody who could help is seen to.
//!
//! A hoard takes all pages that an ordinary request may have. It is a cache: while it is soft, it
//! gives back what it is asked for, so requests go on being served. Then it turns hard: it gives
//! nothing, and requests fail, are reported, and those who asked for it are told. In the end
//! everything is given back, and what is free must be what was free before.

use super::ledger::Ledger;
use super::{Kernel, MEMORY, Pages, free_frames};
use crate::arch::lock::IrqLock;
use crate::num::to_usize;
use crate::shell::{CommandError, CommandResult, interrupt, no_arguments};
use crate::{command, kprintln};
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, OomNotifier, OutOfMemory, Relief, ShrinkControl, Shrinker};
use mm::platform::NodeId;
use mm::system::AllocError;

command! { "oomtest", "", "use up all memory: see caches give it back, requests fail, and all returned", oomtest }

/// Pages that are asked for while the hoard is soft.
const REQUESTS: u64 = 1024;

/// Blocks that the hoard holds, less than its ledger could.
const MOST_BLOCKS: u64 = 1 << 17;

struct Hoard {
    blocks: IrqLock<Option<Ledger>>,
    /// Pages in the blocks.
    pages: AtomicU64,
    is_hard: AtomicBool,
    /// How often it was told that there is no memory left.
    told: AtomicU64,
}

static HOARD: Hoard = Hoard {
    blocks: IrqLock::new(None),
    pages: AtomicU64::new(0),
    is_hard: AtomicBool::new(true),
    told: AtomicU64::new(0),
};
static SHRINKER: Shrinker = Shrinker::new("oomtest", &HOARD);
static NOTIFIER: OomNotifier = OomNotifier::new(&HOARD);

impl Hoard {
    fn pages(&self) -> u64 {
        self.pages.load(Ordering::SeqCst)
    }

    /// Gives `wanted` pages back, and the rest of their blocks; answers how many there were.
    fn give(&self, wanted: u64) -> u64 {
        let mut given: u64 = 0;
        while given < wanted {
            // Freed without the lock.
            let taken = self.blocks.lock().as_mut().and_then(|blocks| {
                let last = blocks.len().checked_sub(1)?;
                blocks.swap_remove(last)
            });
            let Some(entry) = taken else { break };
            let frames = entry.map_or(0, |entry| entry.pages.frames().frames());
            given = given.saturating_add(frames);
        }
        self.pages.fetch_sub(given, Ordering::SeqCst);
        given
    }

    fn push(&self, block: Pages) -> Result<(), Pages> {
        let frames = block.frames().frames();
        match self.blocks.lock().as_mut() {
            Some(ledger) => ledger.push(block, 0)?,
            None => return Err(block),
        }
        self.pages.fetch_add(frames, Ordering::SeqCst);
        Ok(())
    }
}

impl Relief for Hoard {
    fn count_objects(&self, control: &ShrinkControl) -> u64 {
        if self.is_hard.load(Ordering::SeqCst) || control.node != NodeId(0) {
            return 0;
        }
        self.pages()
    }

    fn scan_objects(&self, _: &ShrinkControl, objects: u64) -> Option<Freed> {
        let pages = self.give(objects);
        Some(Freed {
            objects: pages,
            pages,
        })
    }
}

impl OutOfMemory for Hoard {
    fn out_of_memory(&self, _: Order) -> u64 {
        self.told.fetch_add(1, Ordering::SeqCst);
        0
    }
}

fn oomtest(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    let before = free_frames();
    let stats = MEMORY.reclaim_stats();
    // They may be registered already, by the run before.
    let _ = MEMORY.register_shrinker(&SHRINKER);
    let _ = MEMORY.register_oom_notifier(&NOTIFIER);
    let room = to_usize(MEMORY.managed_frames());
    *HOARD.blocks.lock() = Some(Ledger::new(room).map_err(CommandError::failed)?);
    HOARD.told.store(0, Ordering::SeqCst);
    let outcome = run();
    HOARD.is_hard.store(true, Ordering::SeqCst);
    HOARD.give(u64::MAX);
    let ledger = HOARD.blocks.lock().take();
    drop(ledger);
    outcome?;
    let now = MEMORY.reclaim_stats();
    kprintln!(
        "kswapd brought {} pages, requests {}",
        now.pgsteal_kswapd.wrapping_sub(stats.pgsteal_kswapd),
        now.pgsteal_direct.wrapping_sub(stats.pgsteal_direct)
    );
    MEMORY.validate().map_err(CommandError::failed)?;
    let after = free_frames();
    if after != before {
        return Err(CommandError::failed(format_args!(
            "{before} pages were free before, {after} are now"
        )));
    }
    kprintln!("all {after} pages are free again");
    Ok(())
}

fn run() -> CommandResult {
    fill(Gfp::NOWARN)?;
    kprintln!("{} pages hoarded, none is left", HOARD.pages());

    HOARD.is_hard.store(false, Ordering::SeqCst);
    let mut served = Ledger::new(to_usize(REQUESTS)).map_err(CommandError::failed)?;
    for _ in 0..REQUESTS {
        let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(CommandError::failed)?;
        let _kept = served.push(pages, 0);
    }
    kprintln!(
        "{REQUESTS} requests served, {} pages hoarded",
        HOARD.pages()
    );

    HOARD.is_hard.store(true, Ordering::SeqCst);
    fill(Gfp::KERNEL)?;
    let told = HOARD.told.load(Ordering::SeqCst);
    if told == 0 {
        return Err(CommandError::failed(
            "nobody was told that there is no memory",
        ));
    }
    kprintln!("a request failed; those who can help were told {told} times");
    let last = Pages::alloc(Kernel, Gfp::KERNEL.union(Gfp::NOFAIL), Order::ZERO);
    drop(last.map_err(CommandError::failed)?);
    kprintln!("one that must not fail was served from the reserves");
    Ok(())
}

/// Hoards what requests with `gfp` get: single pages, or where there are more of them than a ledger
/// holds, larger blocks first.
fn fill(gfp: Gfp) -> CommandResult {
    let managed = MEMORY.managed_frames();
    let fits = |order: &Order| managed >> order.as_u8() < MOST_BLOCKS;
    let largest = Order::all().find(fits).unwrap_or(Order::MAX);
    for order in Order::all().rev().filter(|order| *order <= largest) {
        loop {
            interrupt::check()?;
            match Pages::alloc(Kernel, gfp, order) {
                Ok(block) => HOARD
                    .push(block)
                    .map_err(|_| CommandError::failed("more blocks than the hoard holds"))?,
                Err(AllocError::OutOfMemory) => break,
                Err(error) => return Err(CommandError::failed(error)),
            }
        }
    }
    Ok(())
}
