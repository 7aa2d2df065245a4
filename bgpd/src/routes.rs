//! Routes for people: what was received, what became of it, and why.

use manx_crds::report::BgpdRoutes;

use crate::driver::Driver;

pub(crate) fn of(driver: &Driver, _peer: Option<&str>, _prefix: Option<&str>) -> BgpdRoutes {
    BgpdRoutes { node: driver.node.clone(), routes: Vec::new() }
}
