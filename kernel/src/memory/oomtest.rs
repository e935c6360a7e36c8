//! `oomtest`: memory is used up, and everybody who could help is seen to.
//!
//! A hoard takes all pages that an ordinary request may have. It is a cache: while it is soft, it
//! gives back what it is asked for, so requests go on being served. Then it turns hard: it gives
//! nothing, and requests fail, are reported, and those who asked for it are told. In the end
//! everything is given back, and what is free must be what was free before.

use super::ledger::Ledger;
use super::{Kernel, MEMORY, Pages, free_frames};
use crate::arch::lock::IrqLock;
use crate::num::{to_u64, to_usize};
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

struct Hoard {
    pages: IrqLock<Option<Ledger>>,
    is_hard: AtomicBool,
    /// How often it was told that there is no memory left.
    told: AtomicU64,
}

static HOARD: Hoard = Hoard {
    pages: IrqLock::new(None),
    is_hard: AtomicBool::new(true),
    told: AtomicU64::new(0),
};
static SHRINKER: Shrinker = Shrinker::new("oomtest", &HOARD);
static NOTIFIER: OomNotifier = OomNotifier::new(&HOARD);

impl Hoard {
    fn len(&self) -> usize {
        self.pages.lock().as_ref().map_or(0, Ledger::len)
    }

    /// Gives up to `most` pages back; answers how many there were.
    fn give(&self, most: u64) -> u64 {
        let mut given: u64 = 0;
        while given < most {
            // Freed without the lock.
            let taken = self.pages.lock().as_mut().and_then(|pages| {
                let last = pages.len().checked_sub(1)?;
                pages.swap_remove(last)
            });
            let Some(entry) = taken else { break };
            drop(entry);
            given = given.saturating_add(1);
        }
        given
    }

    fn push(&self, pages: Pages) -> Result<(), Pages> {
        match self.pages.lock().as_mut() {
            Some(ledger) => ledger.push(pages, 0),
            None => Err(pages),
        }
    }
}

impl Relief for Hoard {
    fn count_objects(&self, control: &ShrinkControl) -> u64 {
        if self.is_hard.load(Ordering::SeqCst) || control.node != NodeId(0) {
            return 0;
        }
        to_u64(self.len())
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
    *HOARD.pages.lock() = Some(Ledger::new(room).map_err(CommandError::failed)?);
    HOARD.told.store(0, Ordering::SeqCst);
    let outcome = run();
    HOARD.is_hard.store(true, Ordering::SeqCst);
    HOARD.give(u64::MAX);
    let ledger = HOARD.pages.lock().take();
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
    kprintln!("{} pages hoarded, none is left", HOARD.len());

    HOARD.is_hard.store(false, Ordering::SeqCst);
    let mut served = Ledger::new(to_usize(REQUESTS)).map_err(CommandError::failed)?;
    for _ in 0..REQUESTS {
        let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(CommandError::failed)?;
        let _kept = served.push(pages, 0);
    }
    kprintln!("{REQUESTS} requests served, {} pages hoarded", HOARD.len());

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

/// Hoards what requests with `gfp` get.
fn fill(gfp: Gfp) -> CommandResult {
    loop {
        interrupt::check()?;
        match Pages::alloc(Kernel, gfp, Order::ZERO) {
            Ok(pages) => HOARD
                .push(pages)
                .map_err(|_| CommandError::failed("more pages than the hoard holds"))?,
            Err(AllocError::OutOfMemory) => return Ok(()),
            Err(error) => return Err(CommandError::failed(error)),
        }
    }
}
