//! STUB until the agent lands.
use super::cluster::Wishes;
use super::plan::NodePlan;
use crate::failure::Failure;
use std::net::SocketAddr;
pub struct Agent;
pub async fn start(
    _plan: &NodePlan,
    _wishes: &Wishes,
    _controller: SocketAddr,
    _token: &str,
) -> Result<Agent, Failure> {
    Ok(Agent)
}
pub async fn end(_agent: Agent) -> Result<(), Failure> {
    Ok(())
}
