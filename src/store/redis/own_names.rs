//! Names for what `onlyonce` itself keeps at a server. In a cluster, they must lie in a slot that the server serves.

use arc_swap::ArcSwapOption;

use super::cluster::SlotSet;

/// The names that one server has.
#[derive(Default)]
pub(super) struct OwnNames {
    /// `None`: any.
    slots: ArcSwapOption<SlotSet>,
}

impl OwnNames {
    /// The server is a node of a cluster, and these are its slots now.
    pub(super) fn set_slots(&self, slots: SlotSet) {
        self.slots.store(Some(slots.into()));
    }

    /// A name that begins with `base`, and lies at this server. Where it has several, the one after `skip` others.
    pub(super) fn name(&self, base: &str, skip: usize) -> String {
        let slots = self.slots.load();
        // A node without slots has no names: it will say so.
        slots.as_ref().and_then(|slots| slots.name(base, skip)).unwrap_or_else(|| base.to_owned())
    }
}
