//! Names for the store's own values on a server. In a cluster, such a name must be in a slot that the node serves.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cluster::SlotSet;

/// The names that one server can hold.
#[derive(Default)]
pub(super) struct OwnNames(Mutex<NamesInSlots>);

#[derive(Default)]
struct NamesInSlots {
    /// `None`: any name.
    slots: Option<SlotSet>,
    /// The names that were found in these slots. The search for one goes through many.
    found: Vec<FoundName>,
}

struct FoundName {
    base: String,
    skip: usize,
    name: String,
}

impl OwnNames {
    /// Sets the current slots of a cluster node.
    pub(super) fn set_slots(&self, slots: SlotSet) {
        let mut names = self.lock();
        if names.slots.as_ref() != Some(&slots) {
            *names = NamesInSlots { slots: Some(slots), found: Vec::new() };
        }
    }

    /// A name that begins with `base` and that this server holds, after `skip` other such names.
    pub(super) fn name(&self, base: &str, skip: usize) -> String {
        let mut names = self.lock();
        if let Some(found) = names.found.iter().find(|found| found.base == base && found.skip == skip) {
            return found.name.clone();
        }
        // A node without slots holds no names. It refuses this one with an error.
        let name = names.slots.as_ref().and_then(|slots| slots.name(base, skip)).unwrap_or_else(|| base.to_owned());
        names.found.push(FoundName { base: base.to_owned(), skip, name: name.clone() });
        name
    }

    fn lock(&self) -> MutexGuard<'_, NamesInSlots> {
        // Every step leaves the names consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::cluster::slot_of;

    #[test]
    fn a_name_is_looked_for_once_for_each_set_of_slots() {
        let names = OwnNames::default();
        assert_eq!(names.name("mark", 0), "mark");
        for slot in [7, 16383, 7] {
            names.set_slots(SlotSet::new([slot].into_iter()));
            let first = names.name("mark", 0);
            assert_eq!(slot_of(&[first.as_bytes()]), slot);
            assert_ne!(names.name("mark", 1), first);
            assert_eq!(slot_of(&[names.name("canary", 0).as_bytes()]), slot);
            // The same slots, as each look at the cluster finds them.
            names.set_slots(SlotSet::new([slot].into_iter()));
            assert_eq!((names.name("mark", 0), names.lock().found.len()), (first, 3));
        }
    }
}
