//! No order exists that was not checked.
//~ E0423

use mm::addr::Order;

pub fn eleven() -> Order {
    Order(11)
}
