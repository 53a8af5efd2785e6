//! Whole specs by digest: what the core decides by is a part of each, what the runtime needs is the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellows_agent_core::{Record, SpecDigest};
use bellows_proto::types::AppSpec;
use prost::Message;

/// The specs that orders of this node name.
#[derive(Debug, Default)]
pub(crate) struct SpecBook(BTreeMap<SpecDigest, Arc<AppSpec>>);

impl SpecBook {
    pub(crate) fn insert(&mut self, digest: SpecDigest, spec: AppSpec) {
        self.0.insert(digest, Arc::new(spec));
    }

    pub(crate) fn find(&self, digest: &SpecDigest) -> Option<&Arc<AppSpec>> {
        self.0.get(digest)
    }

    pub(crate) fn remove(&mut self, digest: &SpecDigest) {
        self.0.remove(digest);
    }

    /// A line of the journal: keeps the spec it holds, gives the record on. A spec that does not decode fails its launches, with words.
    pub(crate) fn take_entry(&mut self, record: Record, spec: Option<String>) -> Record {
        if let (Record::Spec { digest, .. }, Some(spec)) = (&record, spec) {
            match hex::decode(spec).map(|bytes| AppSpec::decode(bytes.as_slice())) {
                Ok(Ok(spec)) => self.insert(*digest, spec),
                _ => tracing::error!(%digest, "the journal holds a spec that this program cannot read"),
            }
        }
        record
    }
}
