//! How the client gets its connections.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::runtime::pipe::End;

/// What an attempt to connect meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Door {
    #[default]
    Open,
    Refusing,
    /// Nothing happens.
    Hanging,
}

#[derive(Default)]
pub(super) struct Inner {
    door: Door,
    /// The connections since the last look.
    pub(super) made: Vec<End>,
    /// How much the next connection takes until it is told to take more.
    pub(super) room: usize,
    waiting: Option<Waker>,
}

#[derive(Clone, Default)]
pub(super) struct Network(Arc<Mutex<Inner>>);

impl Network {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, door: Door) {
        let mut inner = self.lock();
        inner.door = door;
        inner.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub(super) async fn connect(&self) -> io::Result<End> {
        poll_fn(|cx| {
            let mut inner = self.lock();
            match inner.door {
                Door::Open => {
                    let end = End::default();
                    let mut pipe = end.lock();
                    (pipe.piece, pipe.room) = (usize::MAX, inner.room);
                    drop(pipe);
                    inner.made.push(end.clone());
                    Poll::Ready(Ok(end))
                }
                Door::Refusing => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
                Door::Hanging => {
                    inner.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
