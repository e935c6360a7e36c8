//! `slabtest` and `leaks`: what is told of objects that were written to, or never came back.
//!
//! `slabtest` does what drivers do wrong, to objects of a cache of its own.
#![expect(unsafe_code, reason = "writes where nobody may, to be found")]

use super::{Kernel, MEMORY};
use crate::arch::lock::IrqLock;
use crate::ktest::Failure;
use crate::shell::{CommandError, CommandResult};
use crate::{command, kprint, kprintln, ktest, ktest_assert, ktest_eq};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Display;
use core::ptr::NonNull;
use mm::buddy::Gfp;
use mm::report::{Corruption, ObjectDamage, ObjectPart};
use mm::slab::{BadFree, SlabFlags};
use mm::system::{KmemCache, ObjectOwner};

command! { "slabtest", "", "run over the end of an object, use one after it was freed, free one twice, lose one: all found", slabtest }
command! { "leaks", "", "who has objects of caches that keep it (`slub_debug=U`), most first", leaks }

/// The cache whose objects are damaged on purpose.
const NAME: &str = "slabtest";
const SIZE: usize = 64;

/// What was told of its objects last.
static TOLD: IrqLock<Option<ObjectDamage>> = IrqLock::new(None);

/// Whether damage is there on purpose: then it is told, and the machine goes on in any profile.
pub(super) fn is_on_purpose(report: &Corruption) -> bool {
    match report {
        Corruption::Object(damage) if damage.cache.as_str() == NAME => {
            *TOLD.lock() = Some(*damage);
            true
        }
        _ => false,
    }
}

type Cache = KmemCache<Kernel>;

fn text(error: impl Display) -> String {
    alloc::format!("{error}")
}

fn cache() -> Result<Cache, String> {
    let flags = SlabFlags::RED_ZONE
        | SlabFlags::POISON
        | SlabFlags::STORE_USER
        | SlabFlags::CONSISTENCY_CHECKS;
    KmemCache::create(Kernel, NAME, (SIZE, 8), flags).map_err(text)
}

#[track_caller]
fn alloc(cache: &Cache) -> Result<NonNull<u8>, String> {
    cache.alloc(Gfp::KERNEL).map_err(text)
}

#[track_caller]
fn free(cache: &Cache, object: NonNull<u8>) -> Result<(), BadFree> {
    // SAFETY: an object of the cache that nobody else has; a second free is refused.
    unsafe { cache.free(object) }
}

/// Writes to a byte of a slab of the cache, wherever it is.
fn write(object: NonNull<u8>, at: usize) {
    // SAFETY: within the slab: at most a few bytes behind the object.
    let byte = unsafe { object.add(at) };
    // SAFETY: RAM that is mapped. It is nobody's, which is the fault to be found.
    unsafe { byte.write_volatile(b'A') };
}

fn told() -> Result<ObjectPart, String> {
    let told = TOLD.lock().take();
    let part = told.map(|damage| damage.part);
    part.ok_or_else(|| String::from("nothing was found"))
}

/// What was found.
struct Found {
    overflow: ObjectPart,
    after_free: ObjectPart,
    second_free: Result<(), BadFree>,
    /// What the end of the cache was refused with.
    lost: String,
}

/// Does all of it.
fn damage() -> Result<Found, String> {
    let cache = cache()?;
    let object = alloc(&cache)?;
    (SIZE..SIZE.saturating_add(3)).for_each(|at| write(object, at));
    free(&cache, object).map_err(text)?;
    let overflow = told()?;

    let object = alloc(&cache)?;
    free(&cache, object).map_err(text)?;
    write(object, 10);
    let next = alloc(&cache)?;
    let after_free = told()?;

    free(&cache, next).map_err(text)?;
    let second_free = free(&cache, next);

    let last = alloc(&cache)?;
    let Err(refused) = cache.destroy() else {
        return Err(String::from("a cache ended with an object in use"));
    };
    let mut lost = text(&refused);
    refused
        .cache
        .for_each_owner(|owner| lost.push_str(&format!("\n  {owner}")));
    free(&refused.cache, last).map_err(text)?;
    refused.cache.destroy().map_err(text)?;
    MEMORY.validate_caches().map_err(text)?;
    Ok(Found {
        overflow,
        after_free,
        second_free,
        lost,
    })
}

fn slabtest(arguments: &[String]) -> CommandResult {
    if !arguments.is_empty() {
        return Err(CommandError::usage("slabtest takes no arguments"));
    }
    let found = damage().map_err(CommandError::failed)?;
    kprintln!(
        "an object was written to behind its end: {:?}",
        found.overflow
    );
    kprintln!(
        "one was written to after it was freed: {:?}",
        found.after_free
    );
    match found.second_free {
        Ok(()) => return Err(CommandError::failed("a second free was taken")),
        Err(error) => kprintln!("one was freed twice: {error}"),
    }
    kprintln!("the cache could not end: {}", found.lost);
    Ok(())
}

fn leaks(arguments: &[String]) -> CommandResult {
    if !arguments.is_empty() {
        return Err(CommandError::usage("leaks takes no arguments"));
    }
    let mut owners: Vec<(String, ObjectOwner)> = Vec::new();
    MEMORY.for_each_object_owner(|name, owner| owners.push((String::from(name), owner)));
    owners.sort_by_key(|(_, owner)| core::cmp::Reverse(owner.objects));
    kprintln!("objects      bytes  cache             allocated at");
    for (name, owner) in &owners {
        kprint!("{:7} {:10}  {name:<17} ", owner.objects, owner.bytes);
        match owner.place {
            Some(place) => kprintln!("{place}"),
            None => kprintln!("elsewhere"),
        }
    }
    kprintln!("{} places in the source", owners.len());
    Ok(())
}

ktest! {
    fn damage_to_objects_is_found_and_named() {
        let Found { overflow, after_free, second_free, lost } = damage().map_err(Failure::new)?;
        ktest_eq!(overflow, ObjectPart::RightRedZone);
        ktest_eq!(after_free, ObjectPart::Poison);
        ktest_eq!(second_free, Err(BadFree::AlreadyFree));
        ktest_assert!(lost.starts_with("1 objects of cache slabtest have not come back"), "{lost}");
        ktest_assert!(lost.contains("object_damage.rs"), "{lost}");
        Ok(())
    }
}
