//! Which caches are debugged, from the command line (Linux: `slub_debug=`).
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

use crate::report::CacheName;
use crate::slab::SlabFlags;

/// Groups of caches that are told apart.
const RULES: usize = 8;
/// What `slub_debug` by itself turns on: `FZPU`.
const USUAL: SlabFlags = SlabFlags::CONSISTENCY_CHECKS
    .union(SlabFlags::RED_ZONE)
    .union(SlabFlags::POISON)
    .union(SlabFlags::STORE_USER);

/// A name of caches, or the beginning of one and a `*` for all that begin so. 31 bytes of it count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamePattern {
    text: CacheName,
}

impl NamePattern {
    /// From its text. `None` if it is empty or too long. Context: any.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let name = CacheName::new(&[text]);
        (!text.is_empty() && name.as_str() == text).then_some(Self { text: name })
    }

    /// Whether a cache of that name is meant. Context: any.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let text = self.text.as_str();
        match text.split_once('*') {
            Some((start, _)) => name.starts_with(start),
            None => name == text,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rule {
    pattern: NamePattern,
    flags: SlabFlags,
}

/// What caches are debugged for (Linux: `slub_debug=`). Groups stand apart by `;`, each of them
/// letters and, behind commas, names of caches: `FZ;PU,kmalloc-64,buffer*`. A group without names is for
/// all caches that no other one names; one without letters means `FZPU`.
///
/// | Letter | Flag |
/// |---|---|
/// | `F` | [`CONSISTENCY_CHECKS`](SlabFlags::CONSISTENCY_CHECKS) |
/// | `Z` | [`RED_ZONE`](SlabFlags::RED_ZONE) |
/// | `P` | [`POISON`](SlabFlags::POISON) |
/// | `U` | [`STORE_USER`](SlabFlags::STORE_USER) |
/// | `A` | [`FAILSLAB`](SlabFlags::FAILSLAB) |
/// | `O` | not for caches whose slabs get larger by it |
/// | `-` | none |
///
/// `T`, which traces single caches in Linux, is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlubDebug {
    all: SlabFlags,
    rules: [Option<Rule>; RULES],
    spares_orders: bool,
}

/// Why a text says nothing of debugged caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSlubDebug {
    /// No letter that has a meaning.
    Letter(char),
    /// `T`: there is no tracing of single caches.
    Trace,
    /// A name is empty, or longer than those of caches.
    Name,
    /// More names than there is room for.
    TooMany,
}

impl fmt::Display for BadSlubDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letter(letter) => write!(f, "`{letter}` is none of F, Z, P, U, A, O and -"),
            Self::Trace => f.write_str("`T`: single caches cannot be traced"),
            Self::Name => f.write_str("a name of caches is empty or too long"),
            Self::TooMany => write!(f, "more than {RULES} names"),
        }
    }
}

impl core::error::Error for BadSlubDebug {}

impl SlubDebug {
    /// No cache, unless whoever makes it says so.
    pub const OFF: Self = Self {
        all: SlabFlags::empty(),
        rules: [None; RULES],
        spares_orders: false,
    };

    /// All caches, for all there is (`slub_debug` by itself).
    pub const ALL: Self = Self {
        all: USUAL,
        ..Self::OFF
    };

    /// What a text adds to it, or changes. Context: any.
    ///
    /// # Errors
    /// [`BadSlubDebug`].
    pub fn with(mut self, text: &str) -> Result<Self, BadSlubDebug> {
        for group in text.split(';') {
            let (letters, names) = match group.split_once(',') {
                Some((letters, names)) => (letters, Some(names)),
                None => (group, None),
            };
            let flags = self.letters(letters)?;
            let Some(names) = names else {
                self.all = flags;
                continue;
            };
            for name in names.split(',') {
                let pattern = NamePattern::new(name).ok_or(BadSlubDebug::Name)?;
                let free = self.rules.iter_mut().find(|rule| rule.is_none());
                *free.ok_or(BadSlubDebug::TooMany)? = Some(Rule { pattern, flags });
            }
        }
        Ok(self)
    }

    fn letters(&mut self, letters: &str) -> Result<SlabFlags, BadSlubDebug> {
        let mut flags = SlabFlags::empty();
        let mut says_something = false;
        for letter in letters.chars() {
            says_something |= letter != 'O' && letter != 'o';
            let flag = match letter.to_ascii_uppercase() {
                'F' => SlabFlags::CONSISTENCY_CHECKS,
                'Z' => SlabFlags::RED_ZONE,
                'P' => SlabFlags::POISON,
                'U' => SlabFlags::STORE_USER,
                'A' => SlabFlags::FAILSLAB,
                'O' => {
                    self.spares_orders = true;
                    SlabFlags::empty()
                }
                '-' => {
                    flags = SlabFlags::empty();
                    flags
                }
                'T' => return Err(BadSlubDebug::Trace),
                _ => return Err(BadSlubDebug::Letter(letter)),
            };
            flags |= flag;
        }
        Ok(if says_something { flags } else { USUAL })
    }

    /// What a cache of that name is debugged for, besides what whoever makes it says. Context: any.
    #[must_use]
    pub fn flags(&self, name: &str) -> SlabFlags {
        let mut rules = self.rules.iter().flatten();
        let rule = rules.find(|rule| rule.pattern.matches(name));
        rule.map_or(self.all, |rule| rule.flags)
    }

    /// Whether a cache keeps who allocated its objects, for this alone.
    pub(crate) fn may_store_users(&self) -> bool {
        let rules = self.rules.iter().flatten().map(|rule| rule.flags);
        rules
            .fold(self.all, SlabFlags::union)
            .contains(SlabFlags::STORE_USER)
    }

    /// Whether caches are spared whose slabs get larger.
    pub(crate) const fn spares_orders(&self) -> bool {
        self.spares_orders
    }
}

impl FromStr for SlubDebug {
    type Err = BadSlubDebug;

    fn from_str(text: &str) -> Result<Self, BadSlubDebug> {
        Self::OFF.with(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: SlabFlags = SlabFlags::CONSISTENCY_CHECKS;
    const Z: SlabFlags = SlabFlags::RED_ZONE;
    const P: SlabFlags = SlabFlags::POISON;

    #[test]
    fn groups_name_caches_and_the_first_that_does_decides() {
        let read: SlubDebug = "fz;P,kmalloc-64,buffer*;-,kmalloc-*;,inode"
            .parse()
            .unwrap();
        assert_eq!(read.flags("anything"), F | Z);
        assert_eq!(read.flags("kmalloc-64"), P);
        assert_eq!(read.flags("kmalloc-96"), SlabFlags::empty());
        assert_eq!(read.flags("buffer_head"), P);
        assert_eq!(read.flags("inode"), USUAL);
        assert_eq!("".parse(), Ok(SlubDebug::ALL));
        assert_eq!("FZPU".parse(), Ok(SlubDebug::ALL));
        assert_eq!("-".parse(), Ok(SlubDebug::OFF));
        assert_eq!(SlubDebug::ALL.with("-"), Ok(SlubDebug::OFF));
        // Without a group for all, what was said before stays.
        let named = SlubDebug::ALL.with("P,one").unwrap();
        assert_eq!((named.flags("one"), named.flags("two")), (P, USUAL));
        assert!(read.may_store_users() && !"FZ".parse::<SlubDebug>().unwrap().may_store_users());
    }

    #[test]
    fn only_the_order_is_said_by_a_single_letter() {
        let read: SlubDebug = "O".parse().unwrap();
        assert!(read.spares_orders());
        assert_eq!(read.flags("any"), USUAL);
        assert!(!SlubDebug::ALL.spares_orders());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let read = |text: &str| text.parse::<SlubDebug>();
        assert_eq!(read("FZT"), Err(BadSlubDebug::Trace));
        assert_eq!(read("FX"), Err(BadSlubDebug::Letter('X')));
        assert_eq!(read("F,"), Err(BadSlubDebug::Name));
        assert_eq!(
            read("F,a-name-of-more-than-thirty-one-bytes"),
            Err(BadSlubDebug::Name)
        );
        assert_eq!(read("F,1,2,3,4,5,6,7,8,9"), Err(BadSlubDebug::TooMany));
    }
}
