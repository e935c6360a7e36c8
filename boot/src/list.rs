//! A list of bounded length that counts what it had no room for.

/// Up to `N` items, in the order they were pushed.
///
/// # Invariants
///
/// `length <= N`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List<T, const N: usize> {
    items: [T; N],
    length: usize,
    lost: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    /// Creates an empty list; `filler` is what unused places hold.
    pub(crate) const fn new(filler: T) -> Self {
        Self {
            items: [filler; N],
            length: 0,
            lost: 0,
        }
    }

    /// Appends `item`, or counts it as lost when the list is full.
    pub(crate) fn push(&mut self, item: T) {
        let Some(place) = self.items.get_mut(self.length) else {
            self.lose();
            return;
        };
        *place = item;
        // INVARIANT: `length` was the index of a place, so it was below `N`.
        self.length = self.length.saturating_add(1);
    }

    /// Counts an item that the caller left out.
    pub(crate) const fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        self.items.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.items.get_mut(self.length.checked_sub(1)?)
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.length == N
    }

    /// How many items were pushed in vain.
    pub(crate) const fn lost(&self) -> usize {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::List;

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut list = List::<u8, 2>::new(0);
        assert!(list.as_slice().is_empty());
        assert_eq!(list.last_mut(), None);
        for item in 1..=5 {
            list.push(item);
        }
        assert_eq!(list.as_slice(), [1, 2]);
        assert_eq!(list.lost(), 3);
        assert!(list.is_full());
        assert_eq!(list.last_mut(), Some(&mut 2));
    }
}
