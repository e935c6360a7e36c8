//! Shell commands for objects: `kmalloc`, `kfree`, `slabtop`, `slabinfo`.

use super::{Kernel, MEMORY, pages};
use crate::arch::lock::IrqLock;
use crate::num::to_usize;
use crate::shell::interrupt::Output;
use crate::shell::{self, CommandError, CommandResult, no_arguments};
use crate::{command, kprint, kprintln};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use mm::buddy::Gfp;
use mm::proc::{self, Recording};
use mm::system::KBytes;

command! { "kmalloc", "SIZE [GFP]", "allocate SIZE bytes and keep them, e.g. `kmalloc 100 KERNEL|ZERO`", kmalloc_command }
command! { "kfree", "N|all", "free what `kmalloc` keeps", kfree_command }
command! { "slabtop", "", "the caches that hold most memory", slabtop_command }
command! { "slabinfo", "-v | NAME", "recount every cache, or show one, e.g. `slabinfo kmalloc-64`", slabinfo_command }

static KEPT: IrqLock<Kept> = IrqLock::new(Kept {
    next: 1,
    objects: BTreeMap::new(),
});

/// What `kmalloc` keeps until `kfree`.
struct Kept {
    next: u64,
    objects: BTreeMap<u64, KBytes<Kernel>>,
}

/// The objects that `kmalloc` keeps, in words.
struct KeptNumbers;

impl fmt::Display for KeptNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = KEPT.lock().objects.keys().map(u64::to_string).collect();
        match numbers.as_slice() {
            [] => f.write_str("nothing is kept"),
            numbers => write!(f, "kept: {}", numbers.join(", ")),
        }
    }
}

/// A size and flags, as commands take them.
fn request(arguments: &[String]) -> Result<(usize, Gfp), CommandError> {
    let (size, flags) = match arguments {
        [size] => (size, "KERNEL"),
        [size, flags] => (size, flags.as_str()),
        _ => {
            return Err(CommandError::usage(format_args!(
                "expected a size and, perhaps, flags; {KeptNumbers}"
            )));
        }
    };
    Ok((to_usize(shell::size(size)?), pages::flags(flags)?))
}

fn kmalloc_command(arguments: &[String]) -> CommandResult {
    let (size, gfp) = request(arguments)?;
    let bytes = KBytes::alloc(Kernel, size, gfp).map_err(CommandError::failed)?;
    let at = bytes.as_non_null();
    let mut kept = KEPT.lock();
    let number = kept.next;
    kept.next = number.saturating_add(1);
    kept.objects.insert(number, bytes);
    drop(kept);
    kprint!("number {number}: ");
    Ok(proc::object(&MEMORY, at, &mut Output)?)
}

fn kfree_command(arguments: &[String]) -> CommandResult {
    let [number] = arguments else {
        return Err(CommandError::usage(format_args!(
            "expected the number that `kmalloc` printed, or `all`; {KeptNumbers}"
        )));
    };
    if number == "all" {
        let objects = core::mem::take(&mut KEPT.lock().objects);
        kprintln!("freed {} objects", objects.len());
        return Ok(());
    }
    let number = shell::number(number)?;
    let bytes = KEPT.lock().objects.remove(&number);
    let bytes = bytes.ok_or_else(|| {
        CommandError::failed(format_args!("nothing has number {number}; {KeptNumbers}"))
    })?;
    kprintln!("freed number {number}: {} bytes", bytes.len());
    Ok(())
}

/// `explain kmalloc SIZE [GFP]`.
pub(super) fn explain(arguments: &[String], mut steps: Recording) -> CommandResult {
    let (size, gfp) = request(arguments)?;
    let outcome = KBytes::alloc_traced(Kernel, size, gfp, &mut steps);
    kprint!("{steps}");
    let bytes = outcome.map_err(CommandError::failed)?;
    kprint!("It is at ");
    proc::object(&MEMORY, bytes.as_non_null(), &mut Output)?;
    drop(bytes);
    kprintln!("It is free again now.");
    Ok(())
}

fn slabtop_command(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    Ok(proc::slabtop(&MEMORY, &mut Output)?)
}

fn slabinfo_command(arguments: &[String]) -> CommandResult {
    let [name] = arguments else {
        return Err(CommandError::usage("expected -v or the name of a cache"));
    };
    if name == "-v" {
        MEMORY.validate_caches().map_err(CommandError::failed)?;
        let mut caches: u64 = 0;
        MEMORY.for_each_cache(|_, _| caches = caches.saturating_add(1));
        kprintln!("{caches} caches, each slab and each free object: as recorded");
        return Ok(());
    }
    match proc::cache(&MEMORY, name, &mut Output)? {
        true => Ok(()),
        false => Err(CommandError::failed(format_args!(
            "no cache is called `{name}`; `cat slabinfo` lists them"
        ))),
    }
}
