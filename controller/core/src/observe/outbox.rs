//! Orders of one step, on their way into one batch per node.

use super::replica::Slot;
use crate::effect::Order;
use crate::ids::{NodeId, OrderSequence};
use crate::units::Resources;

/// An order that is not written yet.
#[derive(Clone, Debug)]
pub enum Pending {
    /// To start a copy: all that it says is kept with the copy. A burst makes 100,000 of these.
    Start {
        /// The copy.
        slot: Slot,
        /// Place in the session.
        sequence: OrderSequence,
        /// As declared.
        resources: Resources,
    },
    /// Anything else.
    Written(Box<Order>),
}

/// Kept in the order of decisions, and sorted once, at the end.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Every order, and the place of its batch.
    pending: Vec<(u32, Pending)>,
    /// Each node that has orders, and how many.
    batches: Vec<(NodeId, usize)>,
}

impl Outbox {
    /// Adds an order. `batch` is kept with the node: the place of its batch if it has one, else whatever an earlier step left there.
    pub fn post(&mut self, node: NodeId, batch: &mut u32, order: Pending) {
        match self.batches.get_mut(*batch as usize) {
            Some((whose, count)) if *whose == node => *count += 1,
            _ => {
                *batch = u32::try_from(self.batches.len()).expect("there are at most as many batches as nodes");
                self.batches.push((node, 1));
            }
        }
        self.pending.push((*batch, order));
    }

    /// Writes all orders and takes them out in batches, by node id; the orders of each as they were posted.
    pub fn take(self, write: impl Fn(Pending) -> Order) -> Vec<(NodeId, Vec<Order>)> {
        let batches = self.batches.into_iter();
        let mut batches: Vec<_> = batches.map(|(node, count)| (node, Vec::with_capacity(count))).collect();
        for (batch, order) in self.pending {
            batches[batch as usize].1.push(write(order));
        }
        batches.sort_unstable_by_key(|(node, _)| *node);
        batches
    }
}
