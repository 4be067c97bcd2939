//! Events as a body that is sent while they happen.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::server::{Problem, Service};
use crate::base::limits::{EVENTS_KEPT, EVENTS_QUEUED_MAX};
use crate::control::model::{EventInfo, FlowQuery};

/// How often workers are asked what happened to flows.
const FLOWS_ASKED_EVERY: Duration = Duration::from_millis(200);

/// Bytes until the sender is gone.
#[derive(Debug)]
pub(super) struct ByteStream(pub(super) mpsc::Receiver<Bytes>);

/// Without `follow` the events that are kept; with it those that come, until the daemon ends. A
/// reader that is too slow misses some, and sees it by their numbers.
pub(super) async fn events(service: &Service, follow: bool) -> Result<ByteStream, Problem> {
    let (lines, receiver) = mpsc::channel(if follow { 1 } else { EVENTS_KEPT });
    if !follow {
        let kept = service.with_control(|control| Ok(control.events(0))).await?;
        for event in &kept {
            // There is room for all that are kept.
            let _ = lines.try_send(line(event));
        }
        return Ok(ByteStream(receiver));
    }
    let (sender, mut happened) = mpsc::channel(EVENTS_QUEUED_MAX);
    service
        .with_control(move |control| {
            control.subscribe(Box::new(move |event: &EventInfo| {
                !matches!(sender.try_send(line(event)), Err(mpsc::error::TrySendError::Closed(_)))
            }));
            Ok(())
        })
        .await?;
    let mut stopping = service.stopping();
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = happened.recv() => line,
                () = lines.closed() => None,
                _ = stopping.wait_for(Option::is_some) => None,
            };
            let Some(line) = line else { return };
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    Ok(ByteStream(receiver))
}

/// Beginnings and ends of flows until the reader or the daemon goes. Workers are asked a few times a
/// second; how many were missed, because there were too many or the reader was slow, is a line, too.
pub(super) async fn flow_events(
    service: &Service,
    query: FlowQuery,
) -> Result<ByteStream, Problem> {
    let (lines, receiver) = mpsc::channel(1);
    let asked = query.clone();
    let first = service.with_control(move |control| control.flow_events(&asked, None)).await?;
    let (service, mut next) = (service.clone(), first.next);
    let mut stopping = service.stopping();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(FLOWS_ASKED_EVERY) => {}
                () = lines.closed() => return,
                _ = stopping.wait_for(Option::is_some) => return,
            }
            let asked = query.clone();
            let answer =
                service.with_control(move |control| control.flow_events(&asked, Some(next))).await;
            let Ok(some) = answer else { return };
            next = some.next;
            let lost =
                (some.lost > 0).then(|| line(&json!({ "event": "lost", "count": some.lost })));
            for line in lost.into_iter().chain(some.events.iter().map(line)) {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(ByteStream(receiver))
}

fn line(event: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

impl Body for ByteStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
