//! What the resolver remembers of a question while it is being asked.

use super::{Asker, EDNS_SIZE, Exchange, Key, Message, Stored};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::stage::dns::message::{self, AD, CD, Edns, RD};
use crate::stage::dns::{Client, Peer};
use crate::wire::addr::Addr;

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) client: Client,
    id: u16,
    flags: u16,
    question: Box<[u8]>,
    edns: Option<bool>,
    room: usize,
}

impl Waiter {
    pub(super) fn new(client: Client, message: &Message<'_>, edns: Option<Edns>) -> Self {
        Self {
            client,
            id: message.id(),
            flags: message.flags(),
            question: message.question().into(),
            edns: edns.map(|edns| edns.dnssec),
            room: message::room(edns, matches!(client.peer, Peer::Stream(_))),
        }
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        let Self { id, flags, ref question, edns, room, .. } = *self;
        Asker { id, question, flags, edns, room }
    }

    /// Whether it is the same query once more.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.client, self.id, &self.question) == (other.client, other.id, &other.question)
    }
}

/// A question that is being asked.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: Key,
    /// Who asked first: the answer is kept on its account.
    pub(super) owner: PortId,
    /// In lower case.
    pub(super) question: Vec<u8>,
    /// Of the query to be sent.
    pub(super) flags: u16,
    dnssec: bool,
    /// Without EDNS, which somebody did not understand.
    pub(super) plain: bool,
    pub(super) waiters: Vec<Waiter>,
    pub(super) order: Vec<Addr>,
    pub(super) attempts: u8,
    pub(super) exchanges: Vec<Exchange>,
    /// When it is looked at next.
    pub(super) due: Time,
    pub(super) deadline: Time,
    /// An answer that is better than none.
    pub(super) best: Option<Stored>,
    /// Of the resolvers that are asked.
    pub(super) generation: u32,
}

impl Pending {
    pub(super) fn new(
        key: Key,
        message: &Message<'_>,
        waiter: Waiter,
        order: Vec<Addr>,
        deadline: Time,
    ) -> Self {
        Self {
            question: key[..message.question().len()].to_vec(),
            key,
            owner: waiter.client.port,
            flags: message.flags() & (RD | AD | CD),
            dnssec: waiter.edns == Some(true),
            plain: false,
            waiters: vec![waiter],
            order,
            attempts: 0,
            exchanges: Vec::new(),
            due: deadline,
            deadline,
            best: None,
            generation: 0,
        }
    }

    /// What is said by EDNS: always something, since it spares an asking by TCP.
    pub(super) fn edns(&self) -> Option<(u16, bool)> {
        (!self.plain).then_some((EDNS_SIZE, self.dnssec))
    }
}

/// An exchange as it was begun.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) pending: u32,
    pub(super) epoch: u32,
    pub(super) server: Addr,
    pub(super) stream: bool,
    pub(super) id: u16,
    /// Letter by letter.
    pub(super) question: Vec<u8>,
    pub(super) mixed: bool,
    pub(super) sent: Time,
}
