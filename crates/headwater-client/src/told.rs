//! Under which names this crate tells what it does. The crate's documentation says what is told under each; people filter by
//! them, so they stay.

pub(crate) const CONNECTION: &str = "headwater_client::connection";
pub(crate) const RETRY: &str = "headwater_client::retry";
pub(crate) const SCALE: &str = "headwater_client::scale";
pub(crate) const GROUP: &str = "headwater_client::group";
pub(crate) const TOKEN: &str = "headwater_client::token";
