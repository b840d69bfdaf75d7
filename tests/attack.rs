//! The attacks of the threat model, tried from outside. Each test is named after its row there (`docs/threat-model.md`).
//! Lists of inputs, with what has to come of each, are in `tests/data/attack/`.

mod answers;
mod bench;
mod ca;
mod canary;
mod certificates;
mod cookies;
mod cuts;
mod faults;
mod floods;
mod framing;
mod headers;
mod http2;
mod hyper;
mod identity;
mod load;
mod memory;
mod needles;
pub(crate) mod network;
mod nonsense;
mod observe;
mod paths;
mod pooling;
mod reflection;
mod reload;
mod secrets;
mod sharing;
mod slots;
mod stalls;
mod upgrades;
