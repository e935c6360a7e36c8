//! Switches of a running system, from the profile and the command line.
#![forbid(unsafe_code)]

use core::str::FromStr;

use super::{FailPageAlloc, FailSlab};
use crate::platform::{MemoryModel, Platform, Profile};
use crate::slab::SlubDebug;

/// What is done to pages on their way out and in; names as on Linux's command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `init_on_alloc=`: every page and every object comes zeroed; an object that its cache poisons does not,
    /// unless it is asked for.
    pub init_on_alloc: bool,
    /// `init_on_free=`: every page and every object is zeroed when it is given back, unless it is
    /// poisoned.
    pub init_on_free: bool,
    /// `page_poison=`: free pages hold a pattern, which is checked when they are handed out.
    pub page_poison: bool,
    /// `transparent_hugepage=`: whether memory shall be kept fit for huge pages.
    pub huge_pages: HugePages,
    /// `debug_pagealloc=`: free pages are out of everybody's reach in the direct map, where the platform can
    /// ([`Platform::protect_free_pages`]).
    pub debug_pagealloc: DebugPagealloc,
    /// `percpu_pagelists=`: whether CPUs have page lists of their own.
    pub page_lists: PageLists,
    /// `page_owner=`: whether it is kept which line of the source allocated each block.
    pub page_owner: PageOwner,
    /// `page_table_check=`: whether pages of user code are kept from being mapped where they may not be.
    pub page_table_check: PageTableCheck,
    /// `populate=`: when memory gets its frame records.
    pub populate: Populate,
    /// `cma=`: so many bytes can be had in one piece by devices, and are lent to movable pages
    /// meanwhile.
    pub cma_bytes: u64,
    /// `fail_page_alloc=`: which requests fail on purpose.
    pub fail_page_alloc: Option<FailPageAlloc>,
    /// `slub_debug=`: which caches look at their objects.
    pub slub_debug: SlubDebug,
    /// `failslab=`: which requests for objects fail on purpose.
    pub failslab: Option<FailSlab>,
    /// `kfence.sample_interval=`: one allocation of an object in so many is from the sampling guard pool; 0 stands
    /// for no pool, which takes 2 MiB.
    pub kfence_sample_interval: u64,
}

/// When sections of memory get their frame records and go to the allocator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// When their memory is needed: booting takes as long with little memory as with much (Linux:
    /// `CONFIG_DEFERRED_STRUCT_PAGE_INIT`). Not with the memory model
    /// [`Flat`](crate::platform::MemoryModel::Flat), and not while it is kept who allocated what:
    /// then it is at boot.
    OnDemand,
    /// All when memory comes up.
    AtBoot,
}

/// Whether it is kept who allocated what, and who freed it (Linux: `page_owner=`): nine words for each frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageOwner {
    /// No.
    Off,
    /// Yes: [`proc::page_owner`](crate::proc::page_owner) prints it.
    On,
}

/// Whether pages of user code are kept from being mapped where they may not be, and from being freed while they are mapped
/// (Linux: `page_table_check=`): 4 bytes for each frame of sections with any such page. The debug profile does so by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageTableCheck {
    /// No.
    Off,
    /// Yes: [`Memory::map_user_pages`](super::Memory::map_user_pages) counts.
    On,
}

/// Whether free pages are out of everybody's reach (Linux: `debug_pagealloc=`): what uses one after it was freed has a
/// page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugPagealloc {
    /// No.
    Off,
    /// Yes, where the platform can.
    On,
}

impl DebugPagealloc {
    /// Whether they are. Context: any.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// How CPUs keep pages at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageLists {
    /// Not at all: every request takes the zone lock. For machines with little memory and one
    /// CPU, and to look at the buddy allocator itself.
    Off,
    /// As many as the way in which they are used asks for, as current Linux does.
    Tuned,
    /// Hot and cold lists of single pages with fixed marks, as Linux 2.6 had them
    /// ([`pageset::classic`](crate::buddy::pageset::classic)): for study and comparison.
    Classic,
}

impl PageLists {
    /// Whether there are any. Context: any.
    #[must_use]
    pub const fn are_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

/// Who gets huge pages without asking for them by name (Linux: `transparent_hugepage=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// Everybody.
    Always,
    /// Mappings that were advised to.
    Madvise,
    /// Nobody.
    Never,
}

impl HugePages {
    /// Whether anybody gets any. Context: any.
    #[must_use]
    pub const fn are_on(self) -> bool {
        !matches!(self, Self::Never)
    }
}

impl Options {
    /// What a profile turns on by itself. Context: any.
    #[must_use]
    pub const fn for_profile(profile: Profile) -> Self {
        Self {
            init_on_alloc: profile.is_hardened(),
            init_on_free: false,
            page_poison: profile.is_debug(),
            huge_pages: HugePages::Always,
            debug_pagealloc: DebugPagealloc::Off,
            page_lists: PageLists::Tuned,
            page_owner: PageOwner::Off,
            page_table_check: match profile.is_debug() {
                true => PageTableCheck::On,
                false => PageTableCheck::Off,
            },
            populate: Populate::OnDemand,
            cma_bytes: 0,
            fail_page_alloc: None,
            slub_debug: match profile.is_debug() {
                true => SlubDebug::ALL,
                false => SlubDebug::OFF,
            },
            failslab: None,
            kfence_sample_interval: 0,
        }
    }

    /// When memory is populated on a platform: not all can do it on demand.
    pub(super) const fn populate_on<P: Platform>(&self) -> Populate {
        match (P::MODEL, self.page_owner) {
            (MemoryModel::Flat, _) | (_, PageOwner::On) => Populate::AtBoot,
            _ => self.populate,
        }
    }

    /// Whether anything is done to every page on its way out, …
    pub(super) const fn touch_new_pages(&self) -> bool {
        self.page_poison
            || self.debug_pagealloc.is_on()
            || (self.init_on_alloc && !self.init_on_free)
            || matches!(self.page_owner, PageOwner::On)
    }

    /// … or on its way in.
    pub(super) const fn touch_free_pages(&self) -> bool {
        self.page_poison
            || self.init_on_free
            || self.debug_pagealloc.is_on()
            || matches!(self.page_table_check, PageTableCheck::On)
            || matches!(self.page_owner, PageOwner::On)
    }

    /// The same with what the kernel command line says: `init_on_alloc=`, `init_on_free=`,
    /// `page_poison=` and `debug_pagealloc=`, each `0`/`1`/`off`/`on`; `transparent_hugepage=`, which is `always`,
    /// `madvise` or `never`; `percpu_pagelists=`, which is `off`, `tuned` or `classic`;
    /// `fail_page_alloc=`, as [`FailPageAlloc`] reads it; `failslab=`, as [`FailSlab`] does; `kfence.sample_interval=`, a number; `slub_debug=`, as
    /// [`SlubDebug`] does, or without a value; `page_owner=` and
    /// `page_table_check=`, each `off` or `on`; and `populate=`, which is `ondemand` or `boot`. Other words are
    /// left to others; a value that is none of these goes to `refused` and changes nothing.
    /// Context: any.
    #[must_use]
    pub fn with_command_line<'a>(
        mut self,
        line: &'a str,
        mut refused: impl FnMut(&'a str),
    ) -> Self {
        for word in line.split_ascii_whitespace() {
            let (name, value) = match word.split_once('=') {
                Some(parts) => parts,
                None if word == "slub_debug" => (word, ""),
                None => continue,
            };
            let is_taken = match name {
                "init_on_alloc" => switch(&mut self.init_on_alloc, value),
                "init_on_free" => switch(&mut self.init_on_free, value),
                "page_poison" => switch(&mut self.page_poison, value),
                "debug_pagealloc" => {
                    let mut is_on = self.debug_pagealloc.is_on();
                    let is_taken = switch(&mut is_on, value);
                    self.debug_pagealloc = match is_on {
                        true => DebugPagealloc::On,
                        false => DebugPagealloc::Off,
                    };
                    is_taken
                }
                "page_owner" => {
                    let choices = [("off", PageOwner::Off), ("on", PageOwner::On)];
                    choice(&mut self.page_owner, value, choices)
                }
                "page_table_check" => {
                    let choices = [("off", PageTableCheck::Off), ("on", PageTableCheck::On)];
                    choice(&mut self.page_table_check, value, choices)
                }
                "fail_page_alloc" => rule(&mut self.fail_page_alloc, value),
                "failslab" => rule(&mut self.failslab, value),
                "kfence.sample_interval" => number(&mut self.kfence_sample_interval, value),
                "slub_debug" => match self.slub_debug.with(value) {
                    Ok(debug) => {
                        self.slub_debug = debug;
                        true
                    }
                    Err(_) => false,
                },
                "percpu_pagelists" => {
                    let (off, tuned) = (PageLists::Off, PageLists::Tuned);
                    let classic = ("classic", PageLists::Classic);
                    let choices = [("off", off), ("tuned", tuned), classic];
                    choice(&mut self.page_lists, value, choices)
                }
                "populate" => {
                    let choices = [("ondemand", Populate::OnDemand), ("boot", Populate::AtBoot)];
                    choice(&mut self.populate, value, choices)
                }
                "transparent_hugepage" => {
                    let (always, never) = (HugePages::Always, HugePages::Never);
                    let madvise = ("madvise", HugePages::Madvise);
                    let choices = [("always", always), madvise, ("never", never)];
                    choice(&mut self.huge_pages, value, choices)
                }
                _ => continue,
            };
            if !is_taken {
                refused(word);
            }
        }
        self
    }
}

/// Sets what is on or off; answers whether the value says so.
fn switch(place: &mut bool, value: &str) -> bool {
    let choices = [("1", true), ("on", true), ("y", true)];
    choice(place, value, choices)
        || choice(place, value, [("0", false), ("off", false), ("n", false)])
}

/// Sets what has a few values; answers whether it is one of them.
fn choice<T, const N: usize>(place: &mut T, value: &str, choices: [(&str, T); N]) -> bool {
    let found = choices.into_iter().find(|(name, _)| *name == value);
    match found {
        Some((_, chosen)) => {
            *place = chosen;
            true
        }
        None => false,
    }
}

/// Sets what is a number; answers whether it is one.
fn number(place: &mut u64, value: &str) -> bool {
    value.parse().map(|number| *place = number).is_ok()
}

/// Sets what has a language of its own; answers whether the value is in it.
fn rule<T: FromStr>(place: &mut Option<T>, value: &str) -> bool {
    match value.parse() {
        Ok(rule) => {
            *place = Some(rule);
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_overrides_the_profile_and_nonsense_is_refused() {
        let mut refused = [""; 1];
        let options = Options::for_profile(Profile::Hardened).with_command_line(
            "quiet init_on_alloc=0 page_poison=maybe init_on_free=on transparent_hugepage=never page_owner=on \
             populate=boot fail_page_alloc=1,5,0,-1 slub_debug=FZ,kmalloc-* failslab=1,5,0,-1 \
             kfence.sample_interval=100 debug_pagealloc=on page_table_check=on",
            |word| refused = [word],
        );
        assert_eq!(
            options,
            Options {
                init_on_alloc: false,
                init_on_free: true,
                page_poison: false,
                debug_pagealloc: DebugPagealloc::On,
                huge_pages: HugePages::Never,
                page_lists: PageLists::Tuned,
                page_owner: PageOwner::On,
                page_table_check: PageTableCheck::On,
                populate: Populate::AtBoot,
                cma_bytes: 0,
                fail_page_alloc: "1,5,0,-1".parse().ok(),
                slub_debug: "FZ,kmalloc-*".parse().unwrap(),
                failslab: "1,5,0,-1".parse().ok(),
                kfence_sample_interval: 100,
            }
        );
        assert_eq!(refused, ["page_poison=maybe"]);
        let line = "slub_debug slub_debug=FT";
        let options =
            Options::for_profile(Profile::Plain).with_command_line(line, |word| refused = [word]);
        assert_eq!(options.slub_debug, SlubDebug::ALL);
        assert_eq!(refused, ["slub_debug=FT"]);
    }
}
