//! `framelet send --ack`: sends until everything is committed.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use ::log::debug;
use framelet::{AckClient, AckError, AckOptions, Address, Client, Decoded, Layout, RefusalCode};
use futures_lite::FutureExt;
use smol::channel::Receiver;

use super::super::signals::stop_signal;
use super::super::{Chunk, Exit, Failure, log};
use super::{Composed, Progress, Send};

/// How long to try to connect, and to connect again.
pub(super) const RETRY: Duration = Duration::from_secs(30);

/// Checks that the options make sense together.
pub(super) fn check(send: &Send) -> Result<(), Failure> {
    let without_ack = if send.window.is_some() {
        "--window"
    } else if send.sender.is_some() {
        "--sender"
    } else if send.resume {
        "--resume"
    } else {
        ""
    };
    let message = match send.ack {
        false if without_ack.is_empty() => return Ok(()),
        false => format!("{without_ack} has no use without --ack"),
        true if send.expect > 0 => {
            "--ack and --expect contradict each other: what the server sends is either \
             acknowledgements or replies"
                .into()
        }
        true if send.resume && send.sender.is_none() => {
            "--resume needs --sender: whose messages does the server have already?".into()
        }
        true => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, message))
}

/// Sends what is composed; says at the end how much of it is committed.
pub(super) async fn run(
    send: &Send,
    address: &Address,
    terminal: bool,
    composed: &Receiver<Composed>,
    progress: Option<Progress>,
) -> Result<(), Failure> {
    let defaults = AckOptions::default();
    let options = AckOptions {
        sender: send.sender,
        window: send.window.unwrap_or(defaults.window),
        retry: send.retry.unwrap_or(RETRY),
        silence: send.timeout.0,
        layout: send.layout,
        max_message: send.max_message,
        ..defaults
    };
    let mut stopped = pin!(stop_signal()?);
    let connecting = async { Some(Client::connect_with_acks(address, options).await) };
    let stopped_first = async {
        stopped.as_mut().await;
        None
    };
    let mut client = match connecting.or(stopped_first).await {
        Some(Ok(client)) => client,
        Some(Err(AckError::Lost { error, .. })) => return Err(send.not_connected(address, &error)),
        Some(Err(error)) => return Err(Failure::new(exit(&error), error.to_string())),
        None => {
            let message = "stopped by a signal; nothing was sent";
            return Err(Failure::new(Exit::Network, message));
        }
    };
    debug!("connected to {address} as sender {}", client.sender());
    if client.welcome() > 0 && !send.resume {
        let message = format!(
            "the server has {} messages of sender {} already: --resume skips as many in the input",
            client.welcome(),
            client.sender()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if terminal {
        send.say_how_to_send(address);
    }
    let mut input = None;
    let mut skip = client.welcome();
    let shown = client.progress();
    let sending = async {
        let progress = progress.as_ref();
        send_all(&mut client, send.layout, composed, &mut skip, &mut input, progress).await?;
        Ok(client.finish().await?)
    };
    let stopped = async {
        stopped.await;
        Err(Unfinished::Stopped)
    };
    let showing = async {
        match &progress {
            Some(progress) => progress.show(shown).await,
            None => pending().await,
        }
    };
    let result = sending.or(stopped).or(showing).await;
    log::say(format!("sent {}, committed {}", client.sent(), client.committed()));
    if let Err(why) = result {
        return Err(unfinished(&client, &why));
    }
    if let Some(failure) = input {
        return Err(failure);
    }
    if skip > 0 {
        let welcome = client.welcome();
        let message = format!(
            "the input has only {} messages, but {welcome} of this sender are committed: is it the \
             same input?",
            welcome - skip
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

/// Sends all messages behind the first `skip`, until the end of the input or until it is to blame.
async fn send_all(
    client: &mut AckClient,
    layout: Layout,
    composed: &Receiver<Composed>,
    skip: &mut u64,
    input: &mut Option<Failure>,
    progress: Option<&Progress>,
) -> Result<(), AckError> {
    loop {
        // No message has this number: so this ends only if all is over, perhaps long before there is
        // anything more to send.
        let over = async { client.wait_committed(u64::MAX).await.map(|()| None) };
        let next = async { Ok(composed.recv().await.ok()) };
        match next.or(over).await? {
            None => return Ok(()),
            Some(Err(failure)) => *input = Some(failure),
            Some(Ok(chunk)) => {
                for payload in payloads(layout, &chunk) {
                    match skip.checked_sub(1) {
                        Some(left) => *skip = left,
                        None => drop(client.send(payload).await?),
                    }
                }
                if let Some(progress) = progress {
                    progress.handed_over(client.sent(), chunk.read);
                }
            }
        }
    }
}

/// Takes the frames of a chunk apart.
fn payloads(layout: Layout, chunk: &Chunk) -> impl Iterator<Item = &[u8]> {
    let mut rest = &chunk.frames[..];
    std::iter::from_fn(move || {
        let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(rest) else { return None };
        let len = prefix.checked_add(usize::try_from(payload).ok()?)?;
        let (frame, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(&frame[prefix..])
    })
}

/// Why not all messages are known to be committed.
enum Unfinished {
    Failed(AckError),
    /// By a signal.
    Stopped,
}

impl From<AckError> for Unfinished {
    fn from(error: AckError) -> Self {
        Unfinished::Failed(error)
    }
}

/// Says why not all messages are known to be committed, and how to go on.
fn unfinished(client: &AckClient, why: &Unfinished) -> Failure {
    let sender = client.sender();
    let (exit, message) = match why {
        Unfinished::Stopped => (Exit::Network, "stopped by a signal".into()),
        Unfinished::Failed(error @ AckError::Lost { error: io, .. }) => {
            (exit(error), format!("the connection to the server was lost: {}", super::plain(io)))
        }
        Unfinished::Failed(error) => (exit(error), error.to_string()),
    };
    let hint = match why {
        // That one will be refused again.
        Unfinished::Failed(AckError::Refused { refusal, .. })
            if refusal.code == RefusalCode::TooLong =>
        {
            format!("; the sender is {sender}")
        }
        Unfinished::Stopped
        | Unfinished::Failed(AckError::Lost { .. } | AckError::Refused { .. }) => {
            format!("; `--ack --sender {sender} --resume` on the same input sends the rest")
        }
        Unfinished::Failed(_) => format!("; the sender is {sender}"),
    };
    Failure::new(exit, message + &hint)
}

fn exit(error: &AckError) -> Exit {
    match error {
        AckError::Layout(_) | AckError::Limit(_) | AckError::Random(_) => Exit::Usage,
        AckError::Refused { refusal, .. } => match refusal.code {
            RefusalCode::Late => Exit::Timeout,
            RefusalCode::Echo
            | RefusalCode::NoSink
            | RefusalCode::Version
            | RefusalCode::TooLong => Exit::Protocol,
            _ => Exit::Network,
        },
        AckError::Lost { .. } => Exit::Network,
        _ => Exit::Protocol,
    }
}
