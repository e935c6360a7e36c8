//! Chunks by number: a tree of pages, three deep at most, that grows and shrinks with them.
#![forbid(unsafe_code)]

use super::chunk::Chunk;
use crate::addr::to_index;
use crate::kspace::raw::PageBox;
use crate::mem::Exclusive;
use crate::platform::Platform;

/// Places of a page.
const PLACES: usize = 128;

/// A page of places.
struct Places<T> {
    places: [Option<PageBox<T>>; PLACES],
    used: usize,
}

impl<T> Places<T> {
    const fn new() -> Self {
        Self {
            places: [const { None }; PLACES],
            used: 0,
        }
    }

    fn put(&mut self, place: usize, value: PageBox<T>) {
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(value);
            self.used = self.used.saturating_add(1);
        }
    }

    fn take(&mut self, place: usize) -> Option<PageBox<T>> {
        let value = self.places.get_mut(place)?.take()?;
        self.used = self.used.saturating_sub(1);
        Some(value)
    }

    fn get(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.as_deref()
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_deref_mut()
    }
}

/// Pages that a table needs, or is rid of.
pub(super) type Pages = [Option<Exclusive>; 2];

/// Where a chunk with a number is.
fn places(index: u32) -> (usize, usize) {
    let index = to_index(u64::from(index));
    (index / PLACES, index % PLACES)
}

/// All chunks.
pub(super) struct Table {
    root: Option<PageBox<Places<Places<Chunk>>>>,
}

impl Table {
    /// Without chunks.
    pub(super) const fn new() -> Self {
        Self { root: None }
    }

    /// Pages that one more chunk would need beside its own.
    pub(super) fn needs(&self) -> usize {
        match (&self.root, self.vacancy()) {
            (None, _) => 2,
            (Some(_), Some((leaf, _))) if self.leaf(leaf).is_some() => 0,
            (Some(_), _) => 1,
        }
    }

    fn leaf(&self, leaf: usize) -> Option<&Places<Chunk>> {
        self.root.as_ref()?.get(leaf)
    }

    /// The first place without a chunk.
    fn vacancy(&self) -> Option<(usize, usize)> {
        (0..PLACES).find_map(|leaf| {
            let Some(chunks) = self.leaf(leaf) else {
                return Some((leaf, 0));
            };
            if chunks.used == PLACES {
                return None;
            }
            let place = chunks.places.iter().position(Option::is_none)?;
            Some((leaf, place))
        })
    }

    /// Puts a chunk to the others, with pages if they are [needed](Self::needs). Answers its number.
    ///
    /// # Errors
    /// The chunk, if there are not enough pages, or too many chunks.
    pub(super) fn insert<P: Platform>(
        &mut self,
        platform: &P,
        chunk: PageBox<Chunk>,
        pages: &mut Pages,
    ) -> Result<u32, PageBox<Chunk>> {
        let vacancy = self.vacancy();
        // All or nothing: a page without chunks would stay for good.
        let are_enough = pages.iter().flatten().count() >= self.needs();
        let Some((leaf, place)) = vacancy.filter(|_| are_enough) else {
            return Err(chunk);
        };
        if self.root.is_none() {
            self.root = page_of(platform, pages);
        }
        let Some(root) = &mut self.root else {
            return Err(chunk);
        };
        if root.get(leaf).is_none()
            && let Some(new) = page_of(platform, pages)
        {
            root.put(leaf, new);
        }
        let Some(chunks) = root.get_mut(leaf) else {
            return Err(chunk);
        };
        chunks.put(place, chunk);
        let index = leaf.saturating_mul(PLACES).saturating_add(place);
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Takes a chunk out, and the pages that are not needed any more.
    pub(super) fn remove(&mut self, index: u32) -> Option<(PageBox<Chunk>, Pages)> {
        let (leaf, place) = places(index);
        let root = self.root.as_mut()?;
        let chunks = root.get_mut(leaf)?;
        let chunk = chunks.take(place)?;
        let is_bare = chunks.used == 0;
        let old_leaf = root.take_if(leaf, is_bare);
        let old_root = self.root.take_if(|root| root.used == 0);
        let pages = [
            old_leaf.map(|page| page.into_parts().1),
            old_root.map(|page| page.into_parts().1),
        ];
        Some((chunk, pages))
    }

    pub(super) fn get(&self, index: u32) -> Option<&Chunk> {
        let (leaf, place) = places(index);
        self.leaf(leaf)?.get(place)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Chunk> {
        let (leaf, place) = places(index);
        self.root.as_mut()?.get_mut(leaf)?.get_mut(place)
    }

    /// All chunks with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Chunk)> {
        (0..PLACES).flat_map(move |leaf| {
            let chunks = self.leaf(leaf).into_iter();
            chunks.flat_map(move |chunks| {
                let first = leaf.saturating_mul(PLACES);
                let numbered = (first..).zip(&chunks.places);
                numbered.filter_map(|(index, chunk)| {
                    Some((u32::try_from(index).ok()?, &**chunk.as_ref()?))
                })
            })
        })
    }
}

impl<T> Places<T> {
    fn take_if(&mut self, place: usize, condition: bool) -> Option<PageBox<T>> {
        match condition {
            true => self.take(place),
            false => None,
        }
    }
}

/// A page without anything, of one of `pages`.
fn page_of<T, P: Platform>(platform: &P, pages: &mut Pages) -> Option<PageBox<Places<T>>> {
    let place = pages.iter_mut().find(|page| page.is_some())?;
    match PageBox::new(platform, place.take()?, Places::new) {
        Ok(made) => Some(made),
        Err(page) => {
            *place = Some(page);
            None
        }
    }
}

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Table")
            .field("chunks", &self.iter().count())
            .finish_non_exhaustive()
    }
}
