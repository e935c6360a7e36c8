//! A page allocator that tells how far a sequence has come, so that two runs can be compared.

use crate::{Class, Pages, Policy};

/// What has been handed out so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    /// Requests so far, those that failed included.
    pub requests: u64,
    /// Hash over their answers, in order.
    pub hash: u64,
}

/// Passes requests on to a page allocator, and tells the digest after every so many.
#[derive(Debug)]
pub struct Noted<P, F> {
    pages: P,
    tell: F,
    every: u64,
    so_far: Digest,
}

impl<P: Pages, F: FnMut(Digest)> Noted<P, F> {
    /// Tells `tell` after every `every` requests.
    pub const fn new(pages: P, every: u64, tell: F) -> Self {
        Self {
            pages,
            tell,
            every,
            so_far: Digest {
                requests: 0,
                hash: 0,
            },
        }
    }
}

impl<P: Pages, F: FnMut(Digest)> Pages for Noted<P, F> {
    fn alloc(&mut self, class: Class, order: u8) -> Option<u64> {
        let answer = self.pages.alloc(class, order);
        let Digest { requests, hash } = &mut self.so_far;
        *requests = requests.wrapping_add(1);
        // One bit in the answer changes many in the hash, and so does its place in the order.
        let mixed = (*hash ^ answer.unwrap_or(u64::MAX)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *hash = mixed ^ mixed >> 32;
        if requests.checked_rem(self.every) == Some(0) {
            (self.tell)(self.so_far);
        }
        answer
    }

    fn free(&mut self, first: u64, order: u8) {
        self.pages.free(first, order);
    }

    fn nodes(&self) -> u32 {
        self.pages.nodes()
    }

    fn set_policy(&mut self, policy: Policy) {
        self.pages.set_policy(policy);
    }

    fn is_stopped(&mut self) -> bool {
        self.pages.is_stopped()
    }
}
