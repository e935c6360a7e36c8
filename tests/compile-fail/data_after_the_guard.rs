//! What a lock owns is out of reach once it is let go.
//~ E0505

use mm::platform::Platform;
use mm::sync::SpinLock;

pub fn late<P: Platform>(lock: &SpinLock<u64>, platform: &P) -> u64 {
    let guard = lock.lock(platform);
    let value = &*guard;
    drop(guard);
    *value
}
