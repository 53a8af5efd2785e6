//! One module per verb: what it takes, what it does.

pub mod agent;
pub mod apply;
pub mod apps;
pub mod completions;
pub mod controller;
pub mod cordon;
pub mod drain;
pub mod events;
pub mod exec;
pub mod explain;
pub mod image_load;
pub mod image_ls;
pub mod image_rm;
pub mod local;
pub mod logs;
pub mod node_rm;
pub mod nodes;
pub mod oci;
pub mod replicas;
pub mod rm;
pub mod scale;
pub mod schema;
pub mod sim_chaos;
pub mod status;
pub mod token;
pub mod uncordon;
