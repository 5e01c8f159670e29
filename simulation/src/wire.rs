//! Between a worker's service and its loop: messages are seen there, doubled, and held up.
//!
//! TCP doubles nothing by itself; a worker that offers its results again does, and so does a leader that sends what its
//! predecessor had sent. Here it happens to any message, also long after the first.

use std::time::Duration;

use evenkeel_common::seed::Stream;
use evenkeel_proto::v1::{self, work_request, work_response};
use evenkeel_worker::core::PackKey;
use evenkeel_worker::hub::Input;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::faults::Fault;
use crate::oracle::Oracle;

/// Of a thousand messages.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    /// So many come twice.
    pub doubled: u64,
    /// So many hold up those behind them.
    pub delayed: u64,
}

/// Longest time a message is held up.
const LONGEST_DELAY_MS: u64 = 700;

/// What meddles with the messages of one worker's life.
#[derive(Clone)]
pub struct Wire {
    /// Which worker, and which life of it.
    pub life: String,
    /// How often.
    pub odds: Odds,
    /// Random numbers.
    pub draws: Stream,
    /// The observer.
    pub oracle: Oracle,
}

/// A message that comes again after so many others.
struct Echo<T> {
    after: u64,
    message: T,
}

impl Wire {
    /// Passes on what the service hears to the worker's loop.
    pub async fn relay(mut self, mut from: mpsc::Receiver<Input>, to: mpsc::Sender<Input>) {
        let mut echo: Option<Echo<(u64, v1::WorkRequest)>> = None;
        while let Some(input) = from.recv().await {
            let mut ordered = None;
            let input = match input {
                Input::Greeted { greeting, responses, reply } => self.greeted(greeting, responses, reply),
                Input::Ordered(stream, request) => {
                    if let Some(work_request::Message::Acknowledgement(a)) = &request.message {
                        self.oracle.acknowledged(&self.life, PackKey { epoch: a.epoch, pack: a.pack });
                    }
                    self.delay().await;
                    ordered = Some((stream, request.clone()));
                    Input::Ordered(stream, request)
                }
                other => other,
            };
            if to.send(input).await.is_err() {
                return;
            }
            if let Some((stream, request)) = self.echo(&mut echo, ordered)
                && to.send(Input::Ordered(stream, request)).await.is_err()
            {
                return;
            }
        }
    }

    fn greeted(
        &mut self,
        greeting: v1::Greeting,
        responses: mpsc::Sender<Result<v1::WorkResponse, Status>>,
        reply: oneshot::Sender<Result<u64, Status>>,
    ) -> Input {
        let (theirs, said) = mpsc::channel(16);
        let (told, answer) = oneshot::channel::<Result<u64, Status>>();
        let (oracle, life, epoch) = (self.oracle.clone(), self.life.clone(), greeting.epoch);
        tokio::spawn(async move {
            if let Ok(answer) = answer.await {
                if answer.is_ok() {
                    oracle.follows(&life, epoch);
                }
                let _ = reply.send(answer);
            }
        });
        // Each stream has random numbers of its own, so that one does not depend on how fast another is.
        let own = Self { draws: fork(&mut self.draws), ..self.clone() };
        tokio::spawn(own.responses(said, responses));
        Input::Greeted { greeting, responses: theirs, reply: told }
    }

    async fn responses(
        mut self,
        mut from: mpsc::Receiver<Result<v1::WorkResponse, Status>>,
        to: mpsc::Sender<Result<v1::WorkResponse, Status>>,
    ) {
        let mut echo: Option<Echo<v1::WorkResponse>> = None;
        while let Some(response) = from.recv().await {
            // A worker that introduces itself twice is refused, and rightly.
            let doubles = response.as_ref().ok().filter(|response| {
                !matches!(response.message, None | Some(work_response::Message::Hello(_)))
            });
            let again = doubles.cloned();
            if again.is_some() {
                self.delay().await;
            }
            if to.send(response).await.is_err() {
                return;
            }
            if let Some(response) = self.echo(&mut echo, again)
                && to.send(Ok(response)).await.is_err()
            {
                return;
            }
        }
    }

    async fn delay(&mut self) {
        if self.draws.below(1000) < self.odds.delayed {
            let pause = Duration::from_millis(self.draws.below(LONGEST_DELAY_MS));
            self.oracle.fired(Fault::MessageDelayed, &self.life);
            tokio::time::sleep(pause).await;
        }
    }

    /// Keeps a message for later, now and then; gives the one back whose time has come.
    fn echo<T>(&mut self, kept: &mut Option<Echo<T>>, message: Option<T>) -> Option<T> {
        if let Some(echo) = kept {
            echo.after = echo.after.saturating_sub(1);
            if echo.after == 0 {
                self.oracle.fired(Fault::MessageDoubled, &self.life);
                return kept.take().map(|echo| echo.message);
            }
        } else if let Some(message) = message
            && self.draws.below(1000) < self.odds.doubled
        {
            let after = self.draws.below(6);
            if after == 0 {
                self.oracle.fired(Fault::MessageDoubled, &self.life);
                return Some(message);
            }
            *kept = Some(Echo { after, message });
        }
        None
    }
}

/// Random numbers that depend on where a stream is, and on nothing that is drawn later.
fn fork(draws: &mut Stream) -> Stream {
    crate::random::stream(draws.next_u64(), "wire")
}
