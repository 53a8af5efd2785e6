//! What people call the nodes, in one piece of memory: every reason names two nodes, and 10,000 names here and there are more than a
//! cache holds.

use serde::Serialize;

use crate::ids::NodeId;

/// Names by node id. They never change, and a node that left keeps its own.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Names {
    text: String,
    /// Where each begins and ends; nothing where no node has that id.
    spans: Vec<(u32, u32)>,
}

impl Names {
    /// A node is called this.
    pub fn set(&mut self, node: NodeId, name: &str) {
        let at = node.0 as usize;
        if self.spans.len() <= at {
            self.spans.resize(at + 1, (0, 0));
        }
        let end = |text: &String| u32::try_from(text.len()).expect("all names together are far below 4 GiB");
        let begin = end(&self.text);
        self.text.push_str(name);
        self.spans[at] = (begin, end(&self.text));
    }

    /// What a node is called.
    pub fn of(&self, node: NodeId) -> Option<&str> {
        let (begin, end) = *self.spans.get(node.0 as usize).filter(|(begin, end)| begin < end)?;
        self.text.get(begin as usize..end as usize)
    }
}
