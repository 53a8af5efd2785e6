//! `bellows freeze` and `bellows thaw`: asked of the core, which knows whether the replica is parked.

use bellows_proto::node::call_reply::Body;
use bellows_proto::node::{FreezeCall, Frozen};
use tokio::sync::oneshot;

use super::exec::ExecError;
use super::{Answers, Calls, Gone};
use crate::convert;
use crate::news::News;

impl Calls {
    pub(super) async fn freeze(&self, call: FreezeCall, answers: Answers) -> Result<(), ExecError> {
        let FreezeCall { replica, frozen, force } = call;
        let (answer, answered) = oneshot::channel();
        let news = News::Freeze { replica: convert::replica(replica)?, frozen, force, answer };
        // A driver that is gone answers nothing.
        self.news.send(news).await.map_err(|_| Gone)?;
        let (memory_before_bytes, memory_after_bytes) =
            answered.await.map_err(|_| Gone)?.map_err(ExecError::Refused)?;
        Ok(answers.say(Body::Frozen(Frozen { memory_before_bytes, memory_after_bytes })).await?)
    }
}
