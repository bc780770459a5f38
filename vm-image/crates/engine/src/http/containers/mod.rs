//! `/containers`: one file for what belongs together.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod wait;
