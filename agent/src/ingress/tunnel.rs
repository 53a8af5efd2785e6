//! After a change of protocol: bytes both ways, until both sides have said their last or one is gone.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::buffer::Lent;
use super::wire::{Wire, receive, send};

/// Both ways, beginning with what was read already. An end on one side is passed on, and the other may go on. Did both come to their end? Else one broke.
pub(crate) async fn tunnel<A: Wire, B: Wire>((a, from_a): (&A, &mut Lent), (b, mut from_b): (&B, Lent)) -> bool {
    a.guarded().guard().at_leisure();
    b.guarded().guard().at_leisure();
    let mut there = pin!(flow(a, b, from_a));
    let mut back = pin!(flow(b, a, &mut from_b));
    let (mut there_over, mut back_over) = (false, false);
    poll_fn(|cx| {
        let cut = look(there.as_mut(), cx, &mut there_over) || look(back.as_mut(), cx, &mut back_over);
        if cut || (there_over && back_over) { Poll::Ready(!cut) } else { Poll::Pending }
    })
    .await
}

/// Goes on with one way. Is it broken?
fn look(way: Pin<&mut impl Future<Output = bool>>, cx: &mut Context<'_>, over: &mut bool) -> bool {
    let polled = if *over { Poll::Pending } else { way.poll(cx) };
    *over |= polled.is_ready();
    polled == Poll::Ready(false)
}

/// One way, to its end; false when it broke.
async fn flow(from: &impl Wire, to: &impl Wire, buffer: &mut Lent) -> bool {
    loop {
        if !buffer.is_empty() {
            if send(to, buffer.filled(), b"").await.is_err() {
                return false;
            }
            let count = buffer.filled().len();
            buffer.consume(count);
        }
        match receive(from, buffer.room()).await {
            Ok(0) => return poll_fn(|cx| to.poll_close(cx)).await.is_ok(),
            Ok(count) => buffer.grew(count),
            Err(_) => return false,
        }
    }
}
