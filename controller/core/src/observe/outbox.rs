//! Orders of one step, on their way into one batch per node.

use crate::effect::Order;
use crate::ids::NodeId;

/// Written in the order of decisions and sorted once, at the end: a burst of 100,000 orders is moved twice and no more.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Every order, and the place of its batch.
    orders: Vec<(u32, Order)>,
    /// Each node that has orders, and how many.
    batches: Vec<(NodeId, usize)>,
}

impl Outbox {
    /// Adds an order. `batch` is kept with the node: the place of its batch if it has one, else whatever an earlier step left there.
    pub fn post(&mut self, node: NodeId, batch: &mut u32, order: Order) {
        match self.batches.get_mut(*batch as usize) {
            Some((whose, count)) if *whose == node => *count += 1,
            _ => {
                *batch = u32::try_from(self.batches.len()).expect("there are at most as many batches as nodes");
                self.batches.push((node, 1));
            }
        }
        self.orders.push((*batch, order));
    }

    /// Takes all batches out, by node id; the orders of each as they were posted.
    pub fn take(&mut self) -> Vec<(NodeId, Vec<Order>)> {
        let batches = self.batches.drain(..);
        let mut batches: Vec<_> = batches.map(|(node, count)| (node, Vec::with_capacity(count))).collect();
        for (batch, order) in self.orders.drain(..) {
            batches[batch as usize].1.push(order);
        }
        self.orders.shrink_to(KEPT);
        self.batches.shrink_to(KEPT);
        batches.sort_unstable_by_key(|(node, _)| *node);
        batches
    }
}

/// Room kept from step to step: for 64 orders, which is 10 KiB.
const KEPT: usize = 64;
