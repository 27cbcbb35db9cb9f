//! `framelet send --ack`: sends until everything is committed.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use ::log::{debug, info};
use framelet::client::{AckError, AckOptions};
use framelet::tls::TlsConnector;
use framelet::wire::{Count, RefusalCode};
use framelet::{AckClient, Address};
use futures_lite::FutureExt;

use super::super::connect::connect;
use super::super::exit_code::Exit;
use super::super::failure::{Failure, plain};
use super::super::flags;
use super::super::log;
use super::super::signals::stop_signal;
use super::identity::{Identity, Notes};
use super::messages::Messages;
use super::options::Send;
use super::progress::Progress;

/// How long to try to connect and reconnect by default.
pub(super) const RETRY: Duration = Duration::from_secs(30);

/// Checks the options that belong to `--ack`.
pub(super) fn check(send: &Send) -> Result<(), Failure> {
    let only_with_ack = [
        ("--window", send.window.is_some()),
        ("--sender", send.sender.is_some()),
        ("--sender-file", send.sender_file.is_some()),
        ("--resume", send.resume),
        ("--renumber", send.renumber),
    ];
    let for_replies =
        [("--expect", send.expect.is_some()), ("--each", send.each), ("--hang-up", send.hang_up)];
    let for_replies = for_replies.iter().find(|(_, given)| *given).map(|(option, _)| *option);
    let without_ack = only_with_ack.iter().find(|(_, given)| *given);
    let message = match (send.ack, without_ack) {
        (false, None) => return Ok(()),
        (false, Some((option, _))) => format!("{option} has no use without --ack"),
        (true, _) if for_replies.is_some() => format!(
            "--ack and {} contradict each other: what the server sends is either \
             acknowledgements or replies",
            for_replies.unwrap_or_default()
        ),
        (true, _) if send.sender.is_some() && send.sender_file.is_some() => {
            "--sender and --sender-file contradict each other; give one of them".into()
        }
        (true, _) if send.resume && !Identity::is_given(send) => {
            "--resume needs --sender-file, FRAMELET_SENDER or --sender: whose messages does the \
             server have already?"
                .into()
        }
        (true, _) => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, message))
}

/// Sends the composed messages, and prints at the end how many are committed.
pub(super) async fn run(
    send: &Send,
    address: &Address,
    tls: Option<TlsConnector>,
    terminal: bool,
    mut messages: Messages,
    progress: Option<Progress>,
) -> Result<(), Failure> {
    let identity = Identity::of(send)?;
    let earlier = identity.noted().filter(|_| send.resume);
    let mut options = AckOptions::new()
        .sender(identity.id())
        .committed(earlier.map_or(0, |noted| noted.committed))
        .renumber(send.renumber)
        .retry(send.retry.unwrap_or(RETRY))
        .server_timeout(send.timeout.0)
        .layout(send.layout);
    if let Some(max) = send.max_message {
        options = options.max_message(max);
    }
    if let Some(window) = send.window {
        options = options.window(window);
    }
    let mut stopped = pin!(stop_signal()?);
    let timeout = send.timeout.0;
    let connecting = async {
        let (proxy, address) = (send.proxy_protocol, address.clone());
        let options = options.server_name(address.to_string());
        let connector = move || {
            let (address, tls) = (address.clone(), tls.clone());
            async move { connect(&address, proxy, tls.as_ref(), timeout).await }
        };
        Ok(AckClient::connect_with(connector, options).await)
    };
    let bad = async { Err(messages.bad_from_the_start().await) };
    let stopped_first = async {
        stopped.as_mut().await;
        Err(Failure::new(Exit::Network, "stopped by a signal; nothing was sent"))
    };
    let mut client = match connecting.or(bad).or(stopped_first).await? {
        Ok(client) => client,
        Err(AckError::Lost { error, .. }) => return Err(send.not_connected(address, &error)),
        Err(error @ AckError::Behind { .. }) => {
            return Err(Failure::new(exit(&error), behind(&error, &identity, true)));
        }
        Err(error) => return Err(Failure::new(exit(&error), flags::of_client(&error))),
    };
    let (id, resume_from) = (client.sender_id(), client.resume_from());
    debug!("connected to {address} as sender {}", id.short());
    if resume_from > 0 && !send.resume {
        let message = format!(
            "the server has {} of sender {} already: --resume skips as many in the input; another \
             input needs another sender",
            Count(resume_from, "message"),
            id.short()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if resume_from == 0 && send.resume && !identity.is_new() {
        info!("the server has no messages of this sender: sending all");
    }
    if terminal {
        send.say_how_to_send(address);
    }
    let ahead = earlier.map_or(0, |noted| noted.input - noted.committed);
    let notes = Notes::new(&identity, earlier);
    let shown = client.progress();
    let mut input = InputState { skip: resume_from.saturating_add(ahead), skipped: 0, bad: None };
    let sending = async {
        let (notes, progress) = (notes.as_ref(), progress.as_ref());
        send_all(&mut client, messages, &mut input, notes, progress).await?;
        Ok(client.finish().await?)
    };
    let stopped = async {
        stopped.await;
        Err(Ended::Unfinished(Unfinished::Stopped))
    };
    let showing = async {
        match &progress {
            Some(progress) => progress.show(shown.clone()).await,
            None => pending().await,
        }
    };
    let noting = async {
        match &notes {
            Some(notes) => notes.keep(&shown).await,
            None => pending().await,
        }
    };
    let result = match sending.or(stopped).or(showing).or(noting).await {
        Ok(()) => Ok(()),
        Err(Ended::Unfinished(why)) => Err(why),
        Err(Ended::OtherInput(what)) => {
            let message = format!(
                "the input is different: {what} committed; nothing was sent; use another {} for another \
                 input",
                identity.option()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    let (committed, sent) = (client.committed(), client.sent() - resume_from);
    if let Some(notes) = &notes {
        notes.write(committed, client.lost());
    }
    let skipped = match input.skipped {
        0 => String::new(),
        1 => "skipped 1 that was committed, ".to_owned(),
        skipped => format!("skipped {skipped} that were committed, "),
    };
    log::say(format!("{skipped}sent {sent}, committed {}", committed.saturating_add(ahead)));
    if let Err(why) = result {
        let failure = unfinished(&client, &identity, &why);
        return Err(input.bad.into_iter().fold(failure, Failure::and));
    }
    if let Some(failure) = input.bad {
        return Err(failure);
    }
    if input.skip > 0 {
        let message = format!(
            "the input has only {}, but {} of this sender are committed: is it the same input?",
            Count(input.skipped, "message"),
            input.skipped.saturating_add(input.skip)
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

/// The state of the input.
struct InputState {
    /// How many messages are still to be skipped.
    skip: u64,
    skipped: u64,
    /// Why the input ended early.
    bad: Option<Failure>,
}

/// Sends all messages after the skipped ones, until the input ends or is invalid.
async fn send_all(
    client: &mut AckClient,
    mut messages: Messages,
    input: &mut InputState,
    notes: Option<&Notes<'_>>,
    progress: Option<&Progress>,
) -> Result<(), Ended> {
    loop {
        // No message has this number, so this only returns once the client has ended, perhaps long before
        // there is more to send.
        let over = async { client.wait_committed(u64::MAX).await.map(|()| None) };
        let next = async { Ok(messages.next().await) };
        match next.or(over).await? {
            None => return Ok(()),
            Some(Err(failure)) => input.bad = Some(failure),
            Some(Ok(chunk)) => {
                let committed = client.committed();
                for payload in chunk.parts() {
                    if let Some(left) = input.skip.checked_sub(1) {
                        (input.skip, input.skipped) = (left, input.skipped + 1);
                        let skipped = input.skipped;
                        if notes.is_some_and(|notes| !notes.skip(payload)) {
                            let messages = Count(skipped, "message");
                            let what = format!("its first {messages} are not those that were");
                            return Err(Ended::OtherInput(what));
                        }
                        if left == 0 && !client.matches_last_committed(payload) {
                            let what = format!("its message {skipped} is not the one that was");
                            return Err(Ended::OtherInput(what));
                        }
                    } else {
                        client.send(payload).await?;
                        if let Some(notes) = notes {
                            notes.sent(payload, committed);
                        }
                    }
                }
                if let Some(progress) = progress {
                    progress.handed_over(client.sent(), chunk.read);
                }
            }
        }
    }
}

/// Why sending ended early.
enum Ended {
    /// Some messages may have been sent.
    Unfinished(Unfinished),
    /// The skipped messages are not those that were committed, in words; nothing was sent.
    OtherInput(String),
}

/// Why not all messages are known to be committed.
enum Unfinished {
    Failed(AckError),
    /// By a signal.
    Stopped,
}

impl From<AckError> for Ended {
    fn from(error: AckError) -> Self {
        Ended::Unfinished(Unfinished::Failed(error))
    }
}

/// Describes why not all messages are known to be committed, and how to resume.
fn unfinished(client: &AckClient, identity: &Identity, why: &Unfinished) -> Failure {
    let id = client.sender_id();
    let (exit, message) = match why {
        Unfinished::Stopped => (Exit::Network, "stopped by a signal".into()),
        Unfinished::Failed(error @ AckError::Behind { .. }) => {
            return Failure::new(exit(error), behind(error, identity, false));
        }
        Unfinished::Failed(error @ AckError::Lost { error: io, .. }) => {
            (exit(error), format!("the connection to the server was lost: {}", plain(io)))
        }
        Unfinished::Failed(error) => (exit(error), flags::of_client(error)),
    };
    let goes_on = match why {
        // A message that is too long would be refused again.
        Unfinished::Failed(AckError::Refused { refusal, .. }) => {
            refusal.code != RefusalCode::TooLong
        }
        Unfinished::Failed(error) => matches!(error, AckError::Lost { .. }),
        Unfinished::Stopped => true,
    };
    let options = identity.options(id);
    let hint = match (goes_on, identity, client.lost()) {
        // The file is more accurate than the server's count.
        (true, Identity::File(_), _) | (true, _, 0) => {
            format!("; `{options} --resume` on the same input sends the rest")
        }
        (true, _, lost) => {
            let lost = Count(lost, "message");
            format!("; the server has lost {lost}: a run as another sender sends everything again")
        }
        (false, Identity::Random, _) => format!("; the sender is {id}"),
        (false, ..) => format!("; the sender is {}", id.short()),
    };
    Failure::new(exit, message + &hint)
}

/// Describes that the server has lost messages, and what can be done. Unless the client was only
/// `starting`, it also says what can be done after it has ended.
fn behind(error: &AckError, identity: &Identity, starting: bool) -> String {
    let AckError::Behind { server, committed, sent, sender } = error else {
        return error.to_string();
    };
    let first = server.saturating_add(1);
    let numbers = match sent.saturating_sub(*committed) {
        0 => format!("what follows as message {first} and up"),
        1 => format!("it as message {first}"),
        more => format!("them as messages {first} to {}", server.saturating_add(more)),
    };
    let options = identity.options(*sender);
    let mut ways = format!("{error} `--renumber` sends {numbers}");
    match identity {
        Identity::File(_) if !starting => {
            ways += &format!(" (`{options} --resume --renumber` on the same input)");
        }
        Identity::File(_) => {}
        // Only a running client knows what was committed.
        _ => {
            let again =
                format!("; `{options} --resume` on the same input sends what it has lost again");
            ways = ways.replacen("`--renumber` sends", "started with `--renumber` it sends", 1)
                + &again;
        }
    }
    if matches!(identity, Identity::File(_)) && *server == 0 {
        ways += "; without --resume everything is sent again";
    }
    ways
}

fn exit(error: &AckError) -> Exit {
    match error {
        AckError::Layout(_) | AckError::Limit(_) | AckError::Random(_) => Exit::Usage,
        AckError::Refused { refusal, .. } => match refusal.code {
            RefusalCode::Late => Exit::Timeout,
            RefusalCode::Replies
            | RefusalCode::NoSink
            | RefusalCode::Version
            | RefusalCode::TooLong => Exit::Protocol,
            _ => Exit::Network,
        },
        AckError::Lost { .. } | AckError::Behind { .. } => Exit::Network,
        _ => Exit::Protocol,
    }
}
