//! Switches of a running system, from the profile and the command line.
#![forbid(unsafe_code)]

use super::FailPageAlloc;
use crate::platform::{MemoryModel, Platform, Profile};

/// What is done to pages on their way out and in; names as on Linux's command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `init_on_alloc=`: every page comes zeroed.
    pub init_on_alloc: bool,
    /// `init_on_free=`: every page is zeroed when it is given back.
    pub init_on_free: bool,
    /// `page_poison=`: free pages hold a pattern, which is checked when they are handed out.
    pub page_poison: bool,
    /// `transparent_hugepage=`: whether memory shall be kept fit for huge pages.
    pub huge_pages: HugePages,
    /// `percpu_pagelists=`: whether CPUs have page lists of their own.
    pub page_lists: PageLists,
    /// `page_owner=`: whether it is kept which line of the source allocated each block.
    pub page_owner: PageOwner,
    /// `populate=`: when memory gets its frame records.
    pub populate: Populate,
    /// `cma=`: so many bytes can be had in one piece by devices, and are lent to movable pages
    /// meanwhile.
    pub cma_bytes: u64,
    /// `fail_page_alloc=`: which requests fail on purpose.
    pub fail_page_alloc: Option<FailPageAlloc>,
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

/// Whether it is kept who allocated what (Linux: `page_owner=`): a word for each frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageOwner {
    /// No.
    Off,
    /// Yes: [`proc::page_owner`](crate::proc::page_owner) prints it.
    On,
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
            page_lists: PageLists::Tuned,
            page_owner: PageOwner::Off,
            populate: Populate::OnDemand,
            cma_bytes: 0,
            fail_page_alloc: None,
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
            || (self.init_on_alloc && !self.init_on_free)
            || matches!(self.page_owner, PageOwner::On)
    }

    /// … or on its way in.
    pub(super) const fn touch_free_pages(&self) -> bool {
        self.page_poison || self.init_on_free
    }

    /// The same with what the kernel command line says: `init_on_alloc=`, `init_on_free=` and
    /// `page_poison=`, each `0`/`1`/`off`/`on`; `transparent_hugepage=`, which is `always`,
    /// `madvise` or `never`; `percpu_pagelists=`, which is `off`, `tuned` or `classic`;
    /// `fail_page_alloc=`, as [`FailPageAlloc`] reads it; `page_owner=`, which is
    /// `off` or `on`; and `populate=`, which is `ondemand` or `boot`. Other words are
    /// left to others; a value that is none of these goes to `refused` and changes nothing.
    /// Context: any.
    #[must_use]
    pub fn with_command_line<'a>(
        mut self,
        line: &'a str,
        mut refused: impl FnMut(&'a str),
    ) -> Self {
        for word in line.split_ascii_whitespace() {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let switch = match name {
                "init_on_alloc" => &mut self.init_on_alloc,
                "init_on_free" => &mut self.init_on_free,
                "page_poison" => &mut self.page_poison,
                "page_owner" => {
                    match value {
                        "off" => self.page_owner = PageOwner::Off,
                        "on" => self.page_owner = PageOwner::On,
                        _ => refused(word),
                    }
                    continue;
                }
                "fail_page_alloc" => {
                    match value.parse() {
                        Ok(rule) => self.fail_page_alloc = Some(rule),
                        Err(_) => refused(word),
                    }
                    continue;
                }
                "percpu_pagelists" => {
                    match value {
                        "off" => self.page_lists = PageLists::Off,
                        "tuned" => self.page_lists = PageLists::Tuned,
                        "classic" => self.page_lists = PageLists::Classic,
                        _ => refused(word),
                    }
                    continue;
                }
                "populate" => {
                    match value {
                        "ondemand" => self.populate = Populate::OnDemand,
                        "boot" => self.populate = Populate::AtBoot,
                        _ => refused(word),
                    }
                    continue;
                }
                "transparent_hugepage" => {
                    match value {
                        "always" => self.huge_pages = HugePages::Always,
                        "madvise" => self.huge_pages = HugePages::Madvise,
                        "never" => self.huge_pages = HugePages::Never,
                        _ => refused(word),
                    }
                    continue;
                }
                _ => continue,
            };
            match value {
                "1" | "on" | "y" => *switch = true,
                "0" | "off" | "n" => *switch = false,
                _ => refused(word),
            }
        }
        self
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
             populate=boot fail_page_alloc=1,5,0,-1",
            |word| refused = [word],
        );
        assert_eq!(
            options,
            Options {
                init_on_alloc: false,
                init_on_free: true,
                page_poison: false,
                huge_pages: HugePages::Never,
                page_lists: PageLists::Tuned,
                page_owner: PageOwner::On,
                populate: Populate::AtBoot,
                cma_bytes: 0,
                fail_page_alloc: "1,5,0,-1".parse().ok(),
            }
        );
        assert_eq!(refused, ["page_poison=maybe"]);
    }
}
