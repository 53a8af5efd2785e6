//! Refusals that are kept with their idempotency keys.

use bellows_core::ids::Generation;
use bellows_core::model::command::Refusal;
use bellows_proto::log as wire;
use wire::refusal::{ImageInUse, ScaledByPolicy, Unknown, WrongGeneration};

use super::{Result, required};

pub(super) fn refusal_to_log(refusal: &Refusal) -> wire::Refusal {
    use wire::refusal::Refusal as Wire;
    let unknown = |tenant: &str, name: &str, nearest: &Option<String>| Unknown {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
        nearest: nearest.clone(),
    };
    let refusal = match refusal {
        Refusal::UnknownApp { tenant, name, nearest } => Wire::App(unknown(tenant, name, nearest)),
        Refusal::UnknownNode { name, nearest } => Wire::Node(unknown("", name, nearest)),
        Refusal::UnknownImage { name, nearest } => Wire::Image(unknown("", name, nearest)),
        Refusal::WrongGeneration { name, expected, actual } => {
            Wire::WrongGeneration(WrongGeneration { name: name.clone(), expected: expected.0, actual: actual.0 })
        }
        Refusal::ScaledByPolicy { name, min, max } => {
            Wire::ScaledByPolicy(ScaledByPolicy { name: name.clone(), min: *min, max: *max })
        }
        Refusal::ImageInUse { name, app } => Wire::ImageInUse(ImageInUse { name: name.clone(), app: app.clone() }),
        Refusal::NodeNameTaken { name } => Wire::NodeNameTaken(name.clone()),
        Refusal::KeyReused { key } => Wire::KeyReused(key.clone()),
        Refusal::BadSpec(text) => Wire::BadSpec(text.clone()),
    };
    wire::Refusal { refusal: Some(refusal) }
}

pub(super) fn refusal_from_log(refusal: wire::Refusal) -> Result<Refusal> {
    use wire::refusal::Refusal as Wire;
    Ok(match required("refusal", refusal.refusal)? {
        Wire::App(Unknown { tenant, name, nearest }) => Refusal::UnknownApp { tenant, name, nearest },
        Wire::Node(Unknown { name, nearest, .. }) => Refusal::UnknownNode { name, nearest },
        Wire::Image(Unknown { name, nearest, .. }) => Refusal::UnknownImage { name, nearest },
        Wire::WrongGeneration(WrongGeneration { name, expected, actual }) => {
            Refusal::WrongGeneration { name, expected: Generation(expected), actual: Generation(actual) }
        }
        Wire::ScaledByPolicy(ScaledByPolicy { name, min, max }) => Refusal::ScaledByPolicy { name, min, max },
        Wire::ImageInUse(ImageInUse { name, app }) => Refusal::ImageInUse { name, app },
        Wire::NodeNameTaken(name) => Refusal::NodeNameTaken { name },
        Wire::KeyReused(key) => Refusal::KeyReused { key },
        Wire::BadSpec(text) => Refusal::BadSpec(text),
    })
}
