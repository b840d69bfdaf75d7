//! What an operator is told about routes: what they would do with a request, how two files differ in effect, and which routes
//! refused requests call for. Nothing is read or sent here.

pub(crate) mod decision;
pub(crate) mod difference;
pub(crate) mod reach;
pub(crate) mod recorded;
pub(crate) mod suggestion;
