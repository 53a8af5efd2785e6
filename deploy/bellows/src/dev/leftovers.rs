//! What an earlier `dev` with this folder left: nodes that this one does not have. Those that it has are adopted by their agents.

use bellows_runtime::{Runtime, RuntimeConfig};

use super::plan::NodePlan;
use crate::execution;
use crate::failure::{Failure, chain};

/// Ends everything that runs for this node and removes its folder.
pub fn remove_node(plan: &NodePlan) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::failed(format!("cleaning up {} of an earlier start: {why}", plan.name)).mend(format!(
            "start with as many --nodes as before, or remove {} after a restart of the machine",
            plan.state.display()
        ))
    };
    end_all(plan).map_err(|error| failed(chain(&error)))?;
    std::fs::remove_dir_all(&plan.state).map_err(|error| failed(error.to_string()))
}

/// Ends everything that runs for this node, of which no agent runs.
pub fn end_all(plan: &NodePlan) -> Result<(), bellows_runtime::handle::Error> {
    let runtime = Runtime::start(runtime_config(plan))?;
    runtime.adopt()?;
    runtime.shutdown()
}

/// The runtime of one node.
fn runtime_config(plan: &NodePlan) -> RuntimeConfig {
    // Where the agent keeps its runtime's folder.
    let state = plan.state.join("runtime");
    let mut config = RuntimeConfig::new(state, plan.cgroup.clone(), plan.subnet, execution::launcher());
    config.capacity = Some(plan.capacity);
    config.uid_base = plan.uid_base;
    config
}
