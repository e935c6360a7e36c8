//! Reports that come in floods.

use crate::rate_limit::RateLimit;
use crate::{ktest, ktest_eq};

ktest! {
    fn a_flood_of_reports_is_cut_and_counted() {
        let limit = RateLimit::new(3, 1000);
        let said = |from: u64, to: u64| (from..to).filter_map(|now| limit.allows(now)).count();
        ktest_eq!(said(0, 500), 3);
        ktest_eq!(said(500, 1000), 0);
        // The first of the next interval says how many there were.
        ktest_eq!(limit.allows(1000), Some(997));
        ktest_eq!(limit.allows(1001), Some(0));
        ktest_eq!(limit.allows(1002), Some(0));
        ktest_eq!(limit.allows(1999), None);
        ktest_eq!(limit.allows(2000), Some(1));
        // A clock that stands still or goes back lets no more through.
        ktest_eq!((0..100).filter_map(|_| limit.allows(5)).count(), 2);
        Ok(())
    }
}
