//! The program that uses the client: it does what it is ordered to, one thing after the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_lite::FutureExt;

use super::network::Network;
use crate::client::ack_client::{AckClient, AckProgress};
use crate::client::ack_error::AckError;
use crate::client::ack_options::AckOptions;

/// The longest payload, in bytes: more than the client writes at once.
pub(super) const LONGEST: usize = 70_000;

/// The payload of the last message that an earlier client of the sender got committed.
pub(super) const EARLIER: &[u8] = b"earlier";

/// What the caller can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Send a message of so many bytes.
    Send(usize),
    /// Wait until so many messages are committed.
    Wait(u64),
    Finish,
    /// Drop the client.
    Leave,
}

/// What the caller and the claims share.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) orders: VecDeque<Order>,
    /// What it is doing; nothing before it is connected.
    pub(super) doing: Option<Order>,
    /// Whether it is to give up what it is doing.
    cancelled: bool,
    waker: Option<Waker>,
    pub(super) connected: Option<Connected>,
    /// The payloads that the client has taken.
    pub(super) sent: Vec<Vec<u8>>,
    is_finishing: bool,
}

/// What is known since the client is connected.
pub(super) struct Connected {
    pub(super) progress: AckProgress,
    pub(super) resume_from: u64,
    /// Whether it takes the earlier message, and another one, for the last one that is committed.
    pub(super) matches: [bool; 2],
}

impl Desk {
    /// Returns the payload of the message with this number, if the client has taken it.
    pub(super) fn payload(&self, number: u64) -> Option<&[u8]> {
        let index = number.checked_sub(self.connected.as_ref()?.resume_from + 1)?;
        self.sent.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    pub(super) fn order(&mut self, order: Order) {
        self.orders.push_back(order);
        self.wake();
    }

    pub(super) fn cancel(&mut self) {
        self.cancelled = true;
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// Waits for the next order.
async fn next(desk: &RefCell<Desk>) -> Order {
    poll_fn(|cx| {
        let mut desk = desk.borrow_mut();
        // There is nothing to give up.
        desk.cancelled = false;
        desk.doing = None;
        desk.waker = Some(cx.waker().clone());
        desk.orders.pop_front().map_or(Poll::Pending, |order| {
            desk.doing = Some(order);
            Poll::Ready(order)
        })
    })
    .await
}

/// Waits until the caller is to give up what it is doing.
async fn cancelled<T>(desk: &RefCell<Desk>) -> Option<T> {
    poll_fn(|cx| {
        let mut desk = desk.borrow_mut();
        desk.waker = Some(cx.waker().clone());
        if std::mem::take(&mut desk.cancelled) { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// Does what is ordered until it is told to leave (`None`), all is finished, or the client has failed.
pub(super) async fn call(
    desk: Rc<RefCell<Desk>>,
    network: Network,
    options: AckOptions,
) -> Option<Result<(), AckError>> {
    let connector = move || {
        let network = network.clone();
        async move { network.connect().await }
    };
    let connecting = async { Some(AckClient::connect_with(connector, options).await) };
    let mut client = match connecting.or(cancelled(&desk)).await? {
        Ok(client) => client,
        Err(error) => return Some(Err(error)),
    };
    let resume_from = client.resume_from();
    desk.borrow_mut().connected = Some(Connected {
        progress: client.progress(),
        resume_from,
        matches: [EARLIER, b"another"].map(|payload| client.matches_last_committed(payload)),
    });
    loop {
        let result = match next(&desk).await {
            Order::Leave => return None,
            Order::Send(len) => send(&desk, &mut client, len).await,
            Order::Wait(number) => {
                let waiting = async { Some(client.wait_committed(number).await) };
                match waiting.or(cancelled(&desk)).await {
                    Some(Ok(())) => {
                        assert!(client.committed() >= number);
                        Ok(())
                    }
                    // It is a message that will never be.
                    Some(Err(AckError::Finished)) => {
                        assert!(desk.borrow().is_finishing && client.committed() < number);
                        Ok(())
                    }
                    waited => waited.unwrap_or(Ok(())),
                }
            }
            Order::Finish => {
                desk.borrow_mut().is_finishing = true;
                let finishing = async { Some(client.finish().await) };
                match finishing.or(cancelled(&desk)).await {
                    Some(Ok(())) => {
                        assert_eq!(client.committed(), client.sent(), "all is committed");
                        return Some(Ok(()));
                    }
                    Some(Err(error)) => {
                        assert!(client.committed() < client.sent(), "{error}");
                        Err(error)
                    }
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            // It is final.
            let again = client.send(b"").await.expect_err("the client has failed");
            let is_finishing = desk.borrow().is_finishing;
            assert!(is_finishing || again.to_string() == error.to_string());
            assert_eq!(client.finish().await.is_ok(), client.sent() == client.committed());
            return Some(Err(error));
        }
    }
}

async fn send(desk: &RefCell<Desk>, client: &mut AckClient, len: usize) -> Result<(), AckError> {
    let number = client.sent() + 1;
    // Neighbours differ, unless they are empty.
    let payload = vec![number.to_le_bytes()[0]; len];
    let sending = async { Some(client.send(&payload).await) };
    match sending.or(cancelled(desk)).await {
        Some(Ok(sent)) => {
            assert_eq!(sent, number);
            assert!(!desk.borrow().is_finishing, "no message follows the end");
            desk.borrow_mut().sent.push(payload);
        }
        Some(Err(AckError::Encode(_))) => assert!(len > LONGEST),
        Some(Err(AckError::Finished)) => assert!(desk.borrow().is_finishing),
        Some(Err(error)) => return Err(error),
        None => assert_eq!(client.sent() + 1, number, "a message that was given up is not taken"),
    }
    Ok(())
}
