//! Frame numbers are not added up unchecked.
//~ E0369

use mm::addr::Pfn;

pub fn next(pfn: Pfn) -> Pfn {
    pfn + 1
}
