//! Raw TCP: one connection is one request, from its beginning to its end. Bytes go from socket to socket inside the kernel, but for those that come over TLS.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use bellows_agent_core::traffic::{Bounce, Outcome};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;

use super::app::{Placed, Seat, Target};
use super::buffer::Lent;
use super::http1::upstream::Place;
use super::thread::{Port, Thread};
use super::tls::Secure;
use super::tunnel::tunnel;
use super::wire::{Socket, Wire};

/// As much as a pipe takes by itself.
const PIECE: usize = 64 << 10;

/// A connection of whoever asks.
pub(crate) trait Client: Wire {
    /// Both ways between it and a copy here, to the end.
    async fn join(&self, copy: &Rc<Socket>);
}

impl Client for Rc<Socket> {
    async fn join(&self, copy: &Rc<Socket>) {
        both(self, copy).await;
    }
}

impl Client for Rc<Secure> {
    /// What is cut off reaches the copy as a break, not as an end.
    async fn join(&self, copy: &Rc<Socket>) {
        if !tunnel((self, &mut Lent::new()), (copy, Lent::new())).await {
            copy.reset();
        }
    }
}

/// One connection, to its end.
pub(crate) async fn serve<C: Client>(thread: Rc<Thread>, client: C, listen: u16) {
    let Some((app, port)) = thread.find(listen, "", "") else { return };
    let _under_way = thread.under_way();
    let mut placed = app.arrive(0);
    loop {
        let seat = match placed {
            Ok(Placed::Go(seat)) => seat,
            Ok(Placed::Wait(waiting)) => match waiting.seat().await {
                Ok(seat) => seat,
                Err(refusal) => return tracing::debug!(%refusal, listen, "a connection is closed"),
            },
            Err(refusal) => return tracing::debug!(%refusal, listen, "a connection is closed"),
        };
        match connected(&thread, &client, seat, port).await {
            Ok(()) => return,
            Err((seat, bounce)) => placed = seat.bounced(bounce),
        }
    }
}

async fn connected<C: Client>(
    thread: &Rc<Thread>,
    client: &C,
    mut seat: Seat,
    port: Port,
) -> Result<(), (Seat, Bounce)> {
    match seat.target().clone() {
        Target::Here { replica, attempt, address } => {
            let place = Place { replica, attempt, address, port: port.number };
            let Ok(upstream) = thread.pool.connect(place).await else { return Err((seat, Bounce::NotReached)) };
            client.join(&upstream.socket).await;
        }
        Target::At { .. } => match thread.there(&seat, port).await {
            Ok(stream) => {
                tunnel((client, &mut Lent::new()), (&stream, Lent::new())).await;
            }
            Err(bounce) => return Err((seat, bounce)),
        },
    }
    seat.set(Outcome::Answered);
    Ok(())
}

/// Both ways until both ends have come; a break of one way ends both.
async fn both(one: &Rc<Socket>, other: &Rc<Socket>) {
    let mut there = pin!(flow(one, other));
    let mut back = pin!(flow(other, one));
    let broken = tokio::select! {
        there = &mut there => if there.is_ok() { back.await } else { there },
        back = &mut back => if back.is_ok() { there.await } else { back },
    };
    if let Err(error) = broken {
        tracing::trace!(%error, "a connection broke");
        one.shut(Shutdown::Both);
    }
}

/// One way, to its end.
async fn flow(from: &Socket, to: &Socket) -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    loop {
        let count = moved(from, Interest::READABLE, |socket| splice_piece(socket, &writer)).await?;
        if count == 0 {
            to.shut(Shutdown::Write);
            return Ok(());
        }
        let mut left = count;
        while left > 0 {
            left -= moved(to, Interest::WRITABLE, |socket| {
                Ok(splice(&reader, None, socket, None, left, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
            })
            .await?;
        }
    }
}

fn splice_piece(socket: &tokio::net::TcpStream, writer: &OwnedFd) -> io::Result<usize> {
    Ok(splice(socket, None, writer, None, PIECE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}

async fn moved(
    socket: &Socket,
    interest: Interest,
    mut act: impl FnMut(&tokio::net::TcpStream) -> io::Result<usize>,
) -> io::Result<usize> {
    poll_fn(|cx| {
        let stream = socket.stream();
        loop {
            let ready = if interest.is_readable() { stream.poll_read_ready(cx) } else { stream.poll_write_ready(cx) };
            ready!(ready)?;
            match stream.try_io(interest, || act(&stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    })
    .await
}
