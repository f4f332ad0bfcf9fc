//! Names for the store's own values on a server. In a cluster, such a name must be in a slot that the node serves.

use arc_swap::ArcSwapOption;

use super::cluster::SlotSet;

/// The names that one server can hold.
#[derive(Default)]
pub(super) struct OwnNames {
    /// `None`: any name.
    slots: ArcSwapOption<SlotSet>,
}

impl OwnNames {
    /// Sets the current slots of a cluster node.
    pub(super) fn set_slots(&self, slots: SlotSet) {
        self.slots.store(Some(slots.into()));
    }

    /// A name that begins with `base` and that this server holds, after `skip` other such names.
    pub(super) fn name(&self, base: &str, skip: usize) -> String {
        let slots = self.slots.load();
        // A node without slots holds no names. It refuses this one with an error.
        slots.as_ref().and_then(|slots| slots.name(base, skip)).unwrap_or_else(|| base.to_owned())
    }
}
