//! The room for `unsafe` of this level: who owns which bytes.

mod page_box;
pub(crate) mod percpu;

pub(crate) use page_box::PageBox;
